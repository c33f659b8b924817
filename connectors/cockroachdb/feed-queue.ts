import type { MillraceError } from '../../core/plugin.ts'
import type { FeedMessage } from './changefeed-message.ts'

/** A changefeed that is being followed. */
export interface ChangeFeed extends AsyncDisposable {
  /**
   * What came since; nothing when it was woken. Between two calls the server is held back.
   * @throws source.unreachable, source.history_lost, what else the server said; after all that came before it
   */
  next(): Promise<readonly FeedMessage[]>
  /** Ends a wait of `next`. */
  wake(): void
  /** The log has all up to the end of a nanosecond. */
  release(wall: bigint): void
}

/** Messages from who receives them to who takes them. */
export class FeedQueue {
  #waiting: FeedMessage[] = []
  #bytes = 0
  #failure: MillraceError | null = null
  #woken = false
  #wake: (() => void) | null = null

  /** Bytes that wait. */
  get bytes(): number {
    return this.#bytes
  }

  get failed(): boolean {
    return this.#failure !== null
  }

  /** Nothing is taken any more after a failure, so that it is seen. */
  put(messages: readonly FeedMessage[]): void {
    if (this.#failure !== null) return
    for (const message of messages) {
      this.#waiting.push(message)
      this.#bytes += message.key.length + message.value.length
    }
    this.wake()
  }

  /** Thrown once what waits was taken; the first one counts. */
  fail(error: MillraceError): void {
    this.#failure ??= error
    this.wake()
  }

  wake(): void {
    this.#woken = true
    this.#wake?.()
  }

  /** All that waits, once there is something; nothing when it was woken. */
  async take(): Promise<readonly FeedMessage[]> {
    if (this.#waiting.length === 0 && this.#failure === null && !this.#woken) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = null
    }
    this.#woken = false
    const messages = this.#waiting
    if (messages.length === 0 && this.#failure !== null) throw this.#failure
    this.#waiting = []
    this.#bytes = 0
    return messages
  }
}

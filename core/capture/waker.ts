/** How a source waits for more of its log and wakes for a chunk, `chunks.onWaiting`, or for its end. One wait at a time. */
export class Waker {
  #wake: (() => void) | null = null
  #woken = false

  /** @param signal its abort is a call of `wake` */
  constructor(signal: AbortSignal) {
    signal.addEventListener('abort', () => this.wake(), { once: true })
  }

  /** Ends the wait, or the next one when there is none. */
  wake(): void {
    this.#woken = true
    this.#wake?.()
  }

  /** Resolves after `ms` milliseconds or once woken, at once when that was since the last wait; never throws. */
  async sleep(ms: number): Promise<void> {
    if (!this.#woken) {
      const ended = Promise.withResolvers<void>()
      const timer = setTimeout(ended.resolve, ms)
      this.#wake = ended.resolve
      await ended.promise
      clearTimeout(timer)
      this.#wake = null
    }
    this.#woken = false
  }
}

/**
 * The bytes that the open batches of all drivers of a sink may hold together, and the turn in which one of them applies: so that memory does not grow with
 * the number of streams. Sinks share neither, since one that is slow must not hold back the others. A driver gives its bytes back when its batch is applied,
 * and also while its target is away, so that one stream does not starve those beside it; such a driver reads no further, and what it holds stays bounded.
 */
export class MemoryBudget {
  readonly #limitBytes: number
  #usedBytes = 0
  readonly #waiting: { readonly bytes: number; readonly go: () => void }[] = []
  #turn: Promise<void> = Promise.resolve()

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  /** True when the bytes are taken. One frame larger than the whole budget is taken when nothing else is. */
  tryTake(bytes: number): boolean {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) return false
    this.#usedBytes += bytes
    return true
  }

  /** Waits for its bytes, in the order of calls. False, without them, when `signal` aborts first; it may also abort when they are taken. */
  async take(bytes: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return false
    if (this.tryTake(bytes)) return true
    return await new Promise<boolean>((resolve) => {
      const entry = {
        bytes,
        go: () => {
          signal.removeEventListener('abort', abort)
          resolve(true)
        },
      }
      const abort = () => {
        const at = this.#waiting.indexOf(entry)
        if (at >= 0) this.#waiting.splice(at, 1)
        resolve(false)
        this.#serve()
      }
      signal.addEventListener('abort', abort, { once: true })
      this.#waiting.push(entry)
    })
  }

  give(bytes: number): void {
    this.#usedBytes -= bytes
    this.#serve()
  }

  /** Somebody waits: whoever holds an open batch should apply it now. */
  get pressed(): boolean {
    return this.#waiting.length > 0
  }

  /** Runs `work` alone among the drivers of the sink. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#turn
    let done = () => {}
    this.#turn = new Promise((resolve) => {
      done = resolve
    })
    await before
    try {
      return await work()
    } finally {
      done()
    }
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes === 0 || this.#usedBytes + bytes <= this.#limitBytes
  }

  #serve(): void {
    for (let first = this.#waiting[0]; first !== undefined && this.#fits(first.bytes); first = this.#waiting[0]) {
      this.#waiting.shift()
      this.#usedBytes += first.bytes
      first.go()
    }
  }
}

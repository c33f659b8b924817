/** Requests without an answer yet: at most five, which is how many batches a broker can tell duplicates among. */
const MAX_IN_FLIGHT = 5

export class Flights {
  readonly #pending = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | null = null
  #idleSince = performance.now()

  get count(): number {
    return this.#pending.size
  }

  /** Since when nothing has been under way, milliseconds. */
  get idleMs(): number {
    return this.#pending.size > 0 ? 0 : performance.now() - this.#idleSince
  }

  add(request: Promise<void>): void {
    const done: Promise<void> = request
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .then(() => {
        this.#pending.delete(done)
        this.#idleSince = performance.now()
      })
    this.#pending.add(done)
  }

  /** @throws the first failure */
  check(): void {
    if (this.#failure !== null) throw this.#failure.error
  }

  /** Resolves when one more may start. @throws the first failure */
  async room(): Promise<void> {
    while (this.#pending.size >= MAX_IN_FLIGHT) await Promise.race(this.#pending)
    this.check()
  }

  /** Resolves when some request ends; never when there is none. */
  change(): Promise<void> {
    return this.#pending.size === 0 ? new Promise(() => {}) : Promise.race(this.#pending)
  }

  /** Resolves when all have ended, well or not. */
  async settled(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending)
  }

  /** @throws the first failure, after all have ended */
  async landed(): Promise<void> {
    await this.settled()
    this.check()
  }
}

import type { Log, LogBatch, ReadFrom } from '../log/log.ts'

/** Pulls a log one batch at a time, with a deadline: nothing is asked for while the caller is busy. */
export class StreamReader {
  readonly #iterator: AsyncIterator<LogBatch>
  readonly #abort = new AbortController()
  readonly #stop: () => void
  readonly #signal: AbortSignal
  #asked: Promise<IteratorResult<LogBatch>> | null = null

  constructor(log: Log, from: readonly ReadFrom[], signal: AbortSignal) {
    this.#signal = signal
    this.#stop = () => this.#abort.abort()
    if (signal.aborted) this.#stop()
    else signal.addEventListener('abort', this.#stop)
    this.#iterator = log.consume(from, this.#abort.signal)[Symbol.asyncIterator]()
  }

  /** The next batch, valid until the next call; `due` when none came within `waitMs` (null: no limit); `end` after an abort. */
  async next(waitMs: number | null): Promise<LogBatch | 'due' | 'end'> {
    this.#asked ??= this.#iterator.next()
    const asked = this.#asked
    asked.catch(() => {})
    if (waitMs !== null) {
      const timer = deferredDue(waitMs)
      const first = await Promise.race([asked, timer.due]).finally(timer.clear)
      if (first === 'due') return 'due'
    }
    this.#asked = null
    const result = await asked
    return result.done === true ? 'end' : result.value
  }

  async close(): Promise<void> {
    this.#signal.removeEventListener('abort', this.#stop)
    this.#stop()
    await this.#asked?.catch(() => {})
    await this.#iterator.return?.().catch(() => {})
  }
}

function deferredDue(waitMs: number): { readonly due: Promise<'due'>; readonly clear: () => void } {
  let timer: NodeJS.Timeout
  const due = new Promise<'due'>((resolve) => {
    timer = setTimeout(() => resolve('due'), waitMs)
  })
  return { due, clear: () => clearTimeout(timer) }
}

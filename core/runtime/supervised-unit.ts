import type { Logger } from 'pino'
import { asMillraceError, MillraceError } from '../errors.ts'
import { backoffMs, DEFAULT_RETRY, pause, type RetryPolicy } from '../retry.ts'
import { type NodeEvent, type NodeState, nextState } from './node-lifecycle.ts'

/** What a unit says of itself as it goes; `hasProgressed`: something became durable since this run began. */
export type UnitReport = (event: 'snapshot' | 'stream' | 'lost', hasProgressed: boolean) => void

export interface UnitOptions {
  /** For logs: the node, and for a sink the stream. */
  readonly name: string
  /**
   * Opens everything, works until `signal` aborts, closes everything. Reports as it goes. A series of failures ends with progress, or once it has worked for as
   * long as the longest wait: what only runs may fail at the same place again.
   */
  readonly run: (signal: AbortSignal, report: UnitReport) => Promise<void>
  readonly signal: AbortSignal
  readonly logger: Logger
  readonly onChange: () => void
  readonly retry?: RetryPolicy
}

/**
 * Runs one unit and starts it again by the category of its errors alone: `unavailable` for ever with backoff, everything else never. What happens to
 * it touches no other unit.
 */
export class SupervisedUnit {
  readonly #options: UnitOptions
  #state: NodeState = 'starting'
  #error: MillraceError | null = null
  #retryAt: number | null = null
  #attempts = 0
  /** Since when it works without a break, by `performance.now()`; null: it does not. */
  #worksSince: number | null = null
  #round = new AbortController()
  #wake: (() => void) | null = null
  readonly finished: Promise<void>

  constructor(options: UnitOptions) {
    this.#options = options
    this.finished = this.#supervise()
  }

  get state(): NodeState {
    return this.#state
  }

  /** The last error; null again once the unit works. */
  get error(): MillraceError | null {
    return this.#error
  }

  /** Epoch milliseconds of the next try; null when none is waited for. */
  get retryAt(): number | null {
    return this.#retryAt
  }

  pause(): void {
    if (nextState(this.#state, 'pause') === null) return
    this.#move('pause')
    this.#round.abort()
  }

  /** Goes on after a pause, or tries again after a failure. */
  resume(): void {
    if (nextState(this.#state, 'resume') === null) return
    this.#error = null
    this.#attempts = 0
    this.#move('resume')
    this.#wake?.()
  }

  async #supervise(): Promise<void> {
    // the caller has the unit before its first transition
    await Promise.resolve()
    const { signal } = this.#options
    while (!signal.aborted) {
      if (this.#is('starting')) await this.#runOnce()
      else if (this.#is('degraded')) {
        await this.#backoff()
        if (this.#is('degraded') && !signal.aborted) this.#move('retry')
      } else await this.#resumed()
    }
    this.#move('stop')
  }

  async #runOnce(): Promise<void> {
    const round = new AbortController()
    this.#round = round
    this.#worksSince = null
    const signal = AbortSignal.any([this.#options.signal, round.signal])
    try {
      await this.#options.run(signal, (event, hasProgressed) => this.#report(event, hasProgressed, signal))
      if (signal.aborted) return
      throw new MillraceError('invariant.broken', `${this.#options.name} ended by itself`)
    } catch (thrown) {
      const error = asMillraceError(thrown)
      if (signal.aborted) {
        this.#options.logger.debug({ code: error.code, err: error.message }, `${this.#options.name} ended with an error while it was stopped`)
        return
      }
      this.#fail(error)
    } finally {
      round.abort()
    }
  }

  #report(event: Parameters<UnitReport>[0], hasProgressed: boolean, signal: AbortSignal): void {
    if (signal.aborted) return
    if (hasProgressed) this.#attempts = 0
    if (event === 'lost') this.#worksSince = null
    else {
      this.#error = null
      this.#worksSince ??= performance.now()
    }
    const next = nextState(this.#state, event)
    if (next !== null && next !== this.#state) this.#move(event)
  }

  #fail(error: MillraceError): void {
    const { logger, name } = this.#options
    this.#error = error
    const facts = { code: error.code, category: error.category, fix: error.fix }
    const { maxMs } = this.#options.retry ?? DEFAULT_RETRY
    if (this.#worksSince !== null && performance.now() - this.#worksSince >= maxMs) this.#attempts = 0
    if (error.category === 'unavailable') {
      logger.warn(facts, `${name}: ${error.message}; trying again`)
      this.#move('lost')
    } else {
      const cause = error.category === 'bug' ? { cause: error.cause instanceof Error ? error.cause.stack : error.stack } : {}
      logger.error({ ...facts, ...cause }, `${name}: ${error.message}`)
      this.#move('fail')
    }
  }

  async #backoff(): Promise<void> {
    const { retry = DEFAULT_RETRY, signal } = this.#options
    this.#attempts++
    const ms = backoffMs(this.#attempts, retry, this.#error?.retryAfterMs ?? 0)
    this.#retryAt = Date.now() + ms
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    this.#round = woken
    await (retry.pause ?? pause)(ms, AbortSignal.any([signal, woken.signal]))
    this.#wake = null
    this.#retryAt = null
  }

  #resumed(): Promise<void> {
    const { signal } = this.#options
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done)
        this.#wake = null
        resolve()
      }
      this.#wake = done
      signal.addEventListener('abort', done, { once: true })
      if (signal.aborted || !(this.#is('paused') || this.#is('failed'))) done()
    })
  }

  // a method, so that the compiler does not hold the state of before an await for the one after it
  #is(state: NodeState): boolean {
    return this.#state === state
  }

  #move(event: NodeEvent): void {
    const next = nextState(this.#state, event)
    if (next === null) throw new MillraceError('invariant.broken', `${this.#options.name}: ${event} cannot happen to a node that is ${this.#state}`)
    this.#state = next
    this.#options.onChange()
  }
}

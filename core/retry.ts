import { asMillraceError, type MillraceError } from './errors.ts'

/** How long to wait between tries: exponential with full jitter above a floor, so that many nodes do not come back at once. */
export interface RetryPolicy {
  readonly firstMs: number
  readonly maxMs: number
  /** In [0, 1]; Math.random when missing. */
  readonly random?: () => number
  /** Resolves after `ms` or when the signal aborts, never throws; {@link pause} when missing. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>
}

export const DEFAULT_RETRY: RetryPolicy = { firstMs: 200, maxMs: 30_000 }

/**
 * Milliseconds to wait before try `attempt` (1 is the first after a failure): between half and all of `firstMs * 2^(attempt-1)`, `maxMs` at most, and
 * never below `atLeastMs`, which a server asked for.
 */
export function backoffMs(attempt: number, { firstMs, maxMs, random = Math.random }: RetryPolicy, atLeastMs = 0): number {
  const ceiling = Math.min(maxMs, firstMs * 2 ** Math.min(attempt - 1, 30))
  return Math.max(atLeastMs, Math.round(ceiling / 2 + (ceiling / 2) * random()))
}

/** Resolves after `ms`, or at once when `signal` aborts; never throws. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const timer = setTimeout(done, ms)
    function done(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    signal.addEventListener('abort', done, { once: true })
  })
}

/** Thrown to leave a loop after an abort; never leaves who gave the signal. */
export const STOPPED: unique symbol = Symbol('stopped')

/**
 * Calls `work` until it succeeds. Errors of the category `unavailable` are told to `onWait` and tried again for ever; all others are thrown.
 * @throws STOPPED once `signal` has aborted
 */
export async function retrying<T>(work: () => Promise<T>, policy: RetryPolicy, signal: AbortSignal, onWait: (error: MillraceError) => void): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    if (signal.aborted) throw STOPPED
    try {
      return await work()
    } catch (thrown) {
      if (thrown === STOPPED || (signal.aborted && thrown instanceof Error && thrown.name === 'AbortError')) throw STOPPED
      const error = asMillraceError(thrown)
      if (error.category !== 'unavailable') throw error
      if (signal.aborted) throw STOPPED
      onWait(error)
      await (policy.pause ?? pause)(backoffMs(attempt, policy, error.retryAfterMs ?? 0), signal)
    }
  }
}

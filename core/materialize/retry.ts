import { asMillraceError, type MillraceError } from '../errors.ts'

/** Waits between tries: exponential with jitter. */
export interface RetryPolicy {
  readonly firstMs: number
  readonly maxMs: number
  /** In [0, 1); Math.random when missing. */
  readonly random?: () => number
  /** Resolves after `ms` or when the signal aborts, never throws; a timer when missing. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>
}

/** Thrown to leave a loop after an abort; never leaves the driver. */
export const STOPPED: unique symbol = Symbol('stopped')

/**
 * Calls `work` until it succeeds. Errors of the category `unavailable` are told to `onWait` and tried again for ever; all others are thrown.
 * @throws STOPPED once `signal` has aborted
 */
export async function retrying<T>(work: () => Promise<T>, policy: RetryPolicy, signal: AbortSignal, onWait: (error: MillraceError) => void): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    if (signal.aborted) throw STOPPED
    try {
      return await work()
    } catch (thrown) {
      if (thrown === STOPPED || (signal.aborted && thrown instanceof Error && thrown.name === 'AbortError')) throw STOPPED
      const error = asMillraceError(thrown)
      if (error.category !== 'unavailable') throw error
      if (signal.aborted) throw STOPPED
      onWait(error)
      await (policy.pause ?? pause)(waitMs(attempt, policy, error.retryAfterMs ?? 0), signal)
    }
  }
}

/** Between half and all of `firstMs * 2^attempt`, at most `maxMs`, at least what the server asked for. */
function waitMs(attempt: number, { firstMs, maxMs, random = Math.random }: RetryPolicy, atLeastMs: number): number {
  const ceiling = Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 30))
  return Math.max(atLeastMs, ceiling / 2 + (ceiling / 2) * random())
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end)
  })
}

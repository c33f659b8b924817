import { asMillraceError, type MillraceError } from '../errors.ts'
import { backoffMs, pause, type RetryPolicy } from '../retry.ts'

/** Thrown to leave a loop after an abort; never leaves the driver. */
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

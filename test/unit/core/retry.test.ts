import fc from 'fast-check'
import { expect, test } from 'vitest'
import { backoffMs, pause } from '../../../core/retry.ts'

const POLICY = { firstMs: 100, maxMs: 5000 }

test('grows to its ceiling and stays there', () => {
  const most = (attempt: number) => backoffMs(attempt, { ...POLICY, random: () => 1 })
  expect([1, 2, 3, 6, 7, 1000].map(most)).toEqual([100, 200, 400, 3200, 5000, 5000])
})

test('stays between half and all of its ceiling, and never below what the server asked for', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.integer({ min: 0, max: 60_000 }),
      (attempt, random, atLeastMs) => {
        const ceiling = Math.min(POLICY.maxMs, POLICY.firstMs * 2 ** Math.min(attempt - 1, 30))
        const ms = backoffMs(attempt, { ...POLICY, random: () => random }, atLeastMs)
        expect(ms).toBeGreaterThanOrEqual(Math.max(atLeastMs, ceiling / 2))
        expect(ms).toBeLessThanOrEqual(Math.max(atLeastMs, ceiling))
      },
    ),
  )
})

test('a pause ends at once when its signal aborts', async () => {
  const abort = new AbortController()
  const paused = pause(3_600_000, abort.signal)
  abort.abort()
  await paused
  await pause(3_600_000, abort.signal)
})

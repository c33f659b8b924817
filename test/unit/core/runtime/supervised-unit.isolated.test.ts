import { pino } from 'pino'
import { describe, expect, test, vi } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import type { NodeState } from '../../../../core/runtime/node-lifecycle.ts'
import { SupervisedUnit, type UnitReport } from '../../../../core/runtime/supervised-unit.ts'

const logger = pino({ level: 'silent' })

/** A unit whose rounds are the given functions; the last is repeated. Every wait is recorded and over at once. */
function unit(...rounds: ((signal: AbortSignal, report: UnitReport) => Promise<void>)[]) {
  const stop = new AbortController()
  const states: NodeState[] = []
  const waits: number[] = []
  let round = 0
  const made: SupervisedUnit = new SupervisedUnit({
    name: 'test',
    signal: stop.signal,
    logger,
    retry: { firstMs: 10, maxMs: 40, random: () => 1, pause: async (ms) => void waits.push(ms) },
    onChange: () => states.push(made.state),
    run: (signal, report) => rounds[Math.min(round++, rounds.length - 1)]!(signal, report),
  })
  return { unit: made, stop, states, waits, rounds: () => round }
}

const untilStopped = (signal: AbortSignal) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
const away = async () => {
  throw new MillraceError('source.unreachable', 'away', { fix: 'wait' })
}
const works = async (signal: AbortSignal, report: UnitReport) => {
  report('stream', false)
  await untilStopped(signal)
}
async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 45_000; !condition(); await new Promise((resolve) => setImmediate(resolve))) {
    if (Date.now() > deadline) throw new Error('it did not come to pass')
  }
}

describe('a supervised unit', () => {
  test('tries again for ever what is unavailable, waiting longer each time', async () => {
    const { unit: it, stop, states, waits } = unit(away, away, away, away, works)
    await until(() => it.state === 'running')
    expect(waits).toEqual([10, 20, 40, 40])
    expect(states).toEqual([...Array.from({ length: 4 }, () => ['degraded', 'starting']).flat(), 'running'])
    expect(it.error).toBeNull()
    stop.abort()
    await it.finished
    expect(it.state).toBe('done')
  })

  test('waits as long as the server asks', async () => {
    const busy = async () => {
      throw new MillraceError('sink.unreachable', 'busy', { retryAfterMs: 500 })
    }
    const { unit: it, stop, waits } = unit(busy, away, works)
    await until(() => it.state === 'running' && waits.length === 2)
    expect(waits).toEqual([500, 20])
    stop.abort()
    await it.finished
  })

  test('what only ran before it was lost again waits longer each time; progress and a while without a break start over', async () => {
    const clock = vi.spyOn(performance, 'now')
    try {
      const now = (ms: number) => clock.mockReturnValue(ms)
      const lost = (hasProgressed: boolean, workedMs: number) => async (_: AbortSignal, report: UnitReport) => {
        now(0)
        report('stream', hasProgressed)
        now(workedMs)
        // the final status of a run that has failed
        report('stream', hasProgressed)
        throw new MillraceError('log.full', 'no room')
      }
      const brokenOff = async (_: AbortSignal, report: UnitReport) => {
        now(0)
        report('stream', false)
        report('lost', false)
        now(39)
        report('stream', false)
        now(50)
        throw new MillraceError('sink.unreachable', 'away')
      }
      const { unit: it, stop, waits } = unit(lost(false, 0), lost(false, 39), lost(false, 1), lost(true, 0), lost(false, 40), brokenOff, works)
      await until(() => it.state === 'running' && waits.length === 6)
      expect(waits).toEqual([10, 20, 40, 10, 10, 20])
      expect(it.error).toBeNull()
      stop.abort()
      await it.finished
    } finally {
      clock.mockRestore()
    }
  })

  test.each([
    'config.invalid',
    'source.history_lost',
    'schema.incompatible',
    'record.rejected',
    'sink.conflict',
    'invariant.broken',
  ] as const)('%s is never tried again by itself', async (code) => {
    const fails = async () => {
      throw new MillraceError(code, 'no')
    }
    const { unit: it, stop, rounds, waits } = unit(fails, works)
    await until(() => it.state === 'failed')
    expect([rounds(), waits, it.error?.code]).toEqual([1, [], code])
    it.resume()
    await until(() => it.state === 'running')
    stop.abort()
    await it.finished
  })

  test('an error that is none of ours, and an end without a reason, are bugs', async () => {
    for (const round of [
      async () => {
        throw new TypeError('x is undefined')
      },
      async () => {},
    ]) {
      const { unit: it, stop } = unit(round)
      await until(() => it.state === 'failed')
      expect(it.error?.code).toBe('invariant.broken')
      stop.abort()
      await it.finished
      expect(it.state).toBe('failed')
    }
  })

  test('pauses and goes on, also while it waits for a retry', async () => {
    const stop = new AbortController()
    let round = 0
    const it: SupervisedUnit = new SupervisedUnit({
      name: 'test',
      signal: stop.signal,
      logger,
      retry: { firstMs: 3_600_000, maxMs: 3_600_000 },
      onChange: () => {},
      run: (signal, report) => (round++ === 0 ? away() : works(signal, report)),
    })
    await until(() => it.retryAt !== null)
    it.pause()
    expect(it.state).toBe('paused')
    await until(() => it.retryAt === null)
    expect(round).toBe(1)
    it.resume()
    await until(() => it.state === 'running')
    it.pause()
    it.resume()
    await until(() => it.state === 'running' && round === 3)
    it.pause()
    stop.abort()
    await it.finished
    expect(it.state).toBe('done')
  })
})

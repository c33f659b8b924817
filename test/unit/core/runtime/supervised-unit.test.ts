import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import type { NodeState } from '../../../../core/runtime/node-lifecycle.ts'
import { SupervisedUnit, type UnitOptions } from '../../../../core/runtime/supervised-unit.ts'

type Report = Parameters<UnitOptions['run']>[1]
const logger = pino({ level: 'silent' })

/** A unit whose rounds are the given functions; the last is repeated. Every wait is recorded and over at once. */
function unit(...rounds: ((signal: AbortSignal, report: Report) => Promise<void>)[]) {
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
const works = async (signal: AbortSignal, report: Report) => {
  report('stream')
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

  test('waits as long as the server asks, and starts over once it has worked', async () => {
    const busy = async () => {
      throw new MillraceError('sink.unreachable', 'busy', { retryAfterMs: 500 })
    }
    const worksThenLost = async (_: AbortSignal, report: Report) => {
      report('stream')
      throw new MillraceError('log.unreachable', 'lost')
    }
    const { unit: it, stop, waits } = unit(busy, away, worksThenLost, works)
    await until(() => it.state === 'running' && waits.length === 3)
    expect(waits).toEqual([500, 20, 10])
    stop.abort()
    await it.finished
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

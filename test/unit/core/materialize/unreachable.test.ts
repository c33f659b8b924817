import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { A, caughtUp, LIMITS, letters, put, stream, until } from './driven-stream.ts'
import { MemorySink } from './memory-sink.ts'
import { TOPIC } from './stream-records.ts'

test('what cannot be reached is tried again and shown as degraded; a dead-letter writer that failed is opened anew', async () => {
  const { log, encoder, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'bad')], [A, put(3n, 'three')])
  const failing = new Map([['consume', 2], ['bounds', 2], ['registry', 2], ['append', 2], ['openWriter', 1], ['prepare', 3], ['apply', 3], ['committed unknown', 1], ['committed', 1]]) // biome-ignore format: one line
  const fault = (point: string) => {
    const left = failing.get(point) ?? 0
    failing.set(point, left - 1)
    if (left > 0) throw new MillraceError('sink.unreachable', `${point} is down`)
  }
  log.fault = fault
  encoder.fault = fault
  const running = drive({}, new MemorySink(target, LIMITS, fault))
  await until(async () => (await caughtUp(log, target)) && statuses.at(-1)?.state === 'running', 'all records')
  running.stop()
  await running.done
  expect([...failing.values()].every((left) => left <= 0)).toBe(true)
  expect(target.view()).toHaveLength(2)
  expect(letters(log)).toHaveLength(1)
  expect(statuses.some(({ state, error }) => state === 'degraded' && error?.message === 'apply is down')).toBe(true)
  expect(statuses.at(-1)).toMatchObject({ state: 'running', error: null })
})

test('waits grow with jitter and start anew after a success', async () => {
  const { write, target, drive, log } = stream()
  write([A, put(1n, 'one')])
  const waits: number[] = []
  let fails = 5
  const sink = new MemorySink(target, LIMITS, (point) => {
    if (point === 'apply' && fails-- > 0) throw new MillraceError('sink.unreachable', 'down')
  })
  const retry = { firstMs: 100, maxMs: 1_000, random: () => 0.5, pause: async (ms: number) => void waits.push(ms) }
  const running = drive({ retry }, sink)
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(waits).toEqual([75, 150, 300, 600, 750])
})

test.each(['sink.schema_unsupported', 'sink.forbidden', 'sink.conflict', 'log.position_lost'] as const)('%s goes to the supervisor', async (code) => {
  const { write, target, drive } = stream()
  write([A, put(1n, 'one')])
  const sink = new MemorySink(target, LIMITS, (point) => {
    if (point === (code === 'sink.schema_unsupported' ? 'prepare' : 'apply')) throw new MillraceError(code, 'no')
  })
  await expect(drive({}, sink).done).rejects.toMatchObject({ code })
})

test('a target that is further than the log ends is refused: it is of another log', async () => {
  const { write, target, drive } = stream()
  write([A, put(1n, 'one')])
  target.positions.set('0', { topic: TOPIC, partition: 0, offset: 7n })
  await expect(drive().done).rejects.toMatchObject({ code: 'log.position_lost', fix: expect.any(String) })
})

test('a target that was filled from another log is refused, however far this one has come', async () => {
  const { log, target, write, drive } = stream()
  const fill = async (name: string) => {
    write([A, put(1n, name)])
    const running = drive()
    await until(() => caughtUp(log, target), name)
    running.stop()
    await running.done
  }
  await fill('one')
  // made anew, and as long as the one before
  log.identity = 'two'
  write([A, put(2n, 'unseen')])
  await expect(drive().done).rejects.toMatchObject({ code: 'log.position_lost', message: expect.stringContaining('another log'), fix: expect.any(String) })
  // a memo of before logs had an identity says nothing
  target.memo = target.memo!.replace(',"log":"one"', '')
  await fill('three')
  expect(target.memo).toContain('"log":"two"')
})

test('a topic whose partitions the log does not know yet, and a schema that the registry does not know yet, are waited for', async () => {
  const { log, encoder, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')])
  const bounds = log.bounds.bind(log)
  const schema = encoder.registry.schema.bind(encoder.registry)
  let asked = 0
  log.bounds = async (...args) => (asked++ < 3 ? [] : bounds(...args))
  let missed = 0
  encoder.registry.schema = async (id) => {
    if (missed++ < 5) throw new MillraceError('schema.unknown', `no schema ${id}`)
    return schema(id)
  }
  const running = drive()
  await until(async () => asked > 3 && (await caughtUp(log, target)), 'the row')
  running.stop()
  await running.done
  expect(missed).toBeGreaterThan(5)
  expect(new Set(statuses.map(({ error }) => error?.code))).toEqual(new Set([undefined, 'log.unreachable', 'registry.unreachable']))
})

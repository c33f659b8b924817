import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { UNCHANGED } from '../../../../core/event/table-schema.ts'
import { A, B, caughtUp, LIMITS, put, stream, until } from './driven-stream.ts'
import { MemorySink } from './memory-sink.ts'
import { TOPIC } from './stream-records.ts'

test('applies what is in the log and what comes later, resumes from the target, and says how far it is', async () => {
  const { log, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'two')])
  const first = drive()
  await until(() => caughtUp(log, target), 'first records')
  write([A, { op: 'd', row: [1n, null, null] }], [A, put(3n, 'three')])
  await until(() => caughtUp(log, target), 'later records')
  first.stop()
  await first.done
  expect(target.view()).toEqual(['2n: 2n | "two" | "body"', '3n: 3n | "three" | "body"'])
  expect(statuses.at(-1)).toMatchObject({ state: 'running', rows: 4, rejected: 0, behindRecords: 0, positions: [{ topic: TOPIC, partition: 0, offset: 4n }] })
  expect(statuses.at(-1)!.lagMs).toBeGreaterThan(0)

  write([A, put(4n, 'four')])
  const again = drive()
  await until(() => caughtUp(log, target), 'after a restart')
  again.stop()
  await again.done
  expect(statuses.at(-1)).toMatchObject({ rows: 1 })
  expect(target.view()).toHaveLength(3)
})

test('a frame longer than the row limit is applied in pieces, and a restart continues within the frame', async () => {
  const { log, target, write, drive } = stream()
  write(...Array.from({ length: 10 }, (_, n) => [A, put(BigInt(n), 'x')] as const))
  let applies = 0
  const crashing = new MemorySink(target, LIMITS, (point) => {
    if (point === 'apply' && ++applies === 3) throw new MillraceError('sink.conflict', 'taken over')
  })
  await expect(drive({}, crashing).done).rejects.toMatchObject({ code: 'sink.conflict' })
  expect(target.positions.get('0')!.offset).toBe(6n)
  const again = drive()
  await until(() => caughtUp(log, target), 'the rest')
  again.stop()
  await again.done
  expect(target.view()).toHaveLength(10)
})

test('a stop during an apply lets it finish and begins no other', async () => {
  const { write, target, drive } = stream()
  write(...Array.from({ length: 12 }, (_, n) => [A, put(BigInt(n), 'x')] as const))
  let stop = () => {}
  const sink = new MemorySink(target, LIMITS, (point) => {
    if (point === 'apply') stop()
  })
  const running = drive({}, sink)
  stop = running.stop
  await running.done
  expect(target.applies).toBe(1)
  expect(target.positions.get('0')!.offset).toBe(3n)
})

test('a full before image fills what an update left unchanged', async () => {
  const { log, target, write, drive } = stream()
  write([A, { op: 'u', row: [1n, 'one', UNCHANGED], before: [1n, 'old', 'long text'] }])
  const running = drive()
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(target.view()).toEqual(['1n: 1n | "one" | "long text"'])
})

test('records of an older shape that are delivered again are read as the newer one', async () => {
  const { log, encoder, target, next, drive } = stream()
  const older = encoder.record(A, put(1n, 'one'), next())
  const newer = encoder.record(B, { op: 'u', row: [1n, 'uno', 'body', 7] }, next())
  log.append(TOPIC, new Map([[0, [older, newer, older, newer]]]))
  const prepared: string[] = []
  const sink = new MemorySink(target, { ...LIMITS, rows: 100 })
  const { prepare } = sink
  sink.prepare = (table) => {
    prepared.push(table.columns.map((column) => column.name).join())
    return prepare.call(sink, table)
  }
  const running = drive({}, sink)
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(prepared).toEqual(['id,name,body', 'id,name,body,quantity'])
  expect(target.view()).toEqual(['1n: 1n | "uno" | "body" | 7'])
})

test('a partition that appears later is read from its beginning', async () => {
  const { log, encoder, target, next, write, drive } = stream()
  write([A, put(1n, 'one')])
  const running = drive()
  await until(() => caughtUp(log, target), 'the first partition')
  const bounds = await log.bounds(TOPIC)
  const wider = log.bounds.bind(log)
  expect(bounds).toHaveLength(1)
  log.grow(TOPIC)
  log.append(TOPIC, new Map([[1, [encoder.record(A, put(2n, 'two'), next())]]]))
  await until(async () => (await wider(TOPIC)).length === 2 && (await caughtUp(log, target)), 'the second partition')
  running.stop()
  await running.done
  expect(target.view()).toHaveLength(2)
})

import { expect, test } from 'vitest'
import { UNCHANGED } from '../../../../core/event/table-schema.ts'
import { A, B, caughtUp, LIMITS, letters, put, stream, until } from './driven-stream.ts'
import { MemorySink } from './memory-sink.ts'
import { type StreamRecords, TOPIC } from './stream-records.ts'

test('a truncation that is missing in a partition is refused', async () => {
  const { log, encoder, target, next, drive } = stream(2)
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(2n, 'two'), next())]], [1, [encoder.record(A, put(1n, 'one'), next())]]])) // biome-ignore format: one line
  log.append(TOPIC, new Map([[0, [encoder.record(A, { op: 't', row: [] }, next())]]]))
  await expect(drive().done).rejects.toMatchObject({ code: 'log.corrupt', fix: expect.any(String) })
  expect(target.view()).toHaveLength(2)
})

/** One transaction that moves row 1 to the key 2 and leaves its body out. */
const move = (encoder: StreamRecords, commit: bigint) => [
  encoder.record(A, { op: 'd', row: [1n, null, null] }, { commit, ordinal: 2 }),
  encoder.record(A, { op: 'c', row: [2n, 'moved', UNCHANGED] }, { commit, ordinal: 3 }),
]

test('both halves of a changed key are applied together, though frames, row limits and time fall between them', async () => {
  const { log, encoder, target, next, drive } = stream()
  const running = drive({}, new MemorySink(target, { ...LIMITS, rows: 1, ageMs: 0 }))
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(1n, 'one', 'kept'), next())]]]))
  log.append(TOPIC, new Map([[0, move(encoder, 50n)]]), 1)
  await until(() => caughtUp(log, target), 'the move')
  running.stop()
  await running.done
  expect(letters(log)).toEqual([])
  expect(target.view()).toEqual(['2n: 2n | "moved" | "kept"'])
})

test.each([0, 1])('both halves of a changed key are applied together when partition %i shows its half first', async (first) => {
  const { log, encoder, target, next, drive } = stream(2)
  const running = drive({}, new MemorySink(target, { ...LIMITS, rows: 1, ageMs: 0 }))
  log.append(TOPIC, new Map([[1, [encoder.record(A, put(1n, 'one', 'kept'), next())]]]))
  await until(() => caughtUp(log, target), 'the first row')
  const [gone, come] = move(encoder, 50n)
  log.append(TOPIC, new Map([[0, [come!]], [1, [gone!]]]), 1, true) // biome-ignore format: one line
  log.show(TOPIC, first)
  for (let turns = 0; turns < 50; turns++) await new Promise((resolve) => setImmediate(resolve))
  expect(target.view()).toEqual(['1n: 1n | "one" | "kept"'])
  log.show(TOPIC, 1 - first)
  await until(() => caughtUp(log, target), 'the move')
  running.stop()
  await running.done
  expect(letters(log)).toEqual([])
  expect(target.view()).toEqual(['2n: 2n | "moved" | "kept"'])
})

test('a truncation and a new shape wait for the partitions in which their transaction is not to be seen yet', async () => {
  const { log, encoder, target, next, drive } = stream(2)
  const running = drive({}, new MemorySink(target, { ...LIMITS, ageMs: 0 }))
  const [one, two] = [encoder.record(A, put(1n, 'one'), next()), encoder.record(A, put(2n, 'two'), next())]
  const cut = encoder.record(A, { op: 't', row: [] }, next())
  const after = encoder.record(B, { op: 'c', row: [2n, 'newer', 'body', 7] }, next())
  log.append(TOPIC, new Map([[0, [two, cut, after]], [1, [one, cut]]]), 1, true) // biome-ignore format: one line
  log.show(TOPIC, 0)
  for (let turns = 0; turns < 50; turns++) await new Promise((resolve) => setImmediate(resolve))
  log.show(TOPIC, 1)
  await until(() => caughtUp(log, target), 'all of the transaction')
  running.stop()
  await running.done
  expect(target.view()).toEqual(['2n: 2n | "newer" | "body" | 7'])
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import type { PlainRecord } from '../../../../core/event/record-batch.ts'
import { type Tuple, UNCHANGED } from '../../../../core/event/table-schema.ts'
import { MemoryBudget } from '../../../../core/materialize/memory-budget.ts'
import { runs } from '../../../fixed-seed.ts'
import { caughtUp, expectWindows, letters, stream, until } from './driven-stream.ts'
import { MemorySink, MemoryTarget } from './memory-sink.ts'
import { SHAPES, type StreamRecords, TOPIC } from './stream-records.ts'

class Crash extends Error {}

interface Step {
  readonly kind: 'put' | 'delete' | 'move' | 'truncate' | 'shape' | 'malformed' | 'tombstone'
  readonly id: bigint
  readonly to: bigint
  readonly name: string
  readonly body: string | null
  readonly keep: boolean
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    { weight: 12, arbitrary: fc.constant('put' as const) },
    { weight: 4, arbitrary: fc.constantFrom('delete' as const, 'tombstone' as const) },
    { weight: 5, arbitrary: fc.constant('move' as const) },
    { weight: 2, arbitrary: fc.constantFrom('truncate' as const, 'shape' as const, 'malformed' as const) },
  ),
  id: fc.bigInt(0n, 6n),
  to: fc.bigInt(0n, 6n),
  name: fc.constantFrom('a', 'b', 'c', 'd', 'bad'),
  body: fc.option(fc.constantFrom('x', 'y'), { nil: null }),
  keep: fc.boolean(),
})

/** Oracle: the source's history in its own order, without log, batches, partitions or faults. */
function history(encoder: StreamRecords, groups: readonly (readonly Step[])[], partitions: number) {
  const oracle = new MemoryTarget()
  let shape = 0
  let commit = 1n
  let expectedLetters = 0
  const encoded = groups.map((steps) => {
    const byPartition = new Map<number, PlainRecord[]>(Array.from({ length: partitions }, (_, partition) => [partition, []]))
    for (const s of steps) {
      if (s.kind === 'move' && s.to === s.id) continue
      if (s.kind === 'shape') {
        shape = Math.min(shape + 1, SHAPES.length - 1)
        continue
      }
      const table = SHAPES[shape]!
      const position = { commit: commit++, ordinal: 1 }
      const row: Tuple = [
        s.id,
        s.name,
        s.keep ? UNCHANGED : s.body,
        ...(table.columns.length > 3 ? [table.columns[3]!.type.kind === 'int64' ? commit : Number(commit)] : []),
      ]
      const lane = byPartition.get(Number(s.id) % partitions)!
      if (s.kind !== 'malformed' && s.kind !== 'tombstone' && oracle.table !== table) oracle.reshape(table)
      if (s.kind === 'put') {
        lane.push(encoder.record(table, { op: 'u', row }, position))
        if (!oracle.put(table, [s.id], row)) expectedLetters++
      } else if (s.kind === 'delete') {
        lane.push(encoder.record(table, { op: 'd', row }, position))
        oracle.delete([s.id])
      } else if (s.kind === 'move') {
        const moved: Tuple = [s.to, ...row.slice(1)]
        lane.push(encoder.record(table, { op: 'd', row }, { ...position, ordinal: 2 }))
        byPartition.get(Number(s.to) % partitions)!.push(encoder.record(table, { op: 'c', row: moved }, { ...position, ordinal: 3 }))
        if (!oracle.put(table, [s.to], moved, oracle.delete([s.id]))) expectedLetters++
      } else if (s.kind === 'truncate') {
        for (const each of byPartition.values()) each.push(encoder.record(table, { op: 't', row: [] }, position))
        oracle.rows.clear()
      } else if (s.kind === 'tombstone') lane.push(encoder.tombstone(encoder.record(table, { op: 'd', row }, position)))
      else {
        lane.push(encoder.malformed(encoder.record(table, { op: 'u', row }, position)))
        expectedLetters++
      }
    }
    return byPartition
  })
  return { oracle, encoded, expectedLetters: () => expectedLetters, changes: commit }
}

// I3
test('random histories with faults at every await and crashes end equal to the source, in any number of partitions', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(step, { maxLength: 12 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 4 }),
      fc.record({ rows: fc.integer({ min: 1, max: 8 }), bytes: fc.constantFrom(1, 700, 100_000), ageMs: fc.integer({ min: 0, max: 2 }) }),
      fc.array(fc.constantFrom('ok', 'ok', 'ok', 'ok', 'ok', 'down', 'crash'), { maxLength: 80 }),
      fc.nat({ max: 6 }),
      fc.record({
        frameRecords: fc.integer({ min: 1, max: 5 }),
        shown: fc.array(fc.nat({ max: 3 }), { maxLength: 12 }),
        budget: fc.constantFrom(300, 6_000_000),
      }),
      async (groups, partitions, limits, faults, early, { frameRecords, shown, budget }) => {
        const { log, encoder, target, statuses, drive } = stream(partitions)
        const { oracle, encoded, expectedLetters } = history(encoder, groups, partitions)
        let at = 0
        let crashes = 0
        const fault = (point: string) => {
          const what = faults[at++]
          if (what === 'down') throw new MillraceError('sink.unreachable', `${point} is down`)
          if (what === 'crash') {
            crashes++
            throw new Crash(point)
          }
        }
        const memory = new MemoryBudget(budget)
        const lanes = Array.from({ length: partitions }, (_, partition) => partition)
        for (const group of encoded.slice(0, early)) log.append(TOPIC, group, frameRecords)
        const rest = encoded.slice(early)
        log.fault = fault
        encoder.fault = fault
        for (;;) {
          const running = drive({ memory }, new MemorySink(target, limits, fault))
          let failed: unknown = null
          running.done.catch((error: unknown) => {
            failed = error
          })
          while (rest.length > 0 && failed === null) {
            // a transaction appears partition by partition
            log.append(TOPIC, rest.shift()!, frameRecords, true)
            for (const partition of [...shown.splice(0, 3).map((n) => n % partitions), ...lanes]) {
              await new Promise((resolve) => setImmediate(resolve))
              log.show(TOPIC, partition)
            }
          }
          const nothingToDo = oracle.table === null
          await until(
            async () => failed !== null || (nothingToDo && statuses.length > 0) || (await caughtUp(log, target)),
            `the end of ${JSON.stringify(statuses.at(-1), (_, v) => (typeof v === 'bigint' ? String(v) : v))}`,
          )
          running.stop()
          const result = await running.done.then(
            () => null,
            (error: unknown) => error as MillraceError,
          )
          if (result === null) break
          if (!(result.cause instanceof Crash) && !(result instanceof Crash)) throw result
        }
        if (oracle.table === null) return
        expect(target.view()).toEqual(oracle.view())
        const found = letters(log).map(({ origin }) => `${origin.partition}@${origin.offset}`)
        expect(new Set(found).size).toBe(expectedLetters())
        if (crashes === 0) expect(found.length).toBe(expectedLetters())
        log.fault = () => {}
        encoder.fault = () => {}
        await expectWindows(
          log,
          encoder,
          target,
          new Set(letters(log).flatMap(({ code, origin }) => (code === 'record.rejected' ? [`${origin.partition}@${origin.offset}`] : []))).size,
        )
      },
    ),
    { numRuns: runs(300), endOnFailure: true },
  )
})

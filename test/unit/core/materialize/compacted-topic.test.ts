import fc from 'fast-check'
import { expect, test } from 'vitest'
import { logState, RowSum } from '../../../../core/audit/log-state.ts'
import { MillraceError } from '../../../../core/errors.ts'
import type { PlainRecord } from '../../../../core/event/record-batch.ts'
import type { Tuple } from '../../../../core/event/table-schema.ts'
import { LandedWindows } from '../../../../core/materialize/landed-windows.ts'
import { runs } from '../../../fixed-seed.ts'
import { A, caughtUp, expectWindows, LIMITS, letters, put, stream, until } from './driven-stream.ts'
import { MemorySink, MemoryTarget } from './memory-sink.ts'
import { type StreamRecords, TOPIC } from './stream-records.ts'

interface CompactedStep {
  readonly kind: 'put' | 'delete' | 'move' | 'truncate'
  readonly id: bigint
  readonly to: bigint
  readonly name: string
  readonly body: string | null
}

/** Oracle: the source's history as a compacted topic has it: whole rows, tombstones, truncations with a key. */
function compactedHistory(encoder: StreamRecords, steps: readonly CompactedStep[], partitions: number) {
  const oracle = new MemoryTarget()
  const lanes = Array.from({ length: partitions }, (): PlainRecord[] => [])
  const laneOf = (id: bigint) => lanes[Number(id) % partitions]!
  oracle.reshape(A)
  for (const [n, s] of steps.entries()) {
    const position = { commit: BigInt(n + 1), ordinal: 1 }
    const row: Tuple = [s.id, `${s.name}${n}`, s.body]
    if (s.kind === 'truncate') {
      for (const lane of lanes) lane.push(encoder.keyedTruncation(A, position))
      oracle.rows.clear()
    } else if (s.kind === 'delete' || (s.kind === 'move' && s.to !== s.id)) {
      const moves = s.kind === 'move'
      laneOf(s.id).push(...encoder.deletion(A, row, moves ? { ...position, ordinal: 2 } : position))
      oracle.delete([s.id])
      if (!moves) continue
      const moved: Tuple = [s.to, ...row.slice(1)]
      laneOf(s.to).push(encoder.record(A, { op: 'c', row: moved }, { ...position, ordinal: 3 }))
      oracle.put(A, [s.to], moved)
    } else {
      laneOf(s.id).push(encoder.record(A, { op: 'u', row }, position))
      oracle.put(A, [s.id], row)
    }
  }
  return { oracle, lanes }
}

const compactedStep: fc.Arbitrary<CompactedStep> = fc.record({
  kind: fc.constantFrom('put', 'put', 'put', 'delete', 'move', 'truncate'),
  id: fc.bigInt(0n, 4n),
  to: fc.bigInt(0n, 4n),
  name: fc.constantFrom('a', 'b'),
  body: fc.option(fc.constantFrom('x', 'y'), { nil: null }),
})

test('a sink that lags behind compaction, wherever it stands, ends equal to the source; so does a new one, and the replay', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(compactedStep, { minLength: 1, maxLength: 30 }),
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.nat({ max: 60 }), { minLength: 3, maxLength: 3 }),
      fc.integer({ min: 1, max: 5 }),
      fc.nat({ max: 30 }),
      async (steps, partitions, cleanTo, frameRecords, lag) => {
        const { log, encoder, target, statuses, drive } = stream(partitions)
        const { oracle, lanes } = compactedHistory(encoder, steps, partitions)
        log.append(TOPIC, new Map(lanes.map((records, partition) => [partition, records])), frameRecords)
        const lagging = new MemorySink(target, { ...LIMITS, rows: 1 }, (point) => {
          if (point === 'apply' && --lag < 0) throw new MillraceError('sink.conflict', 'it stops here')
        })
        const first = drive({}, lagging)
        let stopped = false
        first.done.catch(() => {
          stopped = true
        })
        await until(async () => stopped || (await caughtUp(log, target)), 'the end, or the stop')
        first.stop()
        if (!stopped) await first.done
        for (const [partition, to] of cleanTo.slice(0, partitions).entries()) log.compact(TOPIC, partition, BigInt(to))
        const fresh = new MemoryTarget()
        for (const each of [target, fresh]) {
          const again = drive({}, new MemorySink(each, LIMITS))
          await until(() => caughtUp(log, each), 'all that is left')
          again.stop()
          await again.done
          expect(each.view()).toEqual(oracle.view())
        }
        expect(letters(log)).toEqual([])
        const ends = (await log.bounds(TOPIC)).map(({ partition, end }) => ({ topic: TOPIC, partition, offset: end }))
        const replay = { log, registry: encoder.registry, topic: TOPIC, table: A, memoryBytes: 100_000, rows: 5, signal: new AbortController().signal }
        const expected = new RowSum(A)
        for (const row of oracle.rows.values()) expected.add(A.columns.map(({ id }) => row.get(id)!))
        expect((await logState({ ...replay, cut: { until: ends, below: null } })).sum.toString()).toBe(expected.checksum.toString())
        expect(statuses.at(-1)!.rejected).toBe(0)
      },
    ),
    { numRuns: runs(60) },
  )
})

test('a delete and its tombstone count as one change, also when they are read apart or the delete itself is gone', async () => {
  const { log, encoder, target, next, drive } = stream()
  const position = next()
  const [gone, tombstone] = encoder.deletion(A, [1n, null, null], { commit: 90n, ordinal: 1 })
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(1n, 'one'), position), gone]]]))
  const running = drive()
  await until(() => caughtUp(log, target), 'the delete')
  running.stop()
  await running.done
  log.append(TOPIC, new Map([[0, [tombstone, encoder.record(A, put(2n, 'two'), { commit: 91n, ordinal: 1 })]]]))
  const again = drive()
  await until(() => caughtUp(log, target), 'the tombstone')
  again.stop()
  await again.done
  await expectWindows(log, encoder, target, 0)
  expect(target.view()).toEqual(['2n: 2n | "two" | "body"'])
  log.compact(TOPIC, 0, 4n)
  const fresh = new MemoryTarget()
  const anew = drive({}, new MemorySink(fresh, LIMITS))
  await until(() => caughtUp(log, fresh), 'what is left')
  anew.stop()
  await anew.done
  const { windows } = LandedWindows.parse(TOPIC, fresh.memo!)
  expect(windows.landed.total.byOp()).toEqual({ u: 1 })
})

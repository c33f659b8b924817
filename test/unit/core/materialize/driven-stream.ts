import { expect } from 'vitest'
import { records } from '../../../../core/event/record-batch.ts'
import type { TableSchema, Value } from '../../../../core/event/table-schema.ts'
import { type DeadLetter, deadLetterTopic, decodeDeadLetter } from '../../../../core/materialize/dead-letter.ts'
import { LandedWindows } from '../../../../core/materialize/landed-windows.ts'
import { type MaterializeOptions, type MaterializeStatus, materialize } from '../../../../core/materialize/materialize.ts'
import { MemoryBudget } from '../../../../core/materialize/memory-budget.ts'
import { countStream } from '../../../../core/materialize/stream-count.ts'
import { RecordDecoders } from '../../../../core/schema/record-decoder.ts'
import { MemoryLog } from './memory-log.ts'
import { MemorySink, MemoryTarget } from './memory-sink.ts'
import { SHAPES, type StreamChange, StreamRecords, TOPIC } from './stream-records.ts'

const NODE = 'lake'
export const LIMITS = { rows: 3, bytes: 100_000, ageMs: 2 }
const RETRY = { firstMs: 1, maxMs: 2, pause: () => new Promise<void>((resolve) => setImmediate(resolve)) }

/** A stream in a log, and a target that a driver fills. */
export function stream(partitions = 1) {
  const log = new MemoryLog()
  log.create(TOPIC, partitions)
  const encoder = new StreamRecords()
  const target = new MemoryTarget()
  let commit = 1n
  const statuses: MaterializeStatus[] = []
  const next = () => ({ commit: commit++, ordinal: 1 })
  const write = (...changes: (readonly [TableSchema, StreamChange])[]) =>
    log.append(TOPIC, new Map([[0, changes.map(([table, change]) => encoder.record(table, change, next()))]]))
  const drive = (more: Partial<MaterializeOptions> = {}, sink = new MemorySink(target, LIMITS)) => {
    const stop = new AbortController()
    const done = materialize({
      node: NODE,
      topic: TOPIC,
      log,
      registry: encoder.registry,
      sink,
      deadLetters: () => log.openWriter(NODE),
      redact: (text) => text,
      retry: RETRY,
      memory: new MemoryBudget(6_000_000),
      onStatus: (status) => statuses.push(status),
      signal: stop.signal,
      ...more,
    })
    // looked at when the test awaits it
    done.catch(() => {})
    return { stop: () => stop.abort(), done }
  }
  return { log, encoder, target, statuses, next, write, drive }
}

export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 45_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`not within 45 s: ${what}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** The target has all that the log shows. */
export async function caughtUp(log: MemoryLog, target: MemoryTarget): Promise<boolean> {
  const fault = log.fault
  log.fault = () => {}
  const bounds = await log.bounds(TOPIC)
  log.fault = fault
  return bounds.every(({ partition, end }) => (target.positions.get(`${partition}`)?.offset ?? 0n) === end)
}

/** The node's dead letters. */
export function letters(log: MemoryLog): DeadLetter[] {
  const found: DeadLetter[] = []
  for (const frame of log.frames(deadLetterTopic(NODE))) for (const record of records(frame)) found.push(decodeDeadLetter(frame, record))
  return found
}

export const put = (id: bigint, name: Value, body: Value = 'body'): StreamChange => ({ op: 'u', row: [id, name, body] })
export const [A, B] = SHAPES as [TableSchema, TableSchema]

/** I7: whatever crashed when, the target's windows count each change of the log once, and say how many of them it rejected. */
export async function expectWindows(log: MemoryLog, encoder: StreamRecords, target: MemoryTarget, rejected: number): Promise<void> {
  const ends = (await log.bounds(TOPIC)).map(({ partition, end }) => ({ topic: TOPIC, partition, offset: end }))
  const { ledger } = await countStream(log, new RecordDecoders(encoder.registry), ends, 30, new AbortController().signal)
  const { windows, positions } = LandedWindows.parse(TOPIC, target.memo!)
  expect(positions.map(({ partition, offset }) => `${partition}@${offset}`).sort()).toEqual(
    ends.map(({ partition, offset }) => `${partition}@${offset}`).sort(),
  )
  expect(windows.totalBelow(Number.POSITIVE_INFINITY).toJSON()).toEqual(ledger.total.toJSON())
  for (const [window, tally] of ledger.windows) expect(windows.at(window).toJSON()).toEqual(tally.toJSON())
  expect(windows.rejected.total.records).toBe(rejected)
}

import { setTimeout as delay } from 'node:timers/promises'
import { LEDGER_ENTRY } from '../capture/capture.ts'
import type { ChangeWriter, SourceReader } from '../capture/source-connector.ts'
import { commitBase } from '../capture/start-over.ts'
import { MillraceError } from '../errors.ts'
import type { SourceOffset } from '../event/offset.ts'
import { POSITION_BYTES, POSITION_HEADER } from '../event/position.ts'
import { recordHeader, records } from '../event/record-batch.ts'
import { RowChecksum } from '../event/row-hash.ts'
import { SNAPSHOT_ENTRY } from '../event/snapshot-progress.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import { TupleWriter } from '../event/tuple-writer.ts'
import type { Log, LogPosition } from '../log/log.ts'
import type { SinkConnector } from '../materialize/sink-connector.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { logState, RowSum } from './log-state.ts'

/** Rows of a table at one place, and the order-independent checksum over their canonical bytes (16 hex digits). */
export interface Side {
  readonly rows: number
  readonly checksum: string
}

export interface TableAudit {
  readonly table: string
  /** The source equals the log at the source's view, and every sink equals the log at the sink's position. */
  readonly equal: boolean
  readonly source: Side
  readonly log: Side
  /** By sink node. */
  readonly sinks: Readonly<Record<string, Side>>
  /** Records that capture says it wrote, and records that are in the log. */
  readonly ledger: { readonly equal: boolean; readonly captured: number; readonly inLog: number }
  /** What differs, in words; empty when equal. */
  readonly differences: readonly string[]
}

export interface TableAuditOptions {
  readonly node: string
  readonly table: TableSchema
  readonly topic: string
  readonly reader: SourceReader
  readonly log: Log
  readonly registry: SchemaRegistry
  /** `open` gives the sink for reading, beside a running writer of it. */
  readonly sinks: readonly { readonly node: string; readonly open: () => Promise<SinkConnector> }[]
  /** How long the log and the sinks may take to reach the source's view. */
  readonly deadlineMs: number
  readonly signal: AbortSignal
}

/**
 * Compares one table end to end, while it may be written: the source in one consistent view, the log replayed up to that view, each sink with the log
 * replayed up to the sink's own position. A difference is looked at twice more before it counts, since a sink may commit between two looks.
 */
export async function auditTable(options: TableAuditOptions): Promise<TableAudit> {
  let audit = await compareOnce(options)
  for (let tries = 0; tries < 2 && !audit.equal; tries++) audit = await compareOnce(options)
  return audit
}

async function compareOnce(options: TableAuditOptions): Promise<TableAudit> {
  const { node, reader, log, registry, topic, signal } = options
  const deadline = Date.now() + options.deadlineMs
  // while a table is read for the first time, or again after a change of shape, its state is not in the log yet
  await until(deadline, signal, `the snapshot of ${tableId(options.table)} is not done`, async () => {
    const snapshot = (await log.progress(node)).get(SNAPSHOT_ENTRY + tableId(options.table)) as { done: boolean } | undefined
    return snapshot?.done === true
  })
  const view = await readSource(reader, options.table, signal)
  const { table } = view
  await until(deadline, signal, `the log has not reached the source's view of ${tableId(table)}`, async () => {
    const offset = (await log.progress(node)).get('offset') as SourceOffset | undefined
    return offset !== undefined && reader.reached(offset, view.commit)
  })
  const ends = (await log.bounds(topic)).map(({ partition, end }): LogPosition => ({ topic, partition, offset: end }))
  const differences: string[] = []
  const inLog = await logState(log, registry, topic, table, { until: ends, below: commitBase(await log.progress(node)) + view.commit }, signal)
  if (!same(inLog, view.sum)) differences.push(`source has ${say(view.sum)}, the log ${say(inLog)}`)
  const sinks: Record<string, Side> = {}
  for (const sink of options.sinks) {
    const connector = await sink.open()
    try {
      await until(deadline, signal, `sink ${sink.node} has not reached the end of ${topic} as it was`, async () => reaches(await connector.committed(), ends))
      // no change to a target that has this shape already; rows() then gives this shape
      await connector.prepare(table)
      const { positions, sum } = await readSink(connector, table, signal)
      sinks[sink.node] = side(sum)
      const expected = await logState(log, registry, topic, table, { until: positions, below: null }, signal)
      if (!same(sum, expected)) differences.push(`the log has ${say(expected)} up to the position of ${sink.node}, ${sink.node} has ${say(sum)}`)
    } finally {
      await connector[Symbol.asyncDispose]()
    }
  }
  const ledger = await compareLedger(log, node, topic, signal)
  if (!ledger.equal) differences.push(`capture wrote ${ledger.captured} records to ${topic}, ${ledger.inLog} are there, or others`)
  return { table: tableId(table), equal: differences.length === 0, source: side(view.sum), log: side(inLog), sinks, ledger, differences }
}

async function readSource(reader: SourceReader, table: TableSchema, signal: AbortSignal): Promise<{ table: TableSchema; commit: bigint; sum: RowChecksum }> {
  let sum: RowSum | null = null
  let shape = table
  const commit = await reader.scan(
    table,
    (seen) => {
      shape = seen
      const rows = new RowSum(seen)
      const writer = new TupleWriter(seen)
      sum = rows
      return { writer: writer satisfies ChangeWriter, beginRow: () => writer.start(), endRow: () => rows.add(writer.row()) }
    },
    signal,
  )
  return { table: shape, commit, sum: (sum ?? new RowSum(shape)).checksum }
}

/** The sink's rows and the positions they belong to: read again when a commit came between. */
async function readSink(connector: SinkConnector, table: TableSchema, signal: AbortSignal): Promise<{ positions: readonly LogPosition[]; sum: RowChecksum }> {
  for (let tries = 0; ; tries++) {
    const positions = await connector.committed()
    const sum = new RowSum(table)
    for await (const rows of connector.rows(signal)) for (const row of rows) sum.add(row)
    if (tries === 20 || JSON.stringify(positions, bigints) === JSON.stringify(await connector.committed(), bigints)) return { positions, sum: sum.checksum }
  }
}

/** Exactly the records that capture wrote are in the log: counts, and sums over the records' positions, at one moment of the capture's progress. */
async function compareLedger(log: Log, node: string, topic: string, signal: AbortSignal): Promise<{ equal: boolean; captured: number; inLog: number }> {
  for (let tries = 0; ; tries++) {
    const entry = (await log.progress(node)).get(LEDGER_ENTRY + topic) as { records: number; checksum: string } | undefined
    const bounds = await log.bounds(topic)
    const sum = new RowChecksum()
    const left = new Map(bounds.filter(({ start, end }) => end > start).map(({ partition, end }) => [partition, end]))
    const stop = new AbortController()
    const from = [...left.keys()].map((partition) => ({ topic, partition, offset: bounds.find((b) => b.partition === partition)!.start }))
    if (left.size > 0) {
      for await (const batch of log.consume(from, AbortSignal.any([signal, stop.signal]))) {
        const end = left.get(batch.partition)
        if (end === undefined) continue
        for (const record of records(batch.frame)) {
          if (record.offset >= end) break
          const position = recordHeader(batch.frame, record, POSITION_HEADER)
          // a record that capture did not write counts, and makes the sums differ
          if (position?.length === POSITION_BYTES) sum.addPosition(position.readUInt32BE(0), position.readUInt32BE(4), position.readUInt32BE(8))
          else sum.addPosition(0, 0, 0)
        }
        if (batch.nextOffset >= end) left.delete(batch.partition)
        if (left.size === 0) break
      }
    }
    stop.abort()
    const captured = entry?.records ?? 0
    const equal = captured === sum.rows && (entry === undefined || entry.checksum === sum.toString())
    // records that expired cannot be counted again; records that came meanwhile can
    if (equal || bounds.some(({ start }) => start > 0n)) return { equal: true, captured, inLog: sum.rows }
    if (tries === 10) return { equal, captured, inLog: sum.rows }
  }
}

function reaches(positions: readonly LogPosition[], ends: readonly LogPosition[]): boolean {
  return ends.every((end) => end.offset === 0n || positions.some((position) => position.partition === end.partition && position.offset >= end.offset))
}

async function until(deadline: number, signal: AbortSignal, what: string, reached: () => Promise<boolean>): Promise<void> {
  while (!(await reached())) {
    if (signal.aborted) throw new MillraceError('audit.unequal', `${what}: stopped`)
    if (Date.now() > deadline)
      throw new MillraceError('audit.unequal', what, { fix: 'is the mesh running? `millrace status` shows its lag; or wait longer with --wait SECONDS' })
    await delay(50, undefined, { signal }).catch(() => {})
  }
}

const same = (a: RowChecksum, b: RowChecksum) => a.rows === b.rows && a.toString() === b.toString()
const side = (sum: RowChecksum): Side => ({ rows: sum.rows, checksum: sum.toString() })
const say = (sum: RowChecksum) => `${sum.rows} rows (${sum.toString()})`
const bigints = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value)

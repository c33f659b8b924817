import type { ParkedTable } from '../capture/parked-tables.ts'
import type { ChangeWriter, SourceReader } from '../capture/source-connector.ts'
import { capturedThrough, commitBase, SHAPE_ENTRY } from '../capture/start-over.ts'
import { asMillraceError, MillraceError } from '../errors.ts'
import type { SourceOffset } from '../event/offset.ts'
import { comparePositions, type Position } from '../event/position.ts'
import type { RowChecksum } from '../event/row-hash.ts'
import { SNAPSHOT_ENTRY } from '../event/snapshot-progress.ts'
import { type TableSchema, type Tuple, tableId } from '../event/table-schema.ts'
import { TupleWriter } from '../event/tuple-writer.ts'
import { CAPTURED_WINDOWS, capturedLedgers, Tally } from '../event/window-ledger.ts'
import type { Log, LogPosition } from '../log/log.ts'
import { samePositions } from '../materialize/landed-windows.ts'
import type { SinkConnector } from '../materialize/sink-connector.ts'
import { countStream } from '../materialize/stream-count.ts'
import { pause, type RetryPolicy } from '../retry.ts'
import { RecordDecoders } from '../schema/record-decoder.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { differingKeys, type KeyDifference } from './differing-keys.ts'
import { type Cut, logState, RowSum } from './log-state.ts'
import { isWithin } from './window-compare.ts'

const SHAPE_POLL_MS = 500
/** From the first look to the next, doubled each time: on Kafka a look reads the whole partition of the node's progress. */
const WAIT_MS = 50
const MOST_WAIT_MS = 1000

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
  /** Changes that capture says it wrote, and changes that are in the log. */
  readonly ledger: { readonly equal: boolean; readonly captured: number; readonly inLog: number }
  /** What differs, in words; empty when equal. */
  readonly differences: readonly string[]
  /** The source set the table aside: nothing was compared, and it is not equal. */
  readonly parked?: true
}

/** Of what was not compared. */
const NOTHING: Side = { rows: 0, checksum: '-' }

/** The audit of a table that its source has set aside. */
export function parkedAudit(table: string, { code, message, fix, since, skipped }: ParkedTable): TableAudit {
  const why = `parked since ${since}, ${skipped} changes left out: ${code}: ${message}; fix: ${fix}`
  return { table, equal: false, parked: true, source: NOTHING, log: NOTHING, sinks: {}, ledger: { equal: true, captured: 0, inLog: 0 }, differences: [why] }
}

export interface TableAuditOptions {
  readonly node: string
  readonly table: TableSchema
  readonly topic: string
  /** Of what was superseded the log says nothing: states of the past and counts of changes cannot be known. */
  readonly compacted: boolean
  readonly reader: SourceReader
  readonly log: Log
  readonly registry: SchemaRegistry
  /** `open` gives the sink read only, beside a running writer of it. */
  readonly sinks: readonly { readonly node: string; readonly open: () => Promise<SinkConnector> }[]
  /** How long the log and the sinks may take to reach the source's view. */
  readonly deadlineMs: number
  /** What replaying the log may take, see `logState`. */
  readonly memoryBytes: number
  /** When the table differs, so many of the keys that differ are named at each place where they do. */
  readonly showKeys: number
  readonly signal: AbortSignal
  /** Waits until the next look; see {@link RetryPolicy}. */
  readonly pause?: RetryPolicy['pause']
}

/**
 * Compares one table end to end, while it may be written: the source in one consistent view, the log replayed up to that view, each sink with the log
 * replayed up to the position of the view that is read of it. A difference is looked at twice more before it counts: views of some servers are not exact.
 */
export async function auditTable(options: TableAuditOptions): Promise<TableAudit> {
  const deadline = performance.now() + options.deadlineMs
  let compared = await compareOnce(options)
  for (let tries = 0; !compared.audit.equal; tries++) {
    // the source's shape is newer than the log's: it is about to be noticed, and the table read again
    const pending = performance.now() < deadline && !options.signal.aborted && (compared.isMoving || !(await isShapeInLog(options)))
    if (tries >= 2 && !pending) break
    if (pending) await (options.pause ?? pause)(SHAPE_POLL_MS, options.signal)
    compared = await compareOnce(options)
  }
  const { audit, unequal, isMoving } = compared
  if (isMoving && audit.differences.length === 0) {
    throw new MillraceError('audit.unfinished', `${audit.table} took changes whenever it was compared, and a compacted topic has its present state only`, {
      fix: 'audit it when fewer changes come, or wait longer for a pause with --wait SECONDS',
    })
  }
  if (audit.equal || options.showKeys === 0) return audit
  const named: string[] = []
  for (const place of unequal) named.push(...(await nameKeys(options, place, audit.source.rows)))
  return { ...audit, differences: [...audit.differences, ...named] }
}

/** @param sink null: the source and the log differ */
async function nameKeys(options: TableAuditOptions, sink: TableAuditOptions['sinks'][number] | null, rows: number): Promise<readonly string[]> {
  const { node, log, reader, topic, signal, memoryBytes, registry } = options
  const place = sink === null ? 'the source' : sink.node
  const connector = sink === null ? null : await sink.open()
  try {
    await connector?.prepare(options.table)
    const read = async (each: (row: Tuple) => void): Promise<Cut> => {
      if (connector !== null) return { until: await readSink(connector, each, signal), below: null }
      const { commit } = await scanSource(reader, options.table, () => each, signal)
      await untilViewed(options, performance.now() + options.deadlineMs, options.table, commit)
      return { until: await endsOf(log, topic), below: commitBase(await log.progress(node)) + commit }
    }
    const keys = await differingKeys({ log, registry, topic, table: options.table, memoryBytes, rows, signal }, read, options.showKeys)
    return keys.map(({ key, what }) => `${key}: ${WHAT[what](place)}`)
  } finally {
    await connector?.[Symbol.asyncDispose]()
  }
}

const WHAT: Readonly<Record<KeyDifference['what'], (place: string) => string>> = {
  missing: (place) => `in the log, not in ${place}`,
  'too many': (place) => `in ${place}, not in the log`,
  'other values': (place) => `other values in ${place} than in the log`,
}

async function isShapeInLog({ log, node, table, reader }: TableAuditOptions): Promise<boolean> {
  const id = tableId(table)
  const inLog = (await log.progress(node)).get(SHAPE_ENTRY + id) as unknown as TableSchema | undefined
  const inSource = (await reader.tables()).find((one) => tableId(one) === id)
  const print = (shape: TableSchema) => JSON.stringify([shape.incarnation, shape.key, shape.columns.map((column) => [column.id, column.name, column.type])])
  return inLog === undefined || inSource === undefined || print(inLog) === print(inSource)
}

interface Compared {
  readonly audit: TableAudit
  /** Where rows differ from the log's; null: in the source. */
  readonly unequal: readonly (TableAuditOptions['sinks'][number] | null)[]
  /** Something differs from a state of the log that is past, which a compacted topic need not have any more: it proves nothing. */
  readonly isMoving: boolean
}

async function compareOnce(options: TableAuditOptions): Promise<Compared> {
  const { node, reader, log, registry, topic, signal } = options
  const deadline = performance.now() + options.deadlineMs
  // while a table is read for the first time, or again after a change of shape, its state is not in the log yet
  await until(options, deadline, `the snapshot of ${tableId(options.table)} is not done`, async () => {
    const snapshot = (await log.progress(node)).get(SNAPSHOT_ENTRY + tableId(options.table)) as { done: boolean } | undefined
    return snapshot?.done === true
  })
  const view = await readSource(reader, options.table, signal)
  const { table } = view
  await untilViewed(options, deadline, table, view.commit)
  const ends = await endsOf(log, topic)
  const differences: string[] = []
  const unequal: (TableAuditOptions['sinks'][number] | null)[] = []
  const replay = (cut: Cut) => logState({ log, registry, topic, table, cut, memoryBytes: options.memoryBytes, rows: view.sum.rows, signal })
  const state = await replay({ until: ends, below: commitBase(await log.progress(node)) + view.commit })
  const inLog = state.sum
  let isMoving = false
  // looked at after the replay: what comes later may have superseded what it should have found
  const isPast = async (at: readonly LogPosition[], cut = false) => options.compacted && (cut || !reaches(at, await endsOf(log, topic)))
  // sinks nearly always stand at the same positions
  const replayed: { readonly until: readonly LogPosition[]; readonly sum: RowChecksum }[] = state.cut ? [] : [{ until: ends, sum: inLog }]
  if (!same(inLog, view.sum) && (await isPast(ends, state.cut))) isMoving = true
  else if (!same(inLog, view.sum)) {
    differences.push(`source has ${say(view.sum)}, the log ${say(inLog)}`)
    unequal.push(null)
  }
  const sinks: Record<string, Side> = {}
  for (const sink of options.sinks) {
    try {
      await using connector = await sink.open()
      // what refuses the table never comes to the end of its stream
      await connector.prepare(table)
      await until(options, deadline, `sink ${sink.node} has not reached the end of ${topic} as it was`, async () => reaches(await connector.committed(), ends))
      // the target stays as it is, and rows() gives this shape
      await connector.prepare(table)
      const rows = new RowSum(table)
      const positions = await readSink(connector, (row) => rows.add(row), signal)
      const sum = rows.checksum
      sinks[sink.node] = side(sum)
      let expected = replayed.find(({ until }) => samePositions(until, positions))?.sum
      if (expected === undefined) {
        expected = (await replay({ until: positions, below: null })).sum
        replayed.push({ until: positions, sum: expected })
      }
      if (!same(sum, expected) && (await isPast(positions))) isMoving = true
      else if (!same(sum, expected)) {
        differences.push(`the log has ${say(expected)} up to the position of ${sink.node}, ${sink.node} has ${say(sum)}`)
        unequal.push(sink)
      }
    } catch (thrown) {
      const error = asMillraceError(thrown)
      if (error.code !== 'sink.schema_unsupported') throw error
      sinks[sink.node] = NOTHING
      differences.push(`${sink.node} does not take it: ${error.code}: ${error.message}${error.fix === undefined ? '' : `; fix: ${error.fix}`}`)
    }
  }
  const ledger = await compareLedger(options)
  if (!ledger.equal) differences.push(`capture wrote ${ledger.captured} records to ${topic}, ${ledger.inLog} are there, or others`)
  const equal = differences.length === 0 && !isMoving
  return { audit: { table: tableId(table), equal, source: side(view.sum), log: side(inLog), sinks, ledger, differences }, unequal, isMoving }
}

async function endsOf(log: Log, topic: string): Promise<readonly LogPosition[]> {
  return (await log.bounds(topic)).map(({ partition, end }) => ({ topic, partition, offset: end }))
}

async function untilViewed(options: TableAuditOptions, deadline: number, table: TableSchema, commit: bigint): Promise<void> {
  const { node, log, reader } = options
  await until(options, deadline, `the log has not reached the source's view of ${tableId(table)}`, async () => {
    const offset = (await log.progress(node)).get('offset') as SourceOffset | undefined
    return offset !== undefined && reader.reached(offset, commit)
  })
}

async function readSource(reader: SourceReader, table: TableSchema, signal: AbortSignal): Promise<{ table: TableSchema; commit: bigint; sum: RowChecksum }> {
  let sum: RowSum | null = null
  const open = (shape: TableSchema) => {
    const rows = (sum = new RowSum(shape))
    return (row: Tuple) => rows.add(row)
  }
  const { shape, commit } = await scanSource(reader, table, open, signal)
  return { table: shape, commit, sum: ((sum as RowSum | null) ?? new RowSum(shape)).checksum }
}

/** Calls what `open` gives for the table's shape with each row of one view. */
async function scanSource(reader: SourceReader, table: TableSchema, open: (shape: TableSchema) => (row: Tuple) => void, signal: AbortSignal) {
  let shape = table
  const target = (seen: TableSchema) => {
    shape = seen
    const each = open(seen)
    const writer = new TupleWriter(seen)
    return { writer: writer satisfies ChangeWriter, beginRow: () => writer.start(), endRow: () => each(writer.row()) }
  }
  const commit = await reader.scan(table, target, signal)
  return { shape, commit }
}

/** @returns the positions that the rows belong to */
async function readSink(connector: SinkConnector, each: (row: Tuple) => void, signal: AbortSignal): Promise<readonly LogPosition[]> {
  let positions: readonly LogPosition[] = []
  const onView = (viewed: readonly LogPosition[]) => {
    positions = viewed
  }
  for await (const rows of connector.rows(onView, signal)) for (const row of rows) each(row)
  return positions
}

/**
 * Exactly the changes that capture wrote are in the log: counts by op, and sums over the records' content. The progress that says what was written says
 * up to which position, and records after that are left out: so both are of one moment, however much is written meanwhile. A compacted topic may have
 * fewer, and none that capture did not write.
 */
async function compareLedger(options: TableAuditOptions): Promise<TableAudit['ledger']> {
  const { log, registry, node, topic, compacted, signal } = options
  const progress = await log.progress(node)
  const captured = capturedLedgers(progress).get(topic)?.total ?? new Tally()
  const through = capturedThrough(progress)
  let counted: readonly LogPosition[] = []
  let inLog = 0
  // progress may be seen a moment before the records of its transaction: those are written already
  for (const end of ['committed', 'written'] as const) {
    const bounds = await log.bounds(topic, end)
    // changes that expired cannot be counted again
    if (bounds.some(({ start }) => start > 0n)) return { equal: true, captured: captured.records, inLog: captured.records }
    const ends = bounds.map(({ partition, end }) => ({ topic, partition, offset: end }))
    if (end === 'written' && samePositions(ends, counted)) break
    counted = ends
    const { ledger, foreign, beyond } = await countStream(log, new RecordDecoders(registry), ends, CAPTURED_WINDOWS, signal, through)
    const unclaimed = foreign + (beyond === null || (await isCaptured(options, beyond.last)) ? 0 : beyond.records)
    inLog = ledger.total.records + unclaimed
    const equal = unclaimed === 0 && (captured.equals(ledger.total) || (compacted && isWithin(ledger.total, captured)))
    if (equal) return { equal, captured: captured.records, inLog }
  }
  return { equal: false, captured: captured.records, inLog }
}

/** Whether capture says that it wrote up to here: at the latest a moment after it can be read. */
async function isCaptured({ log, node, signal, pause: wait = pause }: TableAuditOptions, position: Position): Promise<boolean> {
  for (let waitMs = WAIT_MS; ; waitMs *= 2) {
    if (comparePositions(position, capturedThrough(await log.progress(node))) <= 0) return true
    if (waitMs > MOST_WAIT_MS || signal.aborted) return false
    await wait(waitMs, signal)
  }
}

function reaches(positions: readonly LogPosition[], ends: readonly LogPosition[]): boolean {
  return ends.every((end) => end.offset === 0n || positions.some((position) => position.partition === end.partition && position.offset >= end.offset))
}

async function until({ signal, pause: wait = pause }: TableAuditOptions, deadline: number, what: string, reached: () => Promise<boolean>): Promise<void> {
  for (let waitMs = WAIT_MS; !(await reached()); waitMs = Math.min(2 * waitMs, MOST_WAIT_MS)) {
    if (signal.aborted) throw new MillraceError('audit.unfinished', `${what}: stopped`)
    if (performance.now() > deadline)
      throw new MillraceError('audit.unfinished', what, { fix: 'is the mesh running? `millrace status` shows its lag; or wait longer with --wait SECONDS' })
    await wait(waitMs, signal)
  }
}

const same = (a: RowChecksum, b: RowChecksum) => a.rows === b.rows && a.toString() === b.toString()
const side = (sum: RowChecksum): Side => ({ rows: sum.rows, checksum: sum.toString() })
const say = (sum: RowChecksum) => `${sum.rows} rows (${sum.toString()})`

import {
  type CaptureOutput,
  type ChangeWriter,
  MillraceError,
  type PluginContext,
  type SourceConnector,
  type SourceOffset,
  type TablePatterns,
  type TableSchema,
  Waker,
} from '../../core/plugin.ts'
import type { CapturedTables } from './captured-tables.ts'
import type { CassandraConfig } from './cassandra-config.ts'
import { type CassandraOffset, comparePlaces, isBehind, readOffset, writeOffset } from './cassandra-offset.ts'
import type { CdcDirectory } from './cdc-directory.ts'
import type { CdcTail, TailedBlock } from './cdc-tail.ts'
import type { Mutation, PartitionUpdate, WriteTime } from './commit-log-events.ts'
import type { CqlClient } from './cql-client.ts'
import type { KnownRow, KnownRows } from './known-rows.ts'
import type { MutationDecoder } from './mutation-decoder.ts'
import { newestOf, type RowChange, RowChanges } from './row-changes.ts'
import { type QueriedRow, RowQuery } from './row-query.ts'
import { writeKey, writeRow } from './row-writer.ts'
import { SeenMutations } from './seen-mutations.ts'
import { segmentError } from './segment-error.ts'
import { CassandraSnapshotReader, dueOf } from './snapshot-reader.ts'
import type { MappedTable } from './table-mapping.ts'
import { tokenOf } from './token.ts'

/** Rows that are looked at again, at most, between two looks at the log. */
const DUE_ROWS = 100
const READS_AT_ONCE = 16
/** The source yields after so many changes, so that a slow log holds it. */
const PIECE_CHANGES = 100
/** What was acknowledged is written down this often. */
const FLUSH_MS = 200
/** Write times further ahead of their segment than this are no times. */
const AHEAD_MS = 30 * 86_400_000
const THROUGH_STEP_US = 100_000
const SPACE_ALARM_MS = 60_000

export interface CassandraSourceParts {
  readonly config: CassandraConfig
  readonly context: PluginContext
  readonly client: CqlClient
  readonly patterns: TablePatterns
  readonly logs: readonly NodeLog[]
  readonly tables: CapturedTables
  readonly known: KnownRows
  readonly decoder: MutationDecoder
  /** Where the log of Millrace stands; the logs may be read from before, see `KnownRows`. */
  readonly start: CassandraOffset
  /** Where the logs are read from. */
  readonly from: CassandraOffset
  /** How long after a write the log on disk may lack it, in milliseconds. */
  readonly syncMs: number
  /** Bytes of `cdc_total_space`; null: unknown. */
  readonly space: number | null
}

/** The log of one node, from its folder. */
export interface NodeLog {
  readonly directory: CdcDirectory
  readonly tail: CdcTail
}

interface Writing {
  readonly mapped: MappedTable
  readonly version: number
  readonly writer: ChangeWriter | null
}

/** A change with the table that it is of. */
interface Planned {
  readonly mapped: MappedTable
  readonly change: RowChange
}

/** See `SourceConnector`; made by `openCassandra`. */
export class CassandraSource implements SourceConnector {
  readonly start: SourceOffset
  readonly snapshot: CassandraSnapshotReader
  readonly #parts: CassandraSourceParts
  readonly #changes: RowChanges
  readonly #writing = new Map<string, Writing>()
  readonly #queries = new WeakMap<MappedTable, RowQuery>()
  /** Null: there is one log, and no copies. */
  readonly #seen: SeenMutations | null
  /** Tables that the log names and nobody knows: gone before this source looked. */
  readonly #gone = new Set<string>()
  #at: CassandraOffset
  #acknowledged: CassandraOffset
  #flushed: CassandraOffset
  #flushing: NodeJS.Timeout | null = null
  #deleting: Promise<void> | null = null
  #alarmedAt = Number.NEGATIVE_INFINITY
  /** When all that was on disk of a log had been read, in milliseconds, by folder. */
  readonly #idleAt = new Map<string, number>()
  /** Once this place is durable, changes from before a truncation that was noticed before `time` will not come any more. */
  #settled: { readonly time: number; readonly at: CassandraOffset } | null = null

  constructor(parts: CassandraSourceParts) {
    const { start, from, known, config, tables } = parts
    this.#parts = parts
    this.start = writeOffset(start)
    this.#at = { ...start, logs: from.logs }
    this.#acknowledged = from
    this.#flushed = from
    this.#seen = parts.logs.length > 1 ? new SeenMutations() : null
    this.snapshot = new CassandraSnapshotReader({ tables, known, query: (table) => this.#query(table), newest: () => this.#changes.newest })
    const isReading = (table: MappedTable) => this.snapshot.isReading(table.id)
    const isSettling = (table: MappedTable) => tables.isSettling(table.id)
    this.#changes = new RowChanges({ known, whole: config.rows === 'whole', isSettling, isReading, tokenOf }, Number(start.commit))
  }

  async tables(): Promise<readonly TableSchema[]> {
    await this.#parts.tables.refresh()
    return this.#parts.tables.list()
  }

  /** A column that is added has no values, and types do not change. */
  async isRewritten(): Promise<boolean> {
    return false
  }

  async whyAbsent({ namespace, name }: Pick<TableSchema, 'namespace' | 'name'>): Promise<string | null> {
    const { patterns, tables } = this.#parts
    if (!patterns.matches(namespace, name)) return null
    const found = tables.find(namespace, name)
    if (found === null) return 'was dropped'
    return found.cdc ? 'has counters, or a type that cannot be read' : 'is without cdc now'
  }

  async *changes(_from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const { logs, known, config, start, tables } = this.#parts
    const waker = new Waker(signal)
    output.chunks.onWaiting = () => waker.wake()
    while (!signal.aborted) {
      const lookedAt = Date.now()
      let isIdle = true
      for (const { directory, tail } of logs) {
        // first all come to where the log of Millrace stands, so that no change is written before that is known
        const isAhead = comparePlaces(this.#at.logs[directory.path]!, start.logs[directory.path]!) >= 0
        if (isAhead && isBehind(this.#at, start)) continue
        const read = await tail.next()
        if (read === null) {
          this.#idleAt.set(directory.path, lookedAt)
          continue
        }
        isIdle = false
        yield* this.#block(directory.path, read, output, signal)
        if (signal.aborted) return
      }
      const time = Math.min(...logs.map(({ directory }) => this.#idleAt.get(directory.path) ?? 0)) - this.#parts.syncMs
      if (this.#settled === null && tables.settlesBefore(time)) this.#settled = { time, at: this.#at }
      if (!isIdle) {
        // also beside a log that is busy with other tables
        if (output.chunks.size > 0 && !isBehind(this.#at, start)) await output.chunks.emit(() => true)
        continue
      }
      if (isBehind(this.#at, start)) {
        await waker.sleep(config.pollMs)
        continue
      }
      // all that was written before is streamed, once what ended by then is as well
      const through = (lookedAt - this.#parts.syncMs) * 1000
      const due = known.due(through, DUE_ROWS)
      for (const { tableId, partition, clustering } of due) {
        await this.#look(tableId, partition, clustering, output, signal)
        yield this.#offset
        if (signal.aborted) return
      }
      if (due.length === DUE_ROWS) continue
      // not at each look: each is an offset that is made durable
      if (through > this.#at.through + THROUGH_STEP_US) this.#at = { ...this.#at, through }
      yield this.#offset
      const chunks = output.chunks.emit(() => true)
      if (chunks !== null) await chunks
      else await waker.sleep(config.pollMs)
    }
  }

  get #offset(): SourceOffset {
    const { start } = this.#parts
    return writeOffset(isBehind(this.#at, start) ? start : this.#at)
  }

  async *#block(folder: string, { segment, file, block }: TailedBlock, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const { start } = this.#parts
    let unyielded = 0
    for (let i = 0; i < block.starts.length; i++) {
      if (signal.aborted) return
      const position = block.positions[i]!
      let mutation = this.#decode(block.bytes, block.starts[i]!, block.ends[i]!, file, position)
      if (mutation === null) {
        if (unyielded > 0) yield this.#offset
        unyielded = 0
        mutation = await this.#describeAndDecode(block.bytes, block.starts[i]!, block.ends[i]!, file, position)
      }
      // of what the log of Millrace has already, only what is known of rows is made up again
      const into = comparePlaces({ segment, position }, start.logs[folder]!) > 0 ? output : null
      let updates = this.#unseen(mutation)
      if (updates.length > 0) {
        let rows = new Map<string, QueriedRow | null>()
        let planned = this.#plan(updates, into === null)
        for (let wait = this.#waitFor(planned, rows, into); wait !== null; wait = this.#waitFor(planned, rows, into)) {
          // nothing is waited for between a change and its offset, so that both land together; what fails meanwhile is looked at then
          wait.catch(() => {})
          if (unyielded > 0) yield this.#offset
          unyielded = 0
          try {
            await wait
          } catch (error) {
            if (!(error instanceof MillraceError) || error.code !== 'source.unprepared') throw error
            // the rows of a table that has changed since: it is read by what the table is now, unless that is the same
            const anew = await this.#describeAndDecode(block.bytes, block.starts[i]!, block.ends[i]!, file, position)
            const before = updates
            updates = this.#unseen(anew)
            // what was read is of the columns from before
            rows = new Map()
            if (updates.every(({ table }) => before.some((update) => update.table === table))) throw error
          }
          if (signal.aborted) return
          planned = this.#plan(updates, into === null)
        }
        unyielded += this.#take(updates, planned, rows, into, { segment, position, file })
      }
      this.#at = { ...this.#at, logs: { ...this.#at.logs, [folder]: { segment, position } } }
      if (unyielded < PIECE_CHANGES) continue
      yield this.#offset
      unyielded = 0
    }
    yield this.#offset
  }

  #unseen({ updates }: Mutation): readonly PartitionUpdate[] {
    return this.#seen === null ? updates : updates.filter((update) => !this.#seen!.has(update, writtenAt(update)))
  }

  /** Null: something must be described first. */
  #decode(bytes: Buffer, from: number, to: number, file: string, position: number): Mutation | null {
    const mutation = this.#parts.decoder.decode(bytes, from, to, file, position)
    const { unread } = mutation
    return unread === null || (unread.column === null && this.#gone.has(unread.table) && !unread.mayHoldCaptured) ? mutation : null
  }

  /** @throws source.protocol when the tables as they are now do not help */
  async #describeAndDecode(bytes: Buffer, from: number, to: number, file: string, position: number): Promise<Mutation> {
    const { tables, decoder } = this.#parts
    await tables.refresh()
    const mutation = decoder.decode(bytes, from, to, file, position)
    const { unread } = mutation
    if (unread === null) return mutation
    if (unread.mayHoldCaptured) {
      const what = unread.column === null ? `of a table ${unread.table} that is gone` : `with a column ${unread.column} of table ${unread.table} that is gone`
      throw segmentError(`a change ${what}, and with it one of a captured table`, file, position)
    }
    if (unread.column === null) this.#gone.add(unread.table)
    return mutation
  }

  #plan(updates: readonly PartitionUpdate[], again: boolean): Planned[] {
    return updates.flatMap((update) => {
      const mapped = this.#parts.tables.of(update.table)
      return this.#changes.of(update, mapped, again).map((change) => ({ mapped, change }))
    })
  }

  /** What must be there before these changes are written; null: all is. */
  #waitFor(planned: readonly Planned[], rows: Map<string, QueriedRow | null>, into: CaptureOutput | null): Promise<unknown> | null {
    const missing = planned.filter(({ mapped, change }) => change.kind === 'read' && !rows.has(nameOf(mapped, change)))
    if (missing.length > 0) return this.#read(missing, rows)
    if (into === null) return null
    for (const { mapped } of planned) if (!this.#isReady(mapped, into)) return this.#openWriter(mapped, into)
    return into.chunks.size === 0 ? null : into.chunks.emit(() => true)
  }

  /** A connection of the driver takes 2,048 requests, and one entry of the log may need more rows. */
  async #read(missing: readonly Planned[], rows: Map<string, QueriedRow | null>): Promise<void> {
    const left = [...missing].reverse()
    const work = async () => {
      for (let one = left.pop(); one !== undefined; one = left.pop()) {
        const { key } = one.change
        rows.set(nameOf(one.mapped, one.change), await this.#query(one.mapped).one(key.partition, key.clustering!))
      }
    }
    try {
      await Promise.all(Array.from({ length: READS_AT_ONCE }, work))
    } finally {
      // the others read no more once one has failed
      left.length = 0
    }
  }

  #isReady(mapped: MappedTable, into: CaptureOutput): boolean {
    const writing = this.#writing.get(mapped.id)
    return writing?.mapped === mapped && writing.version === into.tablesVersion
  }

  async #openWriter(mapped: MappedTable, into: CaptureOutput): Promise<void> {
    const version = into.tablesVersion
    this.#writing.set(mapped.id, { mapped, version, writer: await into.table(mapped.table) })
  }

  /** Writes one entry of the log, without waiting. @returns how many changes it made */
  #take(
    updates: readonly PartitionUpdate[],
    planned: readonly Planned[],
    rows: ReadonlyMap<string, QueriedRow | null>,
    into: CaptureOutput | null,
    place: { readonly segment: number; readonly position: number; readonly file: string },
  ): number {
    let newest: WriteTime = 0
    for (const update of updates) {
      const time = writtenAt(update)
      if (time > newest) newest = time
      this.#seen?.add(update, time)
    }
    const most = (place.segment + AHEAD_MS) * 1000
    const time = newest > most ? null : Number(newest)
    if (time !== null && time > this.#changes.newest) this.#changes.newest = time
    if (into === null) {
      this.#parts.known.begin(this.#at.commit)
    } else {
      const commit = this.#nextCommit(time)
      into.transaction({
        commit,
        committedAt: time === null || time <= 0 ? commit : BigInt(time),
        source: [place.file, BigInt(place.position), BigInt(newest)],
      })
    }
    for (const [n, { mapped, change }] of planned.entries()) this.#apply(mapped, change, rows, into, 2 * n + 1)
    return planned.length
  }

  /** The write time where it is later than the change before. One that is ahead of this clock would put all that follows behind what an audit sees. */
  #nextCommit(time: number | null): bigint {
    const next = this.#at.commit + 1n
    const at = BigInt(Math.min(time ?? 0, Date.now() * 1000))
    const commit = at > next ? at : next
    this.#at = { ...this.#at, commit }
    this.#parts.known.begin(commit)
    return commit
  }

  #apply(mapped: MappedTable, change: RowChange, rows: ReadonlyMap<string, QueriedRow | null>, into: CaptureOutput | null, ordinal: number): void {
    const { known } = this.#parts
    const { partition, clustering } = change.key
    let next: KnownRow = { ...change.known, unsure: false }
    if (change.kind === 'read') {
      const row = rows.get(nameOf(mapped, change)) ?? null
      if (row !== null) this.#write(mapped, into, ordinal, 'u', change.key, row.values)
      else if (change.before?.alive === true) this.#write(mapped, into, ordinal, 'd', change.key, null)
      next = row === null ? { ...next, alive: false, marked: false, due: 0 } : { ...next, due: dueOf(row) }
    } else if (change.kind === 'delete') this.#write(mapped, into, ordinal, 'd', change.key, null)
    else if (change.kind === 'set') this.#write(mapped, into, ordinal, change.op, change.key, change.values)
    // what the log of Millrace was told then may be something else: such rows are looked at once more
    const isUnsure = into === null && clustering !== null && (next.alive || change.kind === 'read')
    if (isUnsure) next = { ...next, alive: true, unsure: true, due: next.due === 0 ? Number(next.writtenAt) : next.due }
    known.note(mapped.id, partition, clustering, next)
  }

  #write(
    mapped: MappedTable,
    into: CaptureOutput | null,
    ordinal: number,
    op: 'c' | 'u' | 'd',
    key: RowChange['key'],
    values: readonly (Buffer | null | undefined)[] | null,
  ): void {
    if (into === null) return
    const { writer } = this.#writing.get(mapped.id)!
    if (writer === null) {
      into.skip(mapped.table)
      return
    }
    if (!writer.begin(op, ordinal)) return
    if (values === null) {
      writer.key()
      writeKey(writer, mapped, key)
    } else {
      writer.after()
      writeRow(writer, mapped, key, values)
    }
    writer.end()
  }

  /** A row that may have ended, or lost its last column: what has become of it is read, and written when it is something else. */
  async #look(tableId: string, partition: Buffer, clustering: Buffer, output: CaptureOutput, signal: AbortSignal): Promise<void> {
    const { tables, known } = this.#parts
    const mapped = tables.byId(tableId)
    const before = known.find(tableId, partition, clustering)
    if (before === null || !before.alive) return
    const isCaptured = tables.current(mapped.table.namespace, mapped.table.name)?.id === tableId
    const row = isCaptured ? await this.#query(mapped).one(partition, clustering) : null
    if (isCaptured) {
      const nothing: Planned[] = [{ mapped, change: { kind: 'note', key: { partition, clustering }, known: before } }]
      for (let wait = this.#waitFor(nothing, new Map(), output); wait !== null; wait = this.#waitFor(nothing, new Map(), output)) {
        await wait
        if (signal.aborted) return
      }
    }
    const commit = this.#nextCommit(null)
    if (isCaptured && (row === null || before.due > before.writtenAt)) {
      output.transaction({ commit, committedAt: BigInt(Date.now()) * 1000n, source: [null, null, null] })
      this.#write(mapped, output, 1, row === null ? 'd' : 'u', { partition, clustering }, row?.values ?? null)
    }
    known.note(
      tableId,
      partition,
      clustering,
      row === null ? { ...before, alive: false, marked: false, due: 0 } : { ...before, unsure: false, due: dueOf(row) },
    )
  }

  #query(mapped: MappedTable): RowQuery {
    let query = this.#queries.get(mapped)
    if (query === undefined) {
      query = new RowQuery(this.#parts.client, mapped, this.#parts.config.consistency)
      this.#queries.set(mapped, query)
    }
    return query
  }

  acknowledge(offset: SourceOffset): void {
    const at = readOffset(offset)
    if (at.commit < this.#acknowledged.commit || isBehind(at, this.#acknowledged)) return
    this.#acknowledged = at
    this.#flushing ??= setTimeout(() => this.#flush(), FLUSH_MS)
  }

  /** First what is known of rows, then the segments that nothing is needed of any more. */
  #flush(): void {
    this.#flushing = null
    const at = this.#acknowledged
    // the logs may not have been read again up to there
    if (at === this.#flushed || isBehind(this.#at, at)) return
    this.#parts.known.flush(at.commit, writeOffset(at))
    this.#flushed = at
    if (this.#settled !== null && !isBehind(at, this.#settled.at)) {
      this.#parts.tables.settle(this.#settled.time)
      this.#settled = null
    }
    this.#deleting ??= this.#deleteBefore(at).finally(() => {
      this.#deleting = null
    })
  }

  async #deleteBefore({ logs }: CassandraOffset): Promise<void> {
    for (const { directory } of this.#parts.logs) {
      try {
        for (const one of await directory.list()) if (one.id < logs[directory.path]!.segment && one.hasIndex) await directory.delete(one)
      } catch (error) {
        const why = 'segments that are captured cannot be deleted: writes to tables with cdc are refused once the space is full'
        this.#parts.context.logger.warn({ err: error, directory: directory.path }, why)
      }
    }
  }

  async lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }> {
    const { logs, space, context, config } = this.#parts
    let retainedBytes = 0
    let behindBytes = 0
    let fullest = 0
    for (const { directory, tail } of logs) {
      const segments = (await directory.list()).filter(({ hasIndex }) => hasIndex)
      const bytes = await directory.bytes(segments)
      retainedBytes += bytes
      fullest = Math.max(fullest, bytes)
      const { segment, position } = tail.place
      for (const one of segments) {
        if (one.id < segment) continue
        const until = (await directory.index(one))?.until ?? 0
        behindBytes += Math.max(0, until - (one.id === segment ? position : 0))
      }
    }
    context.metric('cassandra_cdc_bytes', retainedBytes, 'gauge')
    if (space !== null) {
      context.metric('cassandra_cdc_space_used', fullest / space, 'gauge')
      if (fullest > config.spaceAlarm * space && performance.now() - this.#alarmedAt > SPACE_ALARM_MS) {
        this.#alarmedAt = performance.now()
        context.logger.warn(
          { bytes: fullest, cdcTotalSpace: space, fix: 'see what holds this node up: `millrace status FILE`; or raise cdc_total_space' },
          'the space for CDC segments fills: when it is full, the database refuses writes to tables with cdc',
        )
      }
    }
    return { retainedBytes, behindBytes }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { logs, known, client } = this.#parts
    if (this.#flushing !== null) {
      clearTimeout(this.#flushing)
      this.#flush()
    }
    await this.#deleting
    for (const { tail } of logs) await tail[Symbol.asyncDispose]()
    await client[Symbol.asyncDispose]()
    known[Symbol.dispose]()
  }
}

function nameOf(mapped: MappedTable, { key }: RowChange): string {
  return `${mapped.id} ${key.partition.length} ${key.partition.toString('latin1')}${key.clustering!.toString('latin1')}`
}

/** Of the newest thing that the update says. */
function writtenAt({ deletion, staticRow, rows, ranges }: PartitionUpdate): WriteTime {
  let newest: WriteTime = 0
  const take = (time: WriteTime) => {
    if (time > newest) newest = time
  }
  if (deletion !== null) take(deletion.writtenAt)
  if (staticRow !== null) take(newestOf(staticRow))
  for (const row of rows) take(newestOf(row))
  for (const range of ranges) take(range.writtenAt)
  return newest
}

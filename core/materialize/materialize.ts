import { asMillraceError, MillraceError } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { type FrameRecord, records } from '../event/record-batch.ts'
import { SNAPSHOT_ENTRY, type SnapshotProgress } from '../event/snapshot-progress.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { Log, LogBatch, LogPosition, LogWriter } from '../log/log.ts'
import { RecordDecoders } from '../schema/record-decoder.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { Alignment } from './alignment.ts'
import { DeadLetterBox, deadLetterOf } from './dead-letter.ts'
import type { MemoryBudget } from './memory-budget.ts'
import { OpenBatch } from './open-batch.ts'
import { type RetryPolicy, retrying, STOPPED } from './retry.ts'
import { changeConverter, fillFromBefore } from './shape-conversion.ts'
import type { Rejection, SinkConnector } from './sink-connector.ts'
import { StreamReader } from './stream-reader.ts'

export type { RetryPolicy } from './retry.ts'

export interface MaterializeOptions {
  /** Name of the sink node. */
  readonly node: string
  readonly topic: string
  readonly log: Log
  readonly registry: SchemaRegistry
  /** Stays open; the caller closes it. */
  readonly sink: SinkConnector
  /** Opens a writer for dead letters, when the first comes; null: a rejection stops the node. */
  readonly deadLetters: (() => Promise<LogWriter>) | null
  readonly retry: RetryPolicy
  /** Shared by all drivers of the process. */
  readonly memory: MemoryBudget
  readonly onStatus: (status: MaterializeStatus) => void
  readonly signal: AbortSignal
}

export interface MaterializeStatus {
  /** `degraded`: something can't be reached; it is tried again for ever. */
  readonly state: 'running' | 'degraded'
  /** Why it is degraded. */
  readonly error: MillraceError | null
  /** Changes applied, and records rejected, since this driver started. */
  readonly rows: number
  readonly rejected: number
  /** What the target holds. */
  readonly positions: readonly LogPosition[]
  /** Age of the last applied change: when it was applied if nothing waits, else now. Null before the first. */
  readonly lagMs: number | null
  /** Records in the log that are not applied; null when it is not known yet. */
  readonly behindRecords: number | null
}

/** The log's end is asked for this often at most. */
const BOUNDS_MS = 500

/**
 * Keeps one sink equal to one stream until `signal` aborts; the apply under way is finished then, and no other begun. Resumes from the target's own positions.
 *
 * A batch closes at the sink's limits or when the table's shape changes. What can't be reached is tried again for ever; records that the sink refuses,
 * and those that can't be decoded, become dead letters that are durable before the positions move past them.
 * @throws every other error: schema, history (log.position_lost), config, conflict; record.rejected and record.malformed without dead letters
 */
export async function materialize(options: MaterializeOptions): Promise<void> {
  await using driver = new Driver(options)
  try {
    await driver.run()
  } catch (error) {
    if (error !== STOPPED) throw error
  }
}

class Driver implements AsyncDisposable {
  readonly #options: MaterializeOptions
  readonly #decoders: RecordDecoders
  readonly #letters: DeadLetterBox | null
  readonly #alignment = new Alignment()
  /** Next offset to read, and the one that the target holds, by partition. */
  readonly #read = new Map<number, bigint>()
  readonly #applied = new Map<number, bigint>()
  readonly #converters = new Map<TableSchema, ReturnType<typeof changeConverter>>()
  readonly #shapes = new Set<TableSchema>()
  #table: TableSchema | null = null
  /** Greatest position among the changes taken so far. */
  #newest: Position | null = null
  #batch: OpenBatch
  #fillsFromBefore = false
  #ends = new Map<number, bigint>()
  #endsAt = 0
  /** Bytes of the budget that were taken for a frame and are not in the open batch yet. */
  #reserved = 0
  #rows = 0
  #rejected = 0
  #lastCommittedMs: number | null = null
  #latencyMs: number | null = null
  #error: MillraceError | null = null

  constructor(options: MaterializeOptions) {
    this.#options = options
    this.#decoders = new RecordDecoders(options.registry)
    this.#letters = options.deadLetters === null ? null : new DeadLetterBox(options.node, options.log, options.deadLetters)
    this.#batch = new OpenBatch(options.topic)
  }

  async run(): Promise<void> {
    const { sink, topic, signal } = this.#options
    for (const position of await this.#retrying(() => sink.committed())) {
      if (position.topic === topic) this.#applied.set(position.partition, position.offset)
    }
    for (const [partition, offset] of this.#applied) this.#read.set(partition, offset)
    await this.#retrying(() => this.#refreshEnds())
    for (const [partition, offset] of this.#applied) {
      const end = this.#ends.get(partition)
      if (end === undefined || offset > end) throw foreignLog(topic, partition, offset, end)
    }
    this.#report()
    while (!signal.aborted) await this.#retrying(() => this.#readOn())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#release(this.#batch)
    this.#options.memory.give(this.#reserved)
    await this.#letters?.[Symbol.asyncDispose]()
  }

  /** Reads until partitions must be chosen anew, or the log fails. */
  async #readOn(): Promise<void> {
    const { log, topic, signal } = this.#options
    const partitions = [...this.#read.keys()].filter((partition) => this.#runs(partition))
    if (partitions.length === 0) return this.#align()
    const known = this.#read.size
    const from = partitions.map((partition) => ({ topic, partition, offset: this.#read.get(partition)! }))
    const reader = new StreamReader(log, from, signal)
    let moved = false
    try {
      while (this.#read.size === known && partitions.every((partition) => this.#runs(partition))) {
        const got = await reader.next(this.#dueMs() ?? BOUNDS_MS)
        if (got === 'end') {
          if (signal.aborted) throw STOPPED
          throw new MillraceError('log.unreachable', `the log ended the reading of ${topic}`)
        }
        if (got !== 'due') {
          if (this.#error !== null) this.#recovered()
          moved = true
          await this.#take(got)
        }
        if (this.#dueMs() === 0) await this.#flush()
        if (Date.now() - this.#endsAt >= BOUNDS_MS) {
          await this.#retrying(() => this.#refreshEnds())
          this.#report()
        }
      }
    } catch (error) {
      // After progress the waits start from the shortest again.
      if (!moved || !(error instanceof MillraceError) || error.category !== 'unavailable') throw error
      this.#degraded(error)
    } finally {
      await reader.close()
    }
  }

  #runs(partition: number): boolean {
    return this.#alignment.runs(partition, this.#read.get(partition)!)
  }

  /** Milliseconds until the open batch is old enough; null when there is nothing to apply, or no table yet to apply it to. */
  #dueMs(): number | null {
    const { openedAt } = this.#batch
    if (openedAt !== null && this.#table !== null && this.#options.memory.pressed) return 0
    return openedAt === null || this.#table === null ? null : Math.max(0, openedAt + this.#options.sink.limits.ageMs - Date.now())
  }

  async #take(batch: LogBatch): Promise<void> {
    const { sink, signal } = this.#options
    const { partition } = batch
    const from = this.#read.get(partition)
    if (from === undefined || batch.nextOffset <= from) return
    await this.#reserve(batch.frame.length)
    // The log's frame is only valid until the next is asked for, and rejected records are sent on as they were.
    const frame = Buffer.from(batch.frame)
    await this.#retrying(() => this.#decoders.prepare(frame))
    this.#batch.begin(frame, partition)
    this.#batch.sizeBytes += frame.length
    this.#reserved -= frame.length
    this.#batch.openedAt ??= Date.now()
    for (const record of records(frame)) {
      if (record.offset < from) continue
      if (signal.aborted) throw STOPPED
      const decoded = this.#decode(frame, record, partition)
      let change = decoded instanceof Promise ? await decoded : decoded
      if (change !== null) {
        if (change.table !== this.#table || change.kind === 'truncate') {
          const shaped = await this.#shaped(change, partition, record.offset)
          if (shaped === 'held') return
          change = shaped
          this.#batch.openedAt ??= Date.now()
          if (this.#batch.changes.length === 0) this.#batch.begin(frame, partition)
        }
        if (change.kind === 'row' && change.before !== null && this.#fillsFromBefore) change = fillFromBefore(change)
        this.#batch.add(change, record.offset)
        if (this.#newest === null || comparePositions(change.position, this.#newest) > 0) this.#newest = change.position
      }
      this.#read.set(partition, record.offset + 1n)
      if (this.#batch.changes.length >= sink.limits.rows && !opensKeyChange(change)) {
        await this.#flush()
        this.#batch.begin(frame, partition)
        this.#batch.openedAt ??= Date.now()
      }
    }
    this.#read.set(partition, batch.nextOffset)
    if (this.#batch.sizeBytes >= sink.limits.bytes) await this.#flush()
  }

  /** I8: takes room for a frame; without room the own batch goes first. */
  async #reserve(bytes: number): Promise<void> {
    const { memory, signal } = this.#options
    if (!memory.tryTake(bytes)) {
      await this.#flush()
      await memory.take(bytes, signal)
      if (signal.aborted) throw STOPPED
    }
    this.#reserved += bytes
  }

  #release(batch: OpenBatch): void {
    this.#options.memory.give(batch.sizeBytes)
    batch.sizeBytes = 0
  }

  /** Null: a tombstone, or a record that became a dead letter. */
  #decode(frame: Buffer, record: FrameRecord, partition: number): RowChange | Truncation | null | Promise<null> {
    try {
      const event = this.#decoders.decode(frame, record)
      return event === null || event.kind === 'message' ? null : event
    } catch (thrown) {
      const error = asMillraceError(thrown)
      if (error.code !== 'record.malformed') throw error
      if (this.#letters === null) return this.#flush().then(() => Promise.reject(error))
      this.#batch.malformed.push(deadLetterOf(frame, record, this.#options.topic, partition, error.code, error.message))
      return null
    }
  }

  /** The change in the shape of the open batch. Closes that batch when another shape begins; `held` when other partitions have to come here first. */
  async #shaped(change: RowChange | Truncation, partition: number, offset: bigint): Promise<RowChange | Truncation | 'held'> {
    const other = change.table !== this.#table
    if (other && this.#shapes.has(change.table) && this.#newest !== null && comparePositions(change.position, this.#newest) <= 0) {
      return this.#converterOf(change.table)(change)
    }
    if (this.#read.size > 1) {
      if (!this.#alignment.active) await this.#retrying(() => this.#refreshEnds())
      this.#alignment.hold(partition, change, offset, new Map(this.#ends))
      return 'held'
    }
    if (other) await this.#prepare(change.table)
    return change
  }

  #converterOf(table: TableSchema): ReturnType<typeof changeConverter> {
    let convert = this.#converters.get(table)
    if (convert === undefined) this.#converters.set(table, (convert = changeConverter(table, this.#table!)))
    return convert
  }

  async #prepare(table: TableSchema): Promise<void> {
    await this.#flush()
    await this.#retrying(() => this.#options.sink.prepare(table))
    this.#table = table
    this.#fillsFromBefore = table.columns.some((column) => column.mayBeUnchanged)
    this.#shapes.add(table)
    this.#converters.clear()
  }

  /** All partitions are where the earliest waiting record wants them. */
  async #align(): Promise<void> {
    await this.#flush()
    const release = this.#alignment.release()
    if (release.kind === 'shape') return this.#prepare(release.table)
    if (release.table !== this.#table) await this.#prepare(release.table)
    this.#batch.openedAt = Date.now()
    const [lowest] = [...release.offsets.values()]
    this.#batch.add({ kind: 'truncate', table: release.table, position: release.position, committedAt: 0n }, lowest!)
    for (const [partition, offset] of release.offsets) this.#read.set(partition, offset + 1n)
    await this.#flush()
  }

  /** Applies what is open and moves the target's positions. Without a table yet there is nothing to apply to: the positions move later. */
  async #flush(): Promise<void> {
    const table = this.#table
    const batch = this.#batch
    const { sink, topic, signal, memory, log } = this.#options
    if (batch.openedAt === null) return
    if (table === null) return this.#flushLetters()
    const positions = [...this.#read].map(([partition, offset]) => ({ topic, partition, offset }))
    if (batch.malformed.length > 0) await this.#retrying(() => this.#letters!.send(batch.malformed))
    const announced = new Set<number>()
    const superseded = new Set<number>()
    const onRejected = async (rejections: readonly Rejection[]): Promise<void> => {
      const fresh = rejections.filter(({ index }) => !announced.has(index))
      if (fresh.length === 0) return
      const brought = fresh.some(({ missingBase }) => missingBase === true) ? await this.#retrying(() => snapshotEnd(log, topic, table)) : null
      for (const { index, missingBase } of fresh) {
        if (missingBase === true && brought !== null && isCovered(brought, batch.changes[index]!.position)) superseded.add(index)
      }
      const lost = fresh.filter(({ index }) => !superseded.has(index))
      if (lost.length > 0) {
        if (this.#letters === null) throw rejectedError(table, topic, lost)
        await this.#letters.send(batch.rejected(lost))
      }
      for (const { index } of fresh) announced.add(index)
    }
    // I3: the positions move only past what was applied or is a durable dead letter
    const rejections = await this.#retrying(
      () => memory.inTurn(() => sink.apply({ table, changes: batch.changes, positions, onRejected }, signal)),
      () => this.#release(batch),
    )
    this.#release(batch)
    // For a sink that did not announce them: a crash between its commit and here would lose these letters.
    await onRejected(rejections)
    for (const { partition, offset } of positions) this.#applied.set(partition, offset)
    this.#rows += batch.changes.length - announced.size
    this.#rejected += announced.size - superseded.size + batch.malformed.length
    const last = batch.changes.findLast((change) => change.committedAt !== 0n)
    if (last !== undefined) {
      this.#lastCommittedMs = Number(last.committedAt / 1000n)
      this.#latencyMs = Math.max(0, Date.now() - this.#lastCommittedMs)
    }
    this.#batch = new OpenBatch(topic)
    this.#report()
  }

  /** Nothing but undecodable records so far: their letters are sent, so that they need no memory; the positions move with the first change. */
  async #flushLetters(): Promise<void> {
    const { malformed, sizeBytes } = this.#batch
    if (sizeBytes < this.#options.sink.limits.bytes) return
    if (malformed.length > 0) await this.#retrying(() => this.#letters!.send(malformed))
    this.#rejected += malformed.length
    this.#release(this.#batch)
    this.#batch = new OpenBatch(this.#options.topic)
    this.#report()
  }

  /** Ends of the partitions; new ones are read from their beginning, as are those that the target never had. */
  async #refreshEnds(): Promise<void> {
    const { log, topic } = this.#options
    for (const { partition, end } of await log.bounds(topic)) {
      this.#ends.set(partition, end)
      if (!this.#read.has(partition)) this.#read.set(partition, 0n)
    }
    this.#endsAt = Date.now()
  }

  /** @param onFailure called at each failure that is tried again */
  #retrying<T>(work: () => Promise<T>, onFailure: () => void = () => {}): Promise<T> {
    const { retry, signal } = this.#options
    let failed = false
    return retrying(work, retry, signal, (error) => {
      failed = true
      onFailure()
      this.#degraded(error)
    }).then((result) => {
      if (failed) this.#recovered()
      return result
    })
  }

  #degraded(error: MillraceError): void {
    this.#error = error
    this.#report()
  }

  #recovered(): void {
    this.#error = null
    this.#report()
  }

  #report(): void {
    const behind = [...this.#ends].reduce((total, [partition, end]) => {
      const left = end - (this.#applied.get(partition) ?? 0n)
      return total + (left > 0n ? Number(left) : 0)
    }, 0)
    this.#options.onStatus({
      state: this.#error === null ? 'running' : 'degraded',
      error: this.#error,
      rows: this.#rows,
      rejected: this.#rejected,
      positions: [...this.#applied].map(([partition, offset]) => ({ topic: this.#options.topic, partition, offset })),
      lagMs: this.#lastCommittedMs !== null && behind > 0 ? Math.max(0, Date.now() - this.#lastCommittedMs) : this.#latencyMs,
      behindRecords: this.#ends.size === 0 ? null : behind,
    })
  }
}

/** Up to where the snapshot of a stream's table brings whole rows: `all` while it is read, null when it never was. */
async function snapshotEnd(log: Log, topic: string, table: TableSchema): Promise<Position | 'all' | null> {
  const source = topic.slice(0, topic.indexOf('.'))
  const entry = (await log.progress(source)).get(SNAPSHOT_ENTRY + tableId(table)) as SnapshotProgress | undefined
  if (entry === undefined) return null
  if (!entry.done) return 'all'
  return entry.at === undefined ? null : { commit: BigInt(entry.at.commit), ordinal: entry.at.ordinal }
}

/** An update that came before the chunk with its row: the row has come since, or will. */
function isCovered(end: Position | 'all', position: Position): boolean {
  return end === 'all' || comparePositions(position, end) <= 0
}

function foreignLog(topic: string, partition: number, offset: bigint, end: bigint | undefined): MillraceError {
  const ends = end === undefined ? 'the topic has no such partition' : `the log ends at ${end}`
  return new MillraceError('log.position_lost', `the target holds partition ${partition} of ${topic} up to offset ${offset}, but ${ends}: it is another log`, {
    fix: 'give the sink the log that it was made from, or a new target that is made from this log',
  })
}

/** The delete half of an update that changes the key: its insert, which may need the old row's values, should be in the same batch. */
function opensKeyChange(change: RowChange | Truncation | null): boolean {
  return change?.kind === 'row' && change.op === 'd' && change.position.ordinal % 2 === 0
}

function rejectedError(table: TableSchema, topic: string, rejections: readonly Rejection[]): MillraceError {
  const more = rejections.length === 1 ? '' : ` (and ${rejections.length - 1} more)`
  return new MillraceError('record.rejected', `the sink rejects a change of ${tableId(table)} on ${topic}: ${rejections[0]!.reason}${more}`, {
    fix: 'correct the row in the source, or set onRejected: dead-letter on the sink',
  })
}

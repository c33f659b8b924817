import { asMillraceError, MillraceError } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { type FrameRecord, records } from '../event/record-batch.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import { viewOf } from '../event/view-of.ts'
import type { Log, LogBatch, LogPosition, LogWriter } from '../log/log.ts'
import { type RetryPolicy, retrying, STOPPED } from '../retry.ts'
import { RecordDecoders } from '../schema/record-decoder.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { DeadLetterBox, deadLetterOf } from './dead-letter.ts'
import type { LandedWindows } from './landed-windows.ts'
import type { MemoryBudget } from './memory-budget.ts'
import { OpenBatch, type TakenChanges } from './open-batch.ts'
import { foreignLog, recallWindows } from './recall-windows.ts'
import { Rejections } from './rejections.ts'
import { changeConverter, fillFromBefore } from './shape-conversion.ts'
import type { Rejection, SinkConnector } from './sink-connector.ts'
import { SourceOrder } from './source-order.ts'
import { StreamReader } from './stream-reader.ts'

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
  /** Masks secrets in what becomes durable. */
  readonly redact: (text: string) => string
  readonly retry: RetryPolicy
  /** Shared by all drivers of the sink. */
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
  /** What became of the changes up to `positions`, by window; null when the target does not say. */
  readonly windows: LandedWindows | null
}

/** The log's end is asked for this often at most. */
const BOUNDS_MS = 500
/** A schema that the registry lacks is asked for again for so long. */
const SCHEMA_MS = 15_000
/** A limit after every change: all but an open half of a changed key. */
const LATEST: Position = { commit: 0xffff_ffff_ffff_ffffn, ordinal: 0xffff_ffff }

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
  readonly #order = new SourceOrder()
  readonly #batch: OpenBatch
  /** Next offset to read, and the one that the target holds, by partition. */
  readonly #read = new Map<number, bigint>()
  readonly #applied = new Map<number, bigint>()
  readonly #converters = new Map<TableSchema, ReturnType<typeof changeConverter>>()
  #table: TableSchema | null = null
  /** Position of the last delete read, by partition. */
  readonly #deleted = new Map<number, Position>()
  /** Greatest position among the changes applied. */
  #newest: Position | null = null
  #fillsFromBefore = false
  #windows: LandedWindows | null = null
  #ends = new Map<number, bigint>()
  /** When these were asked for: epoch milliseconds, and by `performance.now()`. */
  #endsAt = 0
  #boundsAt = 0
  /** A moment at which the target had all that was in the log, see `ReadFrom`; null: not known. */
  #asOf: number | null = null
  /** Where the log ended at a moment, until the target has come to it. */
  #mark: { readonly at: number; readonly ends: ReadonlyMap<number, bigint> } | null = null
  /** Bytes of the budget that were taken for a frame and are not in the open batch yet. */
  #reserved = 0
  /** A flush is worth its while from so many changes on. */
  #flushAt: number
  /** Nothing that waits can be applied before more is read. */
  #stalled = false
  /** What waits needs its room: only the partition that it waits for is read. */
  #onlySlowest = false
  #rows = 0
  #rejected = 0
  #lastCommittedMs: number | null = null
  #latencyMs: number | null = null
  #error: MillraceError | null = null

  constructor(options: MaterializeOptions) {
    this.#options = options
    this.#decoders = new RecordDecoders(options.registry)
    this.#letters = options.deadLetters === null ? null : new DeadLetterBox(options.node, options.log, options.deadLetters, options.redact)
    this.#batch = new OpenBatch(options.topic)
    this.#flushAt = options.sink.limits.rows
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
      if (end !== undefined && offset <= end) continue
      const ends = end === undefined ? 'the topic has no such partition' : `the log ends at ${end}`
      throw foreignLog(`the target holds partition ${partition} of ${topic} up to offset ${offset}, but ${ends}`)
    }
    const positions = this.#positionsOf(this.#applied)
    this.#windows = await this.#retrying(() => recallWindows({ sink, topic, positions, log: this.#options.log, decoders: this.#decoders, signal }))
    this.#asOf ??= positions.every(({ offset }) => offset === 0n) ? this.#endsAt : (this.#windows?.asOfMs ?? null)
    this.#report()
    while (!signal.aborted) await this.#retrying(() => this.#readOn())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#options.memory.give(this.#batch.disown() + this.#reserved)
    await this.#letters?.[Symbol.asyncDispose]()
  }

  /** Reads until partitions must be chosen anew, or the log fails. */
  async #readOn(): Promise<void> {
    const { log, topic, signal } = this.#options
    const partitions = this.#partitionsToRead()
    const asOfMs = () => this.#asOf
    const from = partitions.map((partition) => ({ topic, partition, offset: this.#read.get(partition)!, asOfMs }))
    const reader = new StreamReader(log, from, signal)
    let moved = false
    try {
      while (sameItems(partitions, this.#partitionsToRead())) {
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
        if (performance.now() - this.#boundsAt >= BOUNDS_MS) {
          await this.#retrying(() => this.#refreshEnds())
          this.#stalled = false
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

  #partitionsToRead(): readonly number[] {
    const slowest = this.#onlySlowest ? this.#order.slowest(this.#read) : null
    return slowest === null ? [...this.#read.keys()] : [slowest]
  }

  /** Milliseconds until the open batch is old enough; null when there is nothing to apply. */
  #dueMs(): number | null {
    const { openedAt } = this.#batch
    const { memory, sink } = this.#options
    if (openedAt === null || this.#stalled) return null
    if (this.#table === null && this.#batch.size === 0) return null
    return memory.pressed || this.#onlySlowest ? 0 : Math.max(0, openedAt + sink.limits.ageMs - performance.now())
  }

  async #take(batch: LogBatch): Promise<void> {
    const { sink, signal } = this.#options
    const { partition } = batch
    const from = this.#read.get(partition)
    if (from === undefined || batch.nextOffset <= from) return
    await this.#reserve(batch.frame.length)
    // without room, first what the others wait for: this frame is read again
    if (!this.#partitionsToRead().includes(partition)) return this.#giveReserved()
    // The log's frame is only valid until the next is asked for, and rejected records are sent on as they were.
    const frame = Buffer.from(batch.frame)
    await this.#learnSchemas(frame)
    this.#batch.begin(frame, partition, batch.baseOffset)
    this.#reserved -= frame.length
    this.#stalled = false
    const view = viewOf(frame)
    for (const record of records(frame)) {
      if (record.offset < from) continue
      if (signal.aborted) throw STOPPED
      const decoded = this.#decode(frame, record, partition)
      const change = decoded instanceof Promise ? await decoded : decoded
      if (change !== null && !this.#isDone(change, partition)) {
        this.#batch.add(change, record, view)
        if (this.#read.size > 1) this.#order.saw(partition, change.position)
      }
      this.#read.set(partition, record.offset + 1n)
      if (this.#batch.size >= this.#flushAt) await this.#flush()
    }
    this.#read.set(partition, batch.nextOffset)
    this.#decoders.release()
    this.#options.memory.give(this.#batch.end())
    if (this.#batch.sizeBytes >= sink.limits.bytes) await this.#flush()
  }

  /** A tombstone whose delete came right before it: compaction left both. */
  #isDone(change: RowChange | Truncation, partition: number): boolean {
    if (change.kind !== 'row' || change.op !== 'd') return false
    const last = this.#deleted.get(partition)
    this.#deleted.set(partition, change.position)
    return change.isTombstone === true && last !== undefined && comparePositions(last, change.position) === 0
  }

  /** I8: takes room for a frame. Without room the own batch goes first; what cannot go yet stays, and only what it waits for is read. */
  async #reserve(bytes: number): Promise<void> {
    const { memory, signal } = this.#options
    if (memory.tryTake(bytes)) {
      this.#reserved += bytes
      return
    }
    await this.#flush()
    await this.#sendMalformed()
    if (this.#batch.size > 0) this.#narrow()
    if (await memory.take(bytes, signal)) this.#reserved += bytes
    if (signal.aborted) throw STOPPED
  }

  #giveReserved(): void {
    this.#options.memory.give(this.#reserved)
    this.#reserved = 0
  }

  /** Waiting for room with room of its own, a driver could wait for ever for others that do the same. */
  #narrow(): void {
    this.#onlySlowest = true
    this.#options.memory.give(this.#batch.disown())
  }

  /** A schema may reach the registry's other servers a moment after the first record that has it. */
  async #learnSchemas(frame: Buffer): Promise<void> {
    const deadline = performance.now() + SCHEMA_MS
    await this.#retrying(async () => {
      const unknown = await this.#decoders.prepare(frame)
      if (unknown !== null && performance.now() < deadline) throw new MillraceError('registry.unreachable', `the registry does not have schema ${unknown} yet`)
    })
  }

  /** Null: a tombstone that capture did not write, or a record that became a dead letter. */
  #decode(frame: Buffer, record: FrameRecord, partition: number): RowChange | Truncation | null | Promise<null> {
    try {
      const event = this.#decoders.decode(frame, record)
      return event === null || event.kind === 'message' ? null : event
    } catch (thrown) {
      const error = asMillraceError(thrown)
      if (error.code !== 'record.malformed') throw error
      if (this.#letters === null) return this.#flush().then(() => Promise.reject(error))
      this.#batch.addMalformed(deadLetterOf(frame, record, this.#options.topic, partition, error.code, error.message))
      return null
    }
  }

  #converterOf(table: TableSchema): ReturnType<typeof changeConverter> {
    let convert = this.#converters.get(table)
    if (convert === undefined) this.#converters.set(table, (convert = changeConverter(table, this.#table!)))
    return convert
  }

  async #prepare(table: TableSchema): Promise<void> {
    await this.#retrying(() => this.#options.sink.prepare(table))
    this.#table = table
    this.#fillsFromBefore = table.columns.some((column) => column.mayBeUnchanged)
    this.#converters.clear()
  }

  /** Applies what may be applied of the open batch, and moves the target's positions. */
  async #flush(): Promise<void> {
    const batch = this.#batch
    const { sink, memory } = this.#options
    if (batch.openedAt === null) return
    const waited = batch.size
    const taken = batch.take(await this.#limit(), this.#read.size > 1)
    for (let from = 0; from < taken.changes.length; ) {
      const to = await this.#shapeRun(taken, from)
      await this.#apply(taken, from, to)
      from = to
    }
    if (waited === 0) await this.#apply(taken, 0, 0)
    this.#stalled = batch.size > 0
    this.#flushAt = batch.size + sink.limits.rows
    if (batch.size === 0 && !batch.isReading) batch.openedAt = null
    else if (batch.size < waited) batch.openedAt = performance.now()
    if (batch.size >= 2 * sink.limits.rows || (batch.size > 0 && (memory.pressed || batch.sizeBytes >= sink.limits.bytes))) this.#narrow()
    else if (batch.size < sink.limits.rows && !memory.pressed) this.#onlySlowest = false
  }

  /** How far the open batch may be applied. Ends are asked for anew only when all that they cover is applied, so that they are not run after. */
  async #limit(): Promise<Position | 'all' | null> {
    const batch = this.#batch
    const several = this.#read.size > 1
    if (!several && !batch.endsWithOpenKeyChange) return 'all'
    const limit = this.#order.limit(this.#read)
    if (limit !== 'all') return several ? limit : LATEST
    const covered = batch.lastCovered((partition, offset) => this.#order.covers(partition, offset))
    if (covered !== null) return covered
    const bounds = await this.#retrying(() => this.#options.log.bounds(this.#options.topic, 'written'))
    this.#order.written = new Map(bounds.map(({ partition, end }) => [partition, end]))
    const anew = this.#order.limit(this.#read)
    return several || anew === 'all' ? anew : LATEST
  }

  /** Brings changes from `from` on into the shape of the first; the target follows it, unless it is older. @returns the end of those that share it */
  async #shapeRun(taken: TakenChanges, from: number): Promise<number> {
    const { changes } = taken
    for (let at = from; at < changes.length; at++) {
      let change = changes[at]!
      const isLate = this.#newest !== null && comparePositions(change.position, this.#newest) <= 0
      if (change.table !== this.#table) {
        if (isLate && this.#table !== null) change = this.#converterOf(change.table)(change)
        else if (at > from) return at
        else await this.#prepare(change.table)
      }
      if (change.kind === 'truncate' && this.#read.size > 1 && !isSameTruncation(changes[at - 1], change)) {
        // what comes before it lands also when it is refused
        if (at > from) return at
        this.#checkTruncation(changes, change, isLate)
      }
      if (change.kind === 'row' && change.before !== null && this.#fillsFromBefore) change = fillFromBefore(change)
      changes[at] = change
      if (!isLate) this.#newest = change.position
    }
    return changes.length
  }

  /** @throws log.corrupt when a truncation is not in all partitions */
  #checkTruncation(changes: readonly (RowChange | Truncation)[], truncation: Truncation, isLate: boolean): void {
    const found = changes.filter((change) => isSameTruncation(change, truncation)).length
    // I3: of one with a key compaction may have left fewer; what supersedes the others comes later
    if ((found >= this.#read.size || truncation.isKeyed === true) && !isLate) return
    const where = `in ${found} of the ${this.#read.size} partitions of its topic`
    throw new MillraceError('log.corrupt', `the truncation of ${tableId(truncation.table)} is ${where}${isLate ? ', or comes again' : ''}`, {
      fix: 'give the sink a new target and read the table again; use exactly-once delivery, or one partition, for tables that are truncated',
    })
  }

  /** Where the target stands once the changes before `next` are applied: at the first that is not, in each partition. */
  #positions(taken: TakenChanges, next: number): readonly LogPosition[] {
    const offsets = new Map(this.#read)
    const lower = (partition: number, offset: bigint) => {
      if (offset < offsets.get(partition)!) offsets.set(partition, offset)
    }
    taken.places(next, lower)
    this.#batch.places(lower)
    return this.#positionsOf(offsets)
  }

  #positionsOf(offsets: ReadonlyMap<number, bigint>): readonly LogPosition[] {
    return [...offsets].map(([partition, offset]) => ({ topic: this.#options.topic, partition, offset }))
  }

  /** Applies changes of one shape and moves the target's positions. Without a table yet there is nothing to apply to: the positions move later. */
  async #apply(taken: TakenChanges, from: number, to: number): Promise<void> {
    const table = this.#table
    const { sink, signal, memory } = this.#options
    const positions = this.#positions(taken, to)
    // before the first change there is no position to move, so they wait
    if (table !== null || this.#batch.sizeBytes >= sink.limits.bytes) await this.#sendMalformed(positions)
    if (table === null || (from === to && positions.every(({ partition, offset }) => this.#applied.get(partition) === offset))) return
    const run = taken.slice(from, to)
    const rejections = new Rejections(this.#options, this.#letters, table, run, (work) => this.#retrying(work))
    let windows = this.#windows
    const memo = (): string | null => {
      windows = this.#windows?.with(run.windows(), run.windows(rejections.lost), run.windows(rejections.superseded), this.#asOf) ?? null
      return windows?.toText(positions, this.#options.log.identity) ?? null
    }
    const onRejected = (some: readonly Rejection[]): Promise<void> => rejections.take(some)
    // I3: the positions move only past what was applied or is a durable dead letter
    const rejected = await this.#retrying(
      () => memory.inTurn(() => sink.apply({ table, changes: run.changes, positions, memo, onRejected }, signal)),
      // while its sink is away a driver reads no further, and its room is for the others
      () => memory.give(this.#batch.disown()),
    )
    // For a sink that did not announce them: an end between its commit and here would lose these letters.
    const announced = rejections.count
    await this.#retrying(() => rejections.take(rejected))
    if (windows === this.#windows || rejections.count > announced) memo()
    this.#windows = windows
    memory.give(this.#batch.released(run.release()))
    for (const { partition, offset } of positions) this.#applied.set(partition, offset)
    this.#reachMark()
    this.#rows += run.changes.length - rejections.count
    this.#rejected += rejections.lost.length
    const last = run.changes.findLast((change) => change.committedAt !== 0n)
    if (last !== undefined) {
      this.#lastCommittedMs = Number(last.committedAt / 1000n)
      this.#latencyMs = Math.max(0, Date.now() - this.#lastCommittedMs)
    }
    this.#report()
  }

  /** Letters of what could not be decoded before these positions; of all, without. */
  async #sendMalformed(positions?: readonly LogPosition[]): Promise<void> {
    const letters = this.#batch.lettersBefore(positions)
    if (letters.length === 0) return
    await this.#retrying(() => this.#letters!.send(letters))
    this.#rejected += letters.length
    this.#options.memory.give(this.#batch.sent(letters))
  }

  /** Ends of the partitions; new ones are read from their beginning, as are those that the target never had. */
  async #refreshEnds(): Promise<void> {
    const { log, topic } = this.#options
    const at = Date.now()
    for (const { partition, end } of await log.bounds(topic)) {
      this.#ends.set(partition, end)
      if (!this.#read.has(partition)) this.#read.set(partition, 0n)
    }
    if (this.#read.size === 0) throw new MillraceError('log.unreachable', `the log does not know the partitions of ${topic} yet`)
    this.#endsAt = Date.now()
    this.#boundsAt = performance.now()
    this.#mark ??= { at, ends: new Map(this.#ends) }
    this.#reachMark()
  }

  #reachMark(): void {
    if (this.#mark === null || ![...this.#mark.ends].every(([partition, end]) => (this.#applied.get(partition) ?? 0n) >= end)) return
    this.#asOf = this.#mark.at
    this.#mark = null
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
      // what was read is there, however old the ends are
      const left = later(end, this.#read.get(partition)) - (this.#applied.get(partition) ?? 0n)
      return total + (left > 0n ? Number(left) : 0)
    }, 0)
    this.#options.onStatus({
      state: this.#error === null ? 'running' : 'degraded',
      error: this.#error,
      rows: this.#rows,
      rejected: this.#rejected,
      positions: this.#positionsOf(this.#applied),
      lagMs: this.#lastCommittedMs !== null && behind > 0 ? Math.max(0, Date.now() - this.#lastCommittedMs) : this.#latencyMs,
      behindRecords: this.#ends.size === 0 ? null : behind,
      windows: this.#windows,
    })
  }
}

function later(end: bigint, read = 0n): bigint {
  return read > end ? read : end
}

function sameItems(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i])
}

function isSameTruncation(change: RowChange | Truncation | undefined, truncation: Truncation): boolean {
  return change?.kind === 'truncate' && comparePositions(change.position, truncation.position) === 0
}

import { setTimeout as delay } from 'node:timers/promises'
import { asMillraceError, isOfOneTable, MillraceError } from '../errors.ts'
import type { Json, SourceOffset } from '../event/offset.ts'
import type { Position } from '../event/position.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { EncodedBatch, Log, LogWriter } from '../log/log.ts'
import { envelopeSchemaOf, keySchemaOf, TRUNCATION_KEY_SCHEMA, truncationSubject } from '../schema/avro-mapping.ts'
import { AvroWriter } from '../schema/avro-writer.ts'
import { avroName } from '../schema/names.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { CapturedWindows, type DurableWindows } from './captured-windows.ts'
import { TableWriter } from './change-writer.ts'
import { ChunkedSnapshot, type SnapshotSettings, type TableSnapshotStatus } from './chunked-snapshot.ts'
import { FrameAssembler } from './frame-assembler.ts'
import type { ParkedStatus } from './parked-tables.ts'
import type { CaptureOutput, SnapshotFence, SourceConnector, TransactionStart } from './source-connector.ts'
import { commitBase, setAside } from './start-over.ts'
import { TableIntake } from './table-intake.ts'
import { WriterState } from './writer-state.ts'

/** Under load a batch is closed at this size, or after this time. */
const BATCH_BYTES = 512 * 1024
const LINGER_MS = 10
/** And at a slow rate this long after the one before at the least: each costs a sync, and a thousand a second are enough. */
const SPACING_MS = 1
/** Within that time one more goes on its way while one is under way, so that the log's next round trip finds it there. */
const PIPELINED = 2
/** The source is not read while this much is on its way to the log. */
const MAX_BATCHES = 8
const MAX_BYTES = 8 * 1024 * 1024
/** On a source without changes of ours the offset is made durable this often, so that its log can be recycled. */
const IDLE_PROGRESS_MS = 1000
/** The source is asked for new tables this often. */
const TABLES_POLL_MS = 2000
const STATUS_MS = 250

export interface TopicSettings {
  readonly partitions: number
  readonly retentionMs: number | null
  readonly compacted: boolean
  readonly replicationFactor: number | null
}

export interface CaptureOptions {
  /** The node's name: prefix of its topics, and `source.name` in envelopes. */
  readonly node: string
  readonly connector: SourceConnector
  readonly plugin: {
    readonly name: string
    readonly version: string
    readonly sourceFields: readonly { readonly name: string; readonly type: 'long' | 'string' }[]
  }
  /** `source.db` in envelopes. */
  readonly database: string
  readonly log: Log
  /** Closed when the capture fails. */
  readonly writer: LogWriter
  readonly registry: SchemaRegistry
  readonly topics: TopicSettings
  readonly snapshot: SnapshotSettings
  /** Called a few times a second once the source's tables are known: before that nothing that is said of them would be true. */
  readonly onStatus: (status: CaptureStatus) => void
  readonly signal: AbortSignal
}

export interface CaptureStatus {
  /** Changes and bytes durable in the log since this capture started. */
  readonly rows: number
  readonly bytes: number
  readonly state: 'snapshotting' | 'running'
  /** Age of the last change when it became durable, in milliseconds; null before the first. */
  readonly lagMs: number | null
  readonly snapshot: readonly TableSnapshotStatus[]
  /** Tables that cannot go on, while the others do. */
  readonly parked: readonly ParkedStatus[]
  readonly offset: SourceOffset
  /** The audit's windows as they are in the log, by topic. */
  readonly windows: ReadonlyMap<string, DurableWindows>
}

/** Topic of a table: the stream that consumers name. */
export function topicOf(node: string, table: Pick<TableSchema, 'namespace' | 'name'>): string {
  return `${node}.${topicPart(table.namespace)}.${topicPart(table.name)}`
}

/** Kafka's legal characters only; others, and what looks like the reversible form of Avro names, in that form. */
function topicPart(name: string): string {
  return /^[a-zA-Z0-9_-]+$/.test(name) && !/__x[0-9a-f]*_/.test(name) ? name : avroName(name)
}

/**
 * Runs one source into the log until `signal` aborts: snapshot beside stream, exactly the changes after the node's durable progress, in order.
 * Resolves after a graceful stop, when all that was written is durable; with `parked` when the log refused a record of a table, which is parked now: nothing
 * of that batch is there, and the node is to be started again from its durable progress.
 * @throws MillraceError of the source, the log or the registry; the node may be started again from its durable progress
 */
export async function capture(options: CaptureOptions): Promise<'stopped' | 'parked'> {
  return await new Capture(options).run()
}

class Capture implements CaptureOutput {
  readonly #options: CaptureOptions
  readonly #frames = new FrameAssembler()
  readonly #state = new WriterState()
  readonly #snapshot: ChunkedSnapshot
  readonly #writers = new Map<string, { readonly table: TableSchema; readonly writer: TableWriter }>()
  readonly #opening = new Map<string, Promise<TableWriter>>()
  readonly #topics = new Set<string>()
  readonly #windows: CapturedWindows
  readonly #intake: TableIntake
  readonly #stop = new AbortController()
  /** The last change that the durable progress of the start names: changes at or before it are in the log. */
  readonly #resume: { readonly commit: bigint; readonly ordinal: number } | null
  /** Added to the source's commits. */
  readonly #base: bigint
  #commit: bigint
  #offset: SourceOffset
  #durable: SourceOffset | null = null
  #failure: MillraceError | null = null
  #areTablesKnown = false

  #inflight = 0
  #inflightBytes = 0
  #lastSeal = 0
  #spacing: NodeJS.Timeout | null = null
  #lastProgress = 0
  #free: (() => void) | null = null
  #rows = 0
  #bytes = 0
  #lagMs: number | null = null

  constructor(options: CaptureOptions) {
    this.#options = options
    const { progress } = options.writer
    const position = progress.get('position') as { commit: string; ordinal: number } | undefined
    this.#resume = position === undefined ? null : { commit: BigInt(position.commit), ordinal: position.ordinal }
    this.#base = commitBase(progress)
    this.#windows = new CapturedWindows(progress)
    this.#commit = this.#resume?.commit ?? this.#base
    this.#offset = (progress.get('offset') as SourceOffset | undefined) ?? options.connector.start
    this.#state.commit = this.#commit
    this.#state.lastOrdinal = this.#resume?.ordinal ?? 0
    this.#snapshot = new ChunkedSnapshot(
      options.connector.snapshot,
      options.snapshot,
      (table) => this.#intake.chunkWriter(table),
      (readAt, first) => this.#beforeChunk(readAt, first),
      () => this.#position,
      (fence) => this.#seesLog(fence),
    )
    this.#intake = new TableIntake({
      node: options.node,
      connector: options.connector,
      progress,
      snapshot: this.#snapshot,
      writerFor: (table) => this.#writerFor(table),
      position: () => this.#position,
      compacted: options.topics.compacted,
    })
  }

  get chunks(): ChunkedSnapshot {
    return this.#snapshot
  }

  async run(): Promise<'stopped' | 'parked'> {
    const { connector, signal } = this.#options
    const stop = () => this.#stop.abort()
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
    // by a timer, so that an idle source's end of a snapshot is told, and its last offset durable, without its saying something more
    const timer = setInterval(() => {
      this.#report()
      this.#snapshot.streamed()
      if (this.#failure === null && this.#frames.count === 0) this.#flush()
    }, STATUS_MS)
    try {
      this.#refuseUndone()
      this.#refuseOutdated()
      await this.#takeUpTables()
      this.#areTablesKnown = true
      // I1: a new slot's start must be durable before anything depends on it
      if (!this.#options.writer.progress.has('offset')) await this.#append(true)
      if (this.#failure !== null) throw this.#failure
      this.#durable = this.#offset
      connector.acknowledge(this.#offset)
      this.#snapshot.start(this.#stop.signal, (error, table) => this.#failReading(error, table))
      const poll = this.#pollTables()
      for await (const offset of connector.changes(this.#offset, this, this.#stop.signal)) {
        this.#offset = offset
        this.#state.tick()
        this.#snapshot.streamed()
        this.#flush()
        if (this.#failure !== null) break
        // I8: what is on its way to the log is bounded, and the source waits
        while (this.#inflight >= MAX_BATCHES || this.#inflightBytes >= MAX_BYTES) await new Promise<void>((resolve) => (this.#free = resolve))
      }
      stop()
      await poll
      await this.#settled()
      if (this.#failure === null && this.#frames.count > 0) await this.#append(false)
    } catch (error) {
      this.#fail(error)
    } finally {
      clearInterval(timer)
      if (this.#spacing !== null) clearTimeout(this.#spacing)
      stop()
      signal.removeEventListener('abort', stop)
    }
    if (this.#failure !== null) {
      // what is on its way lands, and counts, or fails and comes again
      await this.#options.writer[Symbol.asyncDispose]()
      await this.#settled()
    }
    this.#report()
    if (this.#failure === null) return 'stopped'
    if (await this.#setAside(this.#failure)) return 'parked'
    throw this.#failure
  }

  /** Waits until nothing is on its way to the log. */
  async #settled(): Promise<void> {
    while (this.#inflight > 0) await new Promise<void>((resolve) => (this.#free = resolve))
  }

  /** I10: a record that the log refuses has failed the writer, so that another parks its table. @returns false when the error is of no table */
  async #setAside(error: MillraceError): Promise<boolean> {
    const { node, log } = this.#options
    const refused = error.topic === undefined || !isOfOneTable(error) ? undefined : this.#writers.get(error.topic)
    if (refused === undefined) return false
    await using writer = await log.openWriter(node)
    await writer.append({ frames: [], count: 0, progress: setAside(writer.progress, node, tableId(refused.table), error) })
    return true
  }

  transaction(start: TransactionStart): void {
    const state = this.#state
    const commit = start.commit + this.#base
    const resume = this.#resume
    if (resume !== null && commit <= resume.commit) {
      // I7: sent again: what the log holds already is refused by the writers. I2: what else is written meanwhile, a chunk, comes after all that the log holds
      state.skipThrough = commit === resume.commit ? resume.ordinal : Number.POSITIVE_INFINITY
    } else {
      state.commit = commit
      state.lastOrdinal = 0
      state.skipThrough = -1
      this.#commit = commit
    }
    state.describe(start.committedAt, start.source)
  }

  /** Rows of a chunk belong to no transaction of the source: they take the time of their view. @returns whether the log's rows have to go first */
  #beforeChunk(readAt: bigint, first: TableSchema | null): boolean {
    const replaced = first !== null && this.#intake.beforeReading(first)
    const { sourceFields } = this.#options.plugin
    this.#state.describe(
      readAt,
      sourceFields.map(() => null),
    )
    return replaced
  }

  #seesLog(fence: SnapshotFence): boolean {
    const last = this.#resume === null ? 0n : this.#resume.commit - this.#base
    return last <= 0n || this.#options.connector.snapshot.sees(fence, last)
  }

  get #position(): Position {
    return { commit: this.#commit, ordinal: this.#state.lastOrdinal }
  }

  get tablesVersion(): number {
    return this.#intake.version
  }

  table(schema: TableSchema): Promise<TableWriter | null> {
    return this.#intake.writer(schema)
  }

  park(table: Pick<TableSchema, 'namespace' | 'name'>, error: unknown): void {
    this.#intake.leaveOut(table, error)
  }

  skip(table: Pick<TableSchema, 'namespace' | 'name'>): void {
    this.#intake.skip(table)
  }

  shape(table: Pick<TableSchema, 'namespace' | 'name'>): TableSchema | null {
    return this.#intake.shape(table)
  }

  reread(table: Pick<TableSchema, 'namespace' | 'name'>): void {
    this.#snapshot.reread(table, false)
  }

  #failReading(error: unknown, table: TableSchema): void {
    try {
      this.#intake.failReading(table, error)
    } catch (other) {
      this.#fail(other)
    }
  }

  #report(): void {
    if (!this.#areTablesKnown) return
    this.#options.onStatus({
      rows: this.#rows,
      bytes: this.#bytes,
      state: this.#snapshot.done ? 'running' : 'snapshotting',
      lagMs: this.#lagMs,
      snapshot: this.#snapshot.status(),
      parked: this.#intake.parked(),
      offset: this.#durable ?? this.#offset,
      windows: this.#windows.durable,
    })
  }

  /** @throws source.identity_changed when the log has a part of a transaction that the source's present history does not have */
  #refuseUndone(): void {
    const { connector, node } = this.#options
    if (connector.forkedAt === undefined || this.#resume === null || this.#resume.commit - this.#base < connector.forkedAt) return
    throw new MillraceError(
      'source.identity_changed',
      `the log has a part of a transaction (commit ${this.#resume.commit - this.#base}) that the source's present history, another one from ${connector.forkedAt} on, does not have`,
      { fix: `millrace run FILE --resnapshot ${node}` },
    )
  }

  /** @throws config.unsupported when the plugin was made before core asked what a view shows */
  #refuseOutdated(): void {
    if (typeof this.#options.connector.snapshot.sees === 'function') return
    throw new MillraceError('config.unsupported', `the snapshot of the plugin ${this.#options.plugin.name} has no method \`sees\``, {
      fix: 'add it, as in docs/how-to/write-a-source.md',
    })
  }

  // ---- tables ----

  async #takeUpTables(): Promise<void> {
    const tables = await this.#options.connector.tables()
    const fresh = tables.filter((table) => !this.#topics.has(topicOf(this.#options.node, table)))
    await this.#ensureTopics(fresh)
    await this.#intake.take(tables)
  }

  async #pollTables(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      await delay(TABLES_POLL_MS, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      try {
        await this.#takeUpTables()
      } catch (error) {
        if (!signal.aborted) this.#fail(error)
        return
      }
    }
  }

  async #ensureTopics(tables: readonly TableSchema[]): Promise<void> {
    const { node, log, topics } = this.#options
    const specs = tables.map((table) => ({ topic: topicOf(node, table), ...topics })).filter(({ topic }) => !this.#topics.has(topic))
    if (specs.length === 0) return
    await log.ensureTopics(specs)
    for (const { topic } of specs) this.#topics.add(topic)
  }

  /** One writer per topic and shape; the shape's schemas are registered once. */
  #writerFor(table: TableSchema): Promise<TableWriter> {
    const topic = topicOf(this.#options.node, table)
    const known = this.#writers.get(topic)
    if (known !== undefined && known.table === table) return Promise.resolve(known.writer)
    const shape = `${topic}\n${this.#valueSchema(table)}`
    let opening = this.#opening.get(shape)
    if (opening === undefined) {
      opening = this.#openWriter(topic, table)
      this.#opening.set(shape, opening)
      opening.catch(() => this.#opening.delete(shape))
    }
    return opening
  }

  #valueSchema(table: TableSchema): string {
    const { node, plugin } = this.#options
    return envelopeSchemaOf(table, { recordNamespace: this.#recordNamespace(node, table), sourceFields: plugin.sourceFields })
  }

  #recordNamespace(node: string, table: TableSchema): string {
    return [node, table.namespace, table.name].map(avroName).join('.')
  }

  async #openWriter(topic: string, table: TableSchema): Promise<TableWriter> {
    const { node, registry, plugin, database, topics } = this.#options
    await this.#ensureTopics([table])
    const valueSchema = this.#valueSchema(table)
    const keySchema = table.key.length === 0 ? null : keySchemaOf(table, this.#recordNamespace(node, table))
    const [value, key, truncationKey] = await Promise.all([
      registry.register(`${topic}-value`, valueSchema),
      keySchema === null ? 0 : registry.register(`${topic}-key`, keySchema),
      topics.compacted ? registry.register(truncationSubject(topic), TRUNCATION_KEY_SCHEMA) : null,
    ])
    const prefix = new AvroWriter(256)
    for (const text of [plugin.version, plugin.name, node, database, table.namespace, table.name]) prefix.string(text)
    const target = {
      topic,
      partitions: topics.partitions,
      keySchemaId: key,
      valueSchemaId: value,
      sourcePrefix: prefix.buffer.subarray(0, prefix.at),
      truncationKeyId: truncationKey,
      ledger: this.#windows.ledger(topic),
    }
    const writer = new TableWriter(table, target, this.#state, this.#frames, this.#intake.gate(table))
    this.#writers.set(topic, { table, writer })
    return writer
  }

  // ---- batches ----

  /** Closes a batch when it is full, has waited, or little is on its way. */
  #flush(): void {
    const now = performance.now()
    if (this.#frames.count === 0) {
      const idle =
        this.#offset !== this.#durable && now - this.#lastProgress >= IDLE_PROGRESS_MS && JSON.stringify(this.#offset) !== JSON.stringify(this.#durable)
      if (this.#inflight === 0 && (idle || this.#snapshot.hasProgress || this.#intake.hasProgress)) void this.#append(true)
      return
    }
    const waitedMs = now - this.#lastSeal
    if (waitedMs >= LINGER_MS || this.#frames.bytes >= BATCH_BYTES) void this.#append(false)
    else if (this.#inflight < PIPELINED) {
      if (waitedMs >= SPACING_MS) void this.#append(false)
      else this.#spacing ??= setTimeout(() => this.#spaced(), SPACING_MS)
    }
  }

  #spaced(): void {
    this.#spacing = null
    if (this.#failure === null && this.#frames.count > 0) this.#flush()
  }

  async #append(offsetOnly: boolean): Promise<void> {
    if (this.#failure !== null) return
    const offset = this.#offset
    const count = this.#frames.count
    const bytes = this.#frames.bytes
    const frames = offsetOnly ? [] : this.#frames.take()
    const committedAt = this.#state.committedAt
    const progress = new Map<string, Json | null>([['offset', offset]])
    if (count > 0) progress.set('position', { commit: this.#commit.toString(), ordinal: this.#state.lastOrdinal })
    this.#snapshot.takeProgress(progress)
    this.#intake.takeProgress(progress)
    this.#windows.takeProgress(new Set(frames.map((frame) => frame.topic)), progress)
    const batch: EncodedBatch = { frames, count: offsetOnly ? 0 : count, progress }
    this.#inflight++
    this.#inflightBytes += bytes
    this.#lastSeal = performance.now()
    this.#lastProgress = this.#lastSeal
    try {
      await this.#options.writer.append(batch)
      this.#windows.landed(progress)
      // I1: acknowledged only here, once durable
      this.#durable = offset
      this.#rows += batch.count
      this.#bytes += bytes
      if (batch.count > 0) this.#lagMs = Math.max(0, Date.now() - Number(committedAt / 1000n))
      for (const frame of frames) this.#frames.give(frame.buffer)
      this.#options.connector.acknowledge(offset)
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#inflight--
      this.#inflightBytes -= bytes
      const free = this.#free
      this.#free = null
      free?.()
    }
    if (this.#failure === null && this.#frames.count > 0) this.#flush()
  }

  #fail(error: unknown): void {
    this.#failure ??= asMillraceError(error)
    this.#stop.abort()
    this.#free?.()
  }
}

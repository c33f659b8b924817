import {
  asMillraceError,
  type CaptureOutput,
  type ChangeWriter,
  foreignOffset,
  MillraceError,
  type PluginContext,
  type SourceConnector,
  type SourceOffset,
  type TableSchema,
  tableId,
  type Value,
  Waker,
} from '../../core/plugin.ts'
import type { Catalog, CatalogReader, CatalogTable } from './catalog.ts'
import { committedAt, type FeedMessage, imagesOf, keyValues, type RowImages, reading, resolvedOf, rowValues } from './changefeed-message.ts'
import type { CockroachdbConfig } from './cockroachdb-config.ts'
import type { ChangeFeed } from './feed-queue.ts'
import { GcWatch } from './gc-watch.ts'
import { type BufferedRow, OrderBuffer } from './order-buffer.ts'
import { SinklessFeed } from './sinkless-feed.ts'
import { ChunkReader } from './snapshot-reader.ts'
import type { SqlSession } from './sql-session.ts'
import type { WebhookEndpoint } from './webhook-endpoint.ts'
import { WebhookFeed } from './webhook-feed.ts'

/** Bytes of rows that are written between two yields. */
const PIECE_BYTES = 64 * 1024
/** Without tables there is no changefeed that says the time. */
const NO_TABLES_MS = 1000

export interface CockroachdbOffset {
  /** Every change up to this nanosecond's end was written, and none after it. */
  readonly wall: string
  readonly cluster: string | null
}

/** @throws source.identity_changed when this source did not write it */
export function readOffset(offset: SourceOffset): CockroachdbOffset {
  const { wall, cluster } = offset
  if (typeof wall !== 'string' || !(cluster === null || typeof cluster === 'string')) throw foreignOffset('CockroachDB')
  return { wall, cluster }
}

/** What a row's change writes. */
interface Images {
  readonly op: 'c' | 'u' | 'd'
  readonly before: readonly Value[] | null
  readonly after: readonly Value[] | null
  readonly key: readonly Value[]
}

/** See `SourceConnector`; made by `openCockroachdb`. */
export class CockroachdbSource implements SourceConnector {
  readonly start: SourceOffset
  readonly snapshot: ChunkReader
  readonly #config: CockroachdbConfig
  readonly #context: PluginContext
  readonly #sql: SqlSession
  readonly #reader: CatalogReader
  readonly #cluster: string | null
  readonly #endpoint: WebhookEndpoint | null
  readonly #buffer: OrderBuffer
  #following: ChangeFeed | null = null
  readonly #gc: GcWatch
  /** The stream stands after this nanosecond: all up to it is written, and what is of it is being written. */
  #wall: bigint
  #movedAt = performance.now()
  /** As of the end of what is being written, and of what was written before. */
  #tables: Catalog
  #earlier: Catalog
  /** As of where the stream stood when it had an offset last: these the changefeed of that offset has. */
  #listed: Catalog
  readonly #writers = new Map<TableSchema, ChangeWriter | null>()
  #writersVersion = -1
  /** Tables that a changefeed could not have: not asked for again until the stream is there. */
  readonly #refused = new Map<string, { readonly until: bigint; readonly times: number }>()

  constructor(
    config: CockroachdbConfig,
    context: PluginContext,
    sql: SqlSession,
    reader: CatalogReader,
    from: {
      readonly wall: bigint
      readonly tables: Catalog
      readonly cluster: string | null
      readonly endpoint: WebhookEndpoint | null
    },
  ) {
    this.#config = config
    this.#context = context
    this.#sql = sql
    this.#reader = reader
    this.#wall = from.wall
    this.#tables = from.tables
    this.#earlier = from.tables
    this.#listed = from.tables
    this.#cluster = from.cluster
    this.#endpoint = from.endpoint
    this.#buffer = new OrderBuffer(context.dataDir, config.memoryBytes)
    this.#gc = new GcWatch(sql, reader, context)
    this.start = this.#offset(from.wall)
    this.snapshot = new ChunkReader(sql, reader, {
      streamedTo: () => this.#wall,
      heldMs: () => performance.now() - this.#movedAt,
      follows: (id) => this.#targets().some(({ schema }) => tableId(schema) === id),
    })
  }

  #offset(wall: bigint): SourceOffset {
    return { wall: wall.toString(), cluster: this.#cluster }
  }

  /** As of where the stream stands: a table that is listed can be read there, and its changes follow. */
  async tables(): Promise<readonly TableSchema[]> {
    return [...this.#listed.values()].map(({ schema }) => schema)
  }

  async whyAbsent(table: Pick<TableSchema, 'namespace' | 'name'>): Promise<string | null> {
    const rows = await this.#sql.query(
      'to look for a table',
      'SELECT 1 FROM information_schema.tables WHERE table_catalog = current_database() AND table_schema = $1 AND table_name = $2',
      [table.namespace, table.name],
    )
    return rows.length === 0 ? 'was dropped or renamed' : null
  }

  async isRewritten(before: TableSchema, now: TableSchema): Promise<boolean> {
    const filled = this.#tables.get(tableId(now))?.filled ?? this.#earlier.get(tableId(now))?.filled
    return now.columns.some(({ id, sourceType }) => {
      const old = before.columns.find((column) => column.id === id)
      return old === undefined ? filled === undefined || filled.has(id) : old.sourceType !== sourceType
    })
  }

  async *changes(from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    this.#wall = BigInt(readOffset(from).wall)
    const waker = new Waker(signal)
    while (!signal.aborted) {
      const targets = this.#targets()
      this.#buffer.clear()
      if (targets.length === 0) yield* this.#withoutTables(output, signal, waker)
      else yield* this.#feed(targets, output, signal)
    }
  }

  /** Follows one changefeed until other tables are to be followed. */
  async *#feed(targets: readonly CatalogTable[], output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const topics = new Map(targets.flatMap((table) => table.topics.map((topic) => [topic, tableId(table.schema)] as const)))
    const since = this.#wall
    let read = 0
    // what fails while rows are written is not the changefeed's, and the stream stands within a commit then
    let writing = false
    try {
      await using feed = await this.#open(targets)
      this.#following = feed
      const wake = () => feed.wake()
      signal.addEventListener('abort', wake, { once: true })
      output.chunks.onWaiting = wake
      while (!signal.aborted) {
        let bound = this.#wall
        for (const message of await feed.next()) {
          const place = ++read
          const where = () => `message ${place} of the changefeed since ${since}${message.table === null ? '' : `, of ${message.table},`}`
          bound = this.#arrive(message, topics, bound, where)
        }
        if (bound > this.#wall) {
          writing = true
          yield* this.#write(bound, output, signal)
          writing = false
          if (!sameTables(targets, this.#targets())) return
        } else {
          await dueChunks(this.#wall + 1n, output)
          yield this.#offset(this.#wall)
        }
      }
    } catch (error) {
      if (signal.aborted) return
      if (writing) throw error
      await this.#refuse(error, targets, output)
    } finally {
      this.#following = null
      output.chunks.onWaiting = null
    }
  }

  #open(targets: readonly CatalogTable[]): Promise<ChangeFeed> {
    if (this.#endpoint === null) return SinklessFeed.open(this.#config, targets, this.#wall)
    return WebhookFeed.open(this.#endpoint, this.#sql, this.#config, this.#context, targets, this.#wall)
  }

  /** @returns up to which nanosecond's end all has come */
  #arrive(message: FeedMessage, topics: ReadonlyMap<string, string>, bound: bigint, where: () => string): bigint {
    if (message.table === null) {
      // the nanosecond of a resolved timestamp itself may not be complete
      const complete = resolvedOf(message.value, where).wall - 1n
      return complete > bound ? complete : bound
    }
    const id = topics.get(message.table)
    if (id === undefined) throw new MillraceError('source.protocol', `${where()} is of a table that was not asked for`, { fix: 'report this' })
    const at = committedAt(message.value, where)
    // sent again; what is complete never changes
    if (at.wall > this.#wall) this.#buffer.add(at, id, message.key, message.value)
    return bound
  }

  /** Writes all that was committed up to the end of a nanosecond, in order of commit. */
  async *#write(bound: bigint, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const now = await this.#reader.at(bound)
    this.#earlier = this.#tables
    this.#tables = now
    let written = this.#wall
    let begun: bigint | null = null
    let ordinal = 0
    let bytes = 0
    for (const row of this.#buffer.upTo(bound)) {
      if (row.at.wall !== begun) {
        if (begun !== null) written = begun
        // without a pause from the last answer to the move: a view that is taken in between would be older than what is written next
        for (let waiting = dueChunks(row.at.wall, output); waiting !== null; waiting = dueChunks(row.at.wall, output)) await waiting
        if (signal.aborted) return
        begun = row.at.wall
        ordinal = 0
        // a chunk whose view is taken from here on shows the whole of this nanosecond
        this.#moveTo(begun)
        output.transaction({ commit: begun, committedAt: begun / 1000n, source: [`${begun}.${String(row.at.logical).padStart(10, '0')}`] })
      }
      await this.#change(row, 2 * ordinal++ + 1, output)
      bytes += row.size
      if (bytes < PIECE_BYTES) continue
      bytes = 0
      yield this.#offset(written)
      if (signal.aborted) return
    }
    for (let waiting = dueChunks(bound + 1n, output); waiting !== null; waiting = dueChunks(bound + 1n, output)) await waiting
    if (signal.aborted) return
    this.#moveTo(bound)
    yield this.#offset(bound)
    // only now: rows of a table that is new must not land with an offset from which a changefeed would not have it
    this.#listed = now
  }

  #moveTo(wall: bigint): void {
    this.#wall = wall
    this.#movedAt = performance.now()
  }

  async #change(row: BufferedRow, ordinal: number, output: CaptureOutput): Promise<void> {
    const where = () => `the change of ${row.table} that was committed at ${row.at.wall}`
    const found = await this.#read(row, where)
    const { namespace, name } = (this.#tables.get(row.table) ?? this.#earlier.get(row.table))?.schema ?? nameOf(row.table)
    if (found instanceof MillraceError) {
      output.park({ namespace, name }, found)
      output.skip({ namespace, name })
      return
    }
    const writer = await this.#writer(found.schema, output)
    if (writer === null) output.skip({ namespace, name })
    else if (writer.begin(found.images.op, ordinal)) {
      const { before, after, key } = found.images
      if (before !== null) {
        writer.before()
        for (const value of before) writer.value(value)
      }
      if (after !== null) {
        writer.after()
        for (const value of after) writer.value(value)
      } else if (before === null) {
        writer.key()
        for (const value of key) writer.value(value)
      }
      writer.end()
    }
  }

  /** Reads a row by the shape that fits it: of the time up to which is written now, of before, or of the moment of its commit. */
  async #read(row: BufferedRow, where: () => string): Promise<{ readonly schema: TableSchema; readonly images: Images } | MillraceError> {
    const images = imagesOf(row.value, where)
    const now = this.#tables.get(row.table)
    const earlier = this.#earlier.get(row.table)
    // a deleted row of which the key alone is told fits every shape
    const isSure = now === earlier || images.after !== null || images.before !== null
    const shapes = [
      async () => (isSure ? now : undefined),
      async () => (isSure && earlier !== now ? earlier : undefined),
      async () => (await this.#reader.at(row.at.wall)).get(row.table),
      async () => (await this.#reader.at(row.at.wall - 1n)).get(row.table),
    ]
    for (const whole of [true, false]) {
      for (const shape of shapes) {
        const table = await shape()
        const found = table === undefined ? null : reading(where, () => valuesOf(table, row.key, images, whole))
        if (found !== null) return { schema: table!.schema, images: found }
      }
    }
    return new MillraceError('source.schema_unsupported', `${where()} has other columns or types than the table had`, {
      fix: 'report the table and its changes of schema',
    })
  }

  async #writer(schema: TableSchema, output: CaptureOutput): Promise<ChangeWriter | null> {
    if (output.tablesVersion !== this.#writersVersion) this.#writers.clear()
    this.#writersVersion = output.tablesVersion
    const known = this.#writers.get(schema)
    if (known !== undefined) return known
    const writer = await output.table(schema)
    // one shape of a table at a time: another one is told to core
    for (const other of this.#writers.keys()) if (tableId(other) === tableId(schema)) this.#writers.delete(other)
    this.#writers.set(schema, writer)
    return writer
  }

  #targets(): readonly CatalogTable[] {
    return [...this.#listed].flatMap(([id, table]) => (this.#wall < (this.#refused.get(id)?.until ?? 0n) ? [] : [table]))
  }

  /** One table that was dropped or truncated, or that a changefeed cannot have, ends it for all: it goes on without that one. @throws any other error */
  async #refuse(thrown: unknown, targets: readonly CatalogTable[], output: CaptureOutput): Promise<void> {
    const error = asMillraceError(thrown)
    const words = error.cause instanceof Error ? error.cause.message : ''
    const named = targets.filter(({ schema, topics }) => [schema.name, ...topics].some((name) => mentions(words, name)))
    if (!['source.unprepared', 'source.unreachable'].includes(error.code) || named.length !== 1) throw error
    const { schema } = named[0]!
    const id = tableId(schema)
    const now = await this.#reader.now()
    this.#context.logger.warn({ table: id, error: error.message }, 'the changefeed goes on without a table')
    if ((await this.#reader.at(now - 1n)).has(id)) {
      output.park(schema, new MillraceError('source.schema_unsupported', error.message, { cause: thrown, fix: 'correct the table' }))
    }
    const times = (this.#refused.get(id)?.times ?? 0) + 1
    // the first time from now on, which gets past a truncation; then ever more rarely
    const pause = times === 1 ? 0n : BigInt(Math.min(2 ** times, 600)) * 1_000_000_000n
    this.#refused.set(id, { until: now + pause, times })
  }

  async *#withoutTables(output: CaptureOutput, signal: AbortSignal, waker: Waker): AsyncGenerator<SourceOffset> {
    await waker.sleep(Math.min(NO_TABLES_MS, this.#config.resolvedMs))
    if (signal.aborted) return
    yield* this.#write((await this.#reader.now()) - 1n, output, signal)
  }

  acknowledge(offset: SourceOffset): void {
    this.#following?.release(BigInt(readOffset(offset).wall))
  }

  async lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }> {
    await this.#gc.look(this.#wall, [...this.#listed.values()])
    return { retainedBytes: 0, behindBytes: this.#buffer.bytes }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#buffer[Symbol.dispose]()
    await this.#endpoint?.[Symbol.asyncDispose]()
    await this.#sql[Symbol.asyncDispose]()
  }
}

/** null: the row is of another shape than the table. `whole`: what it was before its change is, too; else nothing but its key is told of that. */
function valuesOf(table: CatalogTable, key: Buffer, images: RowImages, whole: boolean): Images | null {
  const keyed = keyValues(table, key)
  const after = images.after === null ? null : rowValues(table, images.after)
  const before = images.before === null ? null : rowValues(table, images.before)
  if (keyed === null || (images.after !== null && after === null) || (whole && images.before !== null && before === null)) return null
  return { op: after === null ? 'd' : images.saysBefore && images.before === null ? 'c' : 'u', before, after, key: keyed }
}

/** Of a table that is in no catalog any more. */
function nameOf(id: string): Pick<TableSchema, 'namespace' | 'name'> {
  const dot = id.indexOf('.')
  return { namespace: id.slice(0, dot), name: id.slice(dot + 1) }
}

const mentions = (message: string, name: string) =>
  new RegExp(`(?<![\\p{L}\\p{N}_])${name.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')}(?![\\p{L}\\p{N}_])`, 'u').test(message)

const sameTables = (a: readonly CatalogTable[], b: readonly CatalogTable[]) => {
  const identity = (tables: readonly CatalogTable[]) => JSON.stringify(tables.map(({ sqlName, schema }) => [sqlName, schema.incarnation]))
  return identity(a) === identity(b)
}

/** Lets chunks take their place that see nothing of `next` and later; null: there is none. */
function dueChunks(next: bigint, { chunks }: CaptureOutput): Promise<void> | null {
  return chunks.emit((fence) => BigInt(fence as string) < next)
}

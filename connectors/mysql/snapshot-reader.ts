import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import {
  type ChangeWriter,
  type ChunkLimits,
  ChunkSizes,
  type Json,
  LockedTables,
  MillraceError,
  type PreparedRead,
  type ScanTarget,
  type SnapshotChunk,
  type SnapshotReader,
  type TableSchema,
  tableId,
  viewOf,
} from '../../core/plugin.ts'
import { type CatalogTable, describeTable } from './catalog.ts'
import { typeText } from './column-definition.ts'
import { ServerError } from './mysql-error.ts'
import { fieldOf, type RowLayout, readRows, writeRow } from './result-rows.ts'
import { SESSION, type Server, tableName } from './server.ts'
import { keyClause, keyLiterals } from './snapshot-order.ts'
import { CATALOG_SILENCE_MS, type SqlConnections } from './sql-connection.ts'
import { type MappedTable, mapTable, type TypeMappingOptions } from './type-mapping.ts'
import { takeExactView, takeView, type View } from './view.ts'
import { identifier, literal, type WireConnection } from './wire-connection.ts'

/** What a chunk's view is placed by: see `View.mark` and {@link AppliedMark}. */
export interface MysqlFence {
  readonly mark: bigint
}

/** How far the stream is, in the same numbers as fences. */
export interface AppliedMark {
  /** Whether a view with this mark sees all that was streamed so far. */
  isSeenBy(mark: bigint): boolean
}

export interface SnapshotReaderOptions {
  /** Connections with {@link SNAPSHOT_SESSION}. */
  readonly connections: SqlConnections
  readonly server: Server
  readonly mapping: TypeMappingOptions
  /** All views are accepted when absent. */
  readonly applied?: AppliedMark
  /** None by default. */
  readonly logger?: Logger
}

/** Columns come in their own character sets, so that one decoder reads them wherever they come from. */
export const SNAPSHOT_SESSION: readonly string[] = [
  ...SESSION,
  'set session character_set_results = NULL',
  // a key may be the 30 February, which a comparison refuses else
  `set session sql_mode = 'ALLOW_INVALID_DATES'`,
  'set session transaction isolation level repeatable read',
]
/** Table definition changed, no such table, no such column: the view's table is not the present one. */
const CHANGED: ReadonlySet<unknown> = new Set([1412, 1146, 1054])
const MOST_TRIES = 100
/** Of information_schema MariaDB then leaves out what it waited for in vain: what has to be found there is held first. */
const WAIT_A_MOMENT = 'set session lock_wait_timeout = 1'
const WAIT_AS_SET = 'set session lock_wait_timeout = default'
const LOCK_TIMEOUT = 1205
const ABSENT = 1146
const OUT_OF_TIME = 3024
const CUT_FACTOR = 1.25
const FIRST_CAPACITY = 64 * 1024
/** A table without a key is held as a whole. */
const KEYLESS_BYTES = 128 * 1024 * 1024
const MOST_VIEWS = 2000
/** A read that is short, and ends with the source's connections. */
const UNSTOPPED = new AbortController().signal

/** Where the next chunk starts: the columns of the key's index, and their values in the last row read as SQL literals. */
interface Cursor {
  readonly by: readonly string[]
  readonly after: readonly string[]
}

/** Reads tables in chunks, each in a transaction with a view of its own, in the order of the key's index. */
export class MysqlSnapshotReader implements SnapshotReader {
  readonly #options: SnapshotReaderOptions
  readonly #sizes = new ChunkSizes()
  readonly #locked: LockedTables

  constructor(options: SnapshotReaderOptions) {
    this.#options = options
    this.#locked = new LockedTables(options.logger ?? null)
  }

  async estimate(table: TableSchema): Promise<number | null> {
    const work = async (connection: WireConnection) => {
      const sql = `table_rows from information_schema.tables where table_schema = ${literal(table.namespace)} and table_name = ${literal(table.name)}`
      // who has the table for itself alone is waited for: MySQL says 4294967295 when that takes too long, but for this limit; MariaDB has no row then
      const [[row] = []] =
        this.#options.server.flavor === 'mysql'
          ? [await connection.query(`select /*+ MAX_EXECUTION_TIME(1000) */ ${sql}`)]
          : (await connection.queries([WAIT_A_MOMENT, `select ${sql}`, WAIT_AS_SET])).slice(1)
      return row?.[0] == null ? null : Number(row[0])
    }
    try {
      return await this.#options.connections.run('to estimate a table', work)
    } catch (error) {
      const { cause } = error as MillraceError
      if (cause instanceof ServerError && cause.errno === OUT_OF_TIME) return null
      throw error
    }
  }

  /** Waits until the table may be read. The view, which begins a transaction, keeps no lock from before: who comes in between has the reading give up. */
  async prepare(table: TableSchema): Promise<PreparedRead> {
    await this.#unlessLocked(table, async (connection) => {
      await connection.queries([WAIT_A_MOMENT, `select 1 from ${tableName(table.namespace, table.name)} limit 0`, WAIT_AS_SET])
    }).catch((error: MillraceError) => {
      // what else is wrong with the table is told by reading it
      if (!(error.cause instanceof ServerError) || error.code === 'source.locked') throw error
    })
    return {
      read: (table, cursor, limits, onView, signal) => this.read(table, cursor, limits, onView as (fence: unknown) => void, signal),
      async [Symbol.asyncDispose]() {},
    }
  }

  async read(table: TableSchema, cursor: Json | null, limits: ChunkLimits, onView: (fence: MysqlFence) => void, signal: AbortSignal): Promise<SnapshotChunk> {
    return this.#unlessLocked(table, async (connection) => {
      for (let tries = 1; ; tries++) {
        const view = await this.#view(connection, signal)
        const fence: MysqlFence = { mark: view.mark }
        onView(fence)
        try {
          const chunk = await this.#readIn(connection, table, cursor as unknown as Cursor | null, limits, signal)
          this.#locked.read(table)
          return { ...chunk, fence, readAt: view.readAt }
        } catch (error) {
          if (tries >= MOST_TRIES || !CHANGED.has((error as { readonly errno?: unknown }).errno)) throw error
        }
        await connection.queries(['rollback', WAIT_AS_SET])
      }
    })
  }

  /** @throws source.locked when `work` waited for a lock in vain */
  async #unlessLocked<T>(table: TableSchema, work: (connection: WireConnection) => Promise<T>): Promise<T> {
    try {
      return await this.#options.connections.run(`to read a chunk of ${tableId(table)}`, work)
    } catch (error) {
      const { cause } = error as MillraceError
      throw cause instanceof ServerError && cause.errno === LOCK_TIMEOUT ? this.#locked.found(table, cause) : error
    }
  }

  /** MariaDB: a view is of the present, and its place is in other numbers than commits. */
  sees(fence: MysqlFence, commit: bigint): boolean {
    return this.#options.server.flavor === 'mariadb' || fence.mark >= commit
  }

  async #view(connection: WireConnection, signal: AbortSignal): Promise<View> {
    const { server, applied } = this.#options
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
      signal.throwIfAborted()
      const view = await takeView(connection, server, signal)
      // a commit is streamed a moment before others can see it: a view without it would put older rows after it
      if (applied?.isSeenBy(view.mark) !== false) return view
      await connection.query('rollback')
      await delay(waitMs)
    }
  }

  async #readIn(
    connection: WireConnection,
    table: TableSchema,
    from: Cursor | null,
    limits: ChunkLimits,
    signal: AbortSignal,
  ): Promise<Omit<SnapshotChunk, 'fence' | 'readAt'>> {
    await hold(connection, table)
    const found = await describeTable(connection, table.namespace, table.name)
    if (found === null) {
      await connection.queries(['commit', WAIT_AS_SET])
      if (from !== null) return { rows: 0, next: null, table, write: () => {} }
      throw new MillraceError('source.table_gone', `${tableId(table)} does not exist`, {
        fix: 'take it out of `tables` of the source, or create it',
      })
    }
    const mapped = mapTable(found, this.#options.mapping)
    const limit = this.#sizes.rows(table, limits)
    const { index } = found
    const held = new HeldRows(index === null ? KEYLESS_BYTES : limits.maxBytes * CUT_FACTOR)
    // another key than before: its order says nothing about what was read
    const after = index !== null && from !== null && String(from.by) === String(index.columns) ? from.after : null
    const sql = `${selectFrom(found)}${index === null ? '' : `${keyClause(found, after)} limit ${limit}`}`
    await readRows(connection, sql, (bytes, view, at, end, layout) => held.take(bytes, view, at, end, layout), signal)
    if (index === null && held.full) throw keylessTooLarge(found)
    this.#sizes.learn(table, held.rows, held.length)
    if (held.full) connection.destroy()
    else await connection.queries(['commit', WAIT_AS_SET])
    const more = index !== null && (held.full || held.rows === limit)
    const next: Cursor | null = more ? { by: index.columns, after: held.lastKey(found) } : null
    return {
      rows: held.rows,
      next: next as unknown as Json,
      table: mapped.table,
      write: (writer, beginRow, endRow) => held.write(mapped, writer, beginRow, endRow),
    }
  }

  /**
   * Reads columns of one row, in a view that has all that was streamed so far. `key` is of SQL literals, in the order of the table's key.
   * @returns null: there is no such row any more, or no such table
   * @throws source.schema_unsupported when the columns are of other types by now
   */
  async find(mapped: MappedTable, columns: readonly number[], key: readonly string[]): Promise<FoundRow | null> {
    const { namespace, name } = mapped.table
    const work = async (connection: WireConnection): Promise<FoundRow | null> => {
      await this.#view(connection, UNSTOPPED)
      const now = await describeTable(connection, namespace, name)
      const same = columns.map((column) => now?.columns.find((one) => one.name === mapped.table.columns[column]!.name))
      if (now === null || same.includes(undefined)) {
        await connection.query('rollback')
        return null
      }
      if (same.some((column, i) => typeText(column!) !== mapped.table.columns[columns[i]!]!.sourceType)) throw typesChanged(mapped.table)
      const where = mapped.table.key.map((column, i) => `${identifier(mapped.table.columns[column]!.name)} = ${key[i]}`).join(' and ')
      const sql = `select ${same.map((column) => identifier(column!.name)).join(', ')} from ${tableName(namespace, name)} where ${where}`
      let found: FoundRow | null = null
      const onRow = (bytes: Buffer, _view: DataView, at: number, end: number, layout: RowLayout) => {
        found = new FoundRow(mapped, columns, Buffer.from(bytes.subarray(at, end)), layout)
        return true
      }
      await readRows(connection, sql, onRow, UNSTOPPED)
      await connection.query('commit')
      return found
    }
    // the stream waits for it
    return this.#options.connections.run(`to read a row of ${tableId(mapped.table)}`, work, CATALOG_SILENCE_MS)
  }

  /** Reads a whole table in one view, see `SourceReader.scan`. @returns the number of the last commit in the view, and one */
  async scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint> {
    return this.#options.connections.run(`to read ${tableId(table)}`, async (connection) => {
      const last = await this.#exactView(connection, signal)
      const found = await describeTable(connection, table.namespace, table.name)
      if (found === null) throw new MillraceError('source.table_gone', `${tableId(table)} does not exist`)
      const mapped = mapTable(found, this.#options.mapping)
      const { writer, beginRow, endRow } = open(mapped.table)
      const onRow = (bytes: Buffer, view: DataView, at: number, end: number, layout: RowLayout) => {
        beginRow()
        writeRow(mapped, layout, bytes, view, at, end, writer)
        endRow()
        return true
      }
      await readRows(connection, selectFrom(found), onRow, signal)
      await connection.query('commit')
      return last + 1n
    })
  }

  async #exactView(connection: WireConnection, signal: AbortSignal): Promise<bigint> {
    for (let tries = 0; tries < MOST_VIEWS; tries++) {
      signal.throwIfAborted()
      const last = await takeExactView(connection, this.#options.server)
      if (last !== null) return last
      await delay(1)
    }
    throw new MillraceError('source.unreachable', `the server commits so often that ${MOST_VIEWS} views could not be told from their neighbours`, {
      fix: 'audit while less is written',
    })
  }
}

/**
 * Keeps others from locking the table until the transaction ends, if there is one of that name: MariaDB would have its description wait for them without limit,
 * and leave the table out, or parts of it, when that is limited.
 */
async function hold(connection: WireConnection, { namespace, name }: TableSchema): Promise<void> {
  try {
    await connection.queries([WAIT_A_MOMENT, `select 1 from ${tableName(namespace, name)} limit 0`])
  } catch (error) {
    if (!(error instanceof ServerError) || error.errno !== ABSENT) throw error
  }
}

function selectFrom(table: CatalogTable): string {
  const force = table.index === null ? '' : ` force index (${identifier(table.index.name)})`
  return `select ${table.columns.map(({ name }) => identifier(name)).join(', ')} from ${tableName(table.namespace, table.name)}${force}`
}

function keylessTooLarge(table: CatalogTable): MillraceError {
  return new MillraceError(
    'source.schema_unsupported',
    `${tableId(table)} has no key and more than ${KEYLESS_BYTES >> 20} MB, which cannot be read in pieces`,
    { fix: `add a primary key, or leave out '!${tableId(table)}' in tables` },
  )
}

function typesChanged(table: TableSchema): MillraceError {
  return new MillraceError('source.schema_unsupported', `rows of ${tableId(table)} came without columns whose types have changed since`, {
    fix: `SET GLOBAL binlog_row_image = 'FULL', and in the server configuration`,
  })
}

/** Columns of one row that were read for an event which came without them. */
export class FoundRow {
  readonly #mapped: MappedTable
  readonly #columns: readonly number[]
  readonly #bytes: Buffer
  readonly #layout: RowLayout

  constructor(mapped: MappedTable, columns: readonly number[], bytes: Buffer, layout: RowLayout) {
    this.#mapped = mapped
    this.#columns = columns
    this.#bytes = bytes
    this.#layout = layout
  }

  writeColumn(column: number, writer: ChangeWriter): void {
    const field = fieldOf(this.#layout, this.#bytes, 0, this.#columns.indexOf(column))
    if (field === null) writer.null()
    else this.#mapped.readers[column]!.result(this.#bytes, viewOf(this.#bytes), field.from, field.length, writer)
  }
}

/** Row packets of a chunk, one after another. */
class HeldRows {
  rows = 0
  length = 0
  /** Ended because of its bytes, before the end of the rows. */
  full = false
  readonly #most: number
  #bytes = Buffer.allocUnsafeSlow(FIRST_CAPACITY)
  #starts: number[] = []
  #layout: RowLayout = []

  constructor(most: number) {
    this.#most = most
  }

  take(bytes: Buffer, _view: DataView, at: number, end: number, layout: RowLayout): boolean {
    const size = end - at
    if (this.length + size > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.length + size))
      this.#bytes.copy(grown, 0, 0, this.length)
      this.#bytes = grown
    }
    bytes.copy(this.#bytes, this.length, at, end)
    this.#starts.push(this.length)
    this.#layout = layout
    this.length += size
    this.rows++
    this.full = this.length > this.#most
    return !this.full
  }

  lastKey(table: CatalogTable): readonly string[] {
    return keyLiterals(table, this.#layout, this.#bytes, viewOf(this.#bytes), this.#starts.at(-1)!)
  }

  write(mapped: MappedTable, writer: ChangeWriter, beginRow: () => void, endRow: () => void): void {
    const view = viewOf(this.#bytes)
    for (const [row, at] of this.#starts.entries()) {
      beginRow()
      writeRow(mapped, this.#layout, this.#bytes, view, at, this.#starts[row + 1] ?? this.length, writer)
      endRow()
    }
  }
}

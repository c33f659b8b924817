import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import type { Logger } from 'pino'
import {
  type ChangeWriter,
  type ChunkLimits,
  ChunkSizes,
  invariant,
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
import { openWriters, unseenCommits } from './applied-transactions.ts'
import { sees } from './fence.ts'
import { partitionTree } from './partitions.ts'
import { type Lease, SnapshotConnections } from './snapshot-connections.ts'
import { type CopiedRows, copyPieces, copyRows } from './snapshot-copy.ts'
import { identifier, type KeyOrder, keyOrder } from './snapshot-order.ts'
import { describeTable, type MappedColumn, type MappedTable, SESSION_SETTINGS, type TypeMappingOptions } from './type-mapping.ts'
import { formatValue, readValue, unreadable, type WireReader } from './type-reader.ts'

/** What a chunk's view sees: `pg_current_snapshot()` and the end of the log at that moment. Transaction ids have 64 bits. */
export interface PostgresFence {
  readonly xmin: bigint
  readonly xmax: bigint
  readonly inProgress: ReadonlySet<bigint>
  readonly lsn: bigint
}

export interface SnapshotReaderOptions {
  /** An ordinary connection to the database; as many are made as chunks are read at once. */
  readonly connect: () => Promise<pg.Client>
  readonly mapping: TypeMappingOptions
  /** Whether a view may be used; when not, another is taken a moment later. All are when absent. */
  readonly accepts?: (fence: PostgresFence) => boolean
  /** Whether the table with this oid may have been published while there were writers of it; none when absent. */
  readonly joined?: (oid: number) => boolean
  /** Called once for a table that cannot be read yet. */
  readonly onNotReady?: (table: TableSchema) => void
  /** None by default. */
  readonly logger?: Logger
}

/**
 * Where the next chunk starts. `oid` tells a table that was dropped and made again. With a key: `by` has the attnums of the index columns, `after` their values
 * in the last row read, as text. Without: `heap` is the oid and file of the partition or table read, `ctid` that of the last row read. With `parts`, only these
 * partitions are read, with a key one after another.
 */
type Cursor = { readonly oid: number; readonly parts?: readonly number[] } & (
  | { readonly by: readonly number[]; readonly after: readonly string[] }
  | { readonly heap: readonly [oid: number, file: number]; readonly ctid: string }
  | object
)

/** Where the reading of these partitions of a table begins, and of nothing else. */
export function partsCursor(table: number, parts: readonly { readonly oid: number }[]): Json {
  return { oid: table, parts: parts.map(({ oid }) => oid) }
}

/** Row security would leave rows out without a word; off, it makes the statement fail. */
const SETTINGS: Readonly<Record<string, string>> = {
  ...SESSION_SETTINGS,
  search_path: 'pg_catalog',
  row_security: 'off',
  jit: 'off',
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
}

/** Undefined column and undefined table: the view's catalog still has them, the server's present one has not. */
const CHANGED: ReadonlySet<string> = new Set(['42703', '42P01'])
const MOST_TRIES = 100

/** Somebody's lock is waited for so long before the view, while the stream goes on, and in it, while the stream waits. */
const PREPARE_LOCK_MS = 1000
const VIEW_LOCK_MS = 100
/** Lock timeout; deadlock, with who locks partitions in another order. */
const LOCKED: ReadonlySet<string> = new Set(['55P03', '40P01'])
/** No such table, schema or privilege: reading it says what that means. */
const UNLOCKABLE: ReadonlySet<string> = new Set(['42P01', '3F000', '42501'])

/** A scan holds so many bytes of rows, or one row that is larger. */
const SCAN_BYTES = 1_000_000
/** A scan waits so long for a view that has all that is committed. */
const UNSEEN_MS = 30_000

/** Neither these nor LOCK TABLE take the transaction's view. @param lockMs a lock is waited for so long; 0: without end */
const begin = (lockMs: number) => `begin transaction isolation level repeatable read read only;
${Object.entries(SETTINGS)
  .map(([name, value]) => `set local ${name} = '${value}';`)
  .join('\n')}
set local lock_timeout = ${lockMs};`

const VIEW = `select pg_current_snapshot()::text as snapshot,
  (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0'::pg_lsn)::text as lsn,
  (extract(epoch from clock_timestamp()) * 1000000)::int8::text as at`

/**
 * Reads tables in chunks, each in a transaction of its own and with the shape that the table has in it. Rows come in the order of the identity's index; a table
 * without a key is read in the order of its pages, see the README for what that means.
 */
export class PostgresSnapshotReader implements SnapshotReader, AsyncDisposable {
  readonly #options: SnapshotReaderOptions
  readonly #connections: SnapshotConnections
  readonly #sizes = new ChunkSizes()
  /** Of tables that cannot be read yet: who wrote to them when that was first asked. */
  readonly #writers = new Map<string, readonly number[]>()
  readonly #locked: LockedTables

  constructor(options: SnapshotReaderOptions) {
    this.#options = options
    this.#connections = new SnapshotConnections(options.connect)
    this.#locked = new LockedTables(options.logger ?? null)
  }

  async estimate(table: TableSchema): Promise<number | null> {
    return this.#connections.run('to estimate a table', async (client) => {
      const { rows } = await client.query<{ rows: number | null }>(
        `select case when min(c.reltuples) < 0 then null else sum(c.reltuples)::float8 end as rows
         from (${partitionTree('pg_catalog.to_regclass($1)::oid')}) t join pg_catalog.pg_class c on c.oid = t.relid and c.relkind = 'r'`,
        [`${identifier(table.namespace)}.${identifier(table.name)}`],
      )
      return rows[0]?.rows ?? null
    })
  }

  /**
   * A table that was published beside its writers is read from its start once those have ended: what they wrote before need not be in the stream. Later chunks see later
   * views.
   */
  async isReady(table: TableSchema, cursor: Json | null): Promise<boolean> {
    if (cursor !== null) return true
    return this.#connections.run(`to look who writes to ${tableId(table)}`, async (client) => {
      const id = tableId(table)
      const known = this.#writers.get(id)
      const oid = (await findTable(client, table, null))!
      if (this.#options.joined?.(oid) !== true) return true
      const writers = known ?? (await openWriters(client, oid))
      const { rows } = await client.query<{ snapshot: string }>('select pg_current_snapshot()::text as snapshot')
      const view = parseFence(rows[0]!.snapshot, '0')
      const isReady = writers.every((xid) => sees(view, xid))
      if (isReady) this.#writers.delete(id)
      else if (known === undefined) {
        this.#writers.set(id, writers)
        this.#options.onNotReady?.(table)
      }
      return isReady
    })
  }

  /** Waits for the table's lock, so that the view, which is taken afterwards in the same transaction, need not. */
  async prepare(table: TableSchema): Promise<PreparedRead> {
    using cleanup = new DisposableStack()
    const lease = cleanup.use(await this.#connections.lease(`to read a chunk of ${tableId(table)}`))
    const begun = await this.#unlessLocked(lease, table, (client) => lockAhead(client, table))
    const held = cleanup.move()
    return {
      read: async (table, cursor, limits, onView, signal) => {
        const read = (client: pg.Client) => this.#readOn(client, begun, table, cursor as Cursor | null, limits, onView, signal)
        const chunk = await this.#unlessLocked(lease, table, read)
        lease.keep()
        this.#locked.read(table)
        return chunk
      },
      async [Symbol.asyncDispose]() {
        held.dispose()
      },
    }
  }

  async read(
    table: TableSchema,
    cursor: Json | null,
    limits: ChunkLimits,
    onView: (fence: PostgresFence) => void,
    signal: AbortSignal,
  ): Promise<SnapshotChunk> {
    await using prepared = await this.prepare(table)
    return await prepared.read(table, cursor, limits, onView as (fence: unknown) => void, signal)
  }

  /** @throws source.locked when `work` waited for a lock in vain */
  #unlessLocked<T>(lease: Lease, table: TableSchema, work: (client: pg.Client) => Promise<T>): Promise<T> {
    return lease.ask(async (client) => {
      try {
        return await work(client)
      } catch (cause) {
        if (!LOCKED.has(codeOf(cause))) throw cause
        await client.query('rollback')
        lease.keep()
        throw this.#locked.found(table, cause)
      }
    })
  }

  /** @param begun a transaction has begun, and has no view yet */
  async #readOn(
    client: pg.Client,
    begun: boolean,
    table: TableSchema,
    cursor: Cursor | null,
    limits: ChunkLimits,
    onView: (fence: PostgresFence) => void,
    signal: AbortSignal,
  ): Promise<SnapshotChunk> {
    for (let tries = 1; ; tries++) {
      const place = await this.#view(client, signal, VIEW_LOCK_MS, begun && tries === 1)
      onView(place.fence)
      try {
        if (await isAsSeen(client, table)) return await this.#readIn(client, place, table, cursor, limits, signal)
      } catch (error) {
        if (tries >= MOST_TRIES || !CHANGED.has(codeOf(error))) throw error
      }
      // DDL came between the view and the reading: the stream stands at the old view, so a newer one takes its place
      await client.query('rollback')
    }
  }

  /** What was streamed before it can be seen is up to `accepts`. */
  sees(fence: PostgresFence, commit: bigint): boolean {
    return fence.lsn > commit
  }

  async #readIn(
    client: pg.Client,
    place: { readonly fence: PostgresFence; readonly readAt: bigint },
    table: TableSchema,
    from: Cursor | null,
    limits: ChunkLimits,
    signal: AbortSignal,
  ): Promise<SnapshotChunk> {
    const oid = await findTable(client, table, from)
    if (oid === null) {
      await client.query('commit')
      return { ...place, rows: 0, next: null, table, write: () => {} }
    }
    const mapped = await describeTable(client, oid, this.#options.mapping, undefined, new Set(table.columns.map(({ id }) => id)))
    const usable = from !== null && from.oid === oid ? from : null
    const limit = this.#sizes.rows(table, limits)
    const part =
      mapped.table.key.length > 0
        ? await readByKey(client, mapped, usable, limit, limits.maxBytes, signal)
        : await readByPage(client, mapped, usable, limit, limits.maxBytes, signal)
    const { copied, next } = part
    this.#sizes.learn(table, copied.rows, copied.length - copied.first)
    if (!copied.stopped) await client.query('commit')
    return {
      ...place,
      rows: copied.rows,
      next: next as Json,
      table: mapped.table,
      write: (writer, beginRow, endRow) => writeRows(mapped, copied, writer, beginRow, endRow),
    }
  }

  /**
   * Reads a whole table in one view, see `SourceReader.scan`. @returns the insert LSN at the view
   * @throws audit.unfinished when commits of the table wait for a synchronous standby all the while: the stream has them, and no view
   */
  async scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint> {
    return this.#connections.run(`to read ${tableId(table)}`, async (client) => {
      const { lsn, oid } = await this.#wholeView(client, table, signal)
      const mapped = await describeTable(client, oid, this.#options.mapping, undefined, new Set(table.columns.map(({ id }) => id)))
      const { writer, beginRow, endRow } = open(mapped.table)
      for (const { from } of mapped.table.key.length > 0 ? [await wholeTable(client, mapped)] : await heaps(client, mapped.oid, null)) {
        const sql = `COPY (SELECT ${selectList(mapped)} FROM ${from}) TO STDOUT (FORMAT binary)`
        await copyPieces(client, sql, SCAN_BYTES, (piece) => writeRows(mapped, piece, writer, beginRow, endRow), signal)
      }
      await client.query('commit')
      return lsn
    })
  }

  /** Begins a transaction in a view of a table that has all its commits which are in the stream. */
  async #wholeView(client: pg.Client, table: TableSchema, signal: AbortSignal): Promise<{ readonly lsn: bigint; readonly oid: number }> {
    const deadline = performance.now() + UNSEEN_MS
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
      // asked before and after: one that ends in between is in neither the view nor the second answer
      const before = await unseenCommits(client, (await findTable(client, table, null))!)
      const { fence } = await this.#view(client, signal, 0, false)
      const oid = (await findTable(client, table, null))!
      const unseen = [...before, ...(await unseenCommits(client, oid))]
      if (unseen.every((xid) => sees(fence, xid))) return { lsn: fence.lsn, oid }
      await client.query('rollback')
      if (performance.now() > deadline) {
        throw new MillraceError('audit.unfinished', `commits to ${tableId(table)} wait for a synchronous standby: they are in the stream, and in no view`, {
          fix: 'bring a standby of synchronous_standby_names back, and GRANT pg_read_all_stats to the role, which else waits for all that write to the table',
        })
      }
      await delay(waitMs)
    }
  }

  /** Takes a view that is accepted, in a transaction that has begun or begins here. */
  async #view(client: pg.Client, signal: AbortSignal, lockMs: number, begun: boolean): Promise<{ readonly fence: PostgresFence; readonly readAt: bigint }> {
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
      signal.throwIfAborted()
      const sql = `${begun ? `set local lock_timeout = ${lockMs};` : begin(lockMs)}${VIEW}`
      begun = false
      const results = (await client.query(sql)) as unknown as readonly pg.QueryResult<{ snapshot: string; lsn: string; at: string }>[]
      const view = results.at(-1)!.rows[0]!
      const fence = parseFence(view.snapshot, view.lsn)
      if (this.#options.accepts?.(fence) !== false) return { fence, readAt: BigInt(view.at) }
      await client.query('rollback')
      await delay(waitMs)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connections[Symbol.asyncDispose]()
  }
}

const codeOf = (error: unknown) => String((error as { readonly code?: unknown }).code)

/**
 * Begins a transaction that has the table's lock, and no view yet. @returns false, and no transaction, when it cannot be locked
 * @throws what `pg` throws, lock timeout too
 */
async function lockAhead(client: pg.Client, table: TableSchema): Promise<boolean> {
  try {
    await client.query(`${begin(PREPARE_LOCK_MS)}lock table ${identifier(table.namespace)}.${identifier(table.name)} in access share mode`)
    return true
  } catch (error) {
    if (!UNLOCKABLE.has(codeOf(error))) throw error
    await client.query('rollback')
    return false
  }
}

/**
 * Locks the table against further DDL; false when it was rewritten after the view was taken: Postgres then shows no row of it (its manual, 13.6 "Caveats").
 */
async function isAsSeen(client: pg.Client, table: TableSchema): Promise<boolean> {
  const name = `${identifier(table.namespace)}.${identifier(table.name)}`
  const { rows } = await client.query<{ there: boolean }>('select pg_catalog.to_regclass($1) is not null as there', [name])
  if (rows[0]?.there !== true) return true
  await client.query(`lock table ${name} in access share mode`)
  // the function asks the present catalog, the column is the view's
  const seen = await client.query<{ same: boolean }>(
    `select c.relkind = 'p' or c.relfilenode = pg_catalog.pg_relation_filenode(c.oid) as same from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass($1)`,
    [name],
  )
  return seen.rows[0]?.same ?? true
}

/** @param snapshot text of a `pg_snapshot` */
export function parseFence(snapshot: string, lsn: string): PostgresFence {
  const [xmin, xmax, running = ''] = snapshot.split(':')
  return { xmin: BigInt(xmin!), xmax: BigInt(xmax!), inProgress: new Set(running === '' ? [] : running.split(',').map(BigInt)), lsn: BigInt(lsn) }
}

/**
 * The oid of the table, or null when it was dropped while it was read.
 * @throws source.table_gone when it was renamed, or is not there at the start
 */
async function findTable(client: pg.Client, table: TableSchema, from: Cursor | null): Promise<number | null> {
  const { rows } = await client.query<{ oid: number; same: boolean }>(
    `select c.oid, n.nspname = $1 and c.relname = $2 as same from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where (n.nspname = $1 and c.relname = $2) or c.oid = $3`,
    [table.namespace, table.name, from?.oid ?? 0],
  )
  const named = rows.find(({ same }) => same)
  const before = rows.find(({ oid }) => oid === from?.oid)
  if (before !== undefined && !before.same) {
    throw new MillraceError('source.table_gone', `${tableId(table)} was renamed while it was read, so the rest of it belongs to another stream`, {
      fix: 'drop its targets, or name it back, which reads it again by itself',
    })
  }
  if (named !== undefined) return named.oid
  if (from !== null) return null
  throw new MillraceError('source.table_gone', `${tableId(table)} does not exist`, { fix: 'take it out of `tables` of the source, or create it' })
}

interface Part {
  readonly copied: CopiedRows
  readonly next: Cursor | null
}

const NO_ROWS: CopiedRows = { bytes: Buffer.alloc(0), length: 0, rows: 0, first: 0, last: 0, stopped: false }

/** COPY fails on a type without a binary form, where the stream falls back to text: those columns are cast. */
const copiesBinary = (column: MappedColumn): boolean => column.binaryReadable && column.reader.binary !== null

function selectList(mapped: MappedTable): string {
  return mapped.columns.map((mapped) => identifier(mapped.column.name) + (copiesBinary(mapped) ? '' : '::text')).join(', ')
}

function relation(mapped: MappedTable): string {
  return `${identifier(mapped.table.namespace)}.${identifier(mapped.table.name)}`
}

async function readByKey(client: pg.Client, mapped: MappedTable, from: Cursor | null, limit: number, maxBytes: number, signal: AbortSignal): Promise<Part> {
  const order = await keyOrder(client, mapped)
  // another key than before: its order says nothing about what was read
  const after = from !== null && 'by' in from && String(from.by) === String(order.attnums) ? from.after : null
  const parts = from?.parts
  const source = parts === undefined ? await wholeTable(client, mapped) : await onePartition(client, mapped, parts[0]!)
  const rest = parts === undefined || parts.length === 1 ? null : { oid: mapped.oid, parts: parts.slice(1) }
  if (source === null) return { copied: NO_ROWS, next: rest }
  const conditions = [source.where, after === null ? null : `(${order.after(after)})`].filter((condition) => condition !== null)
  const where = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`
  const sql = `COPY (SELECT ${selectList(mapped)} FROM ${source.from}${where} ORDER BY ${order.orderBy} LIMIT ${limit}) TO STDOUT (FORMAT binary)`
  const copied = await copyRows(client, sql, maxBytes, signal)
  if (!copied.stopped && copied.rows < limit) return { copied, next: rest }
  return { copied, next: { oid: mapped.oid, by: order.attnums, after: lastKey(mapped, order, copied), ...(parts === undefined ? {} : { parts }) } }
}

interface RowSource {
  readonly from: string
  readonly where: string | null
}

async function wholeTable(client: pg.Client, mapped: MappedTable): Promise<RowSource> {
  return { from: (await isPartitioned(client, mapped.oid)) ? relation(mapped) : `ONLY ${relation(mapped)}`, where: null }
}

/** A partition by its own name, or through its root where that is all that may be read; null: it is none any more, which is followed elsewhere. */
async function onePartition(client: pg.Client, mapped: MappedTable, part: number): Promise<RowSource | null> {
  const { rows } = await client.query<{ name: string; direct: boolean }>(
    `select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as name,
       pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select') and not c.relrowsecurity as direct
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1 and c.relkind = 'r'`,
    [part],
  )
  const found = rows[0]
  if (found === undefined) return null
  if (!found.direct) return { from: relation(mapped), where: `tableoid = ${part}` }
  // nobody detaches it from here on; the function asks the present catalog
  await client.query(`lock table ${found.name} in access share mode`)
  const { rowCount } = await client.query('select from pg_catalog.pg_partition_ancestors($1) where relid = $2', [part, mapped.oid])
  return rowCount === 0 ? null : { from: `ONLY ${found.name}`, where: null }
}

async function isPartitioned(client: pg.Client, oid: number): Promise<boolean> {
  const { rows } = await client.query<{ kind: string }>('select relkind::text as kind from pg_catalog.pg_class where oid = $1', [oid])
  return rows[0]?.kind === 'p'
}

/** Column `index` of the row that begins at `at`: where its bytes begin, and their number (-1: NULL). */
function field(view: DataView, at: number, index: number): { readonly from: number; readonly length: number } {
  let from = at + 2
  for (let i = 0; i < index; i++) from += 4 + Math.max(0, view.getInt32(from))
  return { from: from + 4, length: view.getInt32(from) }
}

function lastKey(mapped: MappedTable, order: KeyOrder, copied: CopiedRows): readonly string[] {
  const view = viewOf(copied.bytes)
  return order.attnums.map((attnum) => {
    const index = mapped.columns.findIndex(({ column }) => column.id === attnum)
    const mappedColumn = mapped.columns[index]!
    const { from, length } = field(view, copied.last, index)
    invariant(length >= 0, `key column ${mappedColumn.column.name} is NULL`)
    return formatValue(mappedColumn.reader, readValue(readerOf(mappedColumn), copied.bytes, view, from, length))
  })
}

const readerOf = (column: MappedColumn): WireReader => (copiesBinary(column) ? column.binary : column.text)

interface Heap {
  readonly oid: number
  /** For a FROM clause: it alone. */
  readonly from: string
  /** Its file. */
  readonly file: number
}

/** What has the rows of a table: itself, or its partitions, of these alone when they are named; in ascending oids. */
async function heaps(client: pg.Client, table: number, parts: readonly number[] | null): Promise<readonly Heap[]> {
  const { rows } = await client.query<Heap>(
    `select c.oid, 'ONLY ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as "from", pg_catalog.pg_relation_filenode(c.oid)::int8::float8 as file
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and c.oid in (${partitionTree('$1::oid')}) and ($2::oid[] is null or c.oid = any($2)) order by c.oid`,
    [table, parts],
  )
  return rows
}

/** Pages of a table, or of its partitions one after another, in physical order. */
async function readByPage(client: pg.Client, mapped: MappedTable, from: Cursor | null, limit: number, maxBytes: number, signal: AbortSignal): Promise<Part> {
  const all = await heaps(client, mapped.oid, from?.parts ?? null)
  const parts = from?.parts === undefined ? {} : { parts: from.parts }
  const last = from !== null && 'heap' in from ? from : null
  // in ascending oids, so that partitions which come or go leave the others' places alone
  const heap = all.find(({ oid }) => oid >= (last?.heap[0] ?? 0))
  if (heap === undefined) return { copied: NO_ROWS, next: null }
  // a file that was written anew (VACUUM FULL, CLUSTER) has its rows elsewhere: read it from its start rather than lose any
  const resumes = last !== null && last.heap[0] === heap.oid && last.heap[1] === heap.file
  const where = resumes ? ` WHERE ctid > '${last.ctid}'::tid` : ''
  await client.query('set local enable_seqscan = off; set local max_parallel_workers_per_gather = 0; set local synchronize_seqscans = off')
  const columns = selectList(mapped)
  const sql = `COPY (SELECT ${columns}${columns === '' ? '' : ', '}ctid FROM ${heap.from}${where} LIMIT ${limit}) TO STDOUT (FORMAT binary)`
  const copied = await copyRows(client, sql, maxBytes, signal)
  const later = all.find(({ oid }) => oid > heap.oid)
  if (copied.stopped || copied.rows === limit) {
    const view = viewOf(copied.bytes)
    const { from: at } = field(view, copied.last, mapped.columns.length)
    return { copied, next: { oid: mapped.oid, ...parts, heap: [heap.oid, heap.file], ctid: `(${view.getUint32(at)},${view.getUint16(at + 4)})` } }
  }
  return { copied, next: later === undefined ? null : { oid: mapped.oid, ...parts, heap: [later.oid, later.file], ctid: '(0,0)' } }
}

function writeRows(mapped: MappedTable, copied: CopiedRows, writer: ChangeWriter, beginRow: () => void, endRow: () => void): void {
  const readers = mapped.columns.map(readerOf)
  const { bytes, rows } = copied
  const view = viewOf(bytes)
  let at = copied.first
  let column = 0
  let length = 0
  try {
    for (let row = 0; row < rows; row++) {
      // a row read by page has its ctid after its columns
      const fields = view.getInt16(at)
      if (fields < readers.length) throw new RangeError(`a row of ${fields} columns`)
      at += 2
      beginRow()
      for (column = 0; column < fields; column++) {
        length = view.getInt32(at)
        at += 4
        if (column < readers.length) {
          if (length < 0) writer.null()
          else readers[column]!(bytes, view, at, length, writer)
        }
        if (length > 0) at += length
      }
      endRow()
    }
  } catch (error) {
    const name = mapped.columns[column]?.column.name
    throw unreadable(error, `${name === undefined ? 'a row' : `column ${name}`} of a chunk of ${tableId(mapped.table)}`, length)
  }
}

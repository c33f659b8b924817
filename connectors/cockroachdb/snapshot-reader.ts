import {
  type ChunkLimits,
  type Json,
  MillraceError,
  type SnapshotChunk,
  type SnapshotFence,
  type SnapshotReader,
  type TableSchema,
  tableId,
  type Value,
  writeRows,
} from '../../core/plugin.ts'
import type { CatalogReader, CatalogTable } from './catalog.ts'
import { reading } from './changefeed-message.ts'
import { readValue } from './column-types.ts'
import { endOf } from './hlc.ts'
import { elements } from './json-text.ts'
import { literal, quoted, type SqlSession } from './sql-session.ts'

export interface RowPage {
  readonly rows: readonly (readonly Value[])[]
  /** The last key, in the order of the primary index; null: the table is read to its end. */
  readonly next: readonly string[] | null
}

/** Rows after a key in the order of the primary index, as they were at the end of a nanosecond. */
export async function readPage(sql: SqlSession, table: CatalogTable, wall: bigint, after: readonly string[] | null, maxRows: number): Promise<RowPage> {
  const { schema, keyOrder, sqlName } = table
  const id = tableId(schema)
  const key = keyOrder.map((index) => schema.columns[index]!)
  const keyList = key.map(({ name }) => quoted(name)).join(', ')
  // to_jsonb writes values as changefeeds do: both come through one reader, and come the same
  const columns = [...schema.columns.map(({ name }) => `to_jsonb(${quoted(name)})::STRING`), ...key.map(({ name }) => `${quoted(name)}::STRING`)]
  const bound = after === null ? '' : ` WHERE (${keyList}) > (${key.map(({ sourceType }, n) => `$${n + 1}::STRING::${sourceType}`).join(', ')})`
  const found = await sql.query(
    `to read ${id}`,
    `SELECT ${columns.join(', ')} FROM ${sqlName} AS OF SYSTEM TIME ${literal(endOf(wall))}${bound} ORDER BY ${keyList} LIMIT ${maxRows}`,
    after ?? [],
  )
  const rows = found.map((texts, n) =>
    reading(
      () => `row ${n + 1} of a chunk of ${id}`,
      () => schema.columns.map((column, i) => valueIn(texts[i]!, column, id)),
    ),
  )
  const last = found.at(-1)?.slice(schema.columns.length) as readonly string[] | undefined
  return { rows, next: last === undefined || found.length < maxRows ? null : last }
}

function valueIn(json: string | null, column: TableSchema['columns'][number], id: string): Value {
  if (json === null) return null
  // a JSON null is one here, and NULL is NULL
  if (column.type.kind === 'json' && json === 'null') return json
  const value = readValue(column.type, elements(`[${json}]`)[0]!)
  if (value !== undefined) return value
  throw new MillraceError('source.schema_unsupported', `the column ${column.name} of ${id} has a value that is none of ${column.sourceType}`, {
    fix: 'leave the table out by a pattern, and report the type',
  })
}

/** The stream beside which chunks are read. */
export interface StreamPlace {
  /** The nanosecond up to which it has written, or is writing. */
  streamedTo(): bigint
  /** How long ago that moved, in milliseconds. */
  heldMs(): number
  /** Whether the changes of a table will come from there on. */
  follows(id: string): boolean
}

/** Chunks hold the stream for no longer than this at a time. */
const MOST_HELD_MS = 3000

/**
 * Reads chunks as of the place at which the stream stands: so each is due at once, and shows exactly what was streamed. When they have held the stream for
 * long, the next are read as of the cluster's time, and wait until the stream is there.
 */
export class ChunkReader implements SnapshotReader {
  readonly #sql: SqlSession
  readonly #catalog: CatalogReader
  readonly #place: StreamPlace

  constructor(sql: SqlSession, catalog: CatalogReader, place: StreamPlace) {
    this.#sql = sql
    this.#catalog = catalog
    this.#place = place
  }

  /** The cluster's own estimates are statistics of yesterday. */
  async estimate(): Promise<null> {
    return null
  }

  async read(
    table: TableSchema,
    cursor: Json | null,
    limits: ChunkLimits,
    onView: (fence: SnapshotFence) => void,
    signal: AbortSignal,
  ): Promise<SnapshotChunk> {
    const id = tableId(table)
    if (!this.#place.follows(id))
      throw new MillraceError('source.schema_unsupported', `no changefeed has ${id} now`, { fix: 'see in the log why, and correct the table' })
    const isPlace = this.#place.heldMs() < MOST_HELD_MS
    const wall = isPlace ? this.#place.streamedTo() : (await this.#catalog.now()) - 1n
    const fence = wall.toString()
    onView(fence)
    const now = (await this.#catalog.at(wall)).get(id)
    if (now === undefined) throw new MillraceError('source.table_gone', `${id} is not there any more`, { fix: 'leave it out by a pattern' })
    signal.throwIfAborted()
    const rows: (readonly Value[])[] = []
    let next = cursor as readonly string[] | null
    let bytes = 0
    do {
      const page = await readPage(this.#sql, now, wall, next, Math.min(limits.maxRows - rows.length, 500))
      signal.throwIfAborted()
      rows.push(...page.rows)
      for (const row of page.rows) bytes += sizeOf(row)
      next = page.next
    } while (next !== null && rows.length < limits.maxRows && bytes < limits.maxBytes)
    return {
      rows: rows.length,
      next: next as unknown as Json,
      fence,
      readAt: wall / 1000n,
      table: now.schema,
      write: (writer, beginRow, endRow) => writeRows(rows, { writer, beginRow, endRow }),
    }
  }

  sees(fence: SnapshotFence, commit: bigint): boolean {
    return BigInt(fence as string) >= commit
  }
}

function sizeOf(row: readonly Value[]): number {
  let bytes = 8 * row.length
  for (const value of row) if (typeof value === 'string' || value instanceof Uint8Array) bytes += value.length
  return bytes
}

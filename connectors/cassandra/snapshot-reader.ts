import { type ChunkLimits, type Json, MillraceError, type SnapshotChunk, type SnapshotReader, type TableSchema, tableId } from '../../core/plugin.ts'
import type { CapturedTables } from './captured-tables.ts'
import type { WriteTime } from './commit-log-events.ts'
import type { KnownRows } from './known-rows.ts'
import type { RowKey } from './row-changes.ts'
import { keyOf, type QueriedRow, type RowQuery } from './row-query.ts'
import { writeRow } from './row-writer.ts'
import type { MappedTable } from './table-mapping.ts'

/** Further ahead than clocks differ: a time that a client made up. */
const AHEAD_US = 5_000_000

export interface SnapshotReaderOptions {
  readonly tables: CapturedTables
  readonly known: KnownRows
  readonly query: (table: MappedTable) => RowQuery
  /** The newest write that was streamed. */
  readonly newest: () => WriteTime
}

/**
 * Reads tables in token order; a cursor is the token up to which all is read, since a chunk ends with a partition. The stream waits where it is until the
 * chunk is in its place. What the chunk saw beyond that place comes in the stream again: in the end each column has its newest write.
 */
export class CassandraSnapshotReader implements SnapshotReader {
  readonly #options: SnapshotReaderOptions
  readonly #reading = new Set<string>()

  constructor(options: SnapshotReaderOptions) {
    this.#options = options
  }

  /** Rows of the table are being read, so that what is not there yet will come. */
  isReading(id: string): boolean {
    return this.#reading.has(id)
  }

  /** The cluster knows partitions only, and those badly. */
  async estimate(table: TableSchema): Promise<number | null> {
    const mapped = this.#options.tables.current(table.namespace, table.name)
    if (mapped !== null) {
      this.#reading.add(mapped.id)
      this.#options.known.doubt(mapped.id)
    }
    return null
  }

  async read(table: TableSchema, cursor: Json | null, limits: ChunkLimits, onView: (fence: null) => void, signal: AbortSignal): Promise<SnapshotChunk> {
    const { tables, known, query, newest } = this.#options
    const mapped = tables.current(table.namespace, table.name)
    if (mapped === null) {
      throw new MillraceError('source.table_gone', `${tableId(table)} cannot be read any more`, {
        fix: 'make it again with cdc = true, or leave it out in `tables`',
      })
    }
    this.#reading.add(mapped.id)
    onView(null)
    const streamed = newest()
    const readAt = Date.now() * 1000
    const from = cursor === null ? null : BigInt((cursor as { token: string }).token)
    const { rows, last } = await readPartitions(query(mapped), from, limits, signal)
    const keyed = rows.flatMap((row) => {
      const key = keyOf(mapped, row.values)
      // static columns of a partition without rows have no place
      return key === null ? [] : [{ row, key }]
    })
    const ends = keyed.map(({ row, key }) => ({ ...key, row: { writtenAt: seen(row, streamed, readAt), alive: true, marked: false, due: dueOf(row) } }))
    // rows that a truncation took meanwhile are none that are known: the table is read anew
    const isSame = tables.current(table.namespace, table.name)?.table.incarnation === mapped.table.incarnation
    if (isSame) known.addRead(mapped.id, ends, { token: last ?? from ?? 0n, done: last === null })
    if (last === null) this.#reading.delete(mapped.id)
    return {
      rows: keyed.length,
      next: last === null ? null : { token: last.toString() },
      fence: null,
      readAt: BigInt(readAt),
      table: mapped.table,
      write(writer, beginRow, endRow) {
        for (const { row, key } of keyed) {
          beginRow()
          writeRow(writer, mapped, key as RowKey, row.values)
          endRow()
        }
      },
    }
  }

  /** What the log has was in the commit log before, and is read since. */
  sees(): boolean {
    return true
  }
}

/** When a row is to be looked at again. */
export function dueOf({ endsIn }: QueriedRow): number {
  return endsIn === 0 ? 0 : (Math.floor(Date.now() / 1000) + endsIn) * 1_000_000
}

/** What the stream brings still is newer than this. A time of the future, which all that comes will lose against, is kept. */
function seen({ writtenAt }: QueriedRow, streamed: WriteTime, readAt: number): WriteTime {
  return writtenAt > readAt + AHEAD_US || writtenAt < streamed ? writtenAt : streamed
}

/** Whole partitions after a token; `last`: the token of the last of them, null when there are no more. */
async function readPartitions(
  query: RowQuery,
  after: bigint | null,
  { maxRows, maxBytes }: ChunkLimits,
  signal: AbortSignal,
): Promise<{ readonly rows: readonly QueriedRow[]; readonly last: bigint | null }> {
  const rows: QueriedRow[] = []
  let bytes = 0
  let page: string | null = null
  for (;;) {
    signal.throwIfAborted()
    const read = await query.after(after, maxRows + 1, page)
    for (const row of read.rows) {
      rows.push(row)
      for (const value of row.values) bytes += value?.length ?? 0
    }
    page = read.next
    if (page === null && rows.length <= maxRows && bytes <= maxBytes) return { rows, last: null }
    // the last partition may have more rows than were read
    const open = page === null ? null : rows.at(-1)!.token
    let end = rows.length
    while (end > 0 && rows[end - 1]!.token === open) end--
    if (end === 0 && page !== null) continue
    // of the whole ones, as many as fit, and one at least
    let cut = 0
    let size = 0
    for (let i = 0; i < end; ) {
      const { token } = rows[i]!
      let to = i
      while (to < end && rows[to]!.token === token) for (const value of rows[to++]!.values) size += value?.length ?? 0
      if (cut > 0 && (to > maxRows || size > maxBytes)) break
      cut = to
      i = to
    }
    if (cut === rows.length && page === null) return { rows, last: null }
    return { rows: rows.slice(0, cut), last: rows[cut - 1]!.token }
  }
}

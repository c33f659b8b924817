import { invariant } from '../../core/plugin.ts'
import { isWithin, packClustering, unpackClustering } from './clustering-order.ts'
import type { Cell, Deletion, PartitionUpdate, RowUpdate, WriteTime } from './commit-log-events.ts'
import { isMultiCell } from './cql-type.ts'
import type { KnownRow, KnownRows } from './known-rows.ts'
import type { MappedTable } from './table-mapping.ts'

/** Without a newer deletion in sight a write that is this much older than what was streamed is not trusted to be the newest of its row. */
const LATE_US = 600_000_000

/** What becomes of one row. */
export type RowChange =
  | { readonly kind: 'delete'; readonly key: RowKey; readonly known: KnownRow }
  /** Columns besides the key: undefined is unchanged, null is null. */
  | { readonly kind: 'set'; readonly op: 'c' | 'u'; readonly key: RowKey; readonly values: readonly (Buffer | null | undefined)[]; readonly known: KnownRow }
  /** The log does not say what the row is now: it is read. */
  | { readonly kind: 'read'; readonly key: RowKey; readonly before: KnownRow | null; readonly known: KnownRow }
  /** Nothing to say, but to remember. */
  | { readonly kind: 'note'; readonly key: RowKey; readonly known: KnownRow }

export interface RowKey {
  readonly partition: Buffer
  /** Packed; empty for a table without clustering columns; null: the static columns of the partition. */
  readonly clustering: Buffer | null
}

export interface RowChangesOptions {
  readonly known: KnownRows
  /** Every change is read back. */
  readonly whole: boolean
  /** What the log says of the table may be no more: its changes, deletions too, are settled by reading. */
  readonly isSettling: (table: MappedTable) => boolean
  /** Rows of the table that existed are being read, or will be. */
  readonly isReading: (table: MappedTable) => boolean
  readonly tokenOf: (partition: Buffer) => bigint
}

/**
 * Says what a partition update does to rows, by what is known of them. The merge rule: a write that is newer than all that was seen of its row is what the
 * log says; any other, and what the log cannot say, is settled by reading the row.
 */
export class RowChanges {
  readonly #options: RowChangesOptions
  /** The newest write that was streamed. */
  newest: WriteTime

  constructor(options: RowChangesOptions, newest: WriteTime) {
    this.#options = options
    this.newest = newest
  }

  /** @param again the log of Millrace has these changes, as they were made up then: what is known may be newer */
  of(update: PartitionUpdate, table: MappedTable, again = false): RowChange[] {
    const { known, isSettling } = this.#options
    const settling = isSettling(table)
    const partition = update.bytes.subarray(update.key.from, update.key.to)
    const changes: RowChange[] = []
    const deletions = [...(update.deletion === null ? [] : [update.deletion]), ...update.ranges]
    if (table.clustering.length === 0) {
      const key: RowKey = { partition, clustering: packClustering(update.bytes, []) }
      const row = update.rows[0]
      if (update.deletion !== null && row === undefined) changes.push(...this.#deleted(table, key, update.deletion))
      else if (update.deletion !== null) changes.push(this.#read(table, key, row!))
      else if (row !== undefined) changes.push(...this.#written(update, table, key, row, again))
      return changes
    }
    const touched = deletions.length > 0 ? known.partition(table.id, partition) : []
    for (const { clustering, row } of touched) {
      const key = { partition, clustering }
      let newest: WriteTime | null = null
      let unclear = false
      if (update.deletion !== null) newest = update.deletion.writtenAt
      for (const range of update.ranges) {
        const within = isWithin(range, update.bytes, unpackClustering(clustering), table.clustering)
        if (within === null) unclear = true
        else if (within && (newest === null || range.writtenAt > newest)) newest = range.writtenAt
      }
      const written = update.rows.some((one) => packClustering(update.bytes, one.clustering).equals(clustering))
      if (written) continue
      if (!settling && newest !== null && newest >= row.writtenAt) changes.push({ kind: 'delete', key, known: dead(newest) })
      else if (newest !== null || unclear) changes.push({ kind: 'read', key, before: row, known: row })
    }
    if (update.deletion !== null)
      changes.push({ kind: 'note', key: { partition, clustering: null }, known: { ...dead(update.deletion.writtenAt), alive: true } })
    for (const row of update.rows) {
      const key: RowKey = { partition, clustering: packClustering(update.bytes, row.clustering) }
      // a deletion beside it in one batch has the same time, and wins
      if (deletions.some(({ writtenAt }) => writtenAt >= oldestOf(row))) changes.push(this.#read(table, key, row))
      else changes.push(...this.#written(update, table, key, row, again))
    }
    if (update.staticRow !== null) changes.push(...this.#static(update, table, partition, update.staticRow, again))
    return changes
  }

  #deleted(table: MappedTable, key: RowKey, deletion: Deletion): RowChange[] {
    const row = this.#options.known.find(table.id, key.partition, key.clustering)
    const known = dead(deletion.writtenAt)
    if (row === null) return [{ kind: 'delete', key, known }]
    if (row.writtenAt > deletion.writtenAt || this.#options.isSettling(table)) return row.alive ? [{ kind: 'read', key, before: row, known: row }] : []
    return row.alive ? [{ kind: 'delete', key, known }] : [{ kind: 'note', key, known }]
  }

  #read(table: MappedTable, key: RowKey, row: RowUpdate): RowChange {
    const before = this.#options.known.find(table.id, key.partition, key.clustering)
    const written = newestOf(row)
    const known = { writtenAt: before !== null && before.writtenAt > written ? before.writtenAt : written, alive: true, marked: false, due: endOf(row) }
    return { kind: 'read', key, before, known }
  }

  #written(update: PartitionUpdate, table: MappedTable, key: RowKey, row: RowUpdate, again: boolean): RowChange[] {
    const cells = row.cells.filter((cell) => isPresent(table, cell))
    const emptied = row.complexDeletions.filter(({ column }) => table.byColumn[column] !== -1)
    if (cells.length === 0 && emptied.length === 0 && row.liveness === null) {
      return row.deletion === null ? [] : this.#deleted(table, key, row.deletion)
    }
    const { whole, isSettling, isReading, known, tokenOf } = this.#options
    const before = known.find(table.id, key.partition, key.clustering)
    const oldest = oldestOf(row)
    const isOlder = before !== null && oldest <= before.writtenAt
    const values = whole || isSettling(table) || isOlder ? null : written(update, table, cells, emptied)
    if (values === null) return [this.#read(table, key, row)]
    // what came after a read may lack its row in the log, and a part of a row is none; while the log has the change already, nothing is written
    if (before?.unsure === true && !again && !table.isComplete(values)) return [this.#read(table, key, row)]
    const hasValue = values.some((value) => value != null)
    const isInsert = row.liveness !== null
    const marked = (row.liveness !== null && row.liveness.ttl === 0) || (before?.alive === true && before.marked)
    let due = endOf(row)
    const op = isInsert ? 'c' : 'u'
    const rest = (value: null | undefined) => values.map((one, i) => (one === undefined && table.columns[i]!.isKey === false ? value : one))
    const makes = (filled: readonly (Buffer | null | undefined)[]): RowChange[] => {
      if (before?.alive === true && before.due > 0 && (due === 0 || before.due < due)) due = before.due
      // its last value may have been taken: looked at when the stream is past this place
      if (!marked && !hasValue) due = Number(newestOf(row))
      return [{ kind: 'set', op, key, values: filled, known: { writtenAt: newestOf(row), alive: true, marked, due } }]
    }
    if (row.deletion !== null) {
      if (table.hasStatics || row.deletion.writtenAt >= oldest || (before !== null && before.writtenAt > row.deletion.writtenAt))
        return [this.#read(table, key, row)]
      return makes(rest(null))
    }
    if (before?.alive === true) return makes(values)
    const isNew = before !== null || this.#isRead(table, tokenOf(key.partition))
    if (!isNew) {
      if (table.isComplete(values)) return makes(values)
      return isReading(table) ? makes(values) : [this.#read(table, key, row)]
    }
    if (before === null && isLate(oldest, this.newest)) return [this.#read(table, key, row)]
    // nothing is to be said of a row that is not there, and what is older than this cannot bring the column back
    if (!isInsert && !hasValue) return again ? makes(values) : [{ kind: 'note', key, known: dead(newestOf(row)) }]
    return table.hasStatics ? [this.#read(table, key, row)] : makes(rest(null))
  }

  #isRead(table: MappedTable, token: bigint): boolean {
    const upTo = this.#options.known.upTo(table.id)
    return upTo !== null && (upTo.done || token <= upTo.token)
  }

  #static(update: PartitionUpdate, table: MappedTable, partition: Buffer, row: RowUpdate, again: boolean): RowChange[] {
    const { known, whole, isSettling } = this.#options
    const cells = row.cells.filter((cell) => isPresent(table, cell))
    const emptied = row.complexDeletions.filter(({ column }) => table.byColumn[column] !== -1)
    const before = known.find(table.id, partition, null)
    const values = whole || isSettling(table) || (before !== null && oldestOf(row) <= before.writtenAt) ? null : written(update, table, cells, emptied)
    const changes: RowChange[] = []
    const due = endOf(row)
    for (const { clustering, row: one } of known.partition(table.id, partition)) {
      // rows that this very update writes are read anyway
      const key = { partition, clustering }
      const next = due > 0 && (one.due === 0 || due < one.due) ? { ...one, due } : one
      if (values === null || (one.unsure === true && !again)) changes.push({ kind: 'read', key, before: one, known: next })
      else changes.push({ kind: 'set', op: 'u', key, values, known: next })
    }
    changes.push({ kind: 'note', key: { partition, clustering: null }, known: { writtenAt: newestOf(row), alive: true, marked: true, due: 0 } })
    return changes
  }
}

const dead = (writtenAt: WriteTime): KnownRow => ({ writtenAt, alive: false, marked: false, due: 0 })

function isPresent(table: MappedTable, cell: Cell): boolean {
  const at = table.byColumn[cell.column]!
  // from before a column of its name was dropped
  return at !== -1 && cell.writtenAt > table.columns[at]!.droppedAt
}

function isLate(oldest: WriteTime, newest: WriteTime): boolean {
  return Number(newest) - Number(oldest) > LATE_US
}

function timesOf(row: RowUpdate): WriteTime[] {
  const times = row.cells.map(({ writtenAt }) => writtenAt)
  if (row.liveness !== null) times.push(row.liveness.writtenAt)
  if (row.deletion !== null) times.push(row.deletion.writtenAt)
  // one that comes with the new elements is a microsecond older than they are
  if (times.length === 0) for (const { writtenAt } of row.complexDeletions) times.push(writtenAt)
  invariant(times.length > 0, 'a row update says something')
  return times
}

export function newestOf(row: RowUpdate): WriteTime {
  return timesOf(row).reduce((a, b) => (b > a ? b : a))
}

function oldestOf(row: RowUpdate): WriteTime {
  return timesOf(row).reduce((a, b) => (b < a ? b : a))
}

/** When the first thing of it ends, in microseconds; 0: never. */
function endOf(row: RowUpdate): number {
  let end = 0
  const ends = row.cells.filter(({ ttl }) => ttl > 0).map(({ localTime }) => localTime)
  if (row.liveness !== null && row.liveness.ttl > 0) ends.push(row.liveness.expiresAt)
  for (const seconds of ends) if (end === 0 || seconds < end) end = seconds
  return end * 1_000_000
}

/** Values by column of the table, undefined for what was not written; null: elements of a collection came that are not all of it. */
function written(
  update: PartitionUpdate,
  table: MappedTable,
  cells: readonly Cell[],
  emptied: RowUpdate['complexDeletions'],
): (Buffer | null | undefined)[] | null {
  const values = new Array<Buffer | null | undefined>(table.columns.length).fill(undefined)
  for (const { column } of emptied) values[table.byColumn[column]!] = null
  for (let i = 0; i < cells.length; ) {
    const cell = cells[i]!
    const at = table.byColumn[cell.column]!
    const { type } = table.columns[at]!
    if (cell.pathFrom < 0 || !isMultiCell(type)) {
      values[at] = cell.tombstone ? null : update.bytes.subarray(cell.from, cell.to)
      i++
      continue
    }
    const all: Cell[] = []
    while (i < cells.length && cells[i]!.column === cell.column) all.push(cells[i++]!)
    const from = emptied.find(({ column }) => column === cell.column)
    if (from === undefined || all.some(({ writtenAt }) => writtenAt <= from.writtenAt)) return null
    values[at] = table.columns[at]!.assemble(
      update.bytes,
      all.filter(({ tombstone }) => !tombstone),
    )
  }
  return values
}

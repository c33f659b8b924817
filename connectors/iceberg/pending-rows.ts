/** One batch as the last state of each key. */
import { comparePositions, type Position, type Rejection, type RowChange, type SinkBatch, type Tuple, UNCHANGED, type Value } from '../../core/plugin.ts'
import type { TableColumn } from './parquet-file.ts'
import { type RowKey, rowKey } from './row-key.ts'

/** A truncation that some partitions of the stream have not reached yet: it comes once on each, and older rows of the others are dead too. */
export interface OpenTruncation {
  readonly position: Position
  /** Times it was seen. */
  readonly seen: number
}

export interface PendingRow {
  readonly key: Tuple
  /** Null: deleted. May hold UNCHANGED where `waiting` is not null. */
  row: Tuple | null
  /** Indexes of the changes whose UNCHANGED columns need the table's row; null when none do. */
  waiting: number[] | null
}

export interface PendingRows {
  readonly rows: ReadonlyMap<RowKey, PendingRow>
  /** All rows that the table has now go. */
  readonly truncated: boolean
  readonly truncation: OpenTruncation | null
  readonly rejections: Rejection[]
}

export const NO_BASE_ROW = 'the source left out unchanged columns and the target has no row of this key to take them from'

/**
 * Collapses a batch: the last change of each key wins.
 * @param partitions partitions of the stream that are known; a truncation is over when it was seen on each
 */
export function collapse(batch: SinkBatch, columns: readonly TableColumn[], open: OpenTruncation | null, partitions: number): PendingRows {
  const rows = new Map<RowKey, PendingRow>()
  const rejections: Rejection[] = []
  const checked = columns.filter((column) => column.codec.misfit !== undefined)
  const sparse = batch.table.columns.flatMap((column, index) => (column.mayBeUnchanged ? [index] : []))
  let truncated = false
  let truncation = open
  batch.changes.forEach((change, index) => {
    if (change.kind === 'truncate') {
      const order = truncation === null ? 1 : comparePositions(change.position, truncation.position)
      if (order < 0) return
      if (order === 0) truncation = { position: change.position, seen: truncation!.seen + 1 }
      else {
        truncation = { position: change.position, seen: 1 }
        truncated = true
        rows.clear()
      }
      if (truncation.seen >= partitions) truncation = null
      return
    }
    if (truncation !== null && comparePositions(change.position, truncation.position) < 0) return
    if (change.key === null || change.key.some((value) => value === null)) {
      rejections.push({ index, reason: 'the record has no key' })
      return
    }
    const id = rowKey(change.key)
    const pending = rows.get(id)
    if (change.after === null) {
      if (pending === undefined) rows.set(id, { key: change.key, row: null, waiting: null })
      else {
        pending.row = null
        pending.waiting = null
      }
      return
    }
    let row: Tuple = change.after
    let waits = false
    if (sparse.some((column) => row[column] === UNCHANGED)) {
      const filled = fill(change, batch.table.key, pending?.row ?? null)
      row = filled
      waits = filled.includes(UNCHANGED)
      if (waits && (pending === undefined ? truncated : pending.row === null)) {
        rejections.push({ index, reason: NO_BASE_ROW })
        return
      }
    }
    for (const { index: at, codec, field } of checked) {
      const value = row[at]!
      if (value === null || value === UNCHANGED) continue
      const reason = codec.misfit!(value)
      if (reason !== null) {
        rejections.push({ index, reason: `column ${field.name}: ${reason}` })
        return
      }
    }
    const waiting = waits ? [...(pending?.waiting ?? []), index] : null
    if (pending === undefined) rows.set(id, { key: change.key, row, waiting })
    else {
      pending.row = row
      pending.waiting = waiting
    }
  })
  return { rows, truncated, truncation, rejections }
}

/** The row with UNCHANGED columns from its own key, from the row before, and from what the batch has. */
function fill(change: RowChange, key: readonly number[], pending: Tuple | null): Value[] {
  return change.after!.map((value, column) => {
    if (value !== UNCHANGED) return value
    const at = key.indexOf(column)
    if (at >= 0) return change.key![at]!
    const before = change.before?.[column]
    if (before !== undefined && before !== UNCHANGED) return before
    return pending === null ? UNCHANGED : pending[column]!
  })
}

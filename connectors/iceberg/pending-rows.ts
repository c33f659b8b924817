/** One batch as the last state of each key. */
import { invariant, type Position, type Rejection, type RowChange, type SinkBatch, type Tuple, UNCHANGED, type Value } from '../../core/plugin.ts'
import type { TableColumn } from './parquet-file.ts'
import { type RowKey, rowKey } from './row-key.ts'

export interface PendingRow {
  readonly key: Tuple
  /** Null: deleted. May hold UNCHANGED where `waiting` is not null. */
  row: Tuple | null
  waiting: Waiting | null
}

/** UNCHANGED columns that take the table's values. */
export interface Waiting {
  /** Key of the row in the table; another than the row's own after a key change. */
  readonly base: Tuple
  /** The changes that are rejected when there is no such row. */
  readonly indexes: readonly number[]
}

export interface PendingRows {
  readonly rows: Map<RowKey, PendingRow>
  /** All rows that the table has now go. */
  readonly truncated: boolean
  readonly rejections: readonly Rejection[]
  /** Rows that waited for the table before a later change of the batch replaced them: still rejected when it has no base row. */
  readonly replaced: readonly PendingRow[]
}

export const NO_BASE_ROW = 'the source left out unchanged columns and the target has no row of this key to take them from'

/** A row as another one may need it: of this batch, or null for what the table has. */
interface OldRow {
  readonly key: Tuple
  readonly pending: Pick<PendingRow, 'row' | 'waiting'> | null
}

/** Collapses a batch: the last change of each key wins, and records that do not fit leave it as it was. */
export function collapse(batch: SinkBatch, columns: readonly TableColumn[]): PendingRows {
  const collapsing = new Collapsing(batch, columns)
  batch.changes.forEach((change, index) => {
    if (change.kind === 'truncate') collapsing.truncate()
    else collapsing.take(change, index)
  })
  return collapsing
}

class Collapsing implements PendingRows {
  readonly rows = new Map<RowKey, PendingRow>()
  readonly rejections: Rejection[] = []
  readonly replaced: PendingRow[] = []
  truncated = false
  readonly #key: readonly number[]
  /** Columns whose values may not fit, and columns that may be UNCHANGED. */
  readonly #checked: readonly TableColumn[]
  readonly #sparse: readonly number[]
  /** Delete halves of key changes by the position of their insert half, and the rows as they were before. */
  readonly #halves = new Map<string, RowChange>()
  readonly #moved = new Map<string, OldRow>()

  constructor(batch: SinkBatch, columns: readonly TableColumn[]) {
    this.#key = batch.table.key
    this.#checked = columns.filter((column) => column.codec.misfit !== undefined)
    this.#sparse = batch.table.columns.flatMap((column, index) => (column.mayBeUnchanged ? [index] : []))
    if (this.#sparse.length === 0) return
    for (const change of batch.changes) {
      if (change.kind === 'row' && change.op === 'd' && change.key !== null && change.position.ordinal % 2 === 0)
        this.#halves.set(insertHalf(change.position), change)
    }
  }

  truncate(): void {
    for (const pending of this.rows.values()) if (pending.waiting !== null) this.replaced.push(pending)
    this.truncated = true
    this.rows.clear()
    this.#moved.clear()
  }

  take(change: RowChange, index: number): void {
    if (change.key === null || change.key.some((value) => value === null)) {
      this.rejections.push({ index, reason: 'the record has no key' })
      return
    }
    const id = rowKey(change.key)
    const pending = this.rows.get(id)
    if (change.after === null) {
      if (this.#halves.size > 0) this.#moved.set(insertHalf(change.position), { key: change.key, pending: pending === undefined ? null : { ...pending } })
      this.#put(id, pending, change.key, null, null)
      return
    }
    let row: Tuple = change.after
    let waiting: Waiting | null = null
    if (this.#sparse.some((column) => row[column] === UNCHANGED)) {
      const filled = this.#fill(change, index, pending)
      if (filled === null) {
        this.rejections.push({ index, reason: NO_BASE_ROW, missingBase: true })
        return
      }
      ;({ row, waiting } = filled)
    }
    const reason = this.#misfit(row)
    if (reason !== null) this.rejections.push({ index, reason })
    else this.#put(id, pending, change.key, row, waiting)
  }

  #put(id: RowKey, pending: PendingRow | undefined, key: Tuple, row: Tuple | null, waiting: Waiting | null): void {
    if (pending === undefined) this.rows.set(id, { key, row, waiting })
    else {
      if (pending.waiting !== null && waiting === null) this.replaced.push({ ...pending })
      pending.row = row
      pending.waiting = waiting
    }
  }

  #misfit(row: Tuple): string | null {
    for (const { index, codec, field } of this.#checked) {
      const value = row[index]!
      if (value === null || value === UNCHANGED) continue
      const reason = codec.misfit!(value)
      if (reason !== null) return `column ${field.name}: ${reason}`
    }
    return null
  }

  /** UNCHANGED columns from the row's own key, from `before`, from the batch; what is left waits for the table. Null: there is no base row. */
  #fill(change: RowChange, index: number, pending: PendingRow | undefined): { readonly row: Tuple; readonly waiting: Waiting | null } | null {
    const old = this.#oldRow(change, pending)
    const source = old.pending?.row ?? null
    const row = change.after!.map((value, column): Value => {
      if (value !== UNCHANGED) return value
      const at = this.#key.indexOf(column)
      if (at >= 0) return change.key![at]!
      const before = change.before?.[column]
      if (before !== undefined && before !== UNCHANGED) return before
      return source === null ? UNCHANGED : source[column]!
    })
    if (!row.includes(UNCHANGED)) return { row, waiting: null }
    if (old.pending === null) return this.truncated ? null : { row, waiting: { base: old.key, indexes: [index] } }
    if (source === null) return null
    const waits = old.pending.waiting
    invariant(waits !== null, 'a row with unchanged columns waits for none')
    return { row, waiting: { base: waits.base, indexes: [...waits.indexes, index] } }
  }

  /** The row that an update starts from; for the insert half of a key change, that of the old key. */
  #oldRow(change: RowChange, pending: PendingRow | undefined): OldRow {
    const own: OldRow = { key: change.key!, pending: pending ?? null }
    if (change.op !== 'c') return own
    const at = `${change.position.commit}/${change.position.ordinal}`
    const half = this.#halves.get(at)
    if (half === undefined) return own
    return this.#moved.get(at) ?? { key: half.key!, pending: this.rows.get(rowKey(half.key!)) ?? null }
  }
}

/** Halves of a key change have the ordinals 2n and 2n + 1. */
function insertHalf(position: Position): string {
  return `${position.commit}/${position.ordinal + 1}`
}

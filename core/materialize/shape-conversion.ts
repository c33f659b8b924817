import { invariant, MillraceError } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { type ColumnType, Special, type TableSchema, type Tuple, tableId, UNCHANGED, type Value } from '../event/table-schema.ts'

type Convert = (value: Value) => Value

/**
 * Rewrites changes of an older shape of a table as the newer one has them, by column id: dropped columns go, added ones are NULL, widened ones are wider.
 * @throws sink.schema_unsupported when a column's values can't be read as its newer type, or the key is of other columns
 */
export function changeConverter(from: TableSchema, to: TableSchema): (change: RowChange | Truncation) => RowChange | Truncation {
  const columns = to.columns.map((column) => {
    const at = from.columns.findIndex((older) => older.id === column.id)
    return { at, convert: at < 0 ? null : widening(from, from.columns[at]!.name, from.columns[at]!.type, column.type) }
  })
  const ids = (table: TableSchema) => table.key.map((at) => table.columns[at]!.id).join()
  if (ids(from) !== ids(to)) throw unsupported(from, 'its key is now other columns')
  const key = to.key.map((at) => columns[at]!.convert!)
  const row = (tuple: Tuple): Tuple => columns.map(({ at, convert }) => (convert === null ? null : convert(tuple[at]!)))
  return (change) =>
    change.kind === 'truncate'
      ? { ...change, table: to }
      : {
          ...change,
          table: to,
          key: change.key === null ? null : change.key.map((value, at) => key[at]!(value)),
          before: change.before === null ? null : row(change.before),
          after: change.after === null ? null : row(change.after),
        }
}

/** Fills UNCHANGED from the image before the change, where the source sent one. */
export function fillFromBefore(change: RowChange): RowChange {
  const { before, after } = change
  if (before === null || after === null || !after.includes(UNCHANGED)) return change
  return { ...change, after: after.map((value, at) => (value === UNCHANGED ? before[at]! : value)) }
}

const same: Convert = (value) => value

function widening(table: TableSchema, name: string, from: ColumnType, to: ColumnType): Convert {
  const plain = typeWidening(from, to)
  if (plain === null) throw unsupported(table, `column ${name} changed from ${from.kind} to ${to.kind}`)
  if (plain === same) return same
  return (value) => (value === null || value === UNCHANGED || value instanceof Special ? value : plain(value))
}

const TEXT = new Set(['string', 'json', 'enum', 'uuid'])

/** Null: there is none that keeps every value. */
function typeWidening(from: ColumnType, to: ColumnType): Convert | null {
  if (to.kind === 'int64' && from.kind === 'int32') return (value) => BigInt(value as number)
  if (to.kind === 'float64' && from.kind === 'float32') return same
  if (to.kind === 'string' && TEXT.has(from.kind)) return same
  if (from.kind === 'decimal' && to.kind === 'decimal') {
    const more = to.scale - from.scale
    if (more < 0 || to.precision - to.scale < from.precision - from.scale) return null
    if (more === 0) return same
    const factor = 10n ** BigInt(more)
    return (value) => (value as bigint) * factor
  }
  if (from.kind === 'array' && to.kind === 'array') {
    const element = typeWidening(from.element, to.element)
    return element === null || element === same ? element : (value) => (value as readonly Value[]).map((item) => (item === null ? null : element(item)))
  }
  if (from.kind === 'record' && to.kind === 'record') {
    const fields = to.fields.map((field, at) => (from.fields[at] === undefined ? () => null : typeWidening(from.fields[at]!.type, field.type)))
    if (from.fields.length > to.fields.length || fields.includes(null)) return null
    invariant(
      from.fields.every((field, at) => field.name === to.fields[at]!.name),
      'the fields of a record type changed places',
    )
    return (value) => fields.map((field, at) => ((value as readonly Value[])[at] == null ? null : field!((value as readonly Value[])[at]!)))
  }
  return from.kind === to.kind ? same : null
}

function unsupported(table: TableSchema, what: string): MillraceError {
  return new MillraceError('sink.schema_unsupported', `records of an older shape of ${tableId(table)} come after the newer one, and ${what}`, {
    fix: 'give the sink a new target, so that the stream is read again in the order of its partitions',
  })
}

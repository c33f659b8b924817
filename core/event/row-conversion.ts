import { invariant, MillraceError } from '../errors.ts'
import { type ColumnType, Special, type TableSchema, type Tuple, tableId, UNCHANGED, type Value } from './table-schema.ts'

export type ConvertValue = (value: Value) => Value

/** How one column of a newer shape is made from a row of an older one. */
export interface ColumnConversion {
  /** Index in the older shape; -1: it has no such column, and the value is NULL. */
  readonly at: number
  readonly convert: ConvertValue
}

/**
 * Columns of one version of a table from rows of another, matched by column id: dropped columns go, added ones are NULL, widened ones are wider. UNCHANGED and
 * special values stay what they are.
 * @throws sink.schema_unsupported when a column's values cannot be read as its other type
 */
export function columnConversions(from: TableSchema, to: TableSchema): readonly ColumnConversion[] {
  return to.columns.map((column) => {
    const at = from.columns.findIndex((other) => other.id === column.id)
    if (at < 0) return { at, convert: () => null }
    const plain = typeConversion(from.columns[at]!.type, column.type)
    if (plain === null) {
      throw new MillraceError(
        'sink.schema_unsupported',
        `column ${from.columns[at]!.name} of ${tableId(from)} changed from ${from.columns[at]!.type.kind} to ${column.type.kind}`,
        {
          fix: 'give the sink a new target, so that the stream is read again in the order of its partitions',
        },
      )
    }
    const convert: ConvertValue = plain === same ? same : (value) => (value === null || value === UNCHANGED || value instanceof Special ? value : plain(value))
    return { at, convert }
  })
}

/** Whole rows of one version of a table in the shape of another; see {@link columnConversions}. */
export function compileConversion(from: TableSchema, to: TableSchema): (row: Tuple) => Tuple {
  if (from === to) return (row) => row
  const columns = columnConversions(from, to)
  return (row) => columns.map(({ at, convert }) => (at < 0 ? null : convert(row[at]!)))
}

const same: ConvertValue = (value) => value
const TEXT = new Set(['string', 'json', 'enum', 'uuid'])

/** Null: there is none that keeps every value. */
function typeConversion(from: ColumnType, to: ColumnType): ConvertValue | null {
  if (to.kind === 'int64' && from.kind === 'int32') return (value) => BigInt(value as number)
  if (to.kind === 'float64' && (from.kind === 'float32' || from.kind === 'int32')) return same
  if (to.kind === 'string' && TEXT.has(from.kind)) return same
  if (to.kind === 'decimal' && (from.kind === 'int32' || from.kind === 'int64')) {
    if (to.precision - to.scale < (from.kind === 'int32' ? 10 : 19)) return null
    const factor = 10n ** BigInt(to.scale)
    return (value) => BigInt(value as number | bigint) * factor
  }
  if (from.kind === 'decimal' && to.kind === 'decimal') {
    const more = to.scale - from.scale
    if (more < 0 || to.precision - to.scale < from.precision - from.scale) return null
    if (more === 0) return same
    const factor = 10n ** BigInt(more)
    return (value) => (value as bigint) * factor
  }
  if (from.kind === 'array' && to.kind === 'array') {
    const element = typeConversion(from.element, to.element)
    return element === null || element === same ? element : (value) => (value as readonly Value[]).map((item) => (item === null ? null : element(item)))
  }
  if (from.kind === 'record' && to.kind === 'record') {
    const fields = to.fields.map((field, at) => (from.fields[at] === undefined ? () => null : typeConversion(from.fields[at]!.type, field.type)))
    if (from.fields.length > to.fields.length || fields.includes(null)) return null
    invariant(
      from.fields.every((field, at) => field.name === to.fields[at]!.name),
      'the fields of a record type changed places',
    )
    return (value) => fields.map((field, at) => ((value as readonly Value[])[at] == null ? null : field!((value as readonly Value[])[at]!)))
  }
  return from.kind === to.kind ? same : null
}

import { MillraceError } from '../errors.ts'
import { type ColumnType, Special, type TableSchema, type Tuple, tableId, UNCHANGED, type Value } from './table-schema.ts'

/**
 * Rows of one version of a table in the shape of another: columns are matched by id; a column the row's version does not have is NULL, one that the other
 * version dropped is left out; int32 becomes int64, float32 float64, a decimal of smaller scale one of larger, and anything textual a string.
 * @throws sink.schema_unsupported when a column's type cannot be carried over
 */
export function compileConversion(from: TableSchema, to: TableSchema): (row: Tuple) => Tuple {
  if (from === to) return (row) => row
  const steps = to.columns.map((column) => {
    const index = from.columns.findIndex((candidate) => candidate.id === column.id)
    if (index < 0) return null
    const convert = conversion(from.columns[index]!.type, column.type)
    if (convert === null) {
      throw new MillraceError(
        'sink.schema_unsupported',
        `${tableId(to)}.${column.name}: ${from.columns[index]!.sourceType} cannot be carried over to ${column.sourceType}`,
      )
    }
    return { index, convert }
  })
  return (row) =>
    steps.map((step) => {
      if (step === null) return null
      const value = row[step.index]!
      return value === null || value === UNCHANGED || value instanceof Special ? value : step.convert(value)
    })
}

type Convert = (value: Value) => Value
const same: Convert = (value) => value

function conversion(from: ColumnType, to: ColumnType): Convert | null {
  if (from.kind === 'decimal' && to.kind === 'decimal') {
    if (to.scale < from.scale) return null
    const factor = 10n ** BigInt(to.scale - from.scale)
    return (value) => (value as bigint) * factor
  }
  if (from.kind === 'array' && to.kind === 'array') {
    const element = conversion(from.element, to.element)
    if (element === null) return null
    return (value) => (value as readonly Value[]).map((item) => (item === null ? null : element(item)))
  }
  if (from.kind === 'record' && to.kind === 'record') return JSON.stringify(from) === JSON.stringify(to) ? same : null
  if (from.kind === to.kind) return same
  if (from.kind === 'int32' && to.kind === 'int64') return (value) => BigInt(value as number)
  if (from.kind === 'int32' && to.kind === 'float64') return same
  if (from.kind === 'float32' && to.kind === 'float64') return same
  if (to.kind === 'decimal' && (from.kind === 'int32' || from.kind === 'int64')) {
    const factor = 10n ** BigInt(to.scale)
    return (value) => BigInt(value as number | bigint) * factor
  }
  if (to.kind === 'string' && (from.kind === 'enum' || from.kind === 'uuid' || from.kind === 'json')) return same
  return null
}

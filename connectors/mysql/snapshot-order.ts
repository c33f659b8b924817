import { invariant } from '../../core/plugin.ts'
import type { CatalogTable } from './catalog.ts'
import { type ColumnDefinition, memberText } from './column-definition.ts'
import { fieldOf, type RowLayout } from './result-rows.ts'
import { dateText, fractionText } from './type-datetime.ts'
import { identifier } from './wire-connection.ts'

/** The rows after a key, in the order of the key's index. `after` are SQL literals in the order of the index's columns. */
export function keyClause(table: CatalogTable, after: readonly string[] | null): string {
  const { columns } = table.index!
  const order = ` order by ${columns.map(identifier).join(', ')}`
  if (after === null) return order
  const terms = columns.map((name) => comparable(table.columns.find((column) => column.name === name)!))
  const later = terms.map((term, i) => {
    const equal = terms.slice(0, i).map((earlier, n) => `${earlier} = ${after[n]}`)
    return `(${[...equal, `${term} > ${after[i]}`].join(' and ')})`
  })
  // the first condition alone is what lets the index be entered at the right place
  const from = terms.length === 1 ? '' : `${terms[0]} >= ${after[0]} and `
  return ` where ${from}(${later.join(' or ')})${order}`
}

/** The number of a set of 64 members is without a sign in the index, and has one in a comparison: cast, it costs a look at every entry, and misses none. */
function comparable({ name, base, values }: ColumnDefinition): string {
  return base === 'set' && values.length === 64 ? `cast(${identifier(name)} as unsigned)` : identifier(name)
}

/** The key of the row at `at` as SQL literals. */
export function keyLiterals(table: CatalogTable, layout: RowLayout, bytes: Buffer, view: DataView, at: number): readonly string[] {
  return table.index!.columns.map((name) => {
    const position = table.columns.findIndex((column) => column.name === name)
    const field = fieldOf(layout, bytes, at, position)
    invariant(field !== null, `key column ${name} is NULL`)
    return valueLiteral(table.columns[position]!, layout[position]!, bytes, view, field.from, field.length)
  })
}

/** A value of the binary protocol as a literal that compares with its column as the column's index does. */
function valueLiteral(column: ColumnDefinition, layout: number, bytes: Buffer, view: DataView, at: number, length: number): string {
  const hex = bytes.toString('hex', at, at + length)
  switch (column.base) {
    case 'float':
      return String(view.getFloat32(at, true))
    case 'double':
      return String(view.getFloat64(at, true))
    case 'decimal':
      return bytes.toString('latin1', at, at + length)
    case 'bit':
      return BigInt(`0x${hex}`).toString()
    case 'date':
    case 'datetime':
    case 'timestamp':
      return momentLiteral(bytes, view, at, length, column.base === 'date')
    case 'time':
      return timeLiteral(bytes, view, at, length)
    // both are in the order of their numbers, and so compared
    case 'enum':
      return String(column.values.indexOf(memberText(bytes.subarray(at, at + length), column.charset)) + 1)
    case 'set': {
      const chosen = memberText(bytes.subarray(at, at + length), column.charset).split(',')
      return column.values.reduce((sum, value, i) => (chosen.includes(value) ? sum + (1n << BigInt(i)) : sum), 0n).toString()
    }
    case 'uuid':
    case 'inet4':
    case 'inet6':
      return `'${bytes.toString('latin1', at, at + length)}'`
  }
  if (layout > 0) return integerLiteral(view, at, layout, column.unsigned)
  return `_${column.charset ?? 'binary'} x'${hex}'`
}

function integerLiteral(view: DataView, at: number, size: number, unsigned: boolean): string {
  switch (size) {
    case 1:
      return String(unsigned ? view.getUint8(at) : view.getInt8(at))
    case 2:
      return String(unsigned ? view.getUint16(at, true) : view.getInt16(at, true))
    case 4:
      return String(unsigned ? view.getUint32(at, true) : view.getInt32(at, true))
    default:
      return String(unsigned ? view.getBigUint64(at, true) : view.getBigInt64(at, true))
  }
}

function momentLiteral(bytes: Buffer, view: DataView, at: number, length: number, dateOnly: boolean): string {
  const date = length === 0 ? '0000-00-00' : dateText(view.getUint16(at, true), bytes[at + 2]!, bytes[at + 3]!)
  if (dateOnly) return `'${date}'`
  const clock = length < 7 ? '00:00:00' : [bytes[at + 4]!, bytes[at + 5]!, bytes[at + 6]!].map((part) => String(part).padStart(2, '0')).join(':')
  return `'${date} ${clock}${length < 11 ? '' : fractionText(view.getUint32(at + 7, true), 6)}'`
}

function timeLiteral(bytes: Buffer, view: DataView, at: number, length: number): string {
  if (length === 0) return `'00:00:00'`
  const hours = view.getUint32(at + 1, true) * 24 + bytes[at + 5]!
  const clock = [hours, bytes[at + 6]!, bytes[at + 7]!].map((part) => String(part).padStart(2, '0')).join(':')
  return `'${bytes[at] === 1 ? '-' : ''}${clock}${length < 12 ? '' : fractionText(view.getUint32(at + 8, true), 6)}'`
}

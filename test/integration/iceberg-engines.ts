/** What the tests share in which other engines read what the Iceberg sink wrote. */
import fc from 'fast-check'
import { decimalText } from '../../connectors/iceberg/value-codec.ts'
import type { ColumnType, Tuple, Value } from '../../core/plugin.ts'
import { column, stepOf, table } from '../unit/connectors/iceberg/sink-history.ts'

/** A table whose updates may leave a column out, and a step of its history. */
export const notes = table([
  column(1, 'id', { kind: 'int64' }),
  column(2, 'name', { kind: 'string' }),
  column(3, 'note', { kind: 'string' }, { mayBeUnchanged: true }),
])
export const notesStep = stepOf(fc.tuple(fc.constant(0n), fc.string(), fc.string()) as fc.Arbitrary<Tuple>)

export type DecimalType = Extract<ColumnType, { readonly kind: 'decimal' }>

/** A value as the scripts write it that run within the engines. `decimal` is how they write decimals. */
export function engineText(type: ColumnType, value: Value, decimal: (type: DecimalType, value: bigint) => string = plain): unknown {
  if (value === null) return null
  switch (type.kind) {
    case 'decimal':
      return decimal(type, value as bigint)
    case 'float32':
    case 'float64': {
      const bytes = Buffer.alloc(8)
      bytes.writeDoubleBE(value as number)
      return Number.isNaN(value as number) ? 'NaN' : `0f${bytes.toString('hex')}`
    }
    case 'bytes':
      return `0x${Buffer.from(value as Uint8Array).toString('hex')}`
    case 'array':
      return (value as Value[]).map((item) => engineText(type.element, item, decimal))
    case 'record':
      return (value as Value[]).map((item, i) => engineText(type.fields[i]!.type, item, decimal))
    case 'map':
      return [...(value as Map<string, string | null>)].sort()
    default:
      return String(value)
  }
}

const plain = (type: DecimalType, value: bigint) => decimalText(value, type.scale)

import { invariant, MillraceError } from '../errors.ts'
import { type ColumnType, Special, type TableSchema, UNCHANGED, type Value } from '../event/table-schema.ts'
import { valueLayout } from './avro-mapping.ts'
import type { AvroWriter } from './avro-writer.ts'

/** Writes a value that is neither null, UNCHANGED nor Special, by its column's type: the general way, for values that come as JavaScript. */
export function encodeValue(out: AvroWriter, type: ColumnType, value: Value): void {
  switch (type.kind) {
    case 'boolean':
      out.byte(value === true ? 1 : 0)
      return
    case 'int32':
    case 'date':
      out.long(value as number)
      return
    case 'int64':
    case 'time':
    case 'timestamp':
    case 'timestamptz':
      out.bigint(BigInt(value as bigint))
      return
    case 'float32':
      out.float(value as number)
      return
    case 'float64':
      out.double(value as number)
      return
    case 'decimal':
      out.decimalBig(value as bigint)
      return
    case 'string':
    case 'uuid':
    case 'json':
    case 'enum':
      out.string(value as string)
      return
    case 'bytes': {
      const bytes = value as Uint8Array
      out.bytes(bytes, 0, bytes.length)
      return
    }
    case 'array': {
      const elements = value as readonly Value[]
      if (elements.length > 0) {
        out.long(elements.length)
        for (const element of elements) encodeNullable(out, type.element, element)
      }
      out.byte(0)
      return
    }
    case 'record': {
      const fields = value as readonly Value[]
      invariant(fields.length === type.fields.length, `a record of ${type.fields.length} fields got ${fields.length}`)
      for (const [i, field] of type.fields.entries()) encodeNullable(out, field.type, fields[i]!)
      return
    }
    case 'map': {
      const entries = value as ReadonlyMap<string, string | null>
      if (entries.size > 0) {
        out.long(entries.size)
        for (const [key, text] of entries) {
          out.string(key)
          encodeNullable(out, { kind: 'string' }, text)
        }
      }
      out.byte(0)
    }
  }
}

function encodeNullable(out: AvroWriter, type: ColumnType, value: Value): void {
  if (value === null) {
    out.byte(0)
    return
  }
  if (value instanceof Special || value === UNCHANGED) {
    throw new MillraceError('record.unrepresentable', `a value inside an array or a record cannot be ${value instanceof Special ? 'special' : 'unchanged'}`)
  }
  out.byte(2)
  encodeValue(out, type, value)
}

/**
 * Writes each column of a row as it is in the row's Avro `Value`: the canonical form whose hash the audit compares.
 * Compiled once per table; the functions are not reentrant with others on the same writer.
 */
export function compileColumnEncoders(table: TableSchema): readonly ((out: AvroWriter, value: Value) => void)[] {
  const layout = valueLayout(table)
  return table.columns.map((column, i) => {
    const { valueBranch, unchangedBranch, specialBranch } = layout[i]!
    return (out, value) => {
      if (value === null) {
        if (valueBranch === null) throw new MillraceError('record.null_key', `key column ${column.name} of ${table.namespace}.${table.name} is NULL`)
        out.byte(0)
      } else if (value === UNCHANGED) {
        invariant(unchangedBranch !== null, `column ${column.name} cannot be unchanged`)
        out.byte(unchangedBranch * 2)
      } else if (value instanceof Special) {
        if (specialBranch === null) throw new MillraceError('record.unrepresentable', `column ${column.name} cannot hold a special value`)
        out.byte(specialBranch * 2)
        out.string(value.text)
      } else {
        if (valueBranch !== null) out.byte(valueBranch * 2)
        encodeValue(out, column.type, value)
      }
    }
  })
}

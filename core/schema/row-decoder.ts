import { type ColumnType, Special, type TableSchema, type Tuple, UNCHANGED, type Value } from '../event/table-schema.ts'
import { type ColumnLayout, valueLayout } from './avro-mapping.ts'
import type { AvroReader } from './avro-reader.ts'

type Read<T> = (reader: AvroReader) => T

/**
 * Compiles the reader of a table's `Value` records into tuples in column order. The function allocates only the tuple and its values.
 * It throws what {@link AvroReader} throws.
 */
export function compileRowDecoder(table: TableSchema): Read<Tuple> {
  const layout = valueLayout(table)
  return compile(table.columns.map(({ type }, i) => ({ type, layout: layout[i]! })))
}

/** Compiles the reader of `Key` records: the plain types of the key columns. */
export function compileKeyDecoder(types: readonly ColumnType[]): Read<Tuple> {
  return compile(types.map((type) => ({ type, layout: { key: true, valueBranch: null, unchangedBranch: null, specialBranch: null } })))
}

const NULLABLE: ColumnLayout = { key: false, valueBranch: 1, unchangedBranch: null, specialBranch: null }

/** Only kinds and indexes go into the generated text, never a name. */
function compile(fields: readonly { readonly type: ColumnType; readonly layout: ColumnLayout }[]): Read<Tuple> {
  const nested: Read<unknown>[] = []
  const lines = fields.map(({ type, layout }, i) => {
    const value = expression(type, nested)
    if (layout.valueBranch === null) return `const c${i} = r.${value}`
    const cases = ['case 0: break']
    cases.push(`case ${layout.valueBranch}: c${i} = r.${value}; break`)
    if (layout.unchangedBranch !== null) cases.push(`case ${layout.unchangedBranch}: c${i} = UNCHANGED; break`)
    if (layout.specialBranch !== null) cases.push(`case ${layout.specialBranch}: c${i} = new Special(r.string()); break`)
    return `let c${i} = null\nswitch (r.branch(${cases.length})) { ${cases.join('; ')} }`
  })
  const body = `return (r) => {\n${lines.join('\n')}\nreturn [${fields.map((_, i) => `c${i}`).join(', ')}]\n}`
  return new Function('UNCHANGED', 'Special', 'nested', body)(UNCHANGED, Special, nested) as Read<Tuple>
}

/** A call on the reader that gives the value, as the text after `r.`. */
function expression(type: ColumnType, nested: Read<unknown>[]): string {
  switch (type.kind) {
    case 'boolean':
      return 'boolean()'
    case 'int32':
    case 'date':
      return 'int()'
    case 'int64':
    case 'time':
    case 'timestamp':
    case 'timestamptz':
      return 'long()'
    case 'float32':
      return 'float()'
    case 'float64':
      return 'double()'
    case 'decimal':
      return 'decimal()'
    case 'string':
    case 'uuid':
    case 'json':
    case 'enum':
      return 'string()'
    case 'bytes':
      return 'bytes()'
    case 'array':
      return `array(nested[${nested.push(nullable(type.element)) - 1}])`
    case 'map':
      return `map(nested[${nested.push(nullable({ kind: 'string' })) - 1}])`
    case 'record':
      return `record(nested[${nested.push(compile(type.fields.map((field) => ({ type: field.type, layout: NULLABLE })))) - 1}])`
  }
}

function nullable(type: ColumnType): Read<Value> {
  const read = compile([{ type, layout: NULLABLE }])
  return (reader) => read(reader)[0]!
}

/** What the table in schemas/README.md says about changes of a table, one by one. */
import { expect, test } from 'vitest'
import type { Column, ColumnType, TableSchema } from '../../../../core/event/table-schema.ts'
import { envelopeSchemaOf, keySchemaOf } from '../../../../core/schema/avro-mapping.ts'
import { parseAvroSchema } from '../../../../core/schema/avro-schema.ts'
import { incompatibilities } from '../../../../core/schema/compatibility.ts'

const column = (id: number, name: string, type: ColumnType, more: Partial<Column> = {}): Column => ({
  id,
  name,
  type,
  sourceType: '',
  nullable: true,
  mayBeUnchanged: false,
  maybeSpecial: false,
  ...more,
})
const id = column(1, 'id', { kind: 'int64' })
const of = (...columns: Column[]): TableSchema => ({ namespace: 'public', name: 't', columns: [id, ...columns], key: [0] })
const a = (type: ColumnType, more: Partial<Column> = {}) => of(column(2, 'a', type, more))
const int = a({ kind: 'int32' })
const numeric = (precision: number, scale: number) => a({ kind: 'decimal', precision, scale })
const status = (...values: string[]) => a({ kind: 'enum', values })

test.each<[string, TableSchema, TableSchema, backward: boolean, forward: boolean]>([
  ['add a column', of(), int, true, true],
  ['drop a column', int, of(), true, true],
  ['rename a column', int, of(column(2, 'b', { kind: 'int32' })), true, true],
  ['set NOT NULL', int, a({ kind: 'int32' }, { nullable: false }), true, true],
  ['add an enum value', status('x'), status('x', 'y'), true, true],
  ['integer to bigint', int, a({ kind: 'int64' }), true, false],
  ['real to double precision', a({ kind: 'float32' }), a({ kind: 'float64' }), true, false],
  ['larger precision', numeric(10, 2), numeric(12, 2), true, false],
  ['another scale', numeric(10, 2), numeric(10, 3), false, false],
  ['numeric to text', numeric(10, 2), a({ kind: 'string' }), false, false],
  ['text to integer', a({ kind: 'string' }), int, false, false],
  ['a column may be unchanged from now on', a({ kind: 'string' }), a({ kind: 'string' }, { mayBeUnchanged: true }), true, false],
  ['take a column into the key', int, { ...int, key: [0, 1] }, false, true],
  ['take a column out of the key', { ...int, key: [0, 1] }, int, true, false],
  ['rename a column of the key', of(), { ...of(), columns: [{ ...id, name: 'nr' }] }, false, false],
])('%s', (_, before, after, backward, forward) => {
  const schemas = (table: TableSchema) => [
    parseAvroSchema(envelopeSchemaOf(table, { recordNamespace: 's.public.t', sourceFields: [] })),
    parseAvroSchema(keySchemaOf(table, 's.public.t')),
  ]
  const reads = (reader: TableSchema, writer: TableSchema) => schemas(reader).every((schema, i) => incompatibilities(schema, schemas(writer)[i]!).length === 0)
  expect({ backward: reads(after, before), forward: reads(before, after) }).toEqual({ backward, forward })
})

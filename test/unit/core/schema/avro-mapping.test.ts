import avsc from 'avsc'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { TableSchema } from '../../../../core/event/table-schema.ts'
import { envelopeSchemaOf, keySchemaOf, tableOf, valueLayout } from '../../../../core/schema/avro-mapping.ts'
import { runs } from '../../../fixed-seed.ts'
import { tables } from './tables.ts'

const options = {
  recordNamespace: 'shop-db.public.orders',
  sourceFields: [
    { name: 'lsn', type: 'long' as const },
    { name: 'tx id', type: 'string' as const },
  ],
}

test('a table comes back from its schema exactly, and the schema parses as Avro', () => {
  fc.assert(
    fc.property(tables, (table) => {
      const schema = envelopeSchemaOf(table, options)
      expect(tableOf(schema)).toEqual(table)
      expect(envelopeSchemaOf(tableOf(schema), options)).toBe(schema)
      avsc.Type.forSchema(JSON.parse(schema))
      if (table.key.length > 0) avsc.Type.forSchema(JSON.parse(keySchemaOf(table, options.recordNamespace)))
    }),
    { numRuns: runs(300) },
  )
})

test('a table comes back when a registry re-orders the attributes of its schema', () => {
  const sorted = (json: unknown): unknown => {
    if (Array.isArray(json)) return json.map(sorted)
    if (typeof json !== 'object' || json === null) return json
    return Object.fromEntries(
      Object.entries(json)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, value]) => [key, sorted(value)]),
    )
  }
  fc.assert(
    fc.property(tables, (table) => {
      expect(tableOf(JSON.stringify(sorted(JSON.parse(envelopeSchemaOf(table, options)))))).toEqual(table)
    }),
  )
})

const plain = { sourceType: '', nullable: true, mayBeUnchanged: false, maybeSpecial: false }
const orders: TableSchema = {
  namespace: 'public',
  name: 'orders',
  columns: [
    { ...plain, name: 'id', id: 1, type: { kind: 'int64' }, nullable: false, maybeSpecial: true },
    { ...plain, name: 'note', id: 2, type: { kind: 'string' }, mayBeUnchanged: true },
    { ...plain, name: 'at', id: 3, type: { kind: 'timestamptz' }, maybeSpecial: true },
    { ...plain, name: 'both', id: 4, type: { kind: 'string' }, mayBeUnchanged: true, maybeSpecial: true },
    { ...plain, name: 'plain', id: 5, type: { kind: 'int32' } },
  ],
  key: [0],
}

test('the layout gives the branches that the schema has', () => {
  expect(valueLayout(orders)).toEqual([
    { key: true, valueBranch: null, unchangedBranch: null, specialBranch: null },
    { key: false, valueBranch: 1, unchangedBranch: 2, specialBranch: null },
    { key: false, valueBranch: 1, unchangedBranch: null, specialBranch: 2 },
    { key: false, valueBranch: 1, unchangedBranch: 2, specialBranch: 3 },
    { key: false, valueBranch: 1, unchangedBranch: null, specialBranch: null },
  ])
  const value = JSON.parse(envelopeSchemaOf(orders, options)).fields[0].type[1]
  const branches = value.fields.map((field: { type: unknown }) =>
    Array.isArray(field.type) ? field.type.map((branch) => branch.name ?? branch.logicalType ?? branch) : (field.type as string),
  )
  expect(branches).toEqual([
    'long',
    ['null', 'string', 'Unchanged'],
    ['null', 'timestamp-micros', 'Special'],
    ['null', 'string', 'Unchanged', 'Special'],
    ['null', 'int'],
  ])
})

const FIELDS = 'fields.0.type.1.fields'

test.each<[string, string, unknown, string]>([
  ['no property on a column', `${FIELDS}.1.millrace`, undefined, 'Value.note has no "millrace" property'],
  ['no property on the row', 'fields.0.type.1.millrace', undefined, 'Value has no "millrace" property'],
  ['another Avro type than the property says', `${FIELDS}.4.type`, ['null', 'string'], 'Value.plain has another Avro type'],
  ['branches in another order', `${FIELDS}.3.type`, ['null', 'Unchanged', 'string', 'Special'], 'Value.both has another Avro type'],
  ['a logical type that the column has not', `${FIELDS}.4.type.1`, { type: 'int', logicalType: 'date' }, 'Value.plain has another Avro type'],
  ['a property of a wrong type', `${FIELDS}.1.millrace.id`, 'x', 'is wrong at id'],
  ['no after image', 'fields.1.name', 'then', 'has no field after'],
])('a foreign schema is refused, naming what is missing: %s', (_, path, value, message) => {
  const schema = JSON.parse(envelopeSchemaOf(orders, options))
  const keys = path.split('.')
  const holder = keys.slice(0, -1).reduce((node, key) => node[key], schema)
  holder[keys.at(-1)!] = value
  expect(() => tableOf(JSON.stringify(schema))).toThrow(expect.objectContaining({ code: 'schema.invalid', message: expect.stringContaining(message) }))
})

test.each(['"string"', '{"type":"record","name":"Order","fields":[{"name":"id","type":"long"}]}', 'not json {'])('%s is no envelope', (schema) => {
  expect(() => tableOf(schema)).toThrow(expect.objectContaining({ code: 'schema.invalid' }))
})

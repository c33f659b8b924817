import avsc from 'avsc'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseAvroSchema } from '../../../../core/schema/avro-schema.ts'
import { breaksAt, incompatibilities } from '../../../../core/schema/compatibility.ts'
import type { CompatibilityLevel } from '../../../../core/schema/registry.ts'

const parse = (json: unknown) => parseAvroSchema(JSON.stringify(json))
const reasons = (reader: unknown, writer: unknown) => incompatibilities(parse(reader), parse(writer))
const record = (...fields: object[]) => ({ type: 'record', name: 'R', namespace: 'n', fields })
const decimal = (precision: number, scale: number) => ({ type: 'bytes', logicalType: 'decimal', precision, scale })
const letters = (symbols: string[], more: object = {}) => ({ type: 'enum', name: 'E', symbols, ...more })
const fixed = (size: number, more: object = {}) => ({ type: 'fixed', name: 'F', size, ...more })
const tree = (value: string) => ({
  type: 'record',
  name: 'T',
  fields: [
    { name: 'v', type: value },
    { name: 'next', type: ['null', 'T'], default: null },
  ],
})

describe('compatible', () => {
  test.each<[string, unknown, unknown]>([
    ...['null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string'].map((type): [string, unknown, unknown] => [type, type, type]),
    ['int as long', 'long', 'int'],
    ['int as float', 'float', 'int'],
    ['int as double', 'double', 'int'],
    ['long as float', 'float', 'long'],
    ['long as double', 'double', 'long'],
    ['float as double', 'double', 'float'],
    ['string as bytes', 'bytes', 'string'],
    ['bytes as string', 'string', 'bytes'],
    ['a new field with a default', record({ name: 'a', type: 'int', default: 1 }), record()],
    ['a dropped field', record(), record({ name: 'a', type: 'int' })],
    ['fields in another order', record({ name: 'a', type: 'int' }, { name: 'b', type: 'int' }), record({ name: 'b', type: 'int' }, { name: 'a', type: 'int' })],
    ['a field renamed with an alias', record({ name: 'b', aliases: ['a'], type: 'int' }), record({ name: 'a', type: 'int' })],
    ['a record renamed with an alias', { ...record(), name: 'S', aliases: ['n.R'] }, record()],
    ['a record renamed with an alias in its own namespace', { ...record(), name: 'S', aliases: ['R'] }, record()],
    ['a record in another namespace', { ...record(), namespace: 'other' }, record()],
    ['a type made nullable', ['null', 'int'], 'int'],
    ['a union with a branch more', ['null', 'int', 'string'], ['null', 'int']],
    ['union branches in another order', ['int', 'null'], ['null', 'int']],
    ['a union of which all branches fit', 'long', ['int', 'long']],
    ['a promotion within a union', ['null', 'double'], ['null', 'int']],
    ['an enum with a symbol more', letters(['A', 'B']), letters(['A'])],
    ['an enum with a symbol less and a default', letters(['A'], { default: 'A' }), letters(['A', 'B'])],
    ['a fixed of the same size', fixed(4), fixed(4)],
    ['a fixed renamed with an alias', fixed(4, { name: 'G', aliases: ['F'] }), fixed(4)],
    ['array items promoted', { type: 'array', items: 'long' }, { type: 'array', items: 'int' }],
    ['map values promoted', { type: 'map', values: 'long' }, { type: 'map', values: 'int' }],
    ['a recursive record', tree('long'), tree('int')],
    ['a decimal of larger precision', decimal(12, 2), decimal(10, 2)],
    ['other logical types, which do not matter', { type: 'long', logicalType: 'timestamp-micros' }, 'long'],
    ['a decimal without precision, which is none', { type: 'bytes', logicalType: 'decimal' }, 'bytes'],
  ])('%s', (_, reader, writer) => expect(reasons(reader, writer)).toEqual([]))
})

describe('incompatible', () => {
  test.each<[string, unknown, unknown, string]>([
    ['long as int', 'int', 'long', '$: long cannot be read as int'],
    ['double as float', 'float', 'double', '$: double cannot be read as float'],
    ['float as long', 'long', 'float', '$: float cannot be read as long'],
    ['int as string', 'string', 'int', '$: int cannot be read as string'],
    ['boolean as int', 'int', 'boolean', '$: boolean cannot be read as int'],
    ['a new field without a default', record({ name: 'a', type: 'int' }), record(), '$.fields[0]: the field a of n.R has no default and is not in the data'],
    ['a field of another type', record({ name: 'a', type: 'int' }), record({ name: 'a', type: 'string' }), '$.fields[0].type: string cannot be read as int'],
    ['a record of another name', { ...record(), name: 'S' }, record(), '$: the record n.R is not n.S or one of its aliases'],
    ['a type made required', 'int', ['null', 'int'], '$: null cannot be read as int'],
    ['a union with a branch less', ['null', 'int'], ['null', 'int', 'string'], '$: the union has no branch that can read string'],
    ['a union that the type is not in', ['null', 'int'], 'string', '$: the union has no branch that can read string'],
    [
      'a record in a union, with what is wrong in it',
      ['null', record({ name: 'a', type: 'int' })],
      record(),
      '$[1].fields[0]: the field a of n.R has no default',
    ],
    ['an enum with a symbol less', letters(['A']), letters(['A', 'B']), '$.symbols: E lacks B and has no default'],
    ['an enum of another name', letters(['A'], { name: 'D' }), letters(['A']), '$: the enum E is not D'],
    ['a fixed of another size', fixed(5), fixed(4), '$.size: F had 4 bytes and now has 5'],
    ['a fixed of another name', fixed(4, { name: 'G' }), fixed(4), '$: the fixed F is not G'],
    ['array items', { type: 'array', items: 'int' }, { type: 'array', items: 'long' }, '$.items: long cannot be read as int'],
    ['map values', { type: 'map', values: 'int' }, { type: 'map', values: 'string' }, '$.values: string cannot be read as int'],
    ['array as map', { type: 'map', values: 'int' }, { type: 'array', items: 'int' }, '$: array cannot be read as map'],
    ['a recursive record', tree('int'), tree('long'), '$.fields[0].type: long cannot be read as int'],
    ['a decimal of another scale', decimal(10, 3), decimal(10, 2), '$.scale: the decimal had scale 2 and now has 3'],
    ['a decimal of smaller precision', decimal(9, 2), decimal(10, 2), '$.precision: the decimal had precision 10 and now has 9'],
    ['a decimal as text', 'string', decimal(9, 2), '$: a decimal cannot be read as string'],
    ['bytes as a decimal', decimal(9, 2), 'bytes', '$: bytes cannot be read as a decimal'],
  ])('%s', (_, reader, writer, message) => expect(reasons(reader, writer)).toEqual([expect.stringContaining(message)]))
})

/** Schemas that evolve from each other often enough to be compatible now and then. */
const schemas: fc.Arbitrary<unknown> = fc.letrec<{ schema: unknown }>((tie) => ({
  schema: fc.oneof(
    { depthSize: 'small', maxDepth: 3 },
    { weight: 4, arbitrary: fc.constantFrom('null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string') },
    fc.subarray(['A', 'B', 'C'], { minLength: 1 }).map((symbols) => ({ type: 'enum', name: 'E', symbols })),
    fc.constantFrom(2, 3).map((size) => ({ type: 'fixed', name: 'F', size })),
    tie('schema').map((items) => ({ type: 'array', items })),
    tie('schema').map((values) => ({ type: 'map', values })),
    fc.subarray(['null', 'int', 'string', 'double'], { minLength: 1 }),
    fc
      .uniqueArray(fc.record({ name: fc.constantFrom('a', 'b', 'c'), type: tie('schema'), optional: fc.boolean() }), { selector: (f) => f.name, maxLength: 3 })
      .map((fields) => ({
        type: 'record',
        name: 'R',
        fields: fields.map(({ name, type, optional }) =>
          optional && !Array.isArray(type) && type !== 'null' ? { name, type: ['null', type], default: null } : { name, type },
        ),
      })),
  ),
})).schema

/** Each named type gets its own name where it occurs, the same one in both schemas by its path. */
function named(json: unknown, path = 'x'): unknown {
  if (Array.isArray(json)) return json.map((branch) => named(branch, path))
  if (typeof json !== 'object' || json === null) return json
  const schema = json as { type: string; items?: unknown; values?: unknown; fields?: { name: string; type: unknown }[] }
  switch (schema.type) {
    case 'array':
      return { ...schema, items: named(schema.items, `${path}_i`) }
    case 'map':
      return { ...schema, values: named(schema.values, `${path}_v`) }
    case 'record':
      return { ...schema, name: `R_${path}`, fields: schema.fields!.map((field) => ({ ...field, type: named(field.type, `${path}_${field.name}`) })) }
    default:
      return { ...schema, name: `${schema.type}_${path}` }
  }
}

test('when a schema is called compatible, avsc reads the data with it', () => {
  let compatible = 0
  fc.assert(
    fc.property(schemas, schemas, (a, b) => {
      const [reader, writer] = [named(a), named(b)]
      if (reasons(reader, writer).length > 0) return
      compatible++
      const writerType = avsc.Type.forSchema(writer as avsc.Schema, { wrapUnions: true })
      const readerType = avsc.Type.forSchema(reader as avsc.Schema, { wrapUnions: true })
      const resolver = readerType.createResolver(writerType)
      for (let i = 0; i < 5; i++) readerType.fromBuffer(writerType.toBuffer(writerType.random()), resolver)
    }),
    { numRuns: 3000 },
  )
  expect(compatible).toBeGreaterThan(150)
})

test('a record that is named again is reported once, where it is defined', () => {
  const twice = (type: string) => record({ name: 'x', type: tree(type) }, { name: 'y', type: 'T' })
  expect(reasons(twice('int'), twice('long'))).toEqual(['$.fields[0].type.fields[0].type: long cannot be read as int'])
})

test('records that name each other over and over take no time', () => {
  const chain = (leaf: string) => {
    let type: unknown = leaf
    for (let i = 0; i < 60; i++)
      type = {
        type: 'record',
        name: `R${i}`,
        fields: [
          { name: 'a', type },
          { name: 'b', type: i === 0 ? leaf : `R${i - 1}` },
        ],
      }
    return type
  }
  expect(reasons(chain('int'), chain('int'))).toEqual([])
  expect(reasons(chain('int'), chain('long')).length).toBeLessThan(3)
})

test('a schema is compatible with itself', () => {
  fc.assert(fc.property(schemas, (schema) => void expect(reasons(named(schema), named(schema))).toEqual([])))
})

describe('levels', () => {
  const v1 = record({ name: 'a', type: 'int' })
  const v2 = record({ name: 'a', type: 'int' }, { name: 'b', type: 'int', default: 0 })
  const versions = [v1, v2].map((schema, i) => ({ version: i + 1, schema: parse(schema) }))
  /** Reads v2 but not v1; is read by both. */
  const requiresB = record({ name: 'a', type: 'int' }, { name: 'b', type: 'int' })
  /** Reads both; neither can read it, as they want a. */
  const dropsA = record({ name: 'b', type: 'int', default: 0 })
  /** Reads both, read by none. */
  const widened = record({ name: 'a', type: 'long' })
  test.each<[CompatibilityLevel, number, number, number]>([
    ['NONE', 0, 0, 0],
    ['BACKWARD', 0, 0, 0],
    ['BACKWARD_TRANSITIVE', 1, 0, 0],
    ['FORWARD', 0, 1, 1],
    ['FORWARD_TRANSITIVE', 0, 2, 2],
    ['FULL', 0, 1, 1],
    ['FULL_TRANSITIVE', 1, 2, 2],
  ])('%s', (level, required, dropped, wide) => {
    const count = (schema: unknown) => breaksAt(level, parse(schema), versions).length
    expect([count(requiresB), count(dropsA), count(widened)]).toEqual([required, dropped, wide])
  })

  test('messages name the direction and the version', () => {
    expect(breaksAt('FULL_TRANSITIVE', parse(widened), versions)).toEqual([
      'version 1 cannot read data of the new schema: $.fields[0].type: long cannot be read as int',
      'version 2 cannot read data of the new schema: $.fields[0].type: long cannot be read as int',
    ])
    expect(breaksAt('BACKWARD_TRANSITIVE', parse(requiresB), versions)[0]).toContain('the new schema cannot read data of version 1')
  })

  test('the first version of a subject breaks nothing', () => {
    expect(breaksAt('FULL_TRANSITIVE', parse('int'), [])).toEqual([])
  })
})

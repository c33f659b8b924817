/** fast-check arbitraries of tables and of rows that fit them. */
import fc from 'fast-check'
import { type Column, type ColumnType, type ScalarKind, Special, type TableSchema, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'

const SCALAR_KINDS: readonly ScalarKind[] = [
  'boolean',
  'int32',
  'int64',
  'float32',
  'float64',
  'string',
  'bytes',
  'uuid',
  'json',
  'date',
  'time',
  'timestamp',
  'timestamptz',
]
const name = fc.oneof(fc.stringMatching(/^[a-z_]{1,8}$/), fc.string({ maxLength: 8 }))

const leaf: fc.Arbitrary<ColumnType> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...SCALAR_KINDS).map((kind) => ({ kind })) },
  fc.integer({ min: 1, max: 38 }).chain((precision) => fc.nat(precision).map((scale) => ({ kind: 'decimal' as const, precision, scale }))),
  fc.array(fc.string(), { maxLength: 3 }).map((values) => ({ kind: 'enum' as const, values })),
  fc.constant({ kind: 'map' as const }),
)

export const columnTypes: fc.Arbitrary<ColumnType> = fc.letrec<{ type: ColumnType }>((tie) => ({
  type: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { weight: 5, arbitrary: leaf },
    { weight: 1, arbitrary: tie('type').map((element) => ({ kind: 'array' as const, element })) },
    {
      weight: 1,
      arbitrary: fc
        .uniqueArray(fc.record({ name, type: tie('type') }), { selector: (field) => field.name, maxLength: 3 })
        .map((fields) => ({ kind: 'record' as const, fields })),
    },
  ),
})).type

const column: fc.Arbitrary<Column> = fc.record({
  name,
  id: fc.nat(),
  type: columnTypes,
  sourceType: fc.string({ maxLength: 10 }),
  nullable: fc.boolean(),
  mayBeUnchanged: fc.boolean(),
  maybeSpecial: fc.boolean(),
})

export const tables: fc.Arbitrary<TableSchema> = fc
  .record({ namespace: name, name, columns: fc.uniqueArray(column, { selector: (c) => c.name, minLength: 1, maxLength: 8 }) })
  .chain((table) => fc.subarray(table.columns.map((_, i) => i)).map((key) => ({ ...table, key })))

const int64 = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n })
const wellFormed = fc.string({ unit: 'grapheme' })

export function values(type: ColumnType): fc.Arbitrary<Value> {
  const nullable = (inner: ColumnType) => fc.option(values(inner), { nil: null })
  switch (type.kind) {
    case 'boolean':
      return fc.boolean()
    case 'int32':
    case 'date':
      return fc.integer()
    case 'int64':
    case 'time':
    case 'timestamp':
    case 'timestamptz':
      return fc.oneof(
        int64,
        fc.bigInt({ min: -300n, max: 300n }),
        fc.constantFrom(1n << 53n, (1n << 53n) - 1n, -(1n << 53n), 1n << 52n, 1n << 49n, -(1n << 48n)),
      )
    case 'float32':
      return fc.float()
    case 'float64':
      return fc.double()
    case 'decimal':
      return fc.oneof(fc.bigInt(), fc.bigInt({ min: -(10n ** 38n), max: 10n ** 38n }), fc.constantFrom(127n, 128n, -128n, -129n, 0n, 1n << 47n, -(1n << 55n)))
    case 'string':
    case 'uuid':
    case 'json':
    case 'enum':
      return fc.oneof(wellFormed, fc.string({ unit: 'binary-ascii', maxLength: 60 }), fc.constantFrom('\ufffd', '😀'))
    case 'bytes':
      return fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))
    case 'array':
      return fc.array(nullable(type.element), { maxLength: 4 })
    case 'record':
      return fc.tuple(...type.fields.map((field) => nullable(field.type)))
    case 'map':
      // avsc loses this key: its maps are plain objects.
      return fc
        .array(
          fc.tuple(
            wellFormed.filter((key) => key !== '__proto__'),
            fc.option(wellFormed, { nil: null }),
          ),
          { maxLength: 3 },
        )
        .map((entries) => new Map(entries))
  }
}

/** Rows of the table, with NULL, unchanged and special values where its columns allow them. */
export function rows(table: TableSchema): fc.Arbitrary<readonly Value[]> {
  return fc.tuple(
    ...table.columns.map((column, i): fc.Arbitrary<Value> => {
      if (table.key.includes(i)) return values(column.type)
      const choices: fc.WeightedArbitrary<Value>[] = [
        { weight: 4, arbitrary: values(column.type) },
        { weight: 1, arbitrary: fc.constant(null) },
      ]
      if (column.mayBeUnchanged) choices.push({ weight: 1, arbitrary: fc.constant(UNCHANGED) })
      if (column.maybeSpecial) choices.push({ weight: 1, arbitrary: wellFormed.map((text) => new Special(text)) })
      return fc.oneof(...choices)
    }),
  )
}

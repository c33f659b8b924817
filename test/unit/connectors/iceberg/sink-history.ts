/** Tables, values and random change histories for the tests of the Iceberg sink, and what a table must hold after them. */
import fc from 'fast-check'
import {
  type Column,
  type ColumnType,
  type LogPosition,
  type RowChange,
  type SinkBatch,
  type TableSchema,
  type Truncation,
  type Tuple,
  UNCHANGED,
  type Value,
} from '../../../../core/plugin.ts'

export const TOPIC = 'shop.public.orders'

export function column(id: number, name: string, type: ColumnType, more: Partial<Column> = {}): Column {
  return { id, name, type, sourceType: type.kind, nullable: true, mayBeUnchanged: false, maybeSpecial: false, ...more }
}

export function table(columns: readonly Column[], key: readonly number[] = [0]): TableSchema {
  return { namespace: 'public', name: 'orders', columns, key }
}

const EVERY_TYPE: readonly (readonly [string, ColumnType])[] = [
  ['flag', { kind: 'boolean' }],
  ['small', { kind: 'int32' }],
  ['big', { kind: 'int64' }],
  ['real', { kind: 'float32' }],
  ['double', { kind: 'float64' }],
  ['price', { kind: 'decimal', precision: 9, scale: 2 }],
  ['total', { kind: 'decimal', precision: 18, scale: 4 }],
  ['huge', { kind: 'decimal', precision: 38, scale: 10 }],
  ['vast', { kind: 'decimal', precision: 60, scale: 3 }],
  ['name', { kind: 'string' }],
  ['blob', { kind: 'bytes' }],
  ['uid', { kind: 'uuid' }],
  ['doc', { kind: 'json' }],
  ['mood', { kind: 'enum', values: ['sad', 'ok'] }],
  ['day', { kind: 'date' }],
  ['at_time', { kind: 'time' }],
  ['wall', { kind: 'timestamp' }],
  ['instant', { kind: 'timestamptz' }],
  ['tags', { kind: 'array', element: { kind: 'string' } }],
  ['amounts', { kind: 'array', element: { kind: 'decimal', precision: 12, scale: 2 } }],
  [
    'address',
    {
      kind: 'record',
      fields: [
        { name: 'street', type: { kind: 'string' } },
        { name: 'zip', type: { kind: 'int32' } },
      ],
    },
  ],
  [
    'spots',
    {
      kind: 'array',
      element: {
        kind: 'record',
        fields: [
          { name: 'x', type: { kind: 'float64' } },
          { name: 'u', type: { kind: 'uuid' } },
        ],
      },
    },
  ],
  ['labels', { kind: 'map' }],
]

export const everyType: TableSchema = table([column(1, 'id', { kind: 'int64' }), ...EVERY_TYPE.map(([name, type], i) => column(i + 2, name, type))])

const decimal = (precision: number) => fc.bigInt({ min: -(10n ** BigInt(precision)) + 1n, max: 10n ** BigInt(precision) - 1n })
const text = fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('', '\ufeffbom', '\u0000', '𐍈\uffff'))

/** Any value of a type that a sink must hold, never null at the top. */
export function anyValueOf(type: ColumnType): fc.Arbitrary<Value> {
  switch (type.kind) {
    case 'boolean':
      return fc.boolean()
    case 'int32':
      return fc.integer()
    case 'int64':
      return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
    case 'float32':
      return fc.float()
    case 'float64':
      return fc.double()
    case 'decimal':
      return decimal(type.precision)
    case 'bytes':
      return fc.uint8Array({ maxLength: 40 })
    case 'uuid':
      return fc.uuid()
    case 'date':
      return fc.integer({ min: -700_000, max: 2_000_000 })
    case 'time':
      return fc.bigInt({ min: 0n, max: 86_399_999_999n })
    case 'timestamp':
    case 'timestamptz':
      return fc.bigInt({ min: -(2n ** 58n), max: 2n ** 58n })
    case 'array':
      return fc.array(nullable(anyValueOf(type.element)), { maxLength: 4 })
    case 'record':
      return fc.tuple(...type.fields.map((field) => nullable(anyValueOf(field.type)))) as fc.Arbitrary<Value>
    case 'map':
      return fc.array(fc.tuple(fc.string(), nullable(fc.string())), { maxLength: 3 }).map((entries) => new Map(entries as [string, string | null][]))
    default:
      return text
  }
}

function nullable(value: fc.Arbitrary<Value>): fc.Arbitrary<Value> {
  return fc.option(value, { nil: null, freq: 5 })
}

export function rowOf(schema: TableSchema): fc.Arbitrary<Tuple> {
  return fc.tuple(
    ...schema.columns.map((entry, i) => (schema.key.includes(i) ? anyValueOf(entry.type) : nullable(anyValueOf(entry.type)))),
  ) as fc.Arbitrary<Tuple>
}

/** A step of a history: what the source did to one key, or to all. */
export type Step =
  | { readonly do: 'upsert'; readonly key: bigint; readonly row: Tuple; readonly sparse: boolean }
  | { readonly do: 'delete'; readonly key: bigint }
  | { readonly do: 'truncate' }

/** Mostly upserts, of few keys. `row` is of the row's values; the key is the step's own. */
export function stepOf(row: fc.Arbitrary<Tuple>): fc.Arbitrary<Step> {
  const key = fc.bigInt({ min: 1n, max: 12n })
  return fc.oneof(
    { weight: 12, arbitrary: fc.record({ do: fc.constant('upsert' as const), key, row, sparse: fc.boolean() }) },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('delete' as const), key }) },
    { weight: 1, arbitrary: fc.constant({ do: 'truncate' as const }) },
  )
}

/** The rows as the table has them, put one after another. */
export function puts(rows: readonly Tuple[]): readonly Step[] {
  return rows.map((row) => ({ do: 'upsert', key: row[0] as bigint, row, sparse: false }))
}

/** The history as the stream has it, with the rows that are left at the end. An update of a row that exists may leave sparse columns out. */
export function changesOf(schema: TableSchema, steps: readonly Step[]): { readonly changes: (RowChange | Truncation)[]; readonly rows: Map<bigint, Tuple> } {
  const rows = new Map<bigint, Tuple>()
  const changes = steps.map((step, i): RowChange | Truncation => {
    const facts = { table: schema, position: { commit: BigInt(100 + i), ordinal: 0 }, committedAt: 0n }
    if (step.do === 'truncate') {
      rows.clear()
      return { kind: 'truncate', ...facts }
    }
    const key = [step.key]
    if (step.do === 'delete') {
      rows.delete(step.key)
      return { kind: 'row', op: 'd', key, before: null, after: null, ...facts }
    }
    const old = rows.get(step.key)
    const full = [step.key, ...step.row.slice(1)]
    if (old === undefined) {
      rows.set(step.key, full)
      return { kind: 'row', op: 'c', key, before: null, after: full, ...facts }
    }
    const leftOut = (index: number) => step.sparse && schema.columns[index]!.mayBeUnchanged
    rows.set(
      step.key,
      full.map((value, index) => (leftOut(index) ? old[index]! : value)),
    )
    return { kind: 'row', op: 'u', key, before: null, after: full.map((value, index) => (leftOut(index) ? UNCHANGED : value)), ...facts }
  })
  return { changes, rows }
}

export function position(offset: number, partition = 0): LogPosition {
  return { topic: TOPIC, partition, offset: BigInt(offset) }
}

/** One batch up to an offset. */
export function batchOf(schema: TableSchema, changes: readonly (RowChange | Truncation)[], offset: number): SinkBatch {
  return { table: schema, changes, positions: [position(offset)], memo: () => null, onRejected: async () => {} }
}

export const named = table([column(1, 'id', { kind: 'int64' }), column(2, 'name', { kind: 'string' })])

/** Puts rows of {@link named} whose names tell the offset. */
export function namedBatch(offset: number, ...ids: number[]): SinkBatch {
  return batchOf(named, changesOf(named, puts(ids.map((id) => [BigInt(id), `row ${id} at ${offset}`]))).changes, offset)
}

/** Cuts changes into batches at `cuts`. */
export function batches(schema: TableSchema, changes: readonly (RowChange | Truncation)[], cuts: readonly number[]): SinkBatch[] {
  const ends = [...new Set([...cuts.map((cut) => cut % (changes.length + 1)), changes.length])].sort((a, b) => a - b)
  return ends.map((end, i) => batchOf(schema, changes.slice(i === 0 ? 0 : ends[i - 1]!, end), end))
}

/** Values as text that is equal when they are. */
export function canonical(row: Tuple): string {
  return JSON.stringify(row, (_key, value: unknown) => {
    if (typeof value === 'bigint') return `${value}n`
    if (value instanceof Map) return { map: [...value.entries()].sort() }
    if (value instanceof Uint8Array) return `0x${Buffer.from(value).toString('hex')}`
    if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
    return value
  })
}

/** avsc as an independent encoder and decoder of our envelopes: rows to its objects and back. */
import avsc from 'avsc'
import { type ColumnType, Special, type TableSchema, type Tuple, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'
import { envelopeSchemaOf, keySchemaOf } from '../../../../core/schema/avro-mapping.ts'
import { avroName } from '../../../../core/schema/names.ts'

const NAMESPACE = 'shop.public.orders'
export const OPTIONS = {
  recordNamespace: NAMESPACE,
  sourceFields: [
    { name: 'lsn', type: 'long' as const },
    { name: 'tx', type: 'string' as const },
  ],
}

/** avsc has no 64-bit integers of its own. */
const bigLong = avsc.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(value)
    return bytes
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
})

export function avscType(schema: string): avsc.Type {
  // Without logical types avsc uses the registry's `long` everywhere.
  const plain = JSON.parse(schema, (_, value) => (value?.logicalType === undefined ? value : value.type))
  return avsc.Type.forSchema(plain, { wrapUnions: true, registry: { long: bigLong } as never })
}

export interface AvscEnvelope {
  readonly value: avsc.Type
  readonly key: avsc.Type | null
  readonly valueSchema: string
  readonly keySchema: string | null
}

export function avscEnvelope(table: TableSchema): AvscEnvelope {
  const valueSchema = envelopeSchemaOf(table, OPTIONS)
  const keySchema = table.key.length === 0 ? null : keySchemaOf(table, NAMESPACE)
  return { value: avscType(valueSchema), key: keySchema === null ? null : avscType(keySchema), valueSchema, keySchema }
}

/** The row as avsc's object for the `Value` record. */
export function toAvsc(table: TableSchema, row: Tuple): object {
  return Object.fromEntries(
    table.columns.map((column, i) => {
      const value = row[i]!
      const name = avroName(column.name)
      if (table.key.includes(i)) return [name, plain(column.type, value, [name])]
      if (value === UNCHANGED) return [name, { [`${NAMESPACE}.Unchanged`]: {} }]
      if (value instanceof Special) return [name, { [`${NAMESPACE}.Special`]: { text: value.text } }]
      return [name, wrapped(column.type, value, [name])]
    }),
  )
}

export function keyToAvsc(table: TableSchema, row: Tuple): object {
  return Object.fromEntries(
    table.key.map((i) => {
      const column = table.columns[i]!
      return [avroName(column.name), plain(column.type, row[i]!, [avroName(column.name)])]
    }),
  )
}

export function envelopeToAvsc(table: TableSchema, change: { op: string; before: Tuple | null; after: Tuple | null; committedAt: bigint }): object {
  const image = (row: Tuple | null) => (row === null ? null : { [`${NAMESPACE}.Value`]: toAvsc(table, row) })
  return {
    before: image(change.before),
    after: image(change.after),
    source: {
      version: '1',
      connector: 'postgres',
      name: 'shop',
      db: 'db',
      schema: table.namespace,
      table: table.name,
      snapshot: 'false',
      ts_ms: change.committedAt / 1000n,
      ts_us: change.committedAt,
      lsn: { long: 123456789012n },
      tx: null,
      ordinal: 7n,
    },
    op: change.op,
    ts_ms: 1n,
    ts_us: 1000n,
  }
}

const BRANCH: Partial<Record<ColumnType['kind'], string>> = {
  boolean: 'boolean',
  int32: 'int',
  date: 'int',
  int64: 'long',
  time: 'long',
  timestamp: 'long',
  timestamptz: 'long',
  float32: 'float',
  float64: 'double',
  decimal: 'bytes',
  bytes: 'bytes',
  array: 'array',
  map: 'map',
}

function branchOf(type: ColumnType, path: readonly string[]): string {
  return type.kind === 'record' ? `${NAMESPACE}.columns.${path.join('.')}` : (BRANCH[type.kind] ?? 'string')
}

function wrapped(type: ColumnType, value: Value, path: readonly string[]): unknown {
  return value === null ? null : { [branchOf(type, path)]: plain(type, value, path) }
}

function plain(type: ColumnType, value: Value, path: readonly string[]): unknown {
  switch (type.kind) {
    case 'decimal': {
      const unscaled = value as bigint
      let length = 1
      while (BigInt.asIntN(length * 8, unscaled) !== unscaled) length++
      return Buffer.from(
        BigInt.asUintN(length * 8, unscaled)
          .toString(16)
          .padStart(length * 2, '0'),
        'hex',
      )
    }
    case 'array':
      return (value as readonly Value[]).map((item) => wrapped(type.element, item, path))
    case 'record':
      return Object.fromEntries(
        type.fields.map((field, i) => [avroName(field.name), wrapped(field.type, (value as readonly Value[])[i]!, [...path, avroName(field.name)])]),
      )
    case 'map':
      return Object.fromEntries([...(value as ReadonlyMap<string, string | null>)].map(([key, text]) => [key, text === null ? null : { string: text }]))
    default:
      return value
  }
}

type Loose = Readonly<Record<string, unknown>>

/** The tuple of avsc's object for the `Value` record. */
export function fromAvsc(table: TableSchema, object: object, namespace = NAMESPACE): Tuple {
  return table.columns.map((column, i) => {
    const name = avroName(column.name)
    const value = (object as Loose)[name]
    if (table.key.includes(i)) return bare(column.type, value)
    if (value === null) return null
    const [branch, inner] = Object.entries(value as object)[0]!
    if (branch === `${namespace}.Unchanged`) return UNCHANGED
    if (branch === `${namespace}.Special`) return new Special((inner as { text: string }).text)
    return bare(column.type, inner)
  })
}

function bare(type: ColumnType, value: unknown): Value {
  const unwrapped = (inner: ColumnType, item: unknown): Value => (item === null ? null : bare(inner, Object.values(item as object)[0]))
  switch (type.kind) {
    case 'decimal': {
      const bytes = value as Buffer
      return bytes.length === 0 ? 0n : BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`))
    }
    case 'array':
      return (value as unknown[]).map((item) => unwrapped(type.element, item))
    case 'record':
      return type.fields.map((field) => unwrapped(field.type, (value as Loose)[avroName(field.name)]))
    case 'map':
      return new Map(Object.entries(value as Loose).map(([key, text]) => [key, text === null ? null : (text as { string: string }).string]))
    default:
      return value as Value
  }
}

/** Table descriptions as Avro schemas and back. The shape is in ARCHITECTURE.md, "What travels". */
import { z } from 'zod'
import { MillraceError } from '../errors.ts'
import { type Column, type ColumnType, type ScalarKind, type TableSchema, tableId } from '../event/table-schema.ts'
import { type AvroField, type AvroRecord, type AvroSchema, parseAvroSchema } from './avro-schema.ts'
import { avroName, avroNamespace } from './names.ts'

/** The attribute of Avro records and fields that carries the table's own description. */
const PROPERTY = 'millrace'

/** Which branches of its Avro union a column has. Nulls: no such branch; all are null for a key column, which has no union. */
export interface ColumnLayout {
  readonly key: boolean
  /** null when the column is its plain type. Where there is one, branch 0 is `null`. */
  readonly valueBranch: number | null
  readonly unchangedBranch: number | null
  readonly specialBranch: number | null
}

export interface EnvelopeOptions {
  /** Namespace of the Avro records, usually the topic; parts that are no Avro names are escaped. */
  readonly recordNamespace: string
  /** What the source's plugin adds to the `source` record, nullable, in this order. */
  readonly sourceFields: readonly { readonly name: string; readonly type: 'long' | 'string' }[]
}

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

const SCALARS: Readonly<Record<ScalarKind, Json>> = {
  boolean: 'boolean',
  int32: 'int',
  int64: 'long',
  float32: 'float',
  float64: 'double',
  string: 'string',
  bytes: 'bytes',
  uuid: { type: 'string', logicalType: 'uuid' },
  json: 'string',
  date: { type: 'int', logicalType: 'date' },
  time: { type: 'long', logicalType: 'time-micros' },
  timestamp: { type: 'long', logicalType: 'local-timestamp-micros' },
  timestamptz: { type: 'long', logicalType: 'timestamp-micros' },
}

/** Branches of every column in table order. */
export function valueLayout(table: TableSchema): readonly ColumnLayout[] {
  const keys = new Set(table.key)
  return table.columns.map((column, i) => {
    if (keys.has(i)) return { key: true, valueBranch: null, unchangedBranch: null, specialBranch: null }
    return {
      key: false,
      valueBranch: 1,
      unchangedBranch: column.mayBeUnchanged ? 2 : null,
      specialBranch: column.maybeSpecial ? (column.mayBeUnchanged ? 3 : 2) : null,
    }
  })
}

/**
 * The schema of record keys, as JSON text; equal tables give equal text.
 * @throws invariant.broken for a table without a key
 */
export function keySchemaOf(table: TableSchema, recordNamespace: string): string {
  if (table.key.length === 0) throw new MillraceError('invariant.broken', `${tableId(table)} has no key, so its key has no schema`)
  const namespace = avroNamespace(recordNamespace)
  return JSON.stringify({
    type: 'record',
    name: 'Key',
    ...(namespace === '' ? {} : { namespace }),
    fields: table.key.map((i) => {
      const column = table.columns[i]!
      return {
        name: avroName(column.name),
        type: avroType(column.type, namespace === '' ? 'columns' : `${namespace}.columns`, avroName(column.name)),
        [PROPERTY]: columnProperty(column, true),
      }
    }),
    [PROPERTY]: { namespace: table.namespace, name: table.name },
  })
}

/**
 * The schema of what a truncation has for a key in a compacted topic, as JSON text: a record without fields, under a schema id that no row's key has. It is
 * registered under {@link truncationSubject}.
 */
export const TRUNCATION_KEY_SCHEMA = JSON.stringify({ type: 'record', name: 'Truncation', namespace: 'millrace', fields: [] })

/** Subjects of rows end in `-key` and `-value`, so it is no other topic's. */
export function truncationSubject(topic: string): string {
  return `${topic}-truncation`
}

/** The schema of record values, as JSON text; equal tables give equal text. */
export function envelopeSchemaOf(table: TableSchema, options: EnvelopeOptions): string {
  const namespace = avroNamespace(options.recordNamespace)
  const field = (name: string, type: Json) => ({ name, type })
  const optional = (name: string, type: Json) => ({ name, type: ['null', type], default: null })
  const source = {
    type: 'record',
    name: 'Source',
    fields: [
      ...['version', 'connector', 'name', 'db', 'schema', 'table', 'snapshot'].map((name) => field(name, 'string')),
      field('ts_ms', 'long'),
      field('ts_us', 'long'),
      ...options.sourceFields.map(({ name, type }) => optional(avroName(name), type)),
      field('ordinal', 'long'),
    ],
  }
  return JSON.stringify({
    type: 'record',
    name: 'Envelope',
    ...(namespace === '' ? {} : { namespace }),
    fields: [
      optional('before', valueRecord(table, namespace)),
      optional('after', 'Value'),
      field('source', source),
      field('op', 'string'),
      field('ts_ms', 'long'),
      field('ts_us', 'long'),
    ],
  })
}

function valueRecord(table: TableSchema, namespace: string): Json {
  const layout = valueLayout(table)
  // A record is defined where it first occurs and named from then on.
  let unchanged: Json = { type: 'record', name: 'Unchanged', fields: [] }
  let special: Json = { type: 'record', name: 'Special', fields: [{ name: 'text', type: 'string' }] }
  const fields = table.columns.map((column, i): Json => {
    const name = avroName(column.name)
    const type = avroType(column.type, namespace === '' ? 'columns' : `${namespace}.columns`, name)
    const { key, unchangedBranch, specialBranch } = layout[i]!
    const property = columnProperty(column, key)
    if (key) return { name, type, [PROPERTY]: property }
    const union: Json[] = ['null', type]
    if (unchangedBranch !== null) {
      union.push(unchanged)
      unchanged = 'Unchanged'
    }
    if (specialBranch !== null) {
      union.push(special)
      special = 'Special'
    }
    return { name, type: union, default: null, [PROPERTY]: property }
  })
  return { type: 'record', name: 'Value', fields, [PROPERTY]: { namespace: table.namespace, name: table.name } }
}

/** Records inside a column are named by their path: `<record namespace>.columns.<column>.<field>`. */
function avroType(type: ColumnType, namespace: string, name: string): Json {
  switch (type.kind) {
    case 'decimal':
      return { type: 'bytes', logicalType: 'decimal', precision: type.precision, scale: type.scale }
    case 'enum':
      return 'string'
    case 'array':
      return { type: 'array', items: ['null', avroType(type.element, namespace, name)] }
    case 'map':
      return { type: 'map', values: ['null', 'string'] }
    case 'record':
      return {
        type: 'record',
        name,
        namespace,
        fields: type.fields.map((field) => {
          const fieldName = avroName(field.name)
          return { name: fieldName, type: ['null', avroType(field.type, `${namespace}.${name}`, fieldName)], default: null }
        }),
      }
    default:
      return SCALARS[type.kind]
  }
}

function columnProperty(column: Column, key: boolean): Json {
  return {
    name: column.name,
    id: column.id,
    type: typeProperty(column.type),
    sourceType: column.sourceType,
    nullable: column.nullable,
    ...(key ? { key } : {}),
    ...(column.mayBeUnchanged ? { mayBeUnchanged: true } : {}),
    ...(column.maybeSpecial ? { maybeSpecial: true } : {}),
  }
}

function typeProperty(type: ColumnType): Json {
  switch (type.kind) {
    case 'decimal':
      return { kind: 'decimal', precision: type.precision, scale: type.scale }
    case 'enum':
      return { kind: 'enum', values: type.values }
    case 'array':
      return { kind: 'array', element: typeProperty(type.element) }
    case 'record':
      return { kind: 'record', fields: type.fields.map((field) => ({ name: field.name, type: typeProperty(field.type) })) }
    default:
      return type.kind
  }
}

const columnType: z.ZodType<ColumnType> = z.lazy(() =>
  z.union([
    z.enum([...(Object.keys(SCALARS) as ScalarKind[]), 'map']).transform((kind): ColumnType => ({ kind })),
    z.object({ kind: z.literal('decimal'), precision: z.int(), scale: z.int() }),
    z.object({ kind: z.literal('enum'), values: z.array(z.string()) }),
    z.object({ kind: z.literal('array'), element: columnType }),
    z.object({ kind: z.literal('record'), fields: z.array(z.object({ name: z.string(), type: columnType })) }),
  ]),
)

const columnShape = z.object({
  name: z.string(),
  id: z.int(),
  type: columnType,
  sourceType: z.string(),
  nullable: z.boolean(),
  key: z.boolean().default(false),
  mayBeUnchanged: z.boolean().default(false),
  maybeSpecial: z.boolean().default(false),
})

const tableShape = z.object({ namespace: z.string(), name: z.string() })

/**
 * Rebuilds the table that an envelope's schema was made from, exactly.
 * @throws schema.invalid naming what is missing when the schema is not one that Millrace made
 */
export function tableOf(envelopeSchema: string): TableSchema {
  return tableOfEnvelope(parseAvroSchema(envelopeSchema)).table
}

/** As {@link tableOf}, of a parsed schema; also gives the records that a decoder needs. */
export function tableOfEnvelope(envelope: AvroSchema): { readonly table: TableSchema; readonly envelope: AvroRecord; readonly value: AvroRecord } {
  if (envelope.type !== 'record') foreign(`it is of the type ${envelope.type}, not an envelope record`)
  const image = (name: string): AvroRecord => {
    const schema = fieldOf(envelope, name).schema
    const record = schema.type === 'union' && schema.branches.length === 2 && schema.branches[0]!.type === 'null' ? schema.branches[1] : undefined
    if (record?.type !== 'record') foreign(`the field ${name} is not ["null", record]`)
    return record
  }
  const value = image('after')
  if (image('before') !== value) foreign('before and after are not of the same record')
  const columns = columnsOf(value)
  const table = parseProperty(tableShape, value.attributes[PROPERTY], value.name)
  return {
    table: {
      namespace: table.namespace,
      name: table.name,
      columns: columns.map(({ column }) => column),
      key: columns.flatMap(({ key }, i) => (key ? [i] : [])),
    },
    envelope,
    value,
  }
}

/**
 * The columns that the fields of a `Value` or `Key` record stand for, after checking that each field has the Avro type of its column.
 * @throws schema.invalid
 */
export function columnsOf(record: AvroRecord): readonly { readonly column: Column; readonly key: boolean }[] {
  const columns = record.fields.map((field) => {
    const { key, ...column } = parseProperty(columnShape, field.attributes[PROPERTY], `${record.name}.${field.name}`)
    return { key, column }
  })
  const table = { namespace: '', name: '', columns: columns.map(({ column }) => column), key: columns.flatMap(({ key }, i) => (key ? [i] : [])) }
  const expected = parseAvroSchema(JSON.stringify(valueRecord(table, 'expected'))) as AvroRecord
  for (const [i, field] of expected.fields.entries()) {
    const actual = record.fields[i]!
    if (actual.name !== field.name || shapeOf(actual.schema) !== shapeOf(field.schema)) {
      foreign(`the field ${record.name}.${actual.name} has another Avro type or name than its "${PROPERTY}" property says`)
    }
  }
  return columns
}

/** What matters for decoding, as text: types, branches, logical types and field names, but not the names of records. */
function shapeOf(schema: AvroSchema): string {
  switch (schema.type) {
    case 'record':
      return `{${schema.fields.map((field) => `${field.name}:${shapeOf(field.schema)}`).join(',')}}`
    case 'union':
      return `[${schema.branches.map(shapeOf).join(',')}]`
    case 'array':
      return `array<${shapeOf(schema.items)}>`
    case 'map':
      return `map<${shapeOf(schema.values)}>`
    case 'enum':
    case 'fixed':
      return schema.type
    default: {
      const { logicalType, precision, scale } = schema.attributes
      return `${schema.type}${logicalType === undefined ? '' : ` ${logicalType}`}${logicalType === 'decimal' ? `(${precision},${scale ?? 0})` : ''}`
    }
  }
}

function fieldOf(record: AvroRecord, name: string): AvroField {
  return record.fields.find((field) => field.name === name) ?? foreign(`the record ${record.name} has no field ${name}`)
}

function parseProperty<T>(shape: z.ZodType<T>, property: unknown, where: string): T {
  if (property === undefined) foreign(`${where} has no "${PROPERTY}" property`)
  const result = shape.safeParse(property)
  if (result.success) return result.data
  const issue = result.error.issues[0]!
  foreign(`the "${PROPERTY}" property of ${where} is wrong at ${issue.path.join('.') || 'its top'}: ${issue.message}`)
}

function foreign(what: string): never {
  throw new MillraceError('schema.invalid', `not the schema of a Millrace envelope: ${what}`, {
    fix: 'read only topics that a Millrace source writes, or remove the schema that another producer registered under this subject',
  })
}

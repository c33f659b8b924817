/** The Iceberg schema of a table: ColumnType -> Iceberg type, stable field ids, and what may change. */
import { type Column, type ColumnType, MillraceError, type TableSchema, tableId } from '../../core/plugin.ts'
import type { IcebergField, IcebergSchema, IcebergType } from './table-metadata.ts'

/** The table property that maps Column.id to field id, as a JSON object. */
export const COLUMNS_PROPERTY = 'millrace.columns'

export interface TableLayout {
  readonly table: TableSchema
  readonly schema: IcebergSchema
  /** Field ids by Column.id. */
  readonly fieldIds: ReadonlyMap<number, number>
  readonly lastColumnId: number
}

const SCALARS: Readonly<Record<string, string>> = {
  boolean: 'boolean',
  int32: 'int',
  int64: 'long',
  float32: 'float',
  float64: 'double',
  string: 'string',
  bytes: 'binary',
  uuid: 'uuid',
  json: 'string',
  enum: 'string',
  date: 'date',
  time: 'time',
  timestamp: 'timestamp',
  timestamptz: 'timestamptz',
}

/** True when Iceberg's decimal holds the type; others travel as text. */
export function fitsDecimal(type: { readonly precision: number; readonly scale: number }): boolean {
  return type.precision >= 1 && type.precision <= 38 && type.scale >= 0 && type.scale <= type.precision
}

function icebergType(type: ColumnType, nextId: () => number): IcebergType {
  switch (type.kind) {
    case 'decimal':
      return fitsDecimal(type) ? `decimal(${type.precision}, ${type.scale})` : 'string'
    case 'array': {
      const id = nextId()
      return { type: 'list', 'element-id': id, element: icebergType(type.element, nextId), 'element-required': false }
    }
    case 'record': {
      const ids = type.fields.map(nextId)
      return {
        type: 'struct',
        fields: type.fields.map((field, i) => ({ id: ids[i]!, name: field.name, required: false, type: icebergType(field.type, nextId) })),
      }
    }
    case 'map': {
      const keyId = nextId()
      return { type: 'map', 'key-id': keyId, key: 'string', 'value-id': nextId(), value: 'string', 'value-required': false }
    }
    default:
      return SCALARS[type.kind]!
  }
}

const KINDS: Readonly<Record<string, Exclude<ColumnType['kind'], 'decimal' | 'enum' | 'array' | 'record'>>> = {
  boolean: 'boolean',
  int: 'int32',
  long: 'int64',
  float: 'float32',
  double: 'float64',
  string: 'string',
  binary: 'bytes',
  uuid: 'uuid',
  date: 'date',
  time: 'time',
  timestamp: 'timestamp',
  timestamptz: 'timestamptz',
}

/** The type that has the same values as an Iceberg type, whatever type they had in the source. @throws config.unsupported for one that Millrace does not write */
export function storedType(type: IcebergType): ColumnType {
  if (typeof type !== 'string') {
    if (type.type === 'list') return { kind: 'array', element: storedType(type.element) }
    if (type.type === 'struct') return { kind: 'record', fields: type.fields.map((field) => ({ name: field.name, type: storedType(field.type) })) }
    if (type.key === 'string' && type.value === 'string') return { kind: 'map' }
  } else {
    const decimal = /^decimal\((\d+), ?(\d+)\)$/.exec(type)
    if (decimal !== null) return { kind: 'decimal', precision: Number(decimal[1]), scale: Number(decimal[2]) }
    if (Object.hasOwn(KINDS, type)) return { kind: KINDS[type]! }
  }
  throw new MillraceError('config.unsupported', `a column of the Iceberg type ${shape(type)} was added by another engine, and Millrace does not write that`, {
    fix: 'drop the column, or compact the table with that engine',
  })
}

const KEY_TYPES = /^(boolean|int|long|string|binary|uuid|date|time|timestamp|timestamptz|decimal\(.*\))$/

/** The type without its ids, for comparing. */
function shape(type: IcebergType): string {
  if (typeof type === 'string') return type.replace(/\s/g, '')
  if (type.type === 'list') return `list<${shape(type.element)}>`
  if (type.type === 'map') return `map<${shape(type.key)},${shape(type.value)}>`
  return `struct<${type.fields.map((field) => `${JSON.stringify(field.name)}:${shape(field.type)}`).join(',')}>`
}

function widens(from: string, to: string): boolean {
  if ((from === 'int' && to === 'long') || (from === 'float' && to === 'double')) return true
  const old = /^decimal\((\d+),(\d+)\)$/.exec(from)
  const wide = /^decimal\((\d+),(\d+)\)$/.exec(to)
  return old !== null && wide !== null && old[2] === wide[2] && Number(wide[1]) >= Number(old[1])
}

function unsupported(table: TableSchema, why: string, fix: string): MillraceError {
  return new MillraceError('sink.schema_unsupported', `Iceberg table for ${tableId(table)}: ${why}`, { fix })
}

function check(table: TableSchema): void {
  if (table.key.length === 0) {
    throw unsupported(table, 'the source table has no key, so its rows cannot be updated', 'give it a primary key (or replica identity using a unique index)')
  }
  const seen = new Set<string>()
  for (const { name } of table.columns) {
    if (seen.has(name)) throw unsupported(table, `two columns are named ${name}`, 'rename one of them in the source')
    seen.add(name)
  }
}

function keyField(table: TableSchema, index: number, type: IcebergType): void {
  if (typeof type === 'string' && KEY_TYPES.test(type)) return
  const column = table.columns[index]!
  throw unsupported(
    table,
    `key column ${column.name} (${column.sourceType}) has a type that Iceberg does not allow in a key`,
    'use a key without floating point, array or composite columns',
  )
}

/** The layout of a new table. @throws sink.schema_unsupported */
export function newLayout(table: TableSchema): TableLayout {
  return evolve(table, null)
}

/**
 * The layout of `table` that follows `current`: the same field ids for the same Column.ids, types widened at most. The same schema object when
 * nothing changes.
 * @throws sink.schema_unsupported when a type or the key changes otherwise
 */
export function evolvedLayout(table: TableSchema, current: TableLayout): TableLayout {
  return evolve(table, current)
}

function evolve(table: TableSchema, current: TableLayout | null): TableLayout {
  check(table)
  let lastColumnId = current?.lastColumnId ?? 0
  const nextId = () => ++lastColumnId
  const fieldIds = new Map<number, number>()
  const fresh: Column[] = []
  for (const column of table.columns) {
    const known = current?.fieldIds.get(column.id)
    if (known === undefined || !current!.schema.fields.some((field) => field.id === known)) fresh.push(column)
    else fieldIds.set(column.id, known)
  }
  for (const column of fresh) fieldIds.set(column.id, nextId())
  const fields = table.columns.map((column, index): IcebergField => {
    const id = fieldIds.get(column.id)!
    const required = table.key.includes(index)
    const old = current?.schema.fields.find((field) => field.id === id)
    let type: IcebergType
    if (old === undefined) type = icebergType(column.type, nextId)
    else {
      type = icebergType(column.type, () => 0)
      if (shape(type) === shape(old.type)) type = old.type
      else if (typeof type !== 'string' || typeof old.type !== 'string' || !widens(shape(old.type), shape(type))) {
        throw unsupported(
          table,
          `column ${column.name} changed from ${shape(old.type)} to ${shape(type)}`,
          'Iceberg only widens int to long, float to double and decimal precision: drop the Iceberg table and let the sink read the stream again',
        )
      }
      if (required && !old.required) throw keyChanged(table)
    }
    if (required) keyField(table, index, type)
    return { id, name: column.name, required, type, ...(old?.doc === undefined ? {} : { doc: old.doc }) }
  })
  const identifiers = table.key.map((index) => fields[index]!.id)
  if (current !== null && String([...identifiers].sort((a, b) => a - b)) !== String([...(current.schema['identifier-field-ids'] ?? [])].sort((a, b) => a - b)))
    throw keyChanged(table)
  const schema: IcebergSchema = { type: 'struct', 'schema-id': (current?.schema['schema-id'] ?? -1) + 1, 'identifier-field-ids': identifiers, fields }
  return { table, schema: current !== null && sameFields(schema, current.schema) ? current.schema : schema, fieldIds, lastColumnId }
}

/** Equal but for their schema ids and nested field ids. */
export function sameFields(a: IcebergSchema, b: IcebergSchema): boolean {
  const facts = (schema: IcebergSchema) =>
    JSON.stringify([
      schema.fields.map(({ id, name, required, type }) => [id, name, required, shape(type)]),
      [...(schema['identifier-field-ids'] ?? [])].sort((x, y) => x - y),
    ])
  return facts(a) === facts(b)
}

function keyChanged(table: TableSchema): MillraceError {
  return unsupported(table, 'the key of the source table changed', 'drop the Iceberg table and let the sink read the stream again')
}

export function formatFieldIds(fieldIds: ReadonlyMap<number, number>): string {
  return JSON.stringify(Object.fromEntries(fieldIds))
}

export function parseFieldIds(text: string): ReadonlyMap<number, number> {
  return new Map(Object.entries(JSON.parse(text) as Record<string, number>).map(([column, field]) => [Number(column), field]))
}

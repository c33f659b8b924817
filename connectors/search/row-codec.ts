/**
 * Rows as JSON text, without loss: an object from column id to value, so that added, dropped and renamed columns need no rewrite. 64-bit integers and
 * decimals are text in decimal notation (which survives a wider type or scale), bytes base64, arrays and records arrays, maps arrays of pairs,
 * numbers that JSON lacks text, and a {@link Special} is the only JSON object.
 */
import { type ColumnType, invariant, type Json, Special, type TableSchema, type Tuple, type Value } from '../../core/plugin.ts'

export interface RowCodec {
  readonly table: TableSchema
  /** The row's JSON. It has no UNCHANGED. */
  encode(row: Tuple): string
  decode(json: string): Tuple
  /** Text that is equal exactly for equal keys, also before and after a key column was widened. Takes the values of the key columns. */
  key(key: Tuple): string
}

export function rowCodec(table: TableSchema): RowCodec {
  const prefixes = table.columns.map((column, at) => `${at === 0 ? '{' : ','}"${column.id}":`)
  const ids = table.columns.map((column) => String(column.id))
  const types = table.columns.map((column) => column.type)
  const keyTypes = table.key.map((at) => types[at]!)
  const suffix = table.columns.length === 0 ? '{}' : '}'
  return {
    table,
    encode(row) {
      let json = ''
      for (let at = 0; at < types.length; at++) json += prefixes[at]! + jsonOf(types[at]!, row[at]!)
      return json + suffix
    },
    decode(json) {
      const stored = JSON.parse(json) as Record<string, Json>
      return types.map((type, at) => storedValue(type, stored[ids[at]!] ?? null))
    },
    key(key) {
      let json = '['
      for (let at = 0; at < keyTypes.length; at++) json += (at === 0 ? '' : ',') + keyJsonOf(keyTypes[at]!, key[at]!)
      return `${json}]`
    },
  }
}

function numberJson(value: number): string {
  if (value === 0) return Object.is(value, -0) ? '"-0"' : '0'
  return Number.isFinite(value) ? String(value) : `"${value}"`
}

function jsonOf(type: ColumnType, value: Value): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value)
    case 'number':
      return numberJson(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'bigint':
      return type.kind === 'decimal' ? `"${decimalText(value, type.scale)}"` : `"${value}"`
    case 'symbol':
      invariant(false, 'an unchanged value has no JSON: merge it first')
  }
  if (value === null) return 'null'
  if (value instanceof Uint8Array) return `"${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')}"`
  if (value instanceof Special) return `{"special":${JSON.stringify(value.text)}}`
  if (value instanceof Map) return JSON.stringify([...value])
  const items = value as readonly Value[]
  if (type.kind === 'array') return `[${items.map((item) => jsonOf(type.element, item)).join()}]`
  invariant(type.kind === 'record', `a list of values in a column of kind ${type.kind}`)
  return `[${items.map((item, at) => jsonOf(type.fields[at]!.type, item)).join()}]`
}

function keyJsonOf(type: ColumnType, value: Value): string {
  if (typeof value === 'bigint' && type.kind === 'decimal')
    return `"${decimalText(value, type.scale)
      .replace(/(\.\d*?)0+$/, '$1')
      .replace(/\.$/, '')}"`
  if (typeof value === 'number' && type.kind === 'int32') return `"${value}"`
  // SQL says that 0 and -0 are one key.
  return value === 0 ? '0' : jsonOf(type, value)
}

function storedValue(type: ColumnType, json: Json): Value {
  if (json === null) return null
  if (typeof json === 'object' && !Array.isArray(json)) return new Special((json as { readonly special: string }).special)
  switch (type.kind) {
    case 'int64':
    case 'time':
    case 'timestamp':
    case 'timestamptz':
      return BigInt(json as string | number)
    case 'decimal':
      return unscaled(json as string, type.scale)
    case 'float32':
    case 'float64':
      return typeof json === 'string' ? Number(json) : (json as number)
    case 'bytes': {
      const bytes = Buffer.from(json as string, 'base64')
      return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    }
    case 'array':
      return (json as readonly Json[]).map((item) => storedValue(type.element, item))
    case 'record':
      return type.fields.map((field, at) => storedValue(field.type, (json as readonly Json[])[at] ?? null))
    case 'map':
      return new Map(json as unknown as readonly (readonly [string, string | null])[])
    default:
      return json as string | number | boolean
  }
}

/** `-1234` with scale 2 is `-12.34`. */
export function decimalText(value: bigint, scale: number): string {
  if (scale <= 0) return String(value * 10n ** BigInt(-scale))
  const digits = String(value < 0n ? -value : value).padStart(scale + 1, '0')
  return `${value < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}

function unscaled(text: string, scale: number): bigint {
  const point = text.indexOf('.')
  const fraction = point < 0 ? '' : text.slice(point + 1)
  const whole = point < 0 ? text : text.slice(0, point)
  return scale < 0 ? BigInt(whole) / 10n ** BigInt(-scale) : BigInt(whole + fraction.padEnd(scale, '0'))
}

/** What of a value is searched for: text as it is, the elements of a list apart by spaces. */
export function searchText(type: ColumnType, value: Value): string {
  if (value === null || typeof value === 'symbol') return ''
  if (typeof value === 'string') return value
  if (typeof value === 'bigint' && type.kind === 'decimal') return decimalText(value, type.scale)
  if (value instanceof Special) return value.text
  if (value instanceof Map) return [...value].flat().filter(Boolean).join(' ')
  if (value instanceof Uint8Array) return ''
  if (type.kind === 'array') return (value as readonly Value[]).map((item) => searchText(type.element, item)).join(' ')
  if (type.kind === 'record') return (value as readonly Value[]).map((item, at) => searchText(type.fields[at]!.type, item)).join(' ')
  return String(value)
}

/** A value for people and `--json`: exact, 64-bit integers and decimals as text. */
export function displayJson(type: ColumnType, value: Value): Json {
  return JSON.parse(jsonOf(type, value)) as Json
}

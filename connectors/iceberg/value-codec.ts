/** One column between Millrace values, Parquet values and Iceberg bounds. Source: Iceberg table spec, Appendix A "Parquet" and Appendix D. */
import type { SchemaElement } from 'hyparquet'
import { type ColumnType, MillraceError, Special, UNCHANGED, type Value } from '../../core/plugin.ts'
import { fitsDecimal } from './table-layout.ts'
import type { IcebergField, IcebergType } from './table-metadata.ts'

export interface ValueCodec {
  /** Why a value other than null does not fit, or null. Undefined when every value of the type fits. */
  readonly misfit: ((value: Value) => string | null) | undefined
  /** To what is written; undefined when that is the value as it is. Not called for null. */
  readonly encode: ((value: Value) => unknown) | undefined
  /** From what hyparquet gives with raw parsers; not called for null. */
  readonly decode: (raw: unknown) => Value
}

const identity = (raw: unknown) => raw as Value
const toBigInt = (raw: unknown) => BigInt(raw as number | bigint)
const DAY_MICROS = 86_400_000_000n
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

function uuidText(raw: unknown): string {
  if (typeof raw === 'string') return raw
  let text = ''
  const bytes = raw as Uint8Array
  for (let i = 0; i < 16; i++) text += (i === 4 || i === 6 || i === 8 || i === 10 ? '-' : '') + HEX[bytes[i]!]!
  return text
}

/** Big-endian two's complement. */
export function bigIntFromBytes(bytes: Uint8Array): bigint {
  if (bytes.length === 0) return 0n
  return BigInt.asIntN(bytes.length * 8, BigInt(`0x${Buffer.from(bytes).toString('hex')}`))
}

function unscaled(raw: unknown): bigint {
  return raw instanceof Uint8Array ? bigIntFromBytes(raw) : BigInt(raw as number | bigint)
}

/** `unscaled * 10^-scale` in plain digits. */
export function decimalText(value: bigint, scale: number): string {
  if (scale <= 0) return String(value * 10n ** BigInt(-scale))
  const digits = String(value < 0n ? -value : value).padStart(scale + 1, '0')
  return `${value < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}

function decimalFromText(text: string, scale: number): Value {
  if (!/^-?\d+(\.\d+)?$/.test(text)) return new Special(text)
  if (scale <= 0) return BigInt(text) / 10n ** BigInt(-scale)
  return BigInt(text.replace('.', ''))
}

const notSpecial = (value: Value) => (value instanceof Special ? 'a value that only text can hold, and the Iceberg column is not text' : null)

/** The codec of a column; `maybeSpecial` columns check for {@link Special}. */
export function valueCodec(type: ColumnType, maybeSpecial: boolean): ValueCodec {
  const plain = plainCodec(type)
  if (!maybeSpecial || plain.misfit !== undefined) return plain
  return { ...plain, misfit: notSpecial }
}

function plainCodec(type: ColumnType): ValueCodec {
  switch (type.kind) {
    case 'int64':
    case 'timestamp':
    case 'timestamptz':
      return { misfit: undefined, encode: undefined, decode: toBigInt }
    case 'time':
      return {
        misfit: (value) => notSpecial(value) ?? ((value as bigint) < 0n || (value as bigint) >= DAY_MICROS ? 'a time outside the day (24:00:00)' : null),
        encode: undefined,
        decode: toBigInt,
      }
    case 'string':
    case 'json':
    case 'enum':
      return { misfit: () => null, encode: (value) => (value instanceof Special ? value.text : value), decode: identity }
    case 'bytes':
      return { misfit: undefined, encode: undefined, decode: (raw) => new Uint8Array(raw as Uint8Array) }
    case 'uuid':
      return { misfit: undefined, encode: undefined, decode: uuidText }
    case 'decimal': {
      if (!fitsDecimal(type)) {
        return {
          misfit: () => null,
          encode: (value) => (value instanceof Special ? value.text : decimalText(value as bigint, type.scale)),
          decode: (raw) => decimalFromText(raw as string, type.scale),
        }
      }
      const limit = 10n ** BigInt(type.precision)
      return {
        misfit: (value) => notSpecial(value) ?? ((value as bigint) >= limit || (value as bigint) <= -limit ? `a number beyond ${type.precision} digits` : null),
        encode: undefined,
        decode: unscaled,
      }
    }
    case 'array': {
      const element = valueCodec(type.element, true)
      return {
        misfit: (value) => notSpecial(value) ?? firstMisfit(value as readonly Value[], () => element),
        encode: element.encode === undefined ? undefined : (value) => (value as readonly Value[]).map((item) => (item === null ? null : element.encode!(item))),
        decode: (raw) => (raw as readonly unknown[]).map((item) => (item === null || item === undefined ? null : element.decode(item))),
      }
    }
    case 'record': {
      const fields = type.fields.map((field) => valueCodec(field.type, true))
      return {
        misfit: (value) => notSpecial(value) ?? firstMisfit(value as readonly Value[], (i) => fields[i]!),
        encode(value) {
          const struct: Record<string, unknown> = {}
          ;(value as readonly Value[]).forEach((item, i) => {
            const encode = fields[i]!.encode
            struct[`f${i}`] = item === null || encode === undefined ? item : encode(item)
          })
          return struct
        },
        decode(raw) {
          const struct = raw as Record<string, unknown>
          return fields.map((field, i) => {
            const item = struct[`f${i}`]
            return item === null || item === undefined ? null : field.decode(item)
          })
        },
      }
    }
    case 'map':
      return {
        misfit: notSpecial,
        encode: (value) => Array.from(value as ReadonlyMap<string, string | null>, ([key, item]) => ({ key, value: item })),
        decode: (raw) =>
          new Map((raw as { key_value: readonly { key: string; value?: string | null }[] }).key_value.map((entry) => [entry.key, entry.value ?? null])),
      }
    default:
      return { misfit: undefined, encode: undefined, decode: identity }
  }
}

function firstMisfit(items: readonly Value[], codec: (index: number) => ValueCodec): string | null {
  for (const [i, item] of items.entries()) {
    if (item === null) continue
    if (item === UNCHANGED) return 'a part of the value is missing'
    const reason = codec(i).misfit?.(item) ?? null
    if (reason !== null) return reason
  }
  return null
}

/** Parquet schema elements of a field, depth first. Names of nested fields are `f<index>`: every reader goes by field id. */
export function parquetElements(field: IcebergField, name = field.name): SchemaElement[] {
  const own = { name, repetition_type: field.required ? ('REQUIRED' as const) : ('OPTIONAL' as const), field_id: field.id }
  const { type } = field
  if (typeof type === 'string') return [{ ...own, ...physical(type) }]
  const inner = (id: number, innerType: IcebergType, innerName: string, required: boolean) =>
    parquetElements({ id, name: innerName, required, type: innerType })
  if (type.type === 'list') {
    return [
      { ...own, num_children: 1, converted_type: 'LIST', logical_type: { type: 'LIST' } },
      { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
      ...inner(type['element-id'], type.element, 'element', false),
    ]
  }
  if (type.type === 'map') {
    return [
      { ...own, num_children: 1, converted_type: 'MAP', logical_type: { type: 'MAP' } },
      { name: 'key_value', repetition_type: 'REPEATED', num_children: 2 },
      ...inner(type['key-id'], type.key, 'key', true),
      ...inner(type['value-id'], type.value, 'value', false),
    ]
  }
  return [{ ...own, num_children: type.fields.length }, ...type.fields.flatMap((child, i) => parquetElements(child, `f${i}`))]
}

function physical(type: string): Partial<SchemaElement> {
  const decimal = /^decimal\((\d+), ?(\d+)\)$/.exec(type)
  if (decimal !== null) {
    const precision = Number(decimal[1])
    const scale = Number(decimal[2])
    const logical = { converted_type: 'DECIMAL', logical_type: { type: 'DECIMAL', precision, scale }, precision, scale } as const
    if (precision <= 9) return { type: 'INT32', ...logical }
    if (precision <= 18) return { type: 'INT64', ...logical }
    return { type: 'FIXED_LEN_BYTE_ARRAY', type_length: decimalBytes(precision), ...logical }
  }
  switch (type) {
    case 'boolean':
      return { type: 'BOOLEAN' }
    case 'int':
      return { type: 'INT32' }
    case 'long':
      return { type: 'INT64' }
    case 'float':
      return { type: 'FLOAT' }
    case 'double':
      return { type: 'DOUBLE' }
    case 'string':
      return { type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } }
    case 'binary':
      return { type: 'BYTE_ARRAY' }
    case 'uuid':
      return { type: 'FIXED_LEN_BYTE_ARRAY', type_length: 16, logical_type: { type: 'UUID' } }
    case 'date':
      return { type: 'INT32', converted_type: 'DATE', logical_type: { type: 'DATE' } }
    case 'time':
      return { type: 'INT64', logical_type: { type: 'TIME', isAdjustedToUTC: false, unit: 'MICROS' } }
    case 'timestamp':
    case 'timestamptz':
      return { type: 'INT64', logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: type === 'timestamptz', unit: 'MICROS' } }
    default:
      throw new MillraceError('config.unsupported', `no Parquet type for the Iceberg type ${type}`)
  }
}

/** The least bytes that hold a decimal of this precision. */
export function decimalBytes(precision: number): number {
  let bytes = 1
  while (2n ** BigInt(bytes * 8 - 1) < 10n ** BigInt(precision)) bytes++
  return bytes
}

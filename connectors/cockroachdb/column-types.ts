import { type ColumnType, Special, type Value } from '../../core/plugin.ts'
import { elements, type Token, textOf } from './json-text.ts'

const KINDS: Readonly<Record<string, ColumnType>> = {
  BOOL: { kind: 'boolean' },
  INT2: { kind: 'int32' },
  INT4: { kind: 'int32' },
  INT8: { kind: 'int64' },
  FLOAT4: { kind: 'float64' },
  FLOAT8: { kind: 'float64' },
  BYTES: { kind: 'bytes' },
  UUID: { kind: 'uuid' },
  JSONB: { kind: 'json' },
  DATE: { kind: 'date' },
  TIME: { kind: 'time' },
  TIMESTAMP: { kind: 'timestamp' },
  TIMESTAMPTZ: { kind: 'timestamptz' },
  VECTOR: { kind: 'array', element: { kind: 'float32' } },
}

/** Types whose JSON is a string of the database's own text. */
const TEXTS = new Set(
  'STRING VARCHAR CHAR "char" NAME INTERVAL TIMETZ INET BIT VARBIT BOX2D TSVECTOR TSQUERY LTREE PG_LSN REFCURSOR OID REGCLASS REGTYPE'.split(' '),
)

/** The column type for a `crdb_sql_type`. Everything is held: of a type that is not known its JSON, as the database writes it. */
export function columnType(sqlType: string, isEnum: boolean): ColumnType {
  if (sqlType.endsWith('[]')) return { kind: 'array', element: columnType(sqlType.slice(0, -2), isEnum) }
  if (isEnum) return { kind: 'string' }
  const [, name = '', parameters = ''] = /^("char"|[A-Z0-9_]+)(?:\(([^)]*)\))?(?: COLLATE .*)?$/.exec(sqlType) ?? []
  if (name === 'DECIMAL') {
    const [precision = 0, scale = 0] = parameters === '' ? [] : parameters.split(',').map(Number)
    return precision >= 1 && precision <= 38 && scale <= precision ? { kind: 'decimal', precision, scale } : { kind: 'string' }
  }
  return KINDS[name] ?? (TEXTS.has(name) ? { kind: 'string' } : { kind: 'json' })
}

/** Whether a column may have a value (infinity, NaN) that its Avro type does not hold. */
export function canBeSpecial(type: ColumnType): boolean {
  if (type.kind === 'array') return canBeSpecial(type.element)
  return ['decimal', 'date', 'timestamp', 'timestamptz'].includes(type.kind)
}

const WHOLE = /^-?\d+$/
const INFINITE = /^-?infinity$/i
const MICROS_OF_DAY = 86_400_000_000n

/** The value, exactly; undefined when the token is not in the form that the database gives this type. JSON null is NULL. */
export function readValue(type: ColumnType, token: Token): Value | undefined {
  const { kind, raw } = token
  if (kind === 'null') return null
  if (type.kind === 'json') return jsonOf(raw)
  if (type.kind === 'array') return arrayOf(type.element, token)
  const text = kind === 'string' ? textOf(token) : raw
  switch (type.kind) {
    case 'boolean':
      return kind === 'boolean' ? raw === 'true' : undefined
    case 'int32':
      return kind === 'number' && WHOLE.test(raw) && Number(raw) === (Number(raw) | 0) ? Number(raw) : undefined
    case 'int64': {
      const value = kind === 'number' ? integer(raw) : undefined
      return value !== undefined && BigInt.asIntN(64, value) === value ? value : undefined
    }
    case 'float32':
    case 'float64':
      return double(kind, text)
    case 'decimal':
      return decimal(text, type.precision, type.scale)
    case 'string':
      // a DECIMAL without bounds is a number, in the database's own digits
      return (kind === 'string' || kind === 'number') && text.isWellFormed() ? text : undefined
    case 'bytes':
      return kind === 'string' && /^\\x(?:[0-9a-f]{2})*$/.test(text) ? Buffer.from(text.slice(2), 'hex') : undefined
    case 'uuid':
      return kind === 'string' && /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text) ? text : undefined
    case 'date':
      return kind !== 'string' ? undefined : INFINITE.test(text) ? new Special(text) : day(text)
    case 'time': {
      const micros = kind === 'string' ? timeOfDay(text) : undefined
      return micros !== undefined && micros <= MICROS_OF_DAY ? micros : undefined
    }
    case 'timestamp':
    case 'timestamptz':
      return kind === 'string' ? instant(text, type.kind === 'timestamptz') : undefined
    default:
      return undefined
  }
}

/** With `encode_json_value_null_as_object`, so that the JSON null is none of SQL. */
function jsonOf(raw: string): string | undefined {
  if (/^\{\s*"__crdb_json_null__"\s*:\s*true\s*\}$/.test(raw)) return 'null'
  return raw.isWellFormed() ? raw : undefined
}

function arrayOf(element: ColumnType, token: Token): Value | undefined {
  // a VECTOR is a string of an array
  const raw = token.kind === 'string' ? textOf(token) : token.raw
  if (!raw.startsWith('[')) return undefined
  const values: Value[] = []
  for (const one of elements(raw)) {
    const value = readValue(element, one)
    if (value === undefined) return undefined
    values.push(value)
  }
  return values.some((value) => value instanceof Special) ? new Special(raw) : values
}

/** A whole number, also one that is written 1E+2. */
function integer(raw: string): bigint | undefined {
  return WHOLE.test(raw) ? BigInt(raw) : decimalDigits(raw, 0)
}

function double(kind: Token['kind'], text: string): number | undefined {
  if (/^\+?Inf(?:inity)?$/.test(text)) return Number.POSITIVE_INFINITY
  if (/^-Inf(?:inity)?$/.test(text)) return Number.NEGATIVE_INFINITY
  if (text === 'NaN') return Number.NaN
  return kind === 'number' ? Number(text) : undefined
}

function decimal(text: string, precision: number, scale: number): Value | undefined {
  if (/^(?:NaN|-?Infinity)$/.test(text)) return new Special(text)
  const unscaled = decimalDigits(text, scale)
  return unscaled !== undefined && String(unscaled).replace('-', '').length <= precision ? unscaled : undefined
}

/** The number times 10^scale; undefined when it has more digits behind the point than that. */
function decimalDigits(text: string, scale: number): bigint | undefined {
  const [, sign, whole, fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,6}))?$/.exec(text) ?? []
  if (whole === undefined) return undefined
  const digits = whole + fraction
  const shift = scale - fraction.length + Number(exponent)
  if (shift > 10_000 || !/^0*$/.test(shift < 0 ? digits.slice(shift) : '')) return undefined
  const kept = shift < 0 ? digits.slice(0, shift) || '0' : digits + '0'.repeat(shift)
  return sign === '-' ? -BigInt(kept) : BigInt(kept)
}

/** Days since 1970-01-01; years of more digits and before Christ, as the database writes them. */
function day(text: string): number | undefined {
  const [, minus, year, month, ofMonth, era] = /^(-?)(\d{4,7})-(\d\d)-(\d\d)( BC)?$/.exec(text) ?? []
  if (year === undefined) return undefined
  const signed = era === undefined ? Number(`${minus}${year}`) : 1 - Number(year)
  return daysOf(signed, Number(month), Number(ofMonth))
}

function daysOf(year: number, month: number, ofMonth: number): number | undefined {
  // the calendar repeats every 400 years: a Date does not reach as far as the database
  const cycles = Math.floor(year / 400) - 5
  const at = new Date(0)
  at.setUTCFullYear(year - cycles * 400, month - 1, ofMonth)
  return at.getUTCMonth() === month - 1 && at.getUTCDate() === ofMonth ? at.getTime() / 86_400_000 + cycles * 146_097 : undefined
}

function timeOfDay(text: string): bigint | undefined {
  const [, hour, minute, second, fraction = ''] = /^(\d\d):([0-5]\d):([0-5]\d)(?:\.(\d{1,6}))?$/.exec(text) ?? []
  if (hour === undefined) return undefined
  return BigInt(Number(hour) * 3600 + Number(minute) * 60 + Number(second)) * 1_000_000n + BigInt(fraction.padEnd(6, '0'))
}

/** `2019-01-02T03:04:05.123456`, and with `Z` or an offset when it has a zone. */
function instant(text: string, zoned: boolean): bigint | Special | undefined {
  if (INFINITE.test(text)) return new Special(text)
  const [, onDay, time, zone] = /^(-?\d{4,7}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d{1,6})?)(Z|[+-]\d\d:\d\d)?$/.exec(text) ?? []
  if (onDay === undefined || (zone !== undefined) !== zoned) return undefined
  const days = day(onDay)
  const micros = timeOfDay(time!)
  if (days === undefined || micros === undefined || micros >= MICROS_OF_DAY) return undefined
  const offset = zone === undefined || zone === 'Z' ? 0 : Number(`${zone[0]}1`) * (Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4)))
  const value = BigInt(days) * MICROS_OF_DAY + micros - BigInt(offset) * 60_000_000n
  return BigInt.asIntN(64, value) === value ? value : new Special(text)
}

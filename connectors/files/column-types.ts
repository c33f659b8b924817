import type { ColumnType, Value } from '../../core/plugin.ts'

/** A value as a file has it. `text`: a JSON string, unescaped; `cell`: of a CSV record, which has no types; the others: their JSON text as written. */
export interface Cell {
  readonly kind: 'text' | 'number' | 'boolean' | 'nested' | 'cell'
  readonly text: string
}

const NAMES = new Set(['boolean', 'int32', 'int64', 'float64', 'string', 'json', 'date', 'timestamp', 'timestamptz'])

/** A type as settings write it; null: there is none of this name. */
export function parseType(text: string): ColumnType | null {
  if (NAMES.has(text)) return { kind: text } as ColumnType
  const [, precision, scale] = /^decimal\((\d{1,2}),\s*(\d{1,2})\)$/.exec(text) ?? []
  if (precision === undefined || Number(precision) < 1 || Number(precision) > 38 || Number(scale) > Number(precision)) return null
  return { kind: 'decimal', precision: Number(precision), scale: Number(scale) }
}

const WHOLE = /^(0|-?[1-9]\d*)$/
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/
const DAY_MS = 86_400_000

/** The value, exactly; undefined when it is not of the type. Nothing is rounded, padded or cut. */
export function valueAs(type: ColumnType, cell: Cell): Value | undefined {
  const { kind, text } = cell
  const isText = kind === 'text' || kind === 'cell'
  const isNumber = kind === 'number' || kind === 'cell'
  switch (type.kind) {
    case 'boolean':
      return (kind === 'boolean' || kind === 'cell') && (text === 'true' || text === 'false') ? text === 'true' : undefined
    case 'int32':
      return isNumber && WHOLE.test(text) && Number(text) === (Number(text) | 0) ? Number(text) : undefined
    case 'int64':
      return isNumber && WHOLE.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text) ? BigInt(text) : undefined
    case 'float64':
      return isNumber ? double(text) : undefined
    case 'decimal':
      return kind === 'boolean' || kind === 'nested' ? undefined : decimal(text, type.precision, type.scale)
    case 'string':
      return isText && text.isWellFormed() ? text : undefined
    case 'json':
      return json(cell)
    case 'date':
      return isText ? day(text) : undefined
    case 'timestamp':
    case 'timestamptz':
      return isText ? instant(text, type.kind === 'timestamptz') : undefined
    default:
      return undefined
  }
}

function json({ kind, text }: Cell): string | undefined {
  if (kind === 'text') return text.isWellFormed() ? JSON.stringify(text) : undefined
  if (!text.isWellFormed()) return undefined
  if (kind !== 'cell') return text
  try {
    JSON.parse(text)
    return text
  } catch {
    return undefined
  }
}

/** A double stands for a number when it prints as that number: 0.1 does, 0.12345678901234567890 does not. */
function double(text: string): number | undefined {
  if (!NUMBER.test(text)) return undefined
  const value = Number(text)
  return Number.isFinite(value) && significant(text) === significant(String(value)) ? value : undefined
}

/** Sign, digits and exponent without zeros that say nothing. */
function significant(text: string): string {
  const [, sign, whole, fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text)!
  const digits = `${whole}${fraction}`.replace(/^0+/, '')
  const kept = digits.replace(/0+$/, '')
  // String(-0) is "0"
  return kept === '' ? '0' : `${sign}${kept}e${Number(exponent) - fraction.length + digits.length - kept.length}`
}

function decimal(text: string, precision: number, scale: number): bigint | undefined {
  const [, sign, whole, fraction = ''] = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?$/.exec(text) ?? []
  if (whole === undefined) return undefined
  const kept = fraction.replace(/0+$/, '')
  if (kept.length > scale) return undefined
  const digits = `${whole}${kept.padEnd(scale, '0')}`
  return digits.replace(/^0+/, '').length > precision ? undefined : BigInt(`${sign}${digits}`)
}

function day(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) return undefined
  const ms = Date.parse(`${text}T00:00:00Z`)
  // 30 February is no day
  return Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== text ? undefined : ms / DAY_MS
}

function instant(text: string, zoned: boolean): bigint | undefined {
  const found = /^(\d{4}-\d\d-\d\d)[T ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:[0-5]\d)?$/.exec(text)
  if (found === null || (found[6] !== undefined) !== zoned) return undefined
  const [, date, hour, minute, second, fraction = '', zone = 'Z'] = found
  const days = day(date!)
  if (days === undefined || /[1-9]/.test(fraction.slice(6))) return undefined
  const seconds = days * 86_400 + Number(hour) * 3600 + Number(minute) * 60 + Number(second)
  const offset = zone === 'Z' ? 0 : Number(`${zone[0]}1`) * (Number(zone.slice(1, 3)) * 3600 + Number(zone.slice(4)) * 60)
  return BigInt(seconds - offset) * 1_000_000n + BigInt(fraction.slice(0, 6).padEnd(6, '0'))
}

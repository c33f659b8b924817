import { MillraceError } from '../../core/plugin.ts'
import { clockText, dateText, timeText } from './type-datetime.ts'
import { packedDecimalText } from './type-number.ts'

/** sql-common/json_binary.h of MySQL. */
const JSON_TYPE = {
  smallObject: 0,
  largeObject: 1,
  smallArray: 2,
  largeArray: 3,
  literal: 4,
  int16: 5,
  uint16: 6,
  int32: 7,
  uint32: 8,
  int64: 9,
  uint64: 10,
  double: 11,
  string: 12,
  opaque: 15,
} as const

const OPAQUE = { date: 10, time: 11, datetime: 12, timestamp: 7, decimal: 246 } as const
const TWO_24 = 0x100_0000n
const DEEPEST = 200

/** A JSON value in its binary form as the server's own text of it. @throws source.protocol when the bytes are not such a value */
export function jsonText(bytes: Buffer, at: number, length: number): string {
  // the server takes an empty value for null
  if (length === 0) return 'null'
  try {
    return valueText(bytes.subarray(at, at + length), 1, bytes[at]!, 0)
  } catch (cause) {
    throw new MillraceError('source.protocol', 'a JSON value whose binary form cannot be read', { cause })
  }
}

/** `bytes` end with the value's container. */
function valueText(bytes: Buffer, at: number, type: number, depth: number): string {
  if (depth > DEEPEST) throw new RangeError('nested too deeply')
  switch (type) {
    case JSON_TYPE.smallObject:
    case JSON_TYPE.largeObject:
    case JSON_TYPE.smallArray:
    case JSON_TYPE.largeArray:
      return containerText(bytes.subarray(at), type, depth)
    case JSON_TYPE.string: {
      const { value, next } = variableLength(bytes, at)
      return quoted(slice(bytes, next, value).toString('utf8'))
    }
    case JSON_TYPE.opaque: {
      const { value, next } = variableLength(bytes, at + 1)
      return opaqueText(bytes[at]!, slice(bytes, next, value))
    }
    default:
      return scalarText(bytes, at, type)
  }
}

function slice(bytes: Buffer, at: number, length: number): Buffer {
  if (at + length > bytes.length) throw new RangeError('cut off')
  return bytes.subarray(at, at + length)
}

function scalarText(bytes: Buffer, at: number, type: number): string {
  switch (type) {
    case JSON_TYPE.literal: {
      const text = ['null', 'true', 'false'][bytes.readUInt8(at)]
      if (text === undefined) throw new RangeError('an unknown literal')
      return text
    }
    case JSON_TYPE.int16:
      return String(bytes.readInt16LE(at))
    case JSON_TYPE.uint16:
      return String(bytes.readUInt16LE(at))
    case JSON_TYPE.int32:
      return String(bytes.readInt32LE(at))
    case JSON_TYPE.uint32:
      return String(bytes.readUInt32LE(at))
    case JSON_TYPE.int64:
      return String(bytes.readBigInt64LE(at))
    case JSON_TYPE.uint64:
      return String(bytes.readBigUInt64LE(at))
    case JSON_TYPE.double:
      return doubleText(bytes.readDoubleLE(at))
    default:
      throw new RangeError(`an unknown type ${type}`)
  }
}

/** Count, size, entries of keys (offset, length) and values (type, offset or the value itself), keys, values; offsets count from the container's start. */
function containerText(container: Buffer, type: number, depth: number): string {
  const large = type === JSON_TYPE.largeObject || type === JSON_TYPE.largeArray
  const isObject = type === JSON_TYPE.smallObject || type === JSON_TYPE.largeObject
  const wide = large ? 4 : 2
  const count = container.readUIntLE(0, wide)
  const bytes = slice(container, 0, container.readUIntLE(wide, wide))
  const keysAt = 2 * wide
  const valuesAt = keysAt + (isObject ? count * (wide + 2) : 0)
  if (valuesAt + count * (wide + 1) > bytes.length) throw new RangeError('more elements than bytes')
  const parts: string[] = []
  for (let i = 0; i < count; i++) {
    const entry = valuesAt + i * (wide + 1)
    const element = bytes[entry]!
    const inline = element === JSON_TYPE.literal || element === 5 || element === 6 || (large && (element === 7 || element === 8))
    const at = inline ? entry + 1 : bytes.readUIntLE(entry + 1, wide)
    const text = valueText(bytes, at, element, depth + 1)
    if (!isObject) parts.push(text)
    else {
      const key = keysAt + i * (wide + 2)
      parts.push(`${quoted(slice(bytes, bytes.readUIntLE(key, wide), bytes.readUInt16LE(key + wide)).toString('utf8'))}: ${text}`)
    }
  }
  return isObject ? `{${parts.join(', ')}}` : `[${parts.join(', ')}]`
}

/** Seven bits to a byte, lowest first; the highest bit says that more follow. */
function variableLength(bytes: Buffer, at: number): { readonly value: number; readonly next: number } {
  let value = 0
  for (let i = 0; i < 5; i++) {
    const byte = bytes.readUInt8(at + i)
    value += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) return { value, next: at + i + 1 }
  }
  throw new RangeError('a length of more than five bytes')
}

function opaqueText(type: number, data: Buffer): string {
  switch (type) {
    case OPAQUE.decimal:
      return packedDecimalText(data, 2, data[0]!, data[1]!)
    case OPAQUE.date:
    case OPAQUE.datetime:
    case OPAQUE.timestamp:
    case OPAQUE.time:
      return `"${temporalText(type, data.readBigInt64LE(0))}"`
    default:
      return `"base64:type${type}:${data.toString('base64')}"`
  }
}

/** The server's packed form: 40 bits of date and clock, 24 bits of microseconds. */
function temporalText(type: number, packed: bigint): string {
  const negative = packed < 0n
  const size = negative ? -packed : packed
  const micros = Number(size % TWO_24)
  const whole = Number(size / TWO_24)
  const clock = whole % 0x2_0000
  const [hour, minute, second] = [clock >> 12, (clock >> 6) & 63, clock & 63]
  if (type === OPAQUE.time) return timeText(negative, (whole >> 12) & 1023, minute, second, micros, 6)
  const day = Math.trunc(whole / 0x2_0000)
  const yearMonth = day >> 5
  const text = dateText(Math.trunc(yearMonth / 13), yearMonth % 13, day & 31)
  return type === OPAQUE.date ? text : `${text} ${clockText(hour, minute, second, micros, 6)}`
}

const ESCAPES: Readonly<Record<string, string>> = { '\b': '\\b', '\t': '\\t', '\n': '\\n', '\f': '\\f', '\r': '\\r', '"': '\\"', '\\': '\\\\' }

/** The server escapes what JSON demands and nothing else. */
function quoted(text: string): string {
  return `"${text.replace(/[\u0000-\u001f"\\]/g, (char) => ESCAPES[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`
}

/** The shortest digits that read back, with an exponent where `my_gcvt` writes one, and always as a floating-point number. */
export function doubleText(value: number): string {
  const [mantissa, exponent] = Math.abs(value).toExponential().split('e')
  const digits = mantissa!.replace('.', '')
  const sign = value < 0 || Object.is(value, -0) ? '-' : ''
  // the decimal point stands after so many digits
  const point = Number(exponent) + 1
  if (value === 0) return `${sign}0.0`
  if (point < -14 || (point > 15 && digits.length <= point)) {
    return `${sign}${digits[0]}${digits.length > 1 ? `.${digits.slice(1)}` : ''}e${point - 1}`
  }
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`
  if (digits.length > point) return `${sign}${digits.slice(0, point)}.${digits.slice(point)}`
  return `${sign}${digits.padEnd(point, '0')}.0`
}

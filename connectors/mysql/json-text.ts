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

const QUOTE = 34
const BACKSLASH = 92
const COMMA_SPACE = Buffer.from(', ')
const COLON_SPACE = Buffer.from(': ')
const LITERALS = ['null', 'true', 'false'].map((literal) => Buffer.from(literal))
const FIRST_CAPACITY = 4096
/** Up to this many bytes a loop beats the call into native copy. */
const SHORT_COPY = 40

/** By their codes. */
const ESCAPES: Readonly<Record<number, string>> = { 8: '\\b', 9: '\\t', 10: '\\n', 12: '\\f', 13: '\\r', [QUOTE]: '\\"', [BACKSLASH]: '\\\\' }

/** Turns JSON values in their binary form into the server's own text of them, in UTF-8. Reused from value to value, not reentrant. */
export class JsonText {
  /** The text of the value that was read last is [0, length) of these. */
  bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_CAPACITY)
  length = 0

  /** @throws source.protocol when the bytes at [at, at+length) are not such a value */
  read(source: Buffer, at: number, length: number): void {
    this.length = 0
    try {
      // the server takes an empty value for null
      if (length === 0) this.#copy(LITERALS[0]!, 0, 4)
      else this.#value(source, at + 1, at + length, source[at]!, 0)
    } catch (cause) {
      throw new MillraceError('source.protocol', 'a JSON value whose binary form cannot be read', { cause })
    }
  }

  /** The value at `at`, in a container that ends at `end`. */
  #value(source: Buffer, at: number, end: number, type: number, depth: number): void {
    if (depth > DEEPEST) throw new RangeError('nested too deeply')
    switch (type) {
      case JSON_TYPE.smallObject:
      case JSON_TYPE.largeObject:
      case JSON_TYPE.smallArray:
      case JSON_TYPE.largeArray:
        this.#container(source, at, end, type, depth)
        return
      case JSON_TYPE.literal: {
        const literal = LITERALS[source[within(at, 1, end)]!]
        if (literal === undefined) throw new RangeError('an unknown literal')
        this.#copy(literal, 0, literal.length)
        return
      }
      case JSON_TYPE.int16:
        this.#integer(source.readInt16LE(within(at, 2, end)))
        return
      case JSON_TYPE.uint16:
        this.#integer(source.readUInt16LE(within(at, 2, end)))
        return
      case JSON_TYPE.int32:
        this.#integer(source.readInt32LE(within(at, 4, end)))
        return
      case JSON_TYPE.uint32:
        this.#integer(source.readUInt32LE(within(at, 4, end)))
        return
      case JSON_TYPE.int64:
        this.#ascii(String(source.readBigInt64LE(within(at, 8, end))))
        return
      case JSON_TYPE.uint64:
        this.#ascii(String(source.readBigUInt64LE(within(at, 8, end))))
        return
      case JSON_TYPE.double:
        this.#ascii(doubleText(source.readDoubleLE(within(at, 8, end))))
        return
      case JSON_TYPE.string: {
        const short = source[within(at, 1, end)]!
        if (short < 0x80) this.#quoted(source, within(at + 1, short, end), short)
        else {
          const { value, next } = variableLength(source, at)
          this.#quoted(source, within(next, value, end), value)
        }
        return
      }
      case JSON_TYPE.opaque: {
        const { value, next } = variableLength(source, at + 1)
        this.#ascii(opaqueText(source[at]!, source.subarray(within(next, value, end), next + value)))
        return
      }
      default:
        throw new RangeError(`an unknown type ${type}`)
    }
  }

  /** Count, size, entries of keys (offset, length) and values (type, offset or the value itself), keys, values; offsets count from the container's start. */
  #container(source: Buffer, start: number, outerEnd: number, type: number, depth: number): void {
    const large = type === JSON_TYPE.largeObject || type === JSON_TYPE.largeArray
    const isObject = type === JSON_TYPE.smallObject || type === JSON_TYPE.largeObject
    const wide = large ? 4 : 2
    within(start, 2 * wide, outerEnd)
    const count = unsigned(source, start, wide)
    const size = unsigned(source, start + wide, wide)
    const end = within(start, size, outerEnd) + size
    const keysAt = start + 2 * wide
    const valuesAt = keysAt + (isObject ? count * (wide + 2) : 0)
    if (valuesAt + count * (wide + 1) > end) throw new RangeError('more elements than bytes')
    this.#byte(isObject ? 123 : 91)
    for (let i = 0; i < count; i++) {
      if (i > 0) this.#copy(COMMA_SPACE, 0, 2)
      if (isObject) {
        const key = keysAt + i * (wide + 2)
        const length = unsigned(source, key + wide, 2)
        this.#quoted(source, within(start + unsigned(source, key, wide), length, end), length)
        this.#copy(COLON_SPACE, 0, 2)
      }
      const entry = valuesAt + i * (wide + 1)
      const element = source[entry]!
      const inline =
        element === JSON_TYPE.literal ||
        element === JSON_TYPE.int16 ||
        element === JSON_TYPE.uint16 ||
        (large && (element === JSON_TYPE.int32 || element === JSON_TYPE.uint32))
      const at = inline ? entry + 1 : start + unsigned(source, entry + 1, wide)
      this.#value(source, at, end, element, depth + 1)
    }
    this.#byte(isObject ? 125 : 93)
  }

  #reserve(bytes: number): void {
    if (this.length + bytes <= this.bytes.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(this.length + bytes, this.bytes.length * 2))
    this.bytes.copy(grown, 0, 0, this.length)
    this.bytes = grown
  }

  #byte(value: number): void {
    this.#reserve(1)
    this.bytes[this.length++] = value
  }

  #copy(source: Buffer, from: number, length: number): void {
    this.#reserve(length)
    const { bytes, length: at } = this
    if (length <= SHORT_COPY) for (let i = 0; i < length; i++) bytes[at + i] = source[from + i]!
    else source.copy(bytes, at, from, from + length)
    this.length = at + length
  }

  #ascii(text: string): void {
    this.#reserve(text.length)
    this.length += this.bytes.write(text, this.length, 'latin1')
  }

  /** @param value of 32 bits */
  #integer(value: number): void {
    this.#reserve(11)
    const { bytes } = this
    if (value < 0) {
      bytes[this.length++] = 45
      value = -value
    }
    let digits = 1
    for (let limit = 10; value >= limit; limit *= 10) digits++
    for (let i = this.length + digits - 1; i >= this.length; i--) {
      const rest = Math.floor(value / 10)
      bytes[i] = 48 + value - rest * 10
      value = rest
    }
    this.length += digits
  }

  /** The server escapes what JSON demands and nothing else. */
  #quoted(source: Buffer, from: number, length: number): void {
    this.#byte(QUOTE)
    const to = from + length
    let plain = from
    for (let i = from; i < to; i++) {
      const code = source[i]!
      if (code >= 32 && code !== QUOTE && code !== BACKSLASH) continue
      this.#copy(source, plain, i - plain)
      this.#ascii(ESCAPES[code] ?? `\\u${code.toString(16).padStart(4, '0')}`)
      plain = i + 1
    }
    this.#copy(source, plain, to - plain)
    this.#byte(QUOTE)
  }
}

/** @returns `at`. @throws when the bytes there go beyond `end` */
function within(at: number, length: number, end: number): number {
  if (at + length > end) throw new RangeError('cut off')
  return at
}

function unsigned(bytes: Buffer, at: number, wide: number): number {
  const low = bytes[at]! | (bytes[at + 1]! << 8)
  return wide === 2 ? low : low + (bytes[at + 2]! | (bytes[at + 3]! << 8)) * 0x1_0000
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

/** The shortest digits that read back, with an exponent where `my_gcvt` writes one, and always as a floating-point number. */
function doubleText(value: number): string {
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

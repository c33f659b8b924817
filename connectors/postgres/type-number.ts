/** Integers, floats, numeric and money. Source: src/backend/utils/adt/{int8,float,numeric,cash}.c of PostgreSQL. */
import type { ChangeWriter, Value } from '../../core/plugin.ts'
import { expectLength, malformed, scalar, type TypeReader, textual, type WireReader } from './type-reader.ts'

const MINUS = 45
const POINT = 46
const ZERO = 48
/** Digits that always fit a safe integer. */
const SAFE_DIGITS = 15
const POWERS = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent)

/** A whole number from text; NaN when it has more than 15 digits. */
function wholeNumber(bytes: Buffer, at: number, length: number): number {
  const end = at + length
  const negative = bytes[at] === MINUS
  let i = negative ? at + 1 : at
  if (end - i > SAFE_DIGITS) return Number.NaN
  if (i >= end) malformed('number', 'text')
  let value = 0
  for (; i < end; i++) {
    const digit = bytes[i]! - ZERO
    if (digit < 0 || digit > 9) malformed('number', 'text')
    value = value * 10 + digit
  }
  return negative && value !== 0 ? -value : value
}

const intText: WireReader = (bytes, _view, at, length, writer) => {
  const value = wholeNumber(bytes, at, length)
  if (Number.isNaN(value)) malformed('number', 'text')
  writer.int(value)
}

const longText: WireReader = (bytes, _view, at, length, writer) => {
  const value = wholeNumber(bytes, at, length)
  if (!Number.isNaN(value)) {
    writer.long(value)
    return
  }
  const text = bytes.toString('latin1', at, at + length)
  if (!/^-?\d+$/.test(text)) malformed('number', 'text')
  writer.bigint(BigInt(text))
}

const uint32: WireReader = (_bytes, view, at, length, writer) => {
  expectLength(length, 4, '32-bit number')
  writer.long(view.getUint32(at))
}

const TRUE = 116
const FALSE = 102

export const boolean = scalar(
  'boolean',
  (bytes, _view, at, length, writer) => {
    if (length !== 1 || bytes[at]! > 1) malformed('boolean', 'binary')
    writer.boolean(bytes[at] === 1)
  },
  (bytes, _view, at, length, writer) => {
    if (length !== 1 || (bytes[at] !== TRUE && bytes[at] !== FALSE)) malformed('boolean', 'text')
    writer.boolean(bytes[at] === TRUE)
  },
  (value) => (value === true ? 't' : 'f'),
)
export const int2 = scalar(
  'int32',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 2, 'smallint')
    writer.int(view.getInt16(at))
  },
  intText,
  String,
)
export const int4 = scalar(
  'int32',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 4, 'integer')
    writer.int(view.getInt32(at))
  },
  intText,
  String,
)
export const int8 = scalar(
  'int64',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 8, 'bigint')
    writer.long64(view.getInt32(at), view.getUint32(at + 4))
  },
  longText,
  String,
)
/** oid, xid, cid: unsigned 32 bits. */
export const unsigned4 = scalar('int64', uint32, longText, String)
/** Unsigned 64 bits, which no Avro type holds. */
export const xid8 = textual((_bytes, view, at, length) => {
  expectLength(length, 8, 'xid8')
  return view.getBigUint64(at).toString()
})

export const float4 = scalar(
  'float32',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 4, 'real')
    writer.float(view.getFloat32(at))
  },
  (bytes, _view, at, length, writer) => writer.float(Math.fround(parseFloat8(bytes.toString('latin1', at, at + length)))),
  (value) => formatFloat4(value as number),
)
export const float8 = scalar(
  'float64',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 8, 'double precision')
    writer.double(view.getFloat64(at))
  },
  (bytes, _view, at, length, writer) => writer.double(parseFloat8(bytes.toString('latin1', at, at + length))),
  (value) => formatFloat8(value as number),
)

/** float8's output back to the same number; `NaN` and `Infinity` are spelled as in JavaScript. */
export function parseFloat8(text: string): number {
  const value = Number(text)
  if (text.trim() !== text || text === '' || (Number.isNaN(value) && text !== 'NaN')) malformed('float', 'text')
  return value
}

/** The shortest text that reads back as the same float8, laid out as Postgres does. */
export function formatFloat8(value: number): string {
  return layOut(value, value.toExponential(), 15)
}

/** As {@link formatFloat8}, for float4. */
export function formatFloat4(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  let digits = 0
  while (digits < 8 && Math.fround(Number(value.toExponential(digits))) !== value) digits++
  return layOut(value, value.toExponential(digits), 6)
}

function layOut(value: number, exponential: string, fixedBelow: number): string {
  if (!Number.isFinite(value)) return String(value)
  if (value === 0) return Object.is(value, -0) ? '-0' : '0'
  const [, sign, first, rest = '', power] = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(exponential)!
  const exponent = Number(power)
  const digits = first! + rest
  if (exponent < -4 || exponent >= fixedBelow) {
    const magnitude = String(Math.abs(exponent)).padStart(2, '0')
    return `${sign}${first}${rest === '' ? '' : `.${rest}`}e${exponent < 0 ? '-' : '+'}${magnitude}`
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`
  if (digits.length <= exponent + 1) return sign + digits.padEnd(exponent + 1, '0')
  return `${sign}${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`
}

/** Sign word of numeric's binary form from which on the value is not finite. */
const NOT_FINITE = 0xc000
const NEGATIVE = 0x4000

function numericSpecial(sign: number): string {
  return sign === 0xc000 ? 'NaN' : sign === 0xd000 ? 'Infinity' : sign === 0xf000 ? '-Infinity' : malformed('numeric', 'binary')
}

/** Digits of base 10000 in numeric's binary form. */
function numericGroups(view: DataView, at: number, length: number): number {
  if (length < 8) malformed('numeric', 'binary')
  const groups = view.getUint16(at)
  expectLength(length, 8 + 2 * groups, 'numeric')
  return groups
}

function numericGroup(view: DataView, at: number): number {
  const group = view.getUint16(at)
  return group < 10_000 ? group : malformed('numeric', 'binary')
}

/** numeric's binary form as its text: ndigits, weight, sign, dscale (16 bits each), base-10000 digits. */
export function numericText(view: DataView, at: number, length: number): string {
  const groups = numericGroups(view, at, length)
  const sign = view.getUint16(at + 4)
  if (sign >= NOT_FINITE) return numericSpecial(sign)
  if (sign !== NEGATIVE && sign !== 0) malformed('numeric', 'binary')
  const weight = view.getInt16(at + 2)
  const scale = view.getUint16(at + 6)
  const group = (i: number) => (i >= 0 && i < groups ? numericGroup(view, at + 8 + 2 * i) : 0)
  let text = sign === NEGATIVE ? '-' : ''
  if (weight < 0) text += '0'
  else {
    text += group(0)
    for (let i = 1; i <= weight; i++) text += String(group(i)).padStart(4, '0')
  }
  if (scale === 0) return text
  let fraction = ''
  for (let i = weight + 1; fraction.length < scale; i++) fraction += String(group(i)).padStart(4, '0')
  return `${text}.${fraction.slice(0, scale)}`
}

/** numeric without bounds, or beyond 38 digits: the text of Postgres. */
export const unboundedNumeric = textual((_bytes, view, at, length) => numericText(view, at, length))

/** numeric(precision, scale) with 0 <= scale <= precision <= 38. NaN is special. */
export function decimal(precision: number, scale: number): TypeReader {
  return {
    type: { kind: 'decimal', precision, scale },
    binary: (_bytes, view, at, length, writer) => decimalBinary(view, at, length, scale, writer),
    text: (bytes, _view, at, length, writer) => decimalText(bytes, at, length, scale, writer),
    format: (value) => formatDecimal(value as bigint, scale),
    canBeSpecial: true,
  }
}

function decimalBinary(view: DataView, at: number, length: number, scale: number, writer: ChangeWriter): void {
  const groups = numericGroups(view, at, length)
  const sign = view.getUint16(at + 4)
  if (sign >= NOT_FINITE) {
    writer.special(numericSpecial(sign))
    return
  }
  if (sign !== NEGATIVE && sign !== 0) malformed('numeric', 'binary')
  if (groups === 0) {
    writer.decimal(0)
    return
  }
  // power of ten by which the digits, read as one integer, are too small
  const shift = 4 * (view.getInt16(at + 2) - groups + 1) + scale
  if (groups <= 5 && shift > -4 && shift <= SAFE_DIGITS) {
    let value = 0
    const last = at + 6 + 2 * groups
    for (let i = at + 8; i < last; i += 2) value = value * 10000 + numericGroup(view, i)
    if (shift < 0) value = value * POWERS[4 + shift]! + numericGroup(view, last) / POWERS[-shift]!
    else value = (value * 10000 + numericGroup(view, last)) * POWERS[shift]!
    // every step only grows, so that a safe end was exact all along
    if (Number.isSafeInteger(value)) {
      writer.decimal(sign === NEGATIVE ? -value : value)
      return
    }
  }
  wideDecimal(numericText(view, at, length), scale, writer)
}

function decimalText(bytes: Buffer, at: number, length: number, scale: number, writer: ChangeWriter): void {
  const end = at + length
  const negative = bytes[at] === MINUS
  let value = 0
  let digits = 0
  let fraction = -1
  if (length <= SAFE_DIGITS) {
    let i = negative ? at + 1 : at
    for (; i < end; i++) {
      const code = bytes[i]!
      if (code === POINT && fraction < 0) fraction = 0
      else if (code < ZERO || code > 57) break
      else {
        value = value * 10 + code - ZERO
        digits++
        if (fraction >= 0) fraction++
      }
    }
    const shift = scale - Math.max(0, fraction)
    if (i === end && digits > 0 && shift >= 0 && shift + digits <= SAFE_DIGITS) {
      value *= POWERS[shift]!
      writer.decimal(negative && value !== 0 ? -value : value)
      return
    }
  }
  wideDecimal(bytes.toString('latin1', at, end), scale, writer)
}

function wideDecimal(text: string, scale: number, writer: ChangeWriter): void {
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text)
  if (match === null) {
    if (text !== 'NaN' && text !== 'Infinity' && text !== '-Infinity') malformed('numeric', 'text')
    writer.special(text)
    return
  }
  const [, sign, whole, fraction = ''] = match
  if (fraction.length > scale && /[1-9]/.test(fraction.slice(scale))) {
    writer.special(text)
    return
  }
  const unscaled = BigInt(whole! + fraction.slice(0, scale).padEnd(scale, '0'))
  writer.decimalBig(sign === '-' ? -unscaled : unscaled)
}

export function formatDecimal(unscaled: bigint, scale: number): string {
  const negative = unscaled < 0n
  const digits = (negative ? -unscaled : unscaled).toString().padStart(scale + 1, '0')
  const text = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`
  return negative ? `-${text}` : text
}

/**
 * money: a count of the currency's smallest unit. Its text follows lc_monetary, but always writes every digit of that count, so the digits alone are the
 * value; a minus or a parenthesis is its sign.
 * @param scale decimal places of lc_monetary, as `scale(0::money::numeric)` gives them
 */
export function money(scale: number): TypeReader {
  return {
    type: { kind: 'decimal', precision: 19, scale },
    binary: (_bytes, view, at, length, writer) => {
      expectLength(length, 8, 'money')
      writer.decimalBig(view.getBigInt64(at))
    },
    text: (bytes, _view, at, length, writer) => {
      const text = bytes.toString('utf8', at, at + length)
      const digits = text.replace(/\D/g, '')
      if (digits === '') malformed('money', 'text')
      writer.decimalBig(/[-(]/.test(text) ? -BigInt(digits) : BigInt(digits))
    },
    format: (value: Value) => formatDecimal(value as bigint, scale),
    canBeSpecial: false,
  }
}

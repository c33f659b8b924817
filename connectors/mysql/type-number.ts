import type { ChangeWriter } from '../../core/plugin.ts'
import { expectLength, reader, type TypeReader, type WireReader } from './type-reader.ts'

const TWO_32 = 0x1_0000_0000
/** More decimal digits than these may not fit a number exactly. */
const SAFE_DIGITS = 15
const MOST_PRECISION = 38
const POWERS = Array.from({ length: SAFE_DIGITS + 1 }, (_, i) => 10 ** i)
/** Bytes that hold a group of fewer than nine digits. */
const GROUP_BYTES = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
const MINUS = 45
const POINT = 46
const ZERO = 48
const NINE = 57

function signed(view: DataView, at: number, length: number): number {
  switch (length) {
    case 1:
      return view.getInt8(at)
    case 2:
      return view.getInt16(at, true)
    case 3:
      return (view.getInt8(at + 2) << 16) | view.getUint16(at, true)
    default:
      expectLength(length, 4)
      return view.getInt32(at, true)
  }
}

function unsigned(view: DataView, at: number, length: number): number {
  switch (length) {
    case 1:
      return view.getUint8(at)
    case 2:
      return view.getUint16(at, true)
    case 3:
      return (view.getUint8(at + 2) << 16) | view.getUint16(at, true)
    default:
      expectLength(length, 4)
      return view.getUint32(at, true)
  }
}

export const signedInteger = reader({ kind: 'int32' }, (_bytes, view, at, length, writer) => writer.int(signed(view, at, length)))
export const unsignedInteger = reader({ kind: 'int32' }, (_bytes, view, at, length, writer) => writer.int(unsigned(view, at, length)))
/** `int unsigned` goes beyond 31 bits. */
export const unsignedInt = reader({ kind: 'int64' }, (_bytes, view, at, length, writer) => writer.long(unsigned(view, at, length)))
export const bigint = reader({ kind: 'int64' }, (_bytes, view, at, length, writer) => {
  expectLength(length, 8)
  writer.long64(view.getInt32(at + 4, true), view.getUint32(at, true))
})
export const unsignedBigint = reader({ kind: 'decimal', precision: 20, scale: 0 }, (_bytes, view, at, length, writer) => {
  expectLength(length, 8)
  const high = view.getUint32(at + 4, true)
  if (high < 0x20_0000) writer.decimal(high * TWO_32 + view.getUint32(at, true))
  else writer.decimalBig(view.getBigUint64(at, true))
})
export const float = reader({ kind: 'float32' }, (_bytes, view, at, length, writer) => {
  expectLength(length, 4)
  writer.float(view.getFloat32(at, true))
})
export const double = reader({ kind: 'float64' }, (_bytes, view, at, length, writer) => {
  expectLength(length, 8)
  writer.double(view.getFloat64(at, true))
})
export const year = reader(
  { kind: 'int32' },
  (bytes, _view, at, length, writer) => {
    expectLength(length, 1)
    writer.int(bytes[at] === 0 ? 0 : 1900 + bytes[at]!)
  },
  (_bytes, view, at, length, writer) => {
    expectLength(length, 2)
    writer.int(view.getUint16(at, true))
  },
)

/** bit(1) is a truth value; longer ones are their digits. */
export function bit(digits: number): TypeReader {
  const size = (digits + 7) >> 3
  if (digits === 1) {
    return reader({ kind: 'boolean' }, (bytes, _view, at, length, writer) => {
      expectLength(length, size)
      writer.boolean(bytes[at] === 1)
    })
  }
  return reader({ kind: 'string' }, (bytes, _view, at, length, writer) => {
    expectLength(length, size)
    let text = ''
    for (let i = digits - 1; i >= 0; i--) text += (bytes[at + length - 1 - (i >> 3)]! >> (i & 7)) & 1
    writer.string(text)
  })
}

/** Bytes of a decimal in a row event. */
export function decimalBytes(precision: number, scale: number): number {
  const whole = precision - scale
  return Math.trunc(whole / 9) * 4 + GROUP_BYTES[whole % 9]! + Math.trunc(scale / 9) * 4 + GROUP_BYTES[scale % 9]!
}

export function decimal(precision: number, scale: number): TypeReader {
  const unpack = unpacker(precision, scale)
  if (precision > MOST_PRECISION) {
    return reader(
      { kind: 'string' },
      (bytes, _view, at, length, writer) => writer.string(decimalText(unpack(bytes, at, length), scale)),
      (bytes, _view, at, length, writer) => writer.text(bytes, at, at + length),
    )
  }
  const small: WireReader = (bytes, _view, at, length, writer) => writer.decimal(smallDecimal(bytes, at, length, precision, scale))
  const big: WireReader = (bytes, _view, at, length, writer) => writer.decimalBig(unpack(bytes, at, length))
  return reader({ kind: 'decimal', precision, scale }, precision <= SAFE_DIGITS ? small : big, (bytes, _view, at, length, writer) =>
    parseDecimal(bytes, at, length, scale, writer),
  )
}

/**
 * Groups of nine digits in four bytes, big-endian; first and last groups are shorter. The highest bit is set for positive numbers, and all bits are inverted
 * for negative ones (strings/decimal.cc of MySQL).
 */
function* groups(precision: number, scale: number): Generator<{ readonly bytes: number; readonly digits: number }> {
  const whole = precision - scale
  if (whole % 9 > 0) yield { bytes: GROUP_BYTES[whole % 9]!, digits: whole % 9 }
  for (let i = Math.trunc(whole / 9); i > 0; i--) yield { bytes: 4, digits: 9 }
  for (let i = Math.trunc(scale / 9); i > 0; i--) yield { bytes: 4, digits: 9 }
  if (scale % 9 > 0) yield { bytes: GROUP_BYTES[scale % 9]!, digits: scale % 9 }
}

function unpacker(precision: number, scale: number): (bytes: Buffer, at: number, length: number) => bigint {
  const parts = [...groups(precision, scale)].map(({ bytes, digits }) => ({ bytes, factor: 10n ** BigInt(digits) }))
  const size = decimalBytes(precision, scale)
  return (bytes, at, length) => {
    expectLength(length, size)
    const plain = Buffer.from(bytes.subarray(at, at + length))
    const negative = (plain[0]! & 0x80) === 0
    plain[0]! ^= 0x80
    if (negative) for (let i = 0; i < length; i++) plain[i]! ^= 0xff
    let value = 0n
    let from = 0
    for (const part of parts) {
      value = value * part.factor + BigInt(plain.readUIntBE(from, part.bytes))
      from += part.bytes
    }
    return negative ? -value : value
  }
}

function smallDecimal(bytes: Buffer, at: number, length: number, precision: number, scale: number): number {
  const negative = (bytes[at]! & 0x80) === 0
  const flip = negative ? 0xff : 0
  const end = at + length
  let value = 0
  let left = precision - scale
  let first = 0x80
  for (let pass = 0; pass < 2; pass++) {
    // the whole part begins with its short group, the fraction ends with it
    while (left > 0) {
      const digits = pass === 0 ? left % 9 || 9 : Math.min(9, left)
      let group = 0
      for (let i = GROUP_BYTES[digits]!; i > 0; i--) {
        group = group * 256 + ((bytes[at++]! ^ flip ^ first) & 0xff)
        first = 0
      }
      value = value * POWERS[digits]! + group
      left -= digits
    }
    left = scale
  }
  if (at !== end) throw new RangeError('a decimal of another length')
  return negative && value !== 0 ? -value : value
}

function parseDecimal(bytes: Buffer, at: number, length: number, scale: number, writer: ChangeWriter): void {
  const end = at + length
  const negative = length > 0 && bytes[at] === MINUS
  if (length <= SAFE_DIGITS) {
    let value = 0
    let fraction = -1
    for (let i = negative ? at + 1 : at; i < end; i++) {
      const code = bytes[i]!
      if (code === POINT) fraction = 0
      else {
        if (code < ZERO || code > NINE) throw new RangeError('a decimal that is no number')
        value = value * 10 + code - ZERO
        if (fraction >= 0) fraction++
      }
    }
    if (length > 0 && Math.max(0, fraction) === scale) {
      writer.decimal(negative && value !== 0 ? -value : value)
      return
    }
  }
  const [, whole, fraction = ''] = /^(\d+)(?:\.(\d+))?$/.exec(bytes.toString('latin1', negative ? at + 1 : at, end)) ?? []
  if (whole === undefined) throw new RangeError('a decimal that is no number')
  const value = BigInt(whole + fraction.padEnd(scale, '0'))
  writer.decimalBig(negative ? -value : value)
}

/** As the server writes it. */
export function decimalText(unscaled: bigint, scale: number): string {
  const negative = unscaled < 0n
  const digits = (negative ? -unscaled : unscaled).toString().padStart(scale + 1, '0')
  const text = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`
  return negative ? `-${text}` : text
}

/** A decimal as JSON documents and row events hold it. */
export function packedDecimalText(bytes: Buffer, at: number, precision: number, scale: number): string {
  return decimalText(unpacker(precision, scale)(bytes, at, decimalBytes(precision, scale)), scale)
}

/** Types that travel as text, bytes or json, and those that are read as Postgres' own text. Source: the types' send and output functions in PostgreSQL. */

import { ipv6Text } from '../../core/plugin.ts'
import { formatFloat8, parseFloat8 } from './type-number.ts'
import { expectLength, malformed, scalar, type TypeReader, textual } from './type-reader.ts'

export const text = textual('same')
export const json: TypeReader = { ...textual('same'), type: { kind: 'json' } }
/** Binary jsonb is its version, 1, and its text. */
export const jsonb: TypeReader = {
  ...json,
  binary: (bytes, _view, at, length, writer) => {
    if (length < 1 || bytes[at] !== 1) malformed('jsonb', 'binary')
    writer.text(bytes, at + 1, at + length)
  },
}
/** ltree, lquery, ltxtquery, jsonpath: a version byte and the text. */
export const versionedText: TypeReader = {
  ...text,
  binary: (bytes, _view, at, length, writer) => {
    if (length < 1 || bytes[at] !== 1) malformed('versioned text', 'binary')
    writer.text(bytes, at + 1, at + length)
  },
}

/** "char": one byte, which is written in octal from 128 on (Postgres 16) and as nothing when it is 0. */
export const singleByte = textual((bytes, _view, at, length) => {
  expectLength(length, 1, '"char"')
  const byte = bytes[at]!
  return byte === 0 ? '' : byte < 128 ? String.fromCharCode(byte) : `\\${byte.toString(8)}`
})

const HEX = Buffer.from('0123456789abcdef')
const uuidText = Buffer.from('00000000-0000-0000-0000-000000000000')
/** Where each byte of a uuid is written in its text. */
const UUID_PLACES = Uint8Array.from([0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34])

export const uuid = scalar(
  'uuid',
  (bytes, _view, at, length, writer) => {
    expectLength(length, 16, 'uuid')
    for (let i = 0; i < 16; i++) {
      const byte = bytes[at + i]!
      const place = UUID_PLACES[i]!
      uuidText[place] = HEX[byte >> 4]!
      uuidText[place + 1] = HEX[byte & 15]!
    }
    writer.text(uuidText, 0, 36)
  },
  (bytes, _view, at, length, writer) => {
    if (length !== 36) malformed('uuid', 'text')
    writer.text(bytes, at, at + length)
  },
  String,
)

export const bytea = scalar(
  'bytes',
  (bytes, _view, at, length, writer) => writer.bytes(bytes, at, at + length),
  (bytes, _view, at, length, writer) => {
    const isHex = length >= 2 && bytes[at] === 92 && bytes[at + 1] === 120
    const plain = isHex ? Buffer.from(bytes.toString('latin1', at + 2, at + length), 'hex') : unescapeBytea(bytes, at, at + length)
    // what is no hex ends Node's reading without a word
    if (isHex && plain.length * 2 !== length - 2) malformed('bytea', 'text')
    writer.bytes(plain, 0, plain.length)
  },
  (value) => `\\x${Buffer.from(value as Uint8Array).toString('hex')}`,
)

/** bytea_output = escape: `\\` and `\ooo`. */
function unescapeBytea(bytes: Buffer, from: number, to: number): Buffer {
  const out = Buffer.allocUnsafe(to - from)
  let length = 0
  for (let at = from; at < to; length++) {
    if (bytes[at] !== 92) out[length] = bytes[at++]!
    else if (at + 1 < to && bytes[at + 1] === 92) {
      out[length] = 92
      at += 2
    } else {
      const octal = bytes.toString('latin1', at + 1, Math.min(at + 4, to))
      if (!/^[0-3][0-7][0-7]$/.test(octal)) malformed('bytea', 'text')
      out[length] = Number.parseInt(octal, 8)
      at += 4
    }
  }
  return out.subarray(0, length)
}

/** bit, varbit: the number of bits, then the bits, first in the highest place. */
export const bits = textual((bytes, view, at, length) => {
  const count = length < 4 ? -1 : view.getInt32(at)
  if (count < 0 || length !== 4 + Math.ceil(count / 8)) malformed('bit string', 'binary')
  let out = ''
  for (let i = 0; i < count; i++) out += (bytes[at + 4 + (i >> 3)]! >> (7 - (i & 7))) & 1
  return out
})

function macaddrOf(type: string, size: number): TypeReader {
  return textual((bytes, _view, at, length) => {
    expectLength(length, size, type)
    return Array.from(bytes.subarray(at, at + length), (byte) => byte.toString(16).padStart(2, '0')).join(':')
  })
}

export const macaddr = macaddrOf('macaddr', 6)
export const macaddr8 = macaddrOf('macaddr8', 8)

/** inet, cidr: family (2 IPv4, 3 IPv6), prefix length, is it a cidr, bytes of the address, the address. */
export const network = textual((bytes, _view, at, length) => {
  const wide = length === 20
  if (!wide) expectLength(length, 8, 'network address')
  const prefix = bytes[at + 1]!
  const isCidr = bytes[at + 2] === 1
  if (bytes[at] !== (wide ? 3 : 2) || prefix > (wide ? 128 : 32) || bytes[at + 2]! > 1 || bytes[at + 3] !== length - 4) malformed('network address', 'binary')
  const address = wide ? ipv6Text(bytes, at + 4) : bytes.subarray(at + 4, at + 8).join('.')
  return prefix === (wide ? 128 : 32) && !isCidr ? address : `${address}/${prefix}`
})

/** A type whose binary form always has `size` bytes. */
function fixed(type: string, size: number, read: (view: DataView, at: number) => string, canonical?: (text: string) => string): TypeReader {
  return textual((_bytes, view, at, length) => {
    expectLength(length, size, type)
    return read(view, at)
  }, canonical)
}

export const pgLsn = fixed('pg_lsn', 8, (view, at) => `${hex(view.getUint32(at))}/${hex(view.getUint32(at + 4))}`)
export const tid = fixed('tid', 6, (view, at) => `(${view.getUint32(at)},${view.getUint16(at + 4)})`)
const hex = (value: number) => value.toString(16).toUpperCase()

/** Numbers of a geometric text in one spelling, whatever extra_float_digits is. */
const respell = (shape: string) => shape.replace(/-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Infinity)|NaN/g, (number) => formatFloat8(parseFloat8(number)))

function points(view: DataView, at: number, count: number): string {
  return Array.from({ length: count }, (_, i) => `(${formatFloat8(view.getFloat64(at + 16 * i))},${formatFloat8(view.getFloat64(at + 16 * i + 8))})`).join(',')
}

const float = (view: DataView, at: number) => formatFloat8(view.getFloat64(at))

export const point = fixed('point', 16, (view, at) => points(view, at, 1), respell)
export const lseg = fixed('lseg', 32, (view, at) => `[${points(view, at, 2)}]`, respell)
export const box = fixed('box', 32, (view, at) => points(view, at, 2), respell)
export const circle = fixed('circle', 24, (view, at) => `<${points(view, at, 1)},${float(view, at + 16)}>`, respell)
export const line = fixed('line', 24, (view, at) => `{${float(view, at)},${float(view, at + 8)},${float(view, at + 16)}}`, respell)
export const polygon = textual((_bytes, view, at, length) => `(${countedPoints('polygon', view, at, length)})`, respell)
export const path = textual((bytes, view, at, length) => {
  if (length < 1 || bytes[at]! > 1) malformed('path', 'binary')
  const inside = countedPoints('path', view, at + 1, length - 1)
  return bytes[at] === 1 ? `(${inside})` : `[${inside}]`
}, respell)

/** The number of points and the points. */
function countedPoints(type: string, view: DataView, at: number, length: number): string {
  if (length < 4) malformed(type, 'binary')
  const count = view.getUint32(at)
  expectLength(length, 4 + 16 * count, type)
  return points(view, at + 4, count)
}

/** tsvector: the number of lexemes; each a C string, the number of positions, and 16-bit positions with the weight in their two highest bits. */
export const tsvector = textual((bytes, view, at, length) => {
  const last = at + length
  // a lexeme takes three bytes or more
  const count = length < 4 ? -1 : view.getInt32(at)
  if (count < 0 || count > (length - 4) / 3) malformed('tsvector', 'binary')
  const lexemes: string[] = []
  let next = at + 4
  for (let i = 0; i < count; i++) {
    const end = bytes.indexOf(0, next)
    if (end < 0 || end + 3 > last) malformed('tsvector', 'binary')
    const lexeme = bytes.toString('utf8', next, end).replace(/['\\]/g, '$&$&')
    const counted = view.getUint16(end + 1)
    next = end + 3 + 2 * counted
    if (next > last) malformed('tsvector', 'binary')
    const positions = Array.from({ length: counted }, (_, p) => {
      const packed = view.getUint16(end + 3 + 2 * p)
      return `${packed & 0x3fff}${['', 'C', 'B', 'A'][packed >> 14]}`
    })
    lexemes.push(`'${lexeme}'${positions.length === 0 ? '' : `:${positions.join(',')}`}`)
  }
  if (next !== last) malformed('tsvector', 'binary')
  return lexemes.join(' ')
})

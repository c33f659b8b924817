/** Types that travel as text, bytes or json, and those that are read as Postgres' own text. Source: the types' send and output functions in PostgreSQL. */

import { formatFloat8, parseFloat8 } from './type-number.ts'
import { malformed, passText, scalar, type TypeReader, textual } from './type-reader.ts'

export const text = textual('same')
export const json: TypeReader = { ...textual('same'), type: { kind: 'json' } }
/** Binary jsonb is its version, 1, and its text. */
export const jsonb: TypeReader = {
  ...json,
  binary: (bytes, _view, at, length, writer) => {
    if (bytes[at] !== 1) malformed('jsonb', 'binary')
    writer.text(bytes, at + 1, at + length)
  },
}
/** ltree, lquery, ltxtquery, jsonpath: a version byte and the text. */
export const versionedText: TypeReader = {
  ...text,
  binary: (bytes, _view, at, length, writer) => {
    if (bytes[at] !== 1) malformed('versioned text', 'binary')
    writer.text(bytes, at + 1, at + length)
  },
}

/** "char": one byte, which is written in octal from 128 on (Postgres 16) and as nothing when it is 0. */
export const singleByte = textual((bytes, _view, at) => {
  const byte = bytes[at]!
  return byte === 0 ? '' : byte < 128 ? String.fromCharCode(byte) : `\\${byte.toString(8)}`
})

const HEX = Buffer.from('0123456789abcdef')
const uuidText = Buffer.from('00000000-0000-0000-0000-000000000000')
/** Where each byte of a uuid is written in its text. */
const UUID_PLACES = Uint8Array.from([0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34])

export const uuid = scalar(
  'uuid',
  (bytes, _view, at, _length, writer) => {
    for (let i = 0; i < 16; i++) {
      const byte = bytes[at + i]!
      const place = UUID_PLACES[i]!
      uuidText[place] = HEX[byte >> 4]!
      uuidText[place + 1] = HEX[byte & 15]!
    }
    writer.text(uuidText, 0, 36)
  },
  passText,
  String,
)

export const bytea = scalar(
  'bytes',
  (bytes, _view, at, length, writer) => writer.bytes(bytes, at, at + length),
  (bytes, _view, at, length, writer) => {
    const plain =
      bytes[at] === 92 && bytes[at + 1] === 120 ? Buffer.from(bytes.toString('latin1', at + 2, at + length), 'hex') : unescapeBytea(bytes, at, at + length)
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
    else if (bytes[at + 1] === 92) {
      out[length] = 92
      at += 2
    } else {
      out[length] = Number.parseInt(bytes.toString('latin1', at + 1, at + 4), 8)
      at += 4
    }
  }
  return out.subarray(0, length)
}

/** bit, varbit: the number of bits, then the bits, first in the highest place. */
export const bits = textual((bytes, view, at) => {
  const count = view.getInt32(at)
  let out = ''
  for (let i = 0; i < count; i++) out += (bytes[at + 4 + (i >> 3)]! >> (7 - (i & 7))) & 1
  return out
})

export const macaddr = textual((bytes, _view, at, length) =>
  Array.from(bytes.subarray(at, at + length), (byte) => byte.toString(16).padStart(2, '0')).join(':'),
)

/** inet, cidr: family (2 IPv4, 3 IPv6), prefix length, is it a cidr, bytes of the address, the address. */
export const network = textual((bytes, view, at) => {
  const wide = bytes[at] !== 2
  const prefix = bytes[at + 1]!
  const isCidr = bytes[at + 2] === 1
  const address = wide ? ipv6(view, at + 4) : Array.from(bytes.subarray(at + 4, at + 8)).join('.')
  return prefix === (wide ? 128 : 32) && !isCidr ? address : `${address}/${prefix}`
})

/** RFC 5952, with the dotted tail of BIND's inet_ntop that Postgres uses. */
function ipv6(view: DataView, at: number): string {
  const words = Array.from({ length: 8 }, (_, i) => view.getUint16(at + 2 * i))
  let best = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let end = i
    while (end < 8 && words[end] === 0) end++
    if (end - i > bestLength) {
      best = i
      bestLength = end - i
    }
    if (end > i) i = end
  }
  const dotted = best === 0 && (bestLength === 6 || (bestLength === 5 && words[5] === 0xffff))
  const tail = dotted ? `${words[6]! >> 8}.${words[6]! & 255}.${words[7]! >> 8}.${words[7]! & 255}` : null
  const shown = words.map((word) => word.toString(16))
  if (tail !== null) shown.splice(6, 2, tail)
  if (best < 0) return shown.join(':')
  const after = shown.slice(Math.min(best + bestLength, tail === null ? 8 : 6))
  return `${shown.slice(0, best).join(':')}::${after.join(':')}`
}

export const pgLsn = textual((_bytes, view, at) => `${hex(view.getUint32(at))}/${hex(view.getUint32(at + 4))}`)
export const tid = textual((_bytes, view, at) => `(${view.getUint32(at)},${view.getUint16(at + 4)})`)
const hex = (value: number) => value.toString(16).toUpperCase()

/** Numbers of a geometric text in one spelling, whatever extra_float_digits is. */
const respell = (shape: string) => shape.replace(/-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Infinity)|NaN/g, (number) => formatFloat8(parseFloat8(number)))

function points(view: DataView, at: number, count: number): string {
  return Array.from({ length: count }, (_, i) => `(${formatFloat8(view.getFloat64(at + 16 * i))},${formatFloat8(view.getFloat64(at + 16 * i + 8))})`).join(',')
}

const float = (view: DataView, at: number) => formatFloat8(view.getFloat64(at))

export const point = textual((_bytes, view, at) => points(view, at, 1), respell)
export const lseg = textual((_bytes, view, at) => `[${points(view, at, 2)}]`, respell)
export const box = textual((_bytes, view, at) => points(view, at, 2), respell)
export const polygon = textual((_bytes, view, at) => `(${points(view, at + 4, view.getInt32(at))})`, respell)
export const circle = textual((_bytes, view, at) => `<${points(view, at, 1)},${float(view, at + 16)}>`, respell)
export const line = textual((_bytes, view, at) => `{${float(view, at)},${float(view, at + 8)},${float(view, at + 16)}}`, respell)
export const path = textual((bytes, view, at) => {
  const inside = points(view, at + 5, view.getInt32(at + 1))
  return bytes[at] === 1 ? `(${inside})` : `[${inside}]`
}, respell)

/** tsvector: the number of lexemes; each a C string, the number of positions, and 16-bit positions with the weight in their two highest bits. */
export const tsvector = textual((bytes, view, at) => {
  const count = view.getInt32(at)
  const lexemes: string[] = []
  let next = at + 4
  for (let i = 0; i < count; i++) {
    const end = bytes.indexOf(0, next)
    const lexeme = bytes.toString('utf8', next, end).replace(/['\\]/g, '$&$&')
    const positions = Array.from({ length: view.getUint16(end + 1) }, (_, p) => {
      const packed = view.getUint16(end + 3 + 2 * p)
      return `${packed & 0x3fff}${['', 'C', 'B', 'A'][packed >> 14]}`
    })
    next = end + 3 + 2 * positions.length
    lexemes.push(`'${lexeme}'${positions.length === 0 ? '' : `:${positions.join(',')}`}`)
  }
  return lexemes.join(' ')
})

import iconv from 'iconv-lite'
import { type ChangeWriter, ipv6Text, type Value } from '../../core/plugin.ts'
import { JsonText } from './json-text.ts'
import { expectLength, reader, type TypeReader, type WireReader } from './type-reader.ts'

/** Text in bytes of a character set. */
export type Decode = (bytes: Buffer, at: number, end: number) => string

/** Character sets whose bytes are UTF-8 already. */
const UTF8 = new Set(['utf8mb4', 'utf8mb3', 'utf8', 'ascii'])
/** Every text has bytes in these, also the character that stands for bytes which mean none. */
const UNICODE = new Set([...UTF8, 'ucs2', 'utf16', 'utf16le', 'utf32', 'gb18030'])
/** Those that the server names differently, or that are wider than their name says. */
const ENCODINGS: Readonly<Record<string, string>> = {
  latin2: 'iso88592',
  latin5: 'iso88599',
  latin7: 'iso885913',
  greek: 'iso88597',
  hebrew: 'iso88598',
  ucs2: 'utf16be',
  utf16: 'utf16be',
  utf16le: 'utf16le',
  utf32: 'utf32be',
  ujis: 'eucjp',
  eucjpms: 'eucjp',
  sjis: 'shiftjis',
  cp932: 'cp932',
  euckr: 'euckr',
  gb2312: 'gb2312',
  gbk: 'gbk',
  gb18030: 'gb18030',
  big5: 'big5',
  tis620: 'tis620',
  koi8r: 'koi8r',
  koi8u: 'koi8u',
  macroman: 'macroman',
  macce: 'maccenteuro',
  armscii8: 'armscii8',
}

/** The server's latin1 is Windows' code page 1252, and the five bytes that this leaves open are themselves (strings/ctype-latin1.cc). Its characters from 0x80 on. */
const CP1252 = '€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ'
const latin1: Decode = (bytes, at, end) => bytes.toString('latin1', at, end).replaceAll(/[\u0080-\u009f]/g, (char) => CP1252[char.charCodeAt(0) - 0x80]!)

/** null: the bytes are UTF-8; undefined: the character set is not known. Bytes that mean no character become U+FFFD. */
export function decoderOf(charset: string): Decode | null | undefined {
  if (UTF8.has(charset)) return null
  if (charset === 'latin1') return latin1
  const encoding = ENCODINGS[charset] ?? charset
  if (!iconv.encodingExists(encoding)) return undefined
  const decoder = iconv.getDecoder(encoding)
  return (bytes, at, end) => decoder.write(bytes.subarray(at, end)) + (decoder.end() ?? '')
}

const passText: WireReader = (bytes, _view, at, length, writer) => writer.text(bytes, at, at + length)
const passBytes: WireReader = (bytes, _view, at, length, writer) => writer.bytes(bytes, at, at + length)

export const utf8Text = reader({ kind: 'string' }, passText)

/** Text in a character set; bytes that mean nothing in it are no text. */
export function text(charset: string, decode: Decode | null): TypeReader {
  if (decode === null) return utf8Text
  const isUnicode = UNICODE.has(charset)
  return reader({ kind: 'string' }, (bytes, _view, at, length, writer) => {
    const value = decode(bytes, at, at + length)
    // I6: the server would give a question mark
    if (!isUnicode && value.includes('\ufffd')) writer.special(value)
    else writer.string(value)
  })
}

export const binary = reader({ kind: 'bytes' }, passBytes)

/** binary(n): a row event leaves zeros at the end out. */
export function fixedBinary(size: number): TypeReader {
  const padded = Buffer.alloc(size)
  return reader(
    { kind: 'bytes' },
    (bytes, view, at, length, writer) => {
      if (length === size) passBytes(bytes, view, at, length, writer)
      else {
        if (length > size) expectLength(length, size)
        padded.fill(0)
        bytes.copy(padded, 0, at, at + length)
        writer.bytes(padded, 0, size)
      }
    },
    passBytes,
  )
}

const document = new JsonText()

export const json = reader(
  { kind: 'json' },
  (bytes, _view, at, length, writer) => {
    document.read(bytes, at, length)
    writer.text(document.bytes, 0, document.length)
  },
  passText,
)

/** The empty value stands for whatever was not allowed, and has number 0. */
export function enumeration(values: readonly string[], charset: string, decode: Decode | null): TypeReader {
  const texts = ['', ...values].map((value) => Buffer.from(value))
  return reader(
    { kind: 'enum', values },
    (bytes, _view, at, length, writer) => {
      if (length !== 1) expectLength(length, 2)
      const chosen = texts[length === 1 ? bytes[at]! : bytes.readUInt16LE(at)]
      if (chosen === undefined) throw new RangeError('an enum value beyond its list')
      writer.text(chosen, 0, chosen.length)
    },
    text(charset, decode).result,
  )
}

/** The chosen members with commas between, in the order of their declaration. */
export function set(values: readonly string[], charset: string, decode: Decode | null): TypeReader {
  return reader(
    { kind: 'string' },
    (bytes, _view, at, length, writer) => {
      const chosen = values.filter((_, i) => i >> 3 < length && (bytes[at + (i >> 3)]! & (1 << (i & 7))) !== 0)
      writer.string(chosen.join(','))
    },
    text(charset, decode).result,
  )
}

/** 32-bit floats, little-endian. */
export const vector: TypeReader = reader({ kind: 'array', element: { kind: 'float32' } }, (_bytes, view, at, length, writer) => {
  if (length % 4 !== 0) throw new RangeError(`a vector of ${length} bytes`)
  const values: Value[] = []
  for (let i = 0; i + 4 <= length; i += 4) values.push(view.getFloat32(at + i, true))
  writer.value(values)
})

const HEX = (bytes: Buffer, at: number, end: number) => bytes.toString('hex', at, end)

/** A value of `size` bytes, of which a row event leaves zeros at the end out. */
function leftOf(bytes: Buffer, at: number, length: number, size: number): Buffer {
  if (length > size) expectLength(length, size)
  const whole = Buffer.alloc(size)
  bytes.copy(whole, 0, at, at + length)
  return whole
}

function uuidText(bytes: Buffer, at: number, length: number, writer: ChangeWriter): void {
  const whole = leftOf(bytes, at, length, 16)
  writer.string([HEX(whole, 0, 4), HEX(whole, 4, 6), HEX(whole, 6, 8), HEX(whole, 8, 10), HEX(whole, 10, 16)].join('-'))
}

export const mariadbUuid = reader({ kind: 'uuid' }, (bytes, _view, at, length, writer) => uuidText(bytes, at, length, writer), passText)

export const mariadbInet4 = reader(
  { kind: 'string' },
  (bytes, _view, at, length, writer) => {
    const whole = leftOf(bytes, at, length, 4)
    writer.string(whole.join('.'))
  },
  passText,
)

export const mariadbInet6 = reader(
  { kind: 'string' },
  (bytes, _view, at, length, writer) => {
    writer.string(ipv6Text(leftOf(bytes, at, length, 16)))
  },
  passText,
)

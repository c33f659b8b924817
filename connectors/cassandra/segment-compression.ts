/** The compressors of commit logs (`commitlog_compression`). Source: org.apache.cassandra.io.compress, Snappy's format description. */
import { inflateSync, zstdDecompressSync } from 'node:zlib'
import { uncompressSync } from 'lz4-napi'

/** @throws RangeError, or what zlib throws, when `bytes` are not `length` bytes compressed */
export type Uncompress = (bytes: Buffer, length: number) => Buffer

/** No block of LZ4 or Snappy grows more than this: a broken length is found before memory is taken for it. */
const MOST_RATIO = 256

const COMPRESSORS: Readonly<Record<string, Uncompress>> = {
  LZ4Compressor: (bytes, length) => {
    // the length, little-endian, then a raw block: what this function takes
    if (bytes.length < 4 || bytes.readUInt32LE(0) !== length) throw new RangeError('the block is of another length than its section')
    return plausible(bytes, length) && uncompressSync(bytes)
  },
  SnappyCompressor: (bytes, length) => plausible(bytes, length) && uncompressSnappy(bytes, length),
  DeflateCompressor: (bytes, length) => inflateSync(bytes, { maxOutputLength: Math.max(1, length) }),
  ZstdCompressor: (bytes, length) => zstdDecompressSync(bytes, { maxOutputLength: Math.max(1, length) }),
  NoopCompressor: (bytes) => bytes,
}

/** By the class in the segment's header, with or without its package; undefined: not known. */
export function compressorOf(className: string): Uncompress | undefined {
  const name = className.slice(className.lastIndexOf('.') + 1)
  const uncompress = Object.hasOwn(COMPRESSORS, name) ? COMPRESSORS[name] : undefined
  if (uncompress === undefined) return undefined
  return (bytes, length) => {
    if (length === 0 && bytes.length === 0) return bytes
    const plain = uncompress(bytes, length)
    if (plain.length !== length) throw new RangeError(`${plain.length} bytes instead of ${length}`)
    return plain
  }
}

function plausible(bytes: Buffer, length: number): true {
  if (length > bytes.length * MOST_RATIO) throw new RangeError(`${bytes.length} bytes cannot be ${length} bytes compressed`)
  return true
}

/** A raw block: the length as a varint, then literals and copies of what came before. */
function uncompressSnappy(bytes: Buffer, length: number): Buffer {
  let at = 0
  let said = 0
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined || shift > 28) throw new RangeError('the length is cut off')
    said += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  if (said !== length) throw new RangeError('the block is of another length than its section')
  const out = Buffer.allocUnsafeSlow(length)
  let to = 0
  while (at < bytes.length) {
    const tag = bytes[at++]!
    const kind = tag & 3
    if (kind === 0) {
      let size = tag >> 2
      if (size >= 60) {
        const extra = size - 59
        if (at + extra > bytes.length) break
        size = bytes.readUIntLE(at, extra)
        at += extra
      }
      size++
      if (at + size > bytes.length || to + size > length) throw new RangeError('a literal goes beyond its block')
      bytes.copy(out, to, at, at + size)
      at += size
      to += size
      continue
    }
    const extra = kind === 3 ? 4 : kind
    if (at + extra > bytes.length) throw new RangeError('a copy is cut off')
    const size = kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1
    const distance = kind === 1 ? ((tag >> 5) << 8) | bytes[at]! : bytes.readUIntLE(at, extra)
    at += extra
    if (distance === 0 || distance > to || to + size > length) throw new RangeError('a copy goes beyond its block')
    // may overlap what it writes
    for (let i = 0; i < size; i++) out[to + i] = out[to - distance + i]!
    to += size
  }
  return out.subarray(0, to)
}

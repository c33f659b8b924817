/** The compressors of commit logs (`commitlog_compression`). Source: org.apache.cassandra.io.compress. */
import { createRequire } from 'node:module'
import { inflateSync, zstdDecompressSync } from 'node:zlib'
import { decompressSnappyBlock } from '../../core/plugin.ts'

/** @throws Error when `bytes` are not `length` bytes compressed */
export type Uncompress = (bytes: Buffer, length: number) => Buffer

/** Native code of some megabytes, which most logs do not need: they are not compressed. */
const lz4 = () => load('lz4-napi') as typeof import('lz4-napi')
const load = createRequire(import.meta.url)

/** No block of LZ4 grows more than this: a broken length is found before memory is taken for it. */
const MOST_RATIO = 256

const COMPRESSORS: Readonly<Record<string, Uncompress>> = {
  LZ4Compressor: (bytes, length) => {
    // the length, little-endian, then a raw block: what this function takes
    if (bytes.length < 4 || bytes.readUInt32LE(0) !== length) throw new RangeError('the block is of another length than its section')
    if (length > bytes.length * MOST_RATIO) throw new RangeError(`${bytes.length} bytes cannot be ${length} bytes compressed`)
    return lz4().uncompressSync(bytes)
  },
  SnappyCompressor: decompressSnappyBlock,
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

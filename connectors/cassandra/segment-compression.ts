/** The compressors of commit logs (`commitlog_compression`). Source: org.apache.cassandra.io.compress. */
import { createRequire } from 'node:module'
import { inflateSync, zstdDecompressSync } from 'node:zlib'
import { decompressSnappyBlock, MillraceError } from '../../core/plugin.ts'

/** @throws Error when `bytes` are not `length` bytes compressed */
export type Uncompress = (bytes: Buffer, length: number) => Buffer

/** No block of LZ4 grows more than this: a broken length is found before memory is taken for it. */
const MOST_RATIO = 256

/** Each is made for a log that is compressed by it. */
const COMPRESSORS: Readonly<Record<string, () => Uncompress>> = {
  LZ4Compressor: () => {
    const { uncompressSync } = loadLz4()
    return (bytes, length) => {
      // the length, little-endian, then a raw block: what this function takes
      if (bytes.length < 4 || bytes.readUInt32LE(0) !== length) throw new RangeError('the block is of another length than its section')
      if (length > bytes.length * MOST_RATIO) throw new RangeError(`${bytes.length} bytes cannot be ${length} bytes compressed`)
      return uncompressSync(bytes)
    }
  },
  SnappyCompressor: () => decompressSnappyBlock,
  DeflateCompressor: () => (bytes, length) => inflateSync(bytes, { maxOutputLength: Math.max(1, length) }),
  ZstdCompressor: () => (bytes, length) => zstdDecompressSync(bytes, { maxOutputLength: Math.max(1, length) }),
  NoopCompressor: () => (bytes) => bytes,
}

/**
 * By the class in the segment's header, with or without its package; undefined: not known.
 * @throws source.unprepared when the code that it takes is not installed
 */
export function compressorOf(className: string): Uncompress | undefined {
  const name = className.slice(className.lastIndexOf('.') + 1)
  const uncompress = Object.hasOwn(COMPRESSORS, name) ? COMPRESSORS[name]!() : undefined
  if (uncompress === undefined) return undefined
  return (bytes, length) => {
    if (length === 0 && bytes.length === 0) return bytes
    const plain = uncompress(bytes, length)
    if (plain.length !== length) throw new RangeError(`${plain.length} bytes instead of ${length}`)
    return plain
  }
}

/** Native code of some megabytes, which most logs do not need: they are not compressed. */
function loadLz4(): typeof import('lz4-napi') {
  try {
    return load('lz4-napi') as typeof import('lz4-napi')
  } catch (cause) {
    throw new MillraceError('source.unprepared', 'the commit log is compressed by LZ4Compressor, and the package lz4-napi that reads it cannot be loaded', {
      fix: 'install Millrace with its optional packages, which have the native code of lz4-napi for this machine: `npm install --include=optional`',
      cause,
    })
  }
}

const load = createRequire(import.meta.url)

/** Segments as Cassandra writes them, around entries of any bytes. */
import { crc32, deflateSync, zstdCompressSync } from 'node:zlib'
import { compressSync } from 'lz4-napi'

export const COMPRESSORS = ['LZ4Compressor', 'SnappyCompressor', 'DeflateCompressor', 'ZstdCompressor', 'NoopCompressor'] as const
type Compressor = (typeof COMPRESSORS)[number]

export interface SegmentOptions {
  readonly version?: number
  readonly id?: bigint
  readonly compressor?: Compressor | null
  /** JSON in the header; the compressor's when left out. */
  readonly parameters?: string
  /** Zeros at the end, as in a segment that is not full. */
  readonly padding?: number
}

export interface WrittenSegment {
  readonly bytes: Buffer
  /** Logical offsets: after the header and after each section. */
  readonly ends: readonly number[]
  /** The same in the file. */
  readonly fileEnds: readonly number[]
}

/** @param sections entries of each */
export function writtenSegment(sections: readonly (readonly Buffer[])[], options: SegmentOptions = {}): WrittenSegment {
  const { version = 7, id = 1_767_225_600_123n, compressor = null, padding = 0 } = options
  const parameters = options.parameters ?? (compressor === null ? '{}' : JSON.stringify({ compressionClass: compressor, compressionParameters: {} }))
  const parts = [header(version, id, Buffer.from(parameters))]
  let at = parts[0]!.length
  let logical = at
  const ends = [logical]
  const fileEnds = [at]
  for (const entries of sections) {
    const plain = Buffer.concat(entries.map(entry))
    const content = compressor === null ? plain : Buffer.concat([int32(plain.length), compress(plain, compressor)])
    const next = at + 8 + content.length
    parts.push(int32(next), int32(crc32(Buffer.concat([idWords(id), int32(at)]))), content)
    at = next
    logical += 8 + plain.length
    ends.push(logical)
    fileEnds.push(at)
  }
  return { bytes: Buffer.concat([...parts, Buffer.alloc(padding)]), ends, fileEnds }
}

export function entry(mutation: Buffer): Buffer {
  const size = int32(mutation.length)
  return Buffer.concat([size, int32(crc32(size)), mutation, int32(crc32(Buffer.concat([size, mutation])))])
}

function header(version: number, id: bigint, parameters: Buffer): Buffer {
  const fixed = Buffer.alloc(14)
  fixed.writeInt32BE(version, 0)
  fixed.writeBigInt64BE(id, 4)
  fixed.writeUInt16BE(parameters.length, 12)
  const checksum = crc32(Buffer.concat([int32(version), idWords(id), int32(parameters.length), parameters]))
  return Buffer.concat([fixed, parameters, int32(checksum)])
}

function idWords(id: bigint): Buffer {
  return Buffer.concat([int32(Number(id & 0xffff_ffffn)), int32(Number(id >> 32n))])
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value | 0)
  return bytes
}

function compress(plain: Buffer, compressor: Compressor): Buffer {
  switch (compressor) {
    case 'LZ4Compressor':
      return compressSync(plain)
    case 'DeflateCompressor':
      return deflateSync(plain)
    case 'ZstdCompressor':
      return zstdCompressSync(plain)
    case 'NoopCompressor':
      return plain
    case 'SnappyCompressor':
      return snappyLiterals(plain)
  }
}

/** Valid, though no byte is saved; what real encoders write is in the golden segments. */
function snappyLiterals(plain: Buffer): Buffer {
  const parts = [varint(plain.length)]
  for (let at = 0; at < plain.length; at += 65_536) {
    const piece = plain.subarray(at, at + 65_536)
    parts.push(Buffer.from([61 << 2, (piece.length - 1) & 0xff, (piece.length - 1) >> 8]), piece)
  }
  return Buffer.concat(parts)
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let left = value; ; left >>>= 7) {
    bytes.push(left > 127 ? (left & 127) | 128 : left)
    if (left <= 127) return Buffer.from(bytes)
  }
}

import { createRequire } from 'node:module'
import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { crc32c } from '@node-rs/crc32'
import { MillraceError } from '../../errors.ts'
import { ATTRIBUTES_AT, FRAME_HEADER_BYTES, stampChecksum } from '../../event/record-batch.ts'
import { compressSnappyBlock } from '../../event/snappy-block.ts'
import type { Compression } from './kafka-options.ts'
import { decompressSnappy } from './snappy.ts'

/** Codec numbers of RecordBatch attributes. */
const CODEC: Readonly<Record<Compression, number>> = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 }
const CODEC_BITS = 0x07
const ZSTD_FAST = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
const NAMES = Object.keys(CODEC) as Compression[]

/**
 * The frame [0, end) with its records compressed and its checksum set, as pieces to send. Uncompressed, it is stamped in place and is the only piece;
 * else `buffer` keeps its records and its header is copied, so that it can be compressed again for a retry.
 * @throws config.unsupported when the code of the compression is not installed
 */
export function encodeFrame(buffer: Buffer, end: number, compression: Compression): readonly Buffer[] {
  if (compression === 'none') {
    stampChecksum(buffer, end)
    return [buffer.subarray(0, end)]
  }
  const body = compress(buffer.subarray(FRAME_HEADER_BYTES, end), compression)
  const header = Buffer.from(buffer.subarray(0, FRAME_HEADER_BYTES))
  header.writeInt32BE(FRAME_HEADER_BYTES - 12 + body.length, 8)
  header.writeInt16BE((header.readInt16BE(ATTRIBUTES_AT) & ~CODEC_BITS) | CODEC[compression], ATTRIBUTES_AT)
  header.writeUInt32BE(crc32c(body, crc32c(header.subarray(ATTRIBUTES_AT))), 17)
  return [header, body]
}

/** The same frame uncompressed: itself when it is already, else a new one with codec 0, its length and its checksum. @throws log.corrupt, config.unsupported */
export function decodeFrame(frame: Buffer, codec: number): Buffer {
  if (codec === 0) return frame
  const name = NAMES.find((known) => CODEC[known] === codec)
  if (name === undefined) throw new MillraceError('log.corrupt', `a frame has the compression codec ${codec}, which does not exist`)
  const decompress = decompressorOf(name)
  let body: Buffer
  try {
    body = decompress(frame.subarray(FRAME_HEADER_BYTES))
  } catch (cause) {
    throw new MillraceError('log.corrupt', `a frame compressed by ${name} cannot be decompressed`, { cause })
  }
  const plain = Buffer.concat([frame.subarray(0, FRAME_HEADER_BYTES), body])
  plain.writeInt32BE(plain.length - 12, 8)
  plain.writeInt16BE(plain.readInt16BE(ATTRIBUTES_AT) & ~CODEC_BITS, ATTRIBUTES_AT)
  stampChecksum(plain, plain.length)
  return plain
}

function compress(body: Buffer, compression: Exclude<Compression, 'none'>): Buffer {
  switch (compression) {
    case 'gzip':
      return gzipSync(body, { level: 1 })
    case 'snappy':
      // one raw block, which Kafka's clients read as well as xerial's
      return compressSnappyBlock(body)
    case 'lz4':
      return loadLz4().compressFrameSync(body)
    case 'zstd':
      return zstdCompressSync(body, ZSTD_FAST)
  }
}

function decompressorOf(compression: Compression): (body: Buffer) => Buffer {
  switch (compression) {
    case 'none':
      return (body) => body
    case 'gzip':
      return (body) => gunzipSync(body)
    case 'snappy':
      return decompressSnappy
    case 'lz4':
      return loadLz4().decompressFrameSync
    case 'zstd':
      return (body) => zstdDecompressSync(body)
  }
}

/** Native code of 7 MB, which most logs do not need: loaded with the first frame that does. */
function loadLz4(): typeof import('lz4-napi') {
  try {
    return load('lz4-napi') as typeof import('lz4-napi')
  } catch (cause) {
    throw new MillraceError('config.unsupported', 'a topic is compressed by lz4, and the package lz4-napi that does it cannot be loaded', {
      fix:
        'install Millrace with its optional packages, which have the native code of lz4-napi for this machine (`npm install --include=optional`), ' +
        'or set log.compression to zstd: topics that are compressed by lz4 already still need it',
      cause,
    })
  }
}

const load = createRequire(import.meta.url)

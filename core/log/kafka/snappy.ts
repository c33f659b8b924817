import { createRequire } from 'node:module'

/** Loaded with the first frame that needs it: it takes 8 MB. */
const codec = (): typeof import('@platformatic/wasm-utils') => load('@platformatic/wasm-utils') as typeof import('@platformatic/wasm-utils')
const load = createRequire(import.meta.url)

/** What Java clients put before their blocks: this, and two versions of which neither matters. Source: xerial/snappy-java, SnappyCodec. */
const XERIAL_MAGIC = Buffer.from('\x82SNAPPY\0', 'latin1')
const XERIAL_HEADER_BYTES = 16
const LENGTH_BYTES = 4
/** Three bytes make 64 at most. Source: google/snappy, format_description.txt */
const MAX_RATIO = 22

/** One raw block, which Kafka's clients read as well as xerial's. */
export function compressSnappy(bytes: Buffer): Buffer {
  return codec().snappyCompress(bytes)
}

/** Of one raw block, as librdkafka writes it, or of xerial's blocks, as Java clients do. @throws Error for what is neither */
export function decompressSnappy(bytes: Buffer): Buffer {
  if (!bytes.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC)) return decompressBlock(bytes)
  const blocks: Buffer[] = []
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    const from = at + LENGTH_BYTES
    const end = from + bytes.readInt32BE(at)
    if (end < from || end > bytes.length) throw new RangeError(`a snappy block at ${at} ends at ${end}, outside of its ${bytes.length} bytes`)
    blocks.push(decompressBlock(bytes.subarray(from, end)))
    at = end
  }
  return Buffer.concat(blocks)
}

function decompressBlock(block: Buffer): Buffer {
  let length = 0
  for (let at = 0, shift = 1; ; at++, shift *= 128) {
    const byte = block.readUInt8(at)
    length += (byte & 0x7f) * shift
    if (byte < 0x80) break
  }
  if (length > block.length * MAX_RATIO) throw new RangeError(`a snappy block of ${block.length} bytes cannot hold ${length}`)
  const output = codec().snappyDecompress(block)
  if (output.length !== length) throw new RangeError(`a snappy block of ${length} bytes gave ${output.length}`)
  return output
}

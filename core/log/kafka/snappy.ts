import { decompressSnappyBlock } from '../../event/snappy-block.ts'

/** What Java clients put before their blocks: this, and two versions of which neither matters. Source: xerial/snappy-java, SnappyCodec. */
const XERIAL_MAGIC = Buffer.from('\x82SNAPPY\0', 'latin1')
const XERIAL_HEADER_BYTES = 16
const LENGTH_BYTES = 4

/** Of one raw block, as librdkafka writes it, or of xerial's blocks, as Java clients do. @throws Error for what is neither */
export function decompressSnappy(bytes: Buffer): Buffer {
  if (!bytes.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC)) return decompressSnappyBlock(bytes)
  const blocks: Buffer[] = []
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    const from = at + LENGTH_BYTES
    const end = from + bytes.readInt32BE(at)
    if (end < from || end > bytes.length) throw new RangeError(`a snappy block at ${at} ends at ${end}, outside of its ${bytes.length} bytes`)
    blocks.push(decompressSnappyBlock(bytes.subarray(from, end)))
    at = end
  }
  return Buffer.concat(blocks)
}

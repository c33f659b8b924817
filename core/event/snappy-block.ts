import { createRequire } from 'node:module'

/** Loaded with the first block: it takes 8 MB. */
const codec = (): typeof import('@platformatic/wasm-utils') => load('@platformatic/wasm-utils') as typeof import('@platformatic/wasm-utils')
const load = createRequire(import.meta.url)

/** Three bytes make 64 at most. Source: google/snappy, format_description.txt */
const MAX_RATIO = 22

/** One raw block: its length as a varint, then literals and copies. */
export function compressSnappyBlock(bytes: Buffer): Buffer {
  return codec().snappyCompress(bytes)
}

/** What one raw block holds; memory is taken only for what it can hold. @throws Error for bytes that are no whole block */
export function decompressSnappyBlock(block: Buffer): Buffer {
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

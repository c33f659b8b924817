import { crc32 } from 'node:zlib'

/** Up to so many bytes a loop is done before a call into native code has begun. */
const SHORT = 256

/** By slices of eight: row k has the checksum of a byte that k zero bytes follow. */
const SLICES = slices()

function slices(): Int32Array {
  const table = new Int32Array(8 * 256)
  for (let byte = 0; byte < 256; byte++) {
    let rest = byte
    for (let bit = 0; bit < 8; bit++) rest = (rest & 1) === 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1
    table[byte] = rest
  }
  for (let i = 256; i < table.length; i++) {
    const before = table[i - 256]!
    table[i] = (before >>> 8) ^ table[before & 0xff]!
  }
  return table
}

/** CRC-32 (IEEE 802.3) of bytes [from, to), as an unsigned number. */
export function checksum(bytes: Buffer, from: number, to: number): number {
  if (to - from > SHORT) return crc32(bytes.subarray(from, to))
  let crc = -1
  let at = from
  for (; at + 8 <= to; at += 8) {
    const low = crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24))
    crc =
      SLICES[1792 + (low & 0xff)]! ^
      SLICES[1536 + ((low >>> 8) & 0xff)]! ^
      SLICES[1280 + ((low >>> 16) & 0xff)]! ^
      SLICES[1024 + (low >>> 24)]! ^
      SLICES[768 + bytes[at + 4]!]! ^
      SLICES[512 + bytes[at + 5]!]! ^
      SLICES[256 + bytes[at + 6]!]! ^
      SLICES[bytes[at + 7]!]!
  }
  for (; at < to; at++) crc = SLICES[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8)
  return ~crc >>> 0
}

/** Whether bytes [from, to) are those of `whole`. */
export function areEqual(whole: Buffer, bytes: Buffer, from: number, to: number): boolean {
  if (whole.length !== to - from) return false
  if (whole.length > SHORT) return whole.compare(bytes, from, to) === 0
  for (let i = 0; i < whole.length; i++) if (whole[i] !== bytes[from + i]) return false
  return true
}

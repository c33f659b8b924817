import { readSync, writeSync } from 'node:fs'
import { crc32c } from '@node-rs/crc32'

/**
 * How far the log is durable, for readers in other processes; written after each fdatasync and never ahead of it. It need not be durable
 * itself: one that is older than the segments only means that recovery checks more.
 * `0 u32 magic | 4 u32 crc32c of the rest | 8 f64 number of the active segment | 16 f64 its durable bytes | 24 f64 generation of the list of segments`
 */
export interface CommittedMark {
  readonly segment: number
  readonly bytes: number
  /** Rises whenever segments were replaced or removed. */
  readonly generation: number
}

const MARK_BYTES = 32
const MARK_MAGIC = 0x4d524b31

export function writeMark(fd: number, mark: CommittedMark): void {
  const bytes = Buffer.allocUnsafe(MARK_BYTES)
  bytes.writeUInt32BE(MARK_MAGIC, 0)
  bytes.writeDoubleBE(mark.segment, 8)
  bytes.writeDoubleBE(mark.bytes, 16)
  bytes.writeDoubleBE(mark.generation, 24)
  bytes.writeUInt32BE(crc32c(bytes.subarray(8)), 4)
  writeSync(fd, bytes, 0, MARK_BYTES, 0)
}

/** Null when there is none, or when it is being written just now. */
export function readMark(fd: number): CommittedMark | null {
  const bytes = Buffer.alloc(MARK_BYTES)
  if (readSync(fd, bytes, 0, MARK_BYTES, 0) !== MARK_BYTES || bytes.readUInt32BE(0) !== MARK_MAGIC) return null
  if (crc32c(bytes.subarray(8)) !== bytes.readUInt32BE(4)) return null
  return { segment: bytes.readDoubleBE(8), bytes: bytes.readDoubleBE(16), generation: bytes.readDoubleBE(24) }
}

/**
 * A group: what one write and one fdatasync make durable together. Frames of any partitions, and facts (progress, topics, bounds).
 *
 * ```
 * 0 u32 magic | 4 u32 headBytes | 8 u64 sequence | 16 f64 appendedAt | 24 u32 payloadBytes | 28 u32 frames | 32 u32 factsBytes | 36 u32 crc32c of the head but this field
 * 40 frames x { u32 topicId | u32 partition | i64 baseOffset | u32 length | u32 count | u32 offsets | u32 the frame's own crc32c } | facts, JSON | payload: the frames
 * ```
 * A group is valid when its head's checksum, its sequence (one more than the one before) and the checksum of each frame hold.
 */
import { crc32c } from '@node-rs/crc32'
import { ATTRIBUTES_AT } from '../../event/record-batch.ts'
import type { Facts } from './log-state.ts'

export const GROUP_MAGIC = 0x4d524731
export const GROUP_HEAD_BYTES = 40
const PLACE_BYTES = 32
const CRC_AT = 36

/** A frame and the place it gets: what the head of a group says of it. */
export interface PlacedFrame {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: bigint
  readonly sizeBytes: number
  readonly count: number
  readonly offsets: number
  readonly crc: number
}

export interface GroupHead {
  readonly sequence: number
  readonly appendedAt: number
  readonly headBytes: number
  readonly payloadBytes: number
  readonly frames: readonly PlacedFrame[]
  readonly facts: Facts | null
}

/** The bytes of a head, and what {@link decodeGroupHead} would read from them. */
export function encodeGroupHead(sequence: number, appendedAt: number, frames: readonly PlacedFrame[], facts: Facts | null): { bytes: Buffer; head: GroupHead } {
  const text = facts === null ? '' : JSON.stringify(facts)
  const factsBytes = Buffer.byteLength(text)
  const bytes = Buffer.allocUnsafe(GROUP_HEAD_BYTES + frames.length * PLACE_BYTES + factsBytes)
  bytes.writeUInt32BE(GROUP_MAGIC, 0)
  bytes.writeUInt32BE(bytes.length, 4)
  bytes.writeBigUInt64BE(BigInt(sequence), 8)
  bytes.writeDoubleBE(appendedAt, 16)
  bytes.writeUInt32BE(frames.length, 28)
  bytes.writeUInt32BE(factsBytes, 32)
  let at = GROUP_HEAD_BYTES
  let payloadBytes = 0
  for (const frame of frames) {
    bytes.writeUInt32BE(frame.topicId, at)
    bytes.writeUInt32BE(frame.partition, at + 4)
    bytes.writeBigInt64BE(frame.baseOffset, at + 8)
    bytes.writeUInt32BE(frame.sizeBytes, at + 16)
    bytes.writeUInt32BE(frame.count, at + 20)
    bytes.writeUInt32BE(frame.offsets, at + 24)
    bytes.writeUInt32BE(frame.crc, at + 28)
    payloadBytes += frame.sizeBytes
    at += PLACE_BYTES
  }
  bytes.writeUInt32BE(payloadBytes, 24)
  bytes.write(text, at)
  bytes.writeUInt32BE(headCrc(bytes), CRC_AT)
  return { bytes, head: { sequence, appendedAt, headBytes: bytes.length, payloadBytes, frames, facts } }
}

function headCrc(head: Buffer): number {
  return crc32c(head.subarray(CRC_AT + 4), crc32c(head.subarray(0, CRC_AT)))
}

/** Bytes of the head that begins at `at`, or null when none can begin there. Needs {@link GROUP_HEAD_BYTES} bytes. */
export function groupHeadBytes(bytes: Buffer, at: number): number | null {
  if (bytes.length - at < GROUP_HEAD_BYTES || bytes.readUInt32BE(at) !== GROUP_MAGIC) return null
  const headBytes = bytes.readUInt32BE(at + 4)
  return headBytes === GROUP_HEAD_BYTES + bytes.readUInt32BE(at + 28) * PLACE_BYTES + bytes.readUInt32BE(at + 32) ? headBytes : null
}

/** The head in `head` (exactly its bytes), or null when its checksum fails. */
export function decodeGroupHead(head: Buffer): GroupHead | null {
  if (head.length < GROUP_HEAD_BYTES || groupHeadBytes(head, 0) !== head.length || headCrc(head) !== head.readUInt32BE(CRC_AT)) return null
  const frames: PlacedFrame[] = []
  const factsAt = head.length - head.readUInt32BE(32)
  for (let at = GROUP_HEAD_BYTES; at < factsAt; at += PLACE_BYTES) {
    frames.push({
      topicId: head.readUInt32BE(at),
      partition: head.readUInt32BE(at + 4),
      baseOffset: head.readBigInt64BE(at + 8),
      sizeBytes: head.readUInt32BE(at + 16),
      count: head.readUInt32BE(at + 20),
      offsets: head.readUInt32BE(at + 24),
      crc: head.readUInt32BE(at + 28),
    })
  }
  return {
    sequence: Number(head.readBigUInt64BE(8)),
    appendedAt: head.readDoubleBE(16),
    headBytes: head.length,
    payloadBytes: head.readUInt32BE(24),
    frames,
    facts: factsAt === head.length ? null : (JSON.parse(head.toString('utf8', factsAt)) as Facts),
  }
}

/** Whether `bytes` are the frame that the head placed. */
export function isPlacedFrame(bytes: Buffer, place: PlacedFrame): boolean {
  return (
    bytes.length === place.sizeBytes &&
    bytes.readBigInt64BE(0) === place.baseOffset &&
    bytes.readUInt32BE(17) === place.crc &&
    crc32c(bytes.subarray(ATTRIBUTES_AT)) === place.crc
  )
}

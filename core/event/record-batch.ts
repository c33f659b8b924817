/**
 * Kafka RecordBatch v2 frames: what capture builds, both logs store and every reader takes apart.
 * Format: Apache Kafka, "Record Batch" (kafka.apache.org/documentation/#recordbatch).
 *
 * ```
 * 0 i64 baseOffset | 8 i32 batchLength (after this field) | 12 i32 partitionLeaderEpoch | 16 i8 magic 2 | 17 u32 crc32c of [21, end)
 * 21 i16 attributes (0-2 codec, 3 timestamp type, 4 transactional, 5 control) | 23 i32 lastOffsetDelta | 27 i64 baseTimestamp
 * 35 i64 maxTimestamp | 43 i64 producerId | 51 i16 producerEpoch | 53 i32 baseSequence | 57 i32 count | 61 records
 * record: varint length | i8 attributes | varlong timestampDelta | varint offsetDelta | varint keyLength (-1 null) key | varint valueLength (-1 null) value
 *         | varint headers { varint length key | varint length value }
 * ```
 */
import { crc32c } from '@node-rs/crc32'
import { MillraceError } from '../errors.ts'

export const FRAME_HEADER_BYTES = 61
export const ATTRIBUTES_AT = 21
const TRANSACTIONAL_BIT = 0x10
const CODEC_BITS = 0x07
const CONTROL_BIT = 0x20

/** Writes the header of a frame whose records lie at [61, end): all of it but offset, producer and checksum. */
export function sealFrame(buffer: Buffer, end: number, count: number, timestampMs: number): void {
  buffer.fill(0, 0, 21)
  buffer.writeInt32BE(end - 12, 8)
  buffer.writeInt32BE(-1, 12)
  buffer[16] = 2
  buffer.writeInt16BE(0, ATTRIBUTES_AT)
  buffer.writeInt32BE(count - 1, 23)
  const time = BigInt(timestampMs)
  buffer.writeBigInt64BE(time, 27)
  buffer.writeBigInt64BE(time, 35)
  buffer.writeBigInt64BE(-1n, 43)
  buffer.writeInt16BE(-1, 51)
  buffer.writeInt32BE(-1, 53)
  buffer.writeInt32BE(count, 57)
}

/** Fills in who produces the frame; call before {@link stampChecksum}. */
export function stampProducer(buffer: Buffer, producerId: bigint, epoch: number, sequence: number, transactional: boolean): void {
  buffer.writeInt16BE(buffer.readInt16BE(ATTRIBUTES_AT) | (transactional ? TRANSACTIONAL_BIT : 0), ATTRIBUTES_AT)
  buffer.writeBigInt64BE(producerId, 43)
  buffer.writeInt16BE(epoch, 51)
  buffer.writeInt32BE(sequence, 53)
}

/** The base offset lies outside the checksum, so it may be stamped after it. */
export function stampOffset(buffer: Buffer, baseOffset: bigint): void {
  buffer.writeBigInt64BE(baseOffset, 0)
}

export function stampChecksum(buffer: Buffer, end: number): void {
  buffer.writeUInt32BE(crc32c(buffer.subarray(ATTRIBUTES_AT, end)), 17)
}

/** Bytes of the frame that starts at `at`, or -1 when fewer than that are there. */
export function frameLength(bytes: Buffer, at: number): number {
  if (bytes.length - at < 12) return -1
  const length = 12 + bytes.readInt32BE(at + 8)
  return bytes.length - at < length ? -1 : length
}

export interface FrameHeader {
  readonly baseOffset: bigint
  readonly count: number
  readonly lastOffsetDelta: number
  readonly codec: number
  readonly control: boolean
  readonly transactional: boolean
  readonly producerId: bigint
  readonly baseTimestamp: number
  readonly maxTimestamp: number
}

/** @throws log.corrupt when the frame is not a whole v2 frame or fails its checksum; `verify: false` leaves the checksum out */
export function readFrameHeader(frame: Buffer, verify = true): FrameHeader {
  if (frame.length < FRAME_HEADER_BYTES || frame[16] !== 2 || frameLength(frame, 0) !== frame.length) {
    throw new MillraceError('log.corrupt', `not a RecordBatch v2 frame: ${frame.length} bytes, magic ${frame[16]}`)
  }
  const baseOffset = frame.readBigInt64BE(0)
  if (verify && crc32c(frame.subarray(ATTRIBUTES_AT)) !== frame.readUInt32BE(17)) {
    throw new MillraceError('log.corrupt', `the frame at offset ${baseOffset} fails its checksum`)
  }
  const attributes = frame.readInt16BE(ATTRIBUTES_AT)
  return {
    baseOffset,
    count: frame.readInt32BE(57),
    lastOffsetDelta: frame.readInt32BE(23),
    codec: attributes & CODEC_BITS,
    control: (attributes & CONTROL_BIT) !== 0,
    transactional: (attributes & TRANSACTIONAL_BIT) !== 0,
    producerId: frame.readBigInt64BE(43),
    baseTimestamp: Number(frame.readBigInt64BE(27)),
    maxTimestamp: Number(frame.readBigInt64BE(35)),
  }
}

/** One record of a frame, as slices of it. One object is reused for all records of a frame: copy what you keep. */
export interface FrameRecord {
  offset: bigint
  timestampMs: number
  /** [keyFrom, keyTo) in the frame; keyFrom is -1 for a null key. */
  keyFrom: number
  keyTo: number
  /** [valueFrom, valueTo); valueFrom is -1 for a tombstone. */
  valueFrom: number
  valueTo: number
  /** Where the headers begin (their count) and where the record ends. */
  headersFrom: number
  end: number
}

let varintEnd = 0

/** A zigzag varint at `at`; its end is in `varintEnd`. Values of up to 35 bits, which is all that lengths and deltas need here. */
function readVarint(bytes: Buffer, at: number): number {
  let shift = 1
  let value = 0
  for (;;) {
    const byte = bytes[at++]
    if (byte === undefined || shift > 0x8000_0000_0000) throw new MillraceError('log.corrupt', 'a record in a frame is cut short')
    value += (byte & 0x7f) * shift
    if (byte < 0x80) break
    shift *= 128
  }
  varintEnd = at
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2
}

/**
 * The records of one uncompressed frame in order.
 * @throws log.corrupt when lengths do not add up
 */
export function* records(frame: Buffer): Generator<FrameRecord, void, void> {
  const header = readFrameHeader(frame, false)
  const record: FrameRecord = { offset: 0n, timestampMs: 0, keyFrom: -1, keyTo: -1, valueFrom: -1, valueTo: -1, headersFrom: 0, end: FRAME_HEADER_BYTES }
  for (let i = 0; i < header.count; i++) {
    const length = readVarint(frame, record.end)
    const end = varintEnd + length
    if (length < 5 || end > frame.length) throw new MillraceError('log.corrupt', `record ${i} of the frame at offset ${header.baseOffset} is cut short`)
    record.timestampMs = header.baseTimestamp + readVarint(frame, varintEnd + 1)
    record.offset = header.baseOffset + BigInt(readVarint(frame, varintEnd))
    const keyLength = readVarint(frame, varintEnd)
    record.keyFrom = keyLength < 0 ? -1 : varintEnd
    record.keyTo = keyLength < 0 ? -1 : varintEnd + keyLength
    const valueLength = readVarint(frame, keyLength < 0 ? varintEnd : record.keyTo)
    record.valueFrom = valueLength < 0 ? -1 : varintEnd
    record.valueTo = valueLength < 0 ? -1 : varintEnd + valueLength
    record.headersFrom = valueLength < 0 ? varintEnd : record.valueTo
    record.end = end
    if (record.headersFrom > end) throw new MillraceError('log.corrupt', `record ${i} of the frame at offset ${header.baseOffset} is longer than it says`)
    yield record
  }
}

/** The value of the record's header `name` as a slice of the frame, or null. */
export function recordHeader(frame: Buffer, record: FrameRecord, name: string): Buffer | null {
  const count = readVarint(frame, record.headersFrom)
  let at = varintEnd
  for (let i = 0; i < count; i++) {
    const keyLength = readVarint(frame, at)
    const keyFrom = varintEnd
    const valueLength = readVarint(frame, keyFrom + keyLength)
    const valueFrom = varintEnd
    at = valueFrom + Math.max(0, valueLength)
    if (keyLength < 0 || at > record.end) throw new MillraceError('log.corrupt', `the headers of the record at offset ${record.offset} are longer than it`)
    if (keyLength === name.length && frame.toString('latin1', keyFrom, keyFrom + keyLength) === name)
      return valueLength < 0 ? null : frame.subarray(valueFrom, at)
  }
  return null
}

/** Bytes of `value` as a zigzag varint. */
export function varintBytes(value: number): number {
  let zigzag = value >= 0 ? value * 2 : -value * 2 - 1
  let bytes = 1
  while (zigzag > 127) {
    zigzag = Math.floor(zigzag / 128)
    bytes++
  }
  return bytes
}

/** Writes a zigzag varint of a safe integer and returns the position after it. */
export function writeVarint(into: Buffer, at: number, value: number): number {
  let zigzag = value >= 0 ? value * 2 : -value * 2 - 1
  while (zigzag >= 0x1000_0000) {
    into[at++] = (zigzag % 128) | 128
    zigzag = Math.floor(zigzag / 128)
  }
  while (zigzag > 127) {
    into[at++] = (zigzag & 127) | 128
    zigzag >>>= 7
  }
  into[at++] = zigzag
  return at
}

export interface PlainRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers?: readonly (readonly [string, Buffer])[]
}

/** A sealed frame of a few records: for progress, dead letters and tests. Capture builds its frames in place instead. */
export function frameOf(plain: readonly PlainRecord[], timestampMs: number): { buffer: Buffer; end: number; count: number } {
  const bodies = plain.map((record, index) => {
    const headers = record.headers ?? []
    const size =
      64 + (record.key?.length ?? 0) + (record.value?.length ?? 0) + headers.reduce((n, [name, value]) => n + 16 + Buffer.byteLength(name) + value.length, 0)
    const body = Buffer.alloc(size)
    let at = writeVarint(body, 1, 0)
    at = writeVarint(body, at, index)
    for (const bytes of [record.key, record.value]) {
      at = writeVarint(body, at, bytes === null ? -1 : bytes.length)
      if (bytes !== null) at += bytes.copy(body, at)
    }
    at = writeVarint(body, at, headers.length)
    for (const [name, value] of headers) {
      at = writeVarint(body, at, Buffer.byteLength(name))
      at += body.write(name, at)
      at = writeVarint(body, at, value.length)
      at += value.copy(body, at)
    }
    const prefix = Buffer.alloc(6)
    return Buffer.concat([prefix.subarray(0, writeVarint(prefix, 0, at)), body.subarray(0, at)])
  })
  const buffer = Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), ...bodies])
  sealFrame(buffer, buffer.length, plain.length, timestampMs)
  return { buffer, end: buffer.length, count: plain.length }
}

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { frameOf, stampChecksum, stampOffset } from '../../../../../core/event/record-batch.ts'
import { decodeGroupHead, encodeGroupHead, groupHeadBytes, isPlacedFrame } from '../../../../../core/log/embedded/commit-group.ts'

const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
const place = fc.record({
  topicId: u32,
  partition: u32,
  baseOffset: fc.bigInt({ min: 0n, max: (1n << 63n) - 1n }),
  sizeBytes: fc.integer({ min: 0, max: 1 << 24 }),
  count: u32,
  offsets: u32,
  crc: u32,
})
const facts = fc.option(
  fc.record({
    progress: fc.array(fc.tuple(fc.string(), fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.constant(null), fc.integer()))), { maxLength: 3 }),
  }),
  {
    nil: null,
  },
)

test('a head comes back as it was encoded', () => {
  fc.assert(
    fc.property(fc.nat(Number.MAX_SAFE_INTEGER), fc.nat(4e12), fc.array(place, { maxLength: 20 }), facts, (sequence, appendedAt, frames, said) => {
      const { bytes, head } = encodeGroupHead(sequence, appendedAt, frames, said)
      expect(groupHeadBytes(bytes, 0)).toBe(bytes.length)
      expect(head).toEqual({
        sequence,
        appendedAt,
        headBytes: bytes.length,
        payloadBytes: frames.reduce((n, { sizeBytes }) => n + sizeBytes, 0),
        frames,
        facts: said,
      })
      expect(decodeGroupHead(bytes)).toEqual({ ...head, facts: said === null ? null : JSON.parse(JSON.stringify(said)) })
    }),
  )
})

test('a damaged or shortened head is none', () => {
  fc.assert(
    fc.property(fc.array(place, { minLength: 1, maxLength: 5 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (frames, at, flip) => {
      const { bytes: head } = encodeGroupHead(7, 1, frames, { progress: [] })
      const damaged = Buffer.from(head)
      damaged[at % head.length]! ^= flip
      expect(decodeGroupHead(damaged)).toBeNull()
      expect(decodeGroupHead(head.subarray(0, at % head.length))).toBeNull()
    }),
  )
})

test('a frame is the placed one only when offset, length and checksum agree', () => {
  const { buffer } = frameOf([{ key: Buffer.from('k'), value: Buffer.alloc(50, 1) }], 1)
  stampOffset(buffer, 5n)
  stampChecksum(buffer, buffer.length)
  const placed = { topicId: 0, partition: 0, baseOffset: 5n, sizeBytes: buffer.length, count: 1, offsets: 1, crc: buffer.readUInt32BE(17) }
  expect(isPlacedFrame(buffer, placed)).toBe(true)
  expect(isPlacedFrame(buffer, { ...placed, baseOffset: 6n })).toBe(false)
  expect(isPlacedFrame(buffer.subarray(0, -1), placed)).toBe(false)
  for (let at = 21; at < buffer.length; at++) {
    const damaged = Buffer.from(buffer)
    damaged[at]! ^= 0x40
    expect(isPlacedFrame(damaged, placed)).toBe(false)
  }
})

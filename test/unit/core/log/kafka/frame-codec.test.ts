import fc from 'fast-check'
import { expect, test } from 'vitest'
import { frameOf, readFrameHeader, records, stampChecksum, stampOffset } from '../../../../../core/event/record-batch.ts'
import { decodeFrame, encodeFrame } from '../../../../../core/log/kafka/frame-codec.ts'

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const
const values = fc.array(fc.oneof(fc.uint8Array({ maxLength: 400 }), fc.constant(new Uint8Array(70_000))), { minLength: 1, maxLength: 8 })

test.each(CODECS)('%s: what is encoded decodes to the same uncompressed frame, and both carry right checksums', (compression) => {
  fc.assert(
    fc.property(values, fc.bigInt({ min: 0n, max: 1n << 50n }), (list, offset) => {
      const frame = frameOf(
        list.map((value) => ({ key: null, value: Buffer.from(value) })),
        1_700_000_000_000,
      )
      const before = Buffer.from(frame.buffer)
      const stored = Buffer.concat(encodeFrame(frame.buffer, frame.end, compression))
      stampOffset(stored, offset)
      const header = readFrameHeader(stored)
      expect(header.codec).toBe(CODECS.indexOf(compression))
      expect(header.count).toBe(list.length)
      // the original can be encoded again for a retry
      expect(frame.buffer.subarray(61).equals(before.subarray(61))).toBe(true)
      expect(
        Buffer.concat(encodeFrame(frame.buffer, frame.end, compression))
          .subarray(8)
          .equals(stored.subarray(8)),
      ).toBe(true)
      const plain = decodeFrame(stored, header.codec)
      expect(readFrameHeader(plain)).toMatchObject({ baseOffset: offset, codec: 0, count: list.length })
      const read = [...records(plain)].length
      expect(read).toBe(list.length)
      expect(plain.subarray(61).equals(before.subarray(61))).toBe(true)
    }),
    { numRuns: 40 },
  )
})

test.each(CODECS.slice(1))('%s: a damaged body gives log.corrupt or other bytes, never another error', (compression) => {
  const frame = frameOf([{ key: null, value: Buffer.from('text '.repeat(200)) }], 1)
  const stored = Buffer.concat(encodeFrame(frame.buffer, frame.end, compression))
  fc.assert(
    fc.property(fc.integer({ min: 61, max: stored.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const broken = Buffer.from(stored)
      broken[at]! ^= flip
      stampChecksum(broken, broken.length)
      try {
        decodeFrame(broken, readFrameHeader(broken).codec)
      } catch (error) {
        expect(error).toMatchObject({ code: 'log.corrupt' })
      }
    }),
    { numRuns: 60 },
  )
})

test('an unknown codec gives log.corrupt', () => {
  const { buffer } = frameOf([{ key: null, value: null }], 1)
  expect(() => decodeFrame(buffer, 6)).toThrow(expect.objectContaining({ code: 'log.corrupt' }))
})

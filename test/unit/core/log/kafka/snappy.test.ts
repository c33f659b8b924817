import fc from 'fast-check'
import { expect, test } from 'vitest'
import { compressSnappyBlock } from '../../../../../core/event/snappy-block.ts'
import { decompressSnappy } from '../../../../../core/log/kafka/snappy.ts'

const TEXT = 'to be or not to be, that is the question; to be or not to be'
/** TEXT twice, each by snappy-java's SnappyOutputStream with a flush after it: xerial's header and two blocks. */
const BLOCK = '0000003c3c34746f206265206f72206e6f742074010d602c207468617420697320746865207175657374696f6e3b2074011d30206f72206e6f7420746f206265'
const XERIAL = Buffer.from(`82534e41505059000000000100000001${BLOCK}${BLOCK}`, 'hex')
/** TEXT by snappy-java's Snappy.compress, which is Google's code: one raw block. */
const RAW = Buffer.from('3c34746f206265206f72206e6f742074010d602c207468617420697320746865207175657374696f6e3b2074011d30206f72206e6f7420746f206265', 'hex')

const bodies = fc.oneof(
  fc.uint8Array({ maxLength: 2_000 }),
  fc.array(fc.constantFrom('abc', 'abcd', '0', ' a longer piece of text '), { maxLength: 300 }).map((parts) => Buffer.from(parts.join(''))),
  fc.integer({ min: 1, max: 300_000 }).map((length) => Buffer.alloc(length, 'xy')),
)

test("xerial's blocks and raw ones are read", () => {
  expect(decompressSnappy(XERIAL).toString()).toBe(TEXT + TEXT)
  expect(decompressSnappy(RAW).toString()).toBe(TEXT)
})

test('what is compressed decompresses to the same', () => {
  fc.assert(
    fc.property(bodies, (body) => {
      expect(decompressSnappy(compressSnappyBlock(Buffer.from(body))).equals(body)).toBe(true)
    }),
  )
})

test('a raw block that is cut short is an error, and one of xerial that is cut within a block', () => {
  for (let length = 0; length < RAW.length; length++) expect(() => decompressSnappy(RAW.subarray(0, length)), `${length} bytes`).toThrow()
  const secondAt = 16 + 4 + XERIAL.readInt32BE(16)
  for (let length = 17; length < XERIAL.length; length++) {
    if (length !== secondAt) expect(() => decompressSnappy(XERIAL.subarray(0, length)), `${length} bytes`).toThrow()
  }
})

test('damaged bytes give an error or other bytes, and never more than the block could hold', () => {
  fc.assert(
    fc.property(fc.constantFrom(RAW, XERIAL), fc.nat(), fc.integer({ min: 1, max: 255 }), (bytes, at, flip) => {
      const broken = Buffer.from(bytes)
      broken[at % broken.length]! ^= flip
      try {
        expect(decompressSnappy(broken).length).toBeLessThan(bytes.length * 22)
      } catch (error) {
        expect(error).toBeInstanceOf(Error)
      }
    }),
  )
})

test('a block that says it holds more than it can is refused before memory is taken for it', () => {
  expect(() => decompressSnappy(Buffer.from('ffffffff0f0061', 'hex'))).toThrow(/7 bytes cannot hold 4294967295/)
})

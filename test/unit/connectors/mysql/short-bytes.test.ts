import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { areEqual, checksum } from '../../../../connectors/mysql/short-bytes.ts'

const part = fc
  .uint8Array({ maxLength: 600, size: 'max' })
  .chain((bytes) =>
    fc
      .tuple(fc.constant(Buffer.from(bytes)), fc.nat(bytes.length), fc.nat(bytes.length))
      .map(([whole, a, b]) => ({ whole, from: Math.min(a, b), to: Math.max(a, b) })),
  )

test('sums as zlib does, whatever the length', () => {
  fc.assert(fc.property(part, ({ whole, from, to }) => checksum(whole, from, to) === crc32(whole.subarray(from, to))))
})

test('knows the check value of CRC-32', () => {
  expect(checksum(Buffer.from('123456789'), 0, 9)).toBe(0xcbf43926)
})

test('finds bytes equal to themselves, and to none with one bit changed or one byte more', () => {
  fc.assert(
    fc.property(part, fc.nat(), fc.integer({ min: 0, max: 7 }), ({ whole, from, to }, where, bit) => {
      const copy = Buffer.from(whole.subarray(from, to))
      expect(areEqual(copy, whole, from, to)).toBe(true)
      expect(areEqual(Buffer.concat([copy, Buffer.of(0)]), whole, from, to)).toBe(false)
      if (copy.length === 0) return
      copy[where % copy.length]! ^= 1 << bit
      expect(areEqual(copy, whole, from, to)).toBe(false)
    }),
  )
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { frameOf, readFrameHeader, recordHeader, records, stampChecksum, stampOffset, varintBytes, writeVarint } from '../../../../core/event/record-batch.ts'

const bytes = fc.option(
  fc.uint8Array({ maxLength: 300 }).map((a) => Buffer.from(a)),
  { nil: null },
)

test('records come back from a frame as they went in', () => {
  const plain = fc.record({ key: bytes, value: bytes, header: fc.uint8Array({ maxLength: 20 }).map((a) => Buffer.from(a)) })
  fc.assert(
    fc.property(fc.array(plain, { minLength: 1, maxLength: 20 }), fc.bigInt({ min: 0n, max: 1n << 62n }), (list, offset) => {
      const { buffer } = frameOf(
        list.map(({ key, value, header }) => ({ key, value, headers: [['pos', header]] as const })),
        1_700_000_000_000,
      )
      stampOffset(buffer, offset)
      stampChecksum(buffer, buffer.length)
      expect(readFrameHeader(buffer)).toMatchObject({ baseOffset: offset, count: list.length, lastOffsetDelta: list.length - 1 })
      let i = 0
      for (const record of records(buffer)) {
        const expected = list[i]!
        expect(record.offset).toBe(offset + BigInt(i++))
        expect(record.keyFrom < 0 ? null : Buffer.from(buffer.subarray(record.keyFrom, record.keyTo))).toEqual(expected.key)
        expect(record.valueFrom < 0 ? null : Buffer.from(buffer.subarray(record.valueFrom, record.valueTo))).toEqual(expected.value)
        expect(recordHeader(buffer, record, 'pos')).toEqual(expected.header)
        expect(recordHeader(buffer, record, 'other')).toBeNull()
      }
      expect(i).toBe(list.length)
    }),
  )
})

test('damaged frames give log.corrupt, never another error or a hang', () => {
  const { buffer } = frameOf([{ key: Buffer.from('k'), value: Buffer.alloc(100, 7) }], 1)
  stampChecksum(buffer, buffer.length)
  fc.assert(
    fc.property(fc.nat(buffer.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const broken = Buffer.from(buffer)
      broken[at]! ^= flip
      try {
        readFrameHeader(broken)
        for (const _ of records(broken)) {
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'log.corrupt' })
      }
    }),
  )
})

test('varintBytes is what writeVarint writes', () => {
  fc.assert(
    fc.property(
      fc.maxSafeInteger().map((n) => Math.trunc(n / 2)),
      (n) => {
        const into = Buffer.alloc(12)
        expect(writeVarint(into, 0, n)).toBe(varintBytes(n))
      },
    ),
  )
})

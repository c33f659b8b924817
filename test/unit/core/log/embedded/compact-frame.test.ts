import fc from 'fast-check'
import { expect, test } from 'vitest'
import { frameOf, readFrameHeader, records, stampChecksum, stampOffset } from '../../../../../core/event/record-batch.ts'
import { compactFrame } from '../../../../../core/log/embedded/compact-frame.ts'

test('exactly the kept records are left, with offsets, timestamps, bytes and a valid checksum', () => {
  const bytes = fc.option(
    fc.uint8Array({ maxLength: 200 }).map((a) => Buffer.from(a)),
    { nil: null },
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(bytes, bytes, fc.boolean()), { minLength: 1, maxLength: 200 }), fc.bigInt({ min: 0n, max: 1n << 60n }), (list, base) => {
      const { buffer } = frameOf(
        list.map(([key, value]) => ({ key, value, headers: [['pos', Buffer.from('p')]] as const })),
        1_700_000_000_000,
      )
      stampOffset(buffer, base)
      stampChecksum(buffer, buffer.length)
      const all = Array.from(records(buffer), (record) => ({
        offset: record.offset,
        at: record.timestampMs,
        end: Buffer.from(buffer.subarray(record.headersFrom, record.end)),
      }))
      const before = Buffer.from(buffer)
      const compacted = compactFrame(buffer, (record) => list[Number(record.offset - base)]![2])
      expect(buffer.equals(before)).toBe(true)
      const kept = all.filter((_, i) => list[i]![2])
      if (kept.length === 0) {
        expect(compacted).toBeNull()
        return
      }
      const { frame, count } = compacted!
      expect(count).toBe(kept.length)
      expect(readFrameHeader(frame)).toMatchObject({ baseOffset: base, count, lastOffsetDelta: list.length - 1 })
      expect(
        Array.from(records(frame), (record) => ({
          offset: record.offset,
          at: record.timestampMs,
          end: Buffer.from(frame.subarray(record.headersFrom, record.end)),
        })),
      ).toEqual(kept)
    }),
  )
})

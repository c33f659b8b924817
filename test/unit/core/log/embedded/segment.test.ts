import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { readEntry } from '../../../../../core/log/embedded/frame-entry.ts'
import { appendedName, parseSegmentFileName, Segment, segmentFileName } from '../../../../../core/log/embedded/segment.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-segment-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

test('file names are read as they are made', () => {
  fc.assert(
    fc.property(fc.nat(1e9), fc.nat(1000), fc.nat(50), (first, more, version) => {
      const name = { first, last: version === 0 ? first : first + more, version }
      expect(parseSegmentFileName(segmentFileName(name))).toEqual(name)
    }),
  )
  for (const file of ['1.segment', '000000000001.segment.tmp', '000000000001-000000000002-0.segment', 'writer.pid'])
    expect(parseSegmentFileName(file)).toBeNull()
})

test('a sealed segment finds the same frames as before', async () => {
  const frames = fc.array(fc.tuple(fc.nat(5), fc.integer({ min: 1, max: 9 }), fc.nat(3)), { maxLength: 60 })
  let number = 0
  await fc.assert(
    fc.asyncProperty(frames, async (list) => {
      const live = new Segment(dir, appendedName(number++))
      const ends = new Map<number, bigint>()
      for (const [i, [key, offsets, gap]] of list.entries()) {
        const baseOffset = (ends.get(key) ?? 1n << 53n) + BigInt(gap)
        live.add(key, { baseOffset, appendedAt: 1000 + i, at: i * 10, sizeBytes: 10, count: offsets, offsets })
        ends.set(key, baseOffset + BigInt(offsets))
      }
      const at = list.length * 10
      writeFileSync(live.path, Buffer.concat([Buffer.alloc(at), ...live.footer(at).bytes]))
      const sealed = new Segment(dir, live)
      expect(await sealed.readFooter()).toBe(true)
      expect(new Set(sealed.keys)).toEqual(new Set(live.keys))
      expect([await live.acquire(), await sealed.acquire()]).toEqual([true, true])
      for (const key of [0, 1, 2, 3, 4, 5, 6]) {
        const range = live.range(key)
        expect(sealed.range(key)).toEqual(range)
        if (range === null) continue
        const entries = await live.entries(key, 0, range.count)
        expect((await sealed.entries(key, 0, range.count)).equals(entries)).toBe(true)
        for (let i = 0; i < range.count; i++) {
          const entry = readEntry(entries, i)
          for (const [offset, index] of [
            [entry.baseOffset, i],
            [entry.baseOffset + BigInt(entry.offsets) - 1n, i],
            [entry.baseOffset + BigInt(entry.offsets), i + 1],
          ] as const) {
            expect(await sealed.find(key, offset)).toBe(index)
            expect(await live.find(key, offset)).toBe(index)
          }
        }
      }
      await live.release()
      await sealed.release()
    }),
    { numRuns: 40 },
  )
})

test('a damaged directory is no footer', async () => {
  const segment = new Segment(dir, appendedName(999_999))
  for (let key = 0; key < 3; key++) segment.add(key, { baseOffset: 0n, appendedAt: 1, at: 0, sizeBytes: 10, count: 1, offsets: 1 })
  const whole = Buffer.concat([Buffer.alloc(10), ...segment.footer(10).bytes])
  const directoryAt = whole.length - 32 - 3 * 56
  for (let at = directoryAt; at < whole.length; at++) {
    const damaged = Buffer.from(whole)
    damaged[at]! ^= 1
    writeFileSync(segment.path, damaged)
    expect(await new Segment(dir, segment).readFooter(), `byte ${at}`).toBe(false)
  }
  writeFileSync(segment.path, whole)
  expect(await new Segment(dir, segment).readFooter()).toBe(true)
  expect(readFileSync(segment.path).equals(whole)).toBe(true)
})

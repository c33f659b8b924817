import { describe, expect, it } from 'vitest'
import { BufferPool, MOST_POOLED_BYTES } from '../../../../core/capture/buffer-pool.ts'
import { FrameAssembler, type OpenFrame } from '../../../../core/capture/frame-assembler.ts'
import { FRAME_HEADER_BYTES, readFrameHeader } from '../../../../core/event/record-batch.ts'

const KIB = 1024

/** Writes a record of so many bytes, each of them `value`. */
function write(frames: FrameAssembler, frame: OpenFrame, bytes: number, value: number): void {
  frames.reserve(frame, bytes)
  frame.buffer.fill(value, frame.at, frame.at + bytes)
  frame.at += bytes
  frames.wrote(frame)
}

describe('the open frames of a capture', () => {
  it('hold no buffer until something is written to them, and none after they were taken', () => {
    const frames = new FrameAssembler()
    const [busy, idle] = frames.open('t', 2)
    write(frames, busy!, 100, 1)
    expect(idle!.buffer.length).toBe(0)
    expect(frames.take().map(({ partition, count }) => [partition, count])).toEqual([[0, 1]])
    expect(busy!.buffer.length).toBe(0)
    expect(frames.take()).toEqual([])
  })

  it('keep what was written to them as they grow, and roll where they are full', () => {
    const frames = new FrameAssembler()
    const frame = frames.open('t', 1)[0]!
    const records = 700
    for (let i = 0; i < records; i++) write(frames, frame, 1000, i % 251)
    const taken = frames.take()
    expect(taken.map(({ count }) => count)).toEqual([262, 262, 176])
    let record = 0
    for (const { buffer, end, count } of taken) {
      expect(buffer.length).toBeLessThanOrEqual(MOST_POOLED_BYTES)
      expect(readFrameHeader(buffer.subarray(0, end), false).count).toBe(count)
      for (let at = FRAME_HEADER_BYTES; at < end; at += 1000, record++) {
        expect(buffer.subarray(at, at + 1000).every((byte) => byte === record % 251)).toBe(true)
      }
    }
    expect(record).toBe(records)
  })

  it('take a record that is larger than a frame may become', () => {
    const frames = new FrameAssembler()
    const frame = frames.open('t', 1)[0]!
    write(frames, frame, 10, 1)
    write(frames, frame, 2 * MOST_POOLED_BYTES, 2)
    write(frames, frame, 10, 3)
    expect(frames.take().map(({ end, count }) => [end - FRAME_HEADER_BYTES, count])).toEqual([
      [10, 1],
      [2 * MOST_POOLED_BYTES, 1],
      [10, 1],
    ])
  })

  it('make no buffer anew while many tables write as much as before, nor hold much more than is in them', () => {
    const frames = new FrameAssembler()
    const open = Array.from({ length: 40 }, (_, i) => frames.open(`t${i}`, 1)[0]!)
    const seen = new Set<ArrayBufferLike>()
    for (let round = 0; round < 20; round++) {
      for (const frame of open) for (let row = 0; row < 25; row++) write(frames, frame, KIB, round)
      const taken = frames.take()
      // from the second round on each begins as large as the one before became
      if (round === 1) seen.clear()
      for (const { buffer, end } of taken) {
        seen.add(buffer.buffer)
        expect(buffer.length).toBeLessThan(2 * end)
        frames.give(buffer)
      }
    }
    expect(seen.size).toBe(open.length)
  })
})

describe('the pool of buffers', () => {
  it('gives what it was given, in sizes that double', () => {
    const pool = new BufferPool()
    const sizes = [1, KIB, KIB + 1, 5000, MOST_POOLED_BYTES, MOST_POOLED_BYTES + 1]
    const buffers = sizes.map((bytes) => pool.take(bytes))
    expect(buffers.map(({ length }) => length)).toEqual([KIB, KIB, 2 * KIB, 8 * KIB, MOST_POOLED_BYTES, MOST_POOLED_BYTES + 1])
    for (const buffer of buffers) pool.give(buffer)
    // one that is too large is not kept
    expect(pool.bytes).toBe(12 * KIB + MOST_POOLED_BYTES)
    expect(buffers).toContain(pool.take(8 * KIB))
    expect(pool.take(3 * KIB).length).toBe(4 * KIB)
  })

  it('keeps no more than its bound, and lets those go of which most lie there', () => {
    const pool = new BufferPool()
    const bound = 4 * KIB * KIB
    for (let i = 0; i < 5000; i++) pool.give(Buffer.from(new ArrayBuffer(KIB)))
    expect(pool.bytes).toBe(bound)
    const large = Array.from({ length: 8 }, () => Buffer.from(new ArrayBuffer(MOST_POOLED_BYTES)))
    for (const buffer of large) pool.give(buffer)
    expect(pool.bytes).toBe(bound)
    expect(new Set(large.map(() => pool.take(MOST_POOLED_BYTES)))).toEqual(new Set(large))
  })
})

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, expect, it } from 'vitest'
import { RECORD_HEADER_BYTES, TransactionSpill } from '../../../../connectors/postgres/transaction-spill.ts'
import { ScratchFile } from '../../../../core/capture/scratch-file.ts'
import { runs } from '../../../fixed-seed.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-spill-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function readBack(spill: TransactionSpill): { readonly lengths: number[]; readonly fills: number[]; readonly arrivals: number[]; readonly mostBytes: number } {
  const [lengths, fills, arrivals] = [[] as number[], [] as number[], [] as number[]]
  let mostBytes = 0
  for (const { bytes, view, end } of spill.pieces()) {
    mostBytes = Math.max(mostBytes, bytes.length)
    for (let at = 0; at < end; ) {
      const length = view.getUint32(at)
      arrivals.push(view.getUint32(at + 4))
      at += RECORD_HEADER_BYTES
      const message = bytes.subarray(at, at + length)
      lengths.push(length)
      fills.push(length === 0 ? -1 : message[0]!)
      if (length > 0 && !message.equals(Buffer.alloc(length, message[0]))) throw new Error('a message was torn')
      at += length
    }
  }
  return { lengths, fills, arrivals, mostBytes }
}

it('gives back every message, whatever their sizes, from memory and from its file', () => {
  const size = fc.oneof(
    fc.integer({ min: 1, max: 300 }),
    fc.integer({ min: 1, max: 70_000 }),
    fc.constantFrom(262_136, 262_144, 1_048_568, 1_048_577, 2_500_000),
  )
  fc.assert(
    fc.property(fc.array(size, { maxLength: 60 }), (sizes) => {
      const spill = new TransactionSpill(path.join(dir, 'one'), 7, true)
      sizes.forEach((length, i) => {
        spill.append(Buffer.alloc(length + 9, i % 251), 4, 4 + length, i)
      })
      const back = readBack(spill)
      expect(back.lengths).toEqual(sizes)
      expect(back.fills).toEqual(sizes.map((_, i) => i % 251))
      expect(back.arrivals).toEqual(sizes.map((_, i) => i))
      spill.discard()
      spill.discard()
      expect(readdirSync(dir)).toEqual([])
    }),
    { numRuns: runs(60) },
  )
})

it('holds little of many transactions that are open at once, and loses nothing of any', () => {
  const OPEN = 300
  const spills = Array.from({ length: OPEN }, (_, xid) => new TransactionSpill(path.join(dir, `open-${xid}`), xid, true))
  const lengthOf = (xid: number, round: number) => 500 + ((xid * 31 + round * 17) % 1500)
  let mostHeld = 0
  for (let round = 0; round < 200; round++) {
    for (const { xid } of spills) {
      spills[xid]!.append(Buffer.alloc(lengthOf(xid, round), xid % 251), 0, lengthOf(xid, round), round)
      mostHeld = Math.max(mostHeld, ScratchFile.heldBytes)
    }
  }
  // as much as one of them may grow by beyond what all share
  expect(mostHeld).toBeLessThanOrEqual((8 * 1024 + 256) * 1024)
  for (const spill of spills) {
    const { lengths, fills, arrivals } = readBack(spill)
    expect(lengths).toEqual(Array.from({ length: 200 }, (_, round) => lengthOf(spill.xid, round)))
    expect(new Set(fills)).toEqual(new Set([spill.xid % 251]))
    expect(arrivals).toEqual(Array.from({ length: 200 }, (_, round) => round))
    spill.discard()
  }
  expect(ScratchFile.heldBytes).toBe(0)
  expect(readdirSync(dir)).toEqual([])
})

it('keeps a small transaction in memory, and a large one out of it', () => {
  const small = new TransactionSpill(path.join(dir, 'small'), 1, true)
  for (let i = 0; i < 100; i++) small.append(Buffer.alloc(1000), 0, 1000, 0)
  expect(readdirSync(dir)).toEqual([])
  small.discard()
  const large = new TransactionSpill(path.join(dir, 'large'), 2, true)
  const message = Buffer.alloc(10_000)
  for (let i = 0; i < 2000; i++) large.append(message, 0, message.length, 0)
  expect(large.sizeBytes).toBe(2000 * (10_000 + RECORD_HEADER_BYTES))
  const { lengths, mostBytes } = readBack(large)
  expect(lengths.length).toBe(2000)
  expect(mostBytes).toBeLessThanOrEqual(1024 * 1024)
  large.discard()
})

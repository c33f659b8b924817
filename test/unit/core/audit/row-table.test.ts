import fc from 'fast-check'
import { expect, test } from 'vitest'
import { RowTable, TOO_LARGE } from '../../../../core/audit/row-table.ts'
import { comparePositions, type Position } from '../../../../core/event/position.ts'
import { hashHigh, hashKey, hashLow } from '../../../../core/event/row-hash.ts'

/** Few homes, the first and the last among them, so that runs are long and go round the end. */
const high = fc.constantFrom(0, 1, 2, 0x8000_0000, 0xffff_fffe, 0xffff_ffff)
const low = fc.integer({ min: 0, max: 12 })
const position = fc.record({ commit: fc.constantFrom(0n, 1n, 0x1_0000_0000n, 0x1_0000_0001n), ordinal: fc.constantFrom(0, 1, 0xffff_ffff) })
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('put' as const), high, low, position, sum: fc.nat() }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('delete' as const), high, low }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('deleteBefore' as const), position }) },
)

test('it holds what a map would, whatever collides, goes and comes', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const table = new RowTable(2, 1e6, 0)
      const model = new Map<string, { readonly position: Position; readonly sum: number }>()
      const name = (h: number, l: number) => `${h} ${h === 0 && l === 0 ? 1 : l}`
      for (const one of steps) {
        if (one.do === 'put') {
          expect(table.find(one.high, one.low) >= 0).toBe(model.has(name(one.high, one.low)))
          table.setSum(table.put(one.high, one.low, one.position), 1, one.sum, one.low)
          model.set(name(one.high, one.low), { position: one.position, sum: one.sum })
        } else if (one.do === 'delete') {
          table.delete(one.high, one.low)
          model.delete(name(one.high, one.low))
        } else {
          table.deleteBefore(one.position)
          for (const [key, held] of model) if (comparePositions(held.position, one.position) < 0) model.delete(key)
        }
      }
      const held: [string, number][] = []
      table.each((at, h, l) => held.push([name(h, l), table.sumHigh(at, 1)]))
      expect(held.sort()).toEqual([...model].map(([key, { sum }]) => [key, sum]).sort())
      expect(table.size).toBe(model.size)
    }),
    { numRuns: 500 },
  )
})

test('it grows as far as its memory allows, and says when that is not enough', () => {
  const fill = (maxBytes: number, expected: number): number => {
    const table = new RowTable(1, maxBytes, expected)
    const key = new DataView(new ArrayBuffer(8))
    for (let i = 0; i < 100_000; i++) {
      key.setFloat64(0, i)
      hashKey(key, 0, 8)
      try {
        table.put(hashHigh, hashLow, { commit: 1n, ordinal: i })
      } catch (error) {
        expect(error).toBe(TOO_LARGE)
        return i
      }
    }
    expect(table.size).toBe(100_000)
    return 100_000
  }
  expect(fill(1e8, 0)).toBe(100_000)
  expect(fill(RowTable.bytes(1, 100_000) + 1000, 100_000)).toBe(100_000)
  expect(fill(500_000, 0)).toBeGreaterThan(4000)
  expect(fill(500_000, 0)).toBeLessThan(500_000 / 28)
})

test('hashes of keys, short ones too, are all different', () => {
  const seen = new Set<bigint>()
  const key = new DataView(new ArrayBuffer(12))
  for (let i = 0; i < 300; i++) {
    for (let j = 0; j < 300; j++) {
      key.setInt32(0, i)
      key.setInt32(4, j)
      key.setInt32(8, i * j)
      for (const to of [8, 12]) {
        hashKey(key, 0, to)
        seen.add((BigInt(hashHigh) << 32n) | BigInt(hashLow))
      }
    }
  }
  expect(seen.size).toBe(300 * 300 * 2)
})

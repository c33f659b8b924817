import fc from 'fast-check'
import { expect, test } from 'vitest'
import { KeyTable } from '../../../../../core/log/embedded/key-table.ts'

test('it knows the last offset of each key, as a map does', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 300 }), (keys) => {
      const table = new KeyTable(61)
      const map = new Map<number, bigint>()
      for (const [i, key] of keys.entries()) {
        table.set(Buffer.from(`key ${key}`), BigInt(i))
        map.set(key, BigInt(i))
      }
      expect(table.count).toBe(map.size)
      for (let key = 0; key <= 61; key++) expect(table.last(Buffer.from(`key ${key}`))).toBe(map.get(key) ?? -1n)
    }),
  )
})

test.each([1, 3, 100, 1000])('it takes %i keys before it is full, and still finds what is missing when it is', (keys) => {
  const table = new KeyTable(keys)
  let taken = 0
  for (; !table.isFull; taken++) table.set(Buffer.from(`${taken}`), BigInt(taken))
  expect(taken).toBeGreaterThanOrEqual(keys)
  expect(table.last(Buffer.from('never'))).toBe(-1n)
  for (let i = 0; i < taken; i++) expect(table.last(Buffer.from(`${i}`))).toBe(BigInt(i))
})

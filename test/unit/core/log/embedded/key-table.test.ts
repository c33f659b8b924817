import fc from 'fast-check'
import { expect, test } from 'vitest'
import { KeyTable } from '../../../../../core/log/embedded/key-table.ts'

test('it knows the last offset of each key of each partition, as a map does', () => {
  const set = fc.tuple(fc.constantFrom(0, 1, 2 ** 20, 2 ** 40), fc.integer({ min: 0, max: 20 }))
  fc.assert(
    fc.property(fc.array(set, { maxLength: 300 }), (sets) => {
      const table = new KeyTable(84)
      const map = new Map<string, bigint>()
      for (const [i, [partition, key]] of sets.entries()) {
        table.set(partition, Buffer.from(`key ${key}`), BigInt(i))
        map.set(`${partition} ${key}`, BigInt(i))
      }
      expect(table.count).toBe(map.size)
      for (const partition of [0, 1, 2 ** 20, 2 ** 40, 7]) {
        for (let key = 0; key <= 21; key++) expect(table.last(partition, Buffer.from(`key ${key}`))).toBe(map.get(`${partition} ${key}`) ?? -1n)
      }
    }),
  )
})

test.each([1, 3, 100, 1000])('it takes %i keys before it is full, and still finds what is missing when it is', (keys) => {
  const table = new KeyTable(keys)
  let taken = 0
  for (; !table.isFull; taken++) table.set(1, Buffer.from(`${taken}`), BigInt(taken))
  expect(taken).toBeGreaterThanOrEqual(keys)
  expect(table.last(1, Buffer.from('never'))).toBe(-1n)
  for (let i = 0; i < taken; i++) expect(table.last(1, Buffer.from(`${i}`))).toBe(BigInt(i))
})

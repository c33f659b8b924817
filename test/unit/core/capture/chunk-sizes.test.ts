import { expect, test } from 'vitest'
import { ChunkSizes } from '../../../../core/capture/chunk-sizes.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'

const table = (name: string): TableSchema => ({ namespace: 'public', name, columns: [], key: [] })
const [orders, items] = [table('orders'), table('items')]

test('rows are asked for as the last chunk of the table was large: one at least, and no more than may be', () => {
  const sizes = new ChunkSizes()
  const limits = { maxRows: 1000, maxBytes: 50_000 }
  expect(sizes.rows(orders, limits)).toBe(1000)
  sizes.learn(orders, 10, 2000)
  expect([sizes.rows(orders, limits), sizes.rows(items, limits)]).toEqual([250, 1000])
  sizes.learn(orders, 0, 0)
  expect(sizes.rows(orders, limits)).toBe(250)
  sizes.learn(orders, 1, 1_000_000)
  expect(sizes.rows(orders, limits)).toBe(1)
})

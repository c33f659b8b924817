import { expect, test } from 'vitest'
import { TableList } from '../../../../core/capture/table-list.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'

const table: TableSchema = { namespace: 'public', name: 'orders', columns: [], key: [] }

test('a catalog is looked at no more often than asked for, also by callers at the same moment', async () => {
  let looks = 0
  const look = async () => [{ ...table, name: `look ${++looks}` }]
  const rarely = new TableList(Number.POSITIVE_INFINITY, look)
  const both = await Promise.all([rarely.tables(), rarely.tables()])
  expect([...both, await rarely.tables()].map(([one]) => one!.name)).toEqual(['look 1', 'look 1', 'look 1'])
  const always = new TableList(-1, look)
  expect([await always.tables(), await always.tables()].map(([one]) => one!.name)).toEqual(['look 2', 'look 3'])
})

test('a look that failed is told once, and the next one is a new one', async () => {
  let looks = 0
  const list = new TableList(Number.POSITIVE_INFINITY, async () => {
    if (++looks === 1) throw new Error('away')
    return [table]
  })
  await expect(list.tables()).rejects.toThrow('away')
  expect(await list.tables()).toEqual([table])
})

test('what is known to be outdated is looked at anew, however young it is', async () => {
  let looks = 0
  const list = new TableList(Number.POSITIVE_INFINITY, async () => [{ ...table, name: `look ${++looks}` }])
  await list.tables()
  list.expire()
  expect([await list.tables(), await list.tables()].map(([one]) => one!.name)).toEqual(['look 2', 'look 2'])
})

test('a look that is outdated before it ends is not given to who waits for it, unless that never stops', async () => {
  let looks = 0
  let until = 2
  const list: TableList = new TableList(Number.POSITIVE_INFINITY, async () => {
    const name = `look ${++looks}`
    await null
    if (looks < until) list.expire()
    return [{ ...table, name }]
  })
  expect((await list.tables())[0]!.name).toBe('look 2')
  list.expire()
  until = Number.POSITIVE_INFINITY
  const [last] = await list.tables()
  expect(last!.name).toBe('look 5')
  // nor is it kept
  until = 0
  expect((await list.tables())[0]!.name).toBe('look 6')
})

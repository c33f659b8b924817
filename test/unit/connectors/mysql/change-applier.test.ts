import { expect, test } from 'vitest'
import { EVENT } from '../../../../connectors/mysql/binlog-event.ts'
import { ChangeApplier, type ChangeApplierOptions } from '../../../../connectors/mysql/change-applier.ts'
import { type MillraceError, viewOf } from '../../../../core/plugin.ts'

const event = { place: 'binlog.000001:4' }
const header = (id: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeUIntLE(id, 0, 6)
  return bytes
}
/** Of a table `d.t (a int)`. */
const tableMap = (id: number, name = 't') =>
  Buffer.concat([header(id), Buffer.from([1]), Buffer.from('d\0'), Buffer.from([name.length]), Buffer.from(`${name}\0`), Buffer.from([1, 3, 0, 1])])
const rows = (id: number) => Buffer.concat([header(id), Buffer.from([2, 0, 1, 1, 0, 7, 0, 0, 0])])

test('keeps table maps of a few tables only, and always those of the transaction at hand', () => {
  const output = { tablesVersion: 0 }
  const applier = new ChangeApplier({ flavor: 'mysql', output, isCaptured: () => false } as unknown as ChangeApplierOptions)
  const map = (id: number) => applier.tableMap(tableMap(id), 0, tableMap(id).length, event)
  const apply = (id: number) => applier.rows(EVENT.writeRows, rows(id), viewOf(rows(id)), 0, rows(id).length, event)
  const begin = (commit: bigint) => applier.begin({ commit, committedAt: 0n, source: [] })
  begin(1n)
  for (let id = 1; id <= 2000; id++) map(id)
  expect(apply(1)).toBeUndefined()
  begin(2n)
  map(2001)
  expect(apply(2001)).toBeUndefined()
  expect(() => apply(1)).toThrow(expect.objectContaining<Partial<MillraceError>>({ code: 'source.protocol' }))
})

test('keeps the last table map of each captured table, however many there are', () => {
  const output = { tablesVersion: 0 }
  const describe = () => new Promise(() => {})
  const applier = new ChangeApplier({ flavor: 'mysql', output, isCaptured: () => true, describe } as unknown as ChangeApplierOptions)
  const map = (id: number, name: string) => applier.tableMap(tableMap(id, name), 0, tableMap(id, name).length, event)
  const apply = (id: number) => applier.rows(EVENT.writeRows, rows(id), viewOf(rows(id)), 0, rows(id).length, event)
  const begin = (commit: bigint) => applier.begin({ commit, committedAt: 0n, source: [] })
  begin(1n)
  for (let id = 1; id <= 3000; id++) map(id, `t${id % 1500}`)
  begin(2n)
  // described as they are met, which waits here
  expect(apply(1501)).toBeInstanceOf(Promise)
  expect(apply(3000)).toBeInstanceOf(Promise)
  expect(() => apply(1500)).toThrow(expect.objectContaining<Partial<MillraceError>>({ code: 'source.protocol' }))
})

test('a table of a type that is not known stops no other: it is left out, or parked when it is captured', async () => {
  const parked = new Map<string, unknown>()
  let skipped = 0
  const output = {
    tablesVersion: 0,
    transaction: () => {},
    park: ({ name }: { name: string }, error: unknown) => parked.set(name, error),
    skip: () => skipped++,
  }
  const isCaptured = (_: string, name: string) => name === 'u'
  const applier = new ChangeApplier({ flavor: 'mysql', output, isCaptured } as unknown as ChangeApplierOptions)
  // its metadata may have any length
  const unknown = (id: number, name: string) => {
    const map = tableMap(id, name)
    return Buffer.concat([map.subarray(0, -3), Buffer.from([20, 3, 1, 2, 3, 1])])
  }
  applier.begin({ commit: 1n, committedAt: 0n, source: [] })
  for (const [id, name] of [
    [1, 't'],
    [2, 'u'],
  ] as const) {
    const map = unknown(id, name)
    applier.tableMap(map, 0, map.length, event)
    await applier.rows(EVENT.writeRows, rows(id), viewOf(rows(id)), 0, rows(id).length, event)
  }
  expect([...parked]).toEqual([
    ['u', expect.objectContaining({ code: 'source.schema_unsupported', message: expect.stringContaining('d.u have a column of type 20') })],
  ])
  expect(skipped).toBe(1)
})

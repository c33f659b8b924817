import { expect, test } from 'vitest'
import type { ChangeWriter, SourceConnector } from '../../../../core/capture/source-connector.ts'
import type { Json } from '../../../../core/event/offset.ts'
import { INT, insert, read, Store, table } from './captured-store.ts'

test('a table without a key is read once, whatever tells that existing rows read differently: a list, a change, the source', async () => {
  const store = new Store()
  const [before, now] = [
    { ...table('t', INT), key: [] },
    { ...table('t', { kind: 'int64' }), key: [] },
  ]
  let listed = before
  let asked = 0
  const source: Partial<SourceConnector> = {
    tables: async () => [listed],
    isRewritten: async () => {
      asked++
      return true
    },
  }
  await store.run(async function* (output, transaction) {
    await read(output, 1)
    yield
    transaction()
    output.reread(before)
    yield
  }, source)
  listed = now
  await store.run(async function* (output, transaction) {
    yield
    transaction()
    const writer = (await output.table(now))!
    expect(writer.begin('c', 1)).toBe(true)
    writer.after()
    writer.int(2)
    writer.long(20)
    writer.end()
    yield
    expect(output.chunks.size).toBe(0)
  }, source)
  expect(asked).toBe(2)
  expect(store.progress.get('snapshot/public.t')).toMatchObject({ done: true, rows: 1 })
  expect(store.progress.get('shape/public.t')).toEqual(now)
  // the row that was read, and the change
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.t': 2 })
})

test('who wants no existing rows has a table read all the same when existing rows read differently, since the log has some of them', async () => {
  const store = new Store()
  store.mode = 'never'
  await store.run(
    async function* (output, transaction) {
      transaction()
      expect(await insert(output, table('u', INT), 1)).toBe(true)
      yield
      expect(output.chunks.size).toBe(0)
    },
    { tables: async () => [table('u', INT)] },
  )
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.u': 1 })
  const now = table('u', { kind: 'int64' })
  await store.run(
    async function* (output) {
      await read(output, 1)
      yield
    },
    {
      tables: async () => [now],
      snapshot: {
        estimate: async () => 2,
        async read(of, _cursor, _limits, onView) {
          onView(null)
          const write = (to: ChangeWriter, beginRow: () => void, endRow: () => void) => {
            for (const id of [1, 2]) {
              beginRow()
              to.int(id)
              to.long(10)
              endRow()
            }
          }
          return { rows: 2, next: null, fence: null, readAt: 5n, table: of, write }
        },
        sees: () => true,
      },
    },
  )
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.u': 1 + 2 })
  expect(store.progress.get('snapshot/public.u')).toMatchObject({ done: true, rows: 2 })
  expect(store.progress.get('shape/public.u')).toEqual(now)
})

test('a part that is read alone leaves the place up to which the whole was read as it is, also after a restart', async () => {
  const store = new Store()
  const entry = () => store.progress.get('snapshot/public.t') as { done: boolean; at?: Json }
  const one = { tables: async () => [table('t', INT)] }
  const withPart: Partial<SourceConnector> = {
    ...one,
    parts: async (_table, before) => (before === null ? { now: 1, came: { part: 7 }, left: false } : null),
  }
  await store.run(async function* (output) {
    await read(output, 1)
    yield
  }, one)
  const { at } = entry()
  expect(entry()).toEqual({ done: true, rows: 1, at: { commit: '0', ordinal: 0x8000_0000 } })
  await store.run(async function* (_output, transaction) {
    transaction()
    yield
    while (entry().done) await new Promise((resolve) => setImmediate(resolve))
  }, withPart)
  expect(entry()).toEqual({ done: false, next: { part: 7 }, rows: 1, part: true, at })
  await store.run(async function* (output) {
    await read(output, 1)
    yield
  }, withPart)
  expect(entry()).toEqual({ done: true, rows: 2, at })
})

test('a table whose existing rows read differently is read again, and that it is to be read lands with the offset that is past it', async () => {
  const store = new Store()
  const one = { tables: async () => [table('t', INT)] }
  await store.run(async function* (output, transaction) {
    await read(output, 1)
    yield
    transaction()
    output.reread({ namespace: 'public', name: 't' })
    output.reread({ namespace: 'public', name: 'unknown' })
    yield
  }, one)
  expect([store.progress.get('offset'), store.progress.get('snapshot/public.t')]).toEqual([{ at: 1 }, { done: false, next: null, rows: 0 }])
  await store.run(async function* (output) {
    await read(output, 1)
    yield
  }, one)
  expect(store.progress.get('snapshot/public.t')).toMatchObject({ done: true, rows: 1 })
  expect(store.counts.get('n.public.t')).toBe(2)
})

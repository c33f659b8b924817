import { expect, test } from 'vitest'
import { ChunkedSnapshot, type RowReadWriter } from '../../../../core/capture/chunked-snapshot.ts'
import type { SnapshotReader } from '../../../../core/capture/source-connector.ts'
import { type TableSchema, tableId } from '../../../../core/event/table-schema.ts'

test('a table that is not ready holds up neither the stream nor the reading of others', async () => {
  const tables = ['late', 'other'].map((name): TableSchema => ({ namespace: 'public', name, columns: [], key: [] }))
  let isReady = false
  const read: string[] = []
  const waiting = Promise.withResolvers<void>()
  const gone = new Error('the chunk is never read')
  const reader: SnapshotReader = {
    estimate: async () => null,
    async isReady({ name }) {
      if (name === 'late') waiting.resolve()
      return name !== 'late' || isReady
    },
    async read(table) {
      read.push(table.name)
      throw gone
    },
    sees: () => true,
  }
  const stop = new AbortController()
  const failed: string[] = []
  const snapshot = new ChunkedSnapshot(
    reader,
    { mode: 'initial', chunkRows: 1, chunkBytes: 1, parallel: 1 },
    () => Promise.reject(gone),
    () => false,
    () => ({ commit: 0n, ordinal: 0 }),
    () => true,
  )
  for (const table of tables) snapshot.add(table, new Map())
  const both = new Promise<void>((resolve) => {
    snapshot.start(stop.signal, (_error, table) => {
      failed.push(tableId(table))
      if (failed.length === 2) resolve()
      // read after the one that could not be read yet, though there is one turn only
      else isReady = true
    })
  })
  await waiting.promise
  // nothing of it is pending, for which the stream would stop
  expect(snapshot.size).toBe(0)
  await both
  expect(failed).toEqual(['public.other', 'public.late'])
  expect(read).toEqual(['other', 'late'])
  stop.abort()
})

test('a table that is to be read again as its last chunk is written is read whole, and its parts with it', async () => {
  const table: TableSchema = { namespace: 'public', name: 't', columns: [], key: [] }
  const cursors: unknown[] = []
  const reader: SnapshotReader = {
    estimate: async () => null,
    async read(of, cursor, _limits, onView) {
      cursors.push(cursor)
      onView(null)
      return { rows: 1, next: null, fence: null, readAt: 0n, table: of, write() {} }
    },
    sees: () => true,
  }
  let cleared = 0
  const stop = new AbortController()
  const snapshot = new ChunkedSnapshot(
    reader,
    { mode: 'initial', chunkRows: 1, chunkBytes: 1, parallel: 1 },
    async () => ({ clear: () => void cleared++ }) as unknown as RowReadWriter,
    () => false,
    () => ({ commit: 0n, ordinal: 0 }),
    () => true,
  )
  let told = 0
  snapshot.onWaiting = () => void told++
  snapshot.add(table, new Map())
  snapshot.start(stop.signal, (error) => {
    throw error
  })
  // told of the chunk as it begins to be read, and when it is there
  while (told < 2) await new Promise((resolve) => setImmediate(resolve))
  snapshot.readPart(table, { part: 1 })
  expect(snapshot.emit(() => true)).toBeNull()
  snapshot.reread(table, true)
  while (!snapshot.done) {
    await snapshot.emit(() => true)
    await new Promise((resolve) => setImmediate(resolve))
  }
  stop.abort()
  expect(cursors).toEqual([null, null])
  expect(cleared).toBe(1)
})

import { expect, test } from 'vitest'
import { ChunkedSnapshot } from '../../../../core/capture/chunked-snapshot.ts'
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

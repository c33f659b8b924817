import { expect, test } from 'vitest'
import { ChunkedSnapshot, type RowReadWriter } from '../../../../core/capture/chunked-snapshot.ts'
import type { PreparedRead, SnapshotReader } from '../../../../core/capture/source-connector.ts'
import { MillraceError } from '../../../../core/errors.ts'
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

const tableNamed = (name: string): TableSchema => ({ namespace: 'public', name, columns: [], key: [] })

/** Tables of two chunks each, `cursor` null and 1; `prepare` decides what comes before them. */
class PreparedTables implements SnapshotReader {
  readonly prepared: string[] = []
  readonly chunks: string[] = []
  /** Prepared reads that are not disposed of, and those that are. */
  open = 0
  givenBack = 0
  beforeRead: (of: string) => void = () => {}
  readonly #prepare: (name: string, signal: AbortSignal) => Promise<void>

  constructor(prepare: (name: string, signal: AbortSignal) => Promise<void>) {
    this.#prepare = prepare
  }

  async estimate(): Promise<null> {
    return null
  }

  async prepare({ name }: TableSchema, signal: AbortSignal): Promise<PreparedRead> {
    this.prepared.push(name)
    await this.#prepare(name, signal)
    this.open++
    return {
      read: async (table, cursor, _limits, onView) => {
        onView(null)
        this.beforeRead(`${table.name} ${cursor}`)
        this.chunks.push(`${table.name} ${cursor}`)
        return { rows: 1, next: cursor === null ? 1 : null, fence: null, readAt: 0n, table, write() {} }
      },
      [Symbol.asyncDispose]: async () => {
        this.open--
        this.givenBack++
      },
    }
  }

  read(): never {
    throw new Error('read unprepared')
  }

  sees(): boolean {
    return true
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** A snapshot beside a stream that always takes what is due. */
function running(reader: SnapshotReader, names: readonly string[], parallel: number) {
  const stop = new AbortController()
  const failures: unknown[] = []
  const snapshot = new ChunkedSnapshot(
    reader,
    { mode: 'initial', chunkRows: 1, chunkBytes: 1, parallel },
    async () => ({ clear() {} }) as unknown as RowReadWriter,
    () => false,
    () => ({ commit: 0n, ordinal: 0 }),
    () => true,
  )
  for (const name of names) snapshot.add(tableNamed(name), new Map())
  snapshot.start(stop.signal, (error) => failures.push(error))
  const isDone = (name: string) => snapshot.status().some(({ table, done }) => table === `public.${name}` && done)
  const streamUntil = async (condition: () => boolean) => {
    while (!condition()) {
      expect(failures).toEqual([])
      await snapshot.emit(() => true)
      await turn()
    }
  }
  return { snapshot, stop, failures, isDone, streamUntil }
}

test('while a table is prepared, the stream and the reading of others go on', async () => {
  const lock = Promise.withResolvers<void>()
  const reader = new PreparedTables((name) => (name === 'locked' ? lock.promise : Promise.resolve()))
  const { snapshot, stop, isDone, streamUntil } = running(reader, ['locked', 'other'], 2)
  await streamUntil(() => isDone('other'))
  expect(reader.chunks).toEqual(['other null', 'other 1'])
  // nothing of it is pending, for which the stream would stop
  expect(reader.prepared).toContain('locked')
  expect(snapshot.size).toBe(0)
  expect(snapshot.emit(() => true)).toBeNull()
  lock.resolve()
  await streamUntil(() => snapshot.done)
  expect(reader.chunks.slice(2)).toEqual(['locked null', 'locked 1'])
  expect(reader.open).toBe(0)
  stop.abort()
})

test.each(['prepared', 'read'])('a table that is found locked as it is %s is read on once others had their turn', async (when) => {
  const error = new MillraceError('source.locked', 'it is locked')
  let refusals = 0
  const refuse = () => {
    refusals++
    throw error
  }
  const reader: PreparedTables = new PreparedTables(async (name) => {
    if (when === 'prepared' && name === 'locked' && reader.chunks.length > 0 && !isDone('other')) refuse()
  })
  reader.beforeRead = (of) => {
    if (when === 'read' && of === 'locked 1' && !isDone('other')) refuse()
  }
  const { snapshot, stop, isDone, streamUntil } = running(reader, ['locked', 'other'], 1)
  await streamUntil(() => snapshot.done)
  expect(refusals).toBe(1)
  expect(reader.chunks).toEqual(['locked null', 'other null', 'other 1', 'locked 1'])
  expect(snapshot.status().map(({ rows }) => rows)).toEqual([2, 2])
  expect(reader.open).toBe(0)
  stop.abort()
})

test('a table that is dropped while it is prepared is not read, and the others are', async () => {
  const lock = Promise.withResolvers<void>()
  const reader = new PreparedTables((name) => (name === 'locked' ? lock.promise : Promise.resolve()))
  const { snapshot, stop, streamUntil } = running(reader, ['locked', 'other'], 1)
  await streamUntil(() => reader.prepared.includes('locked'))
  snapshot.drop('public.locked')
  lock.resolve()
  await streamUntil(() => snapshot.done)
  expect(reader.chunks).toEqual(['other null', 'other 1'])
  expect(reader.open).toBe(0)
  stop.abort()
})

test('a table that is prepared while everything stops is given back unread', async () => {
  const stopped = Promise.withResolvers<void>()
  const reader = new PreparedTables(async (_name, signal) => {
    signal.addEventListener('abort', () => stopped.resolve(), { once: true })
    await stopped.promise
  })
  const { snapshot, stop, failures, streamUntil } = running(reader, ['locked'], 1)
  await streamUntil(() => reader.prepared.length > 0)
  stop.abort()
  await streamUntil(() => reader.givenBack > 0)
  expect(reader.chunks).toEqual([])
  expect(reader.open).toBe(0)
  expect(snapshot.size).toBe(0)
  expect(failures).toEqual([])
})

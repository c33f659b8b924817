import { expect, test } from 'vitest'
import type { TableWriter } from '../../../../core/capture/change-writer.ts'
import { ChunkedSnapshot } from '../../../../core/capture/chunked-snapshot.ts'
import type { ChangeWriter, SnapshotReader, SourceConnector } from '../../../../core/capture/source-connector.ts'
import { readAnew } from '../../../../core/capture/start-over.ts'
import { TableIntake } from '../../../../core/capture/table-intake.ts'
import { MillraceError } from '../../../../core/errors.ts'
import type { Json } from '../../../../core/event/offset.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'
import { INT, insert, parkedStore, read, type Script, Store, TEXT, table } from './captured-store.ts'

test('a table whose schema the registry refuses is parked durably with its cause, the others go on', async () => {
  const store = await parkedStore()
  expect(store.counts).toEqual(
    new Map([
      ['n.public.t', 2],
      ['n.public.u', 2],
    ]),
  )
  const fix = 'undo it; then `millrace resnapshot FILE n/public.t`'
  expect(store.progress.get('parked/public.t')).toMatchObject({ code: 'schema.incompatible', message: 'int was promised', fix, skipped: 2 })
  expect(store.progress.get('snapshot/public.t')).toEqual({ done: false, next: null, rows: 0, clear: true })
  await store.run(async function* (output, transaction) {
    transaction()
    expect(await insert(output, table('t', INT), 1)).toBe(false)
    expect(await insert(output, table('u', INT), 3)).toBe(true)
    yield
  })
  expect(store.progress.get('parked/public.t')).toMatchObject({ skipped: 3 })
  expect(store.counts.get('n.public.u')).toBe(3)
})

test('a released table leaves out what nobody can write until it is read, and does not park again', async () => {
  const store = await parkedStore()
  expect(readAnew(store.progress, 'public.none')).toBeNull()
  store.keep(readAnew(store.progress, 'public.t')!)
  await store.run(async function* (output, transaction) {
    transaction()
    expect(await insert(output, table('t', TEXT), 1)).toBe(false)
    expect(await insert(output, table('u', INT), 3)).toBe(true)
    yield
    const version = output.tablesVersion
    await read(output, 1)
    expect(output.tablesVersion).toBeGreaterThan(version)
    transaction()
    expect(await insert(output, table('t', INT), 1)).toBe(true)
    yield
  })
  expect(store.progress.has('parked/public.t')).toBe(false)
  expect(store.progress.get('snapshot/public.t')).toMatchObject({ done: true, rows: 1 })
  // a truncation, the row that was read, and the change after it
  expect(store.counts.get('n.public.t')).toBe(2 + 3)
  await store.run(async function* (output, transaction) {
    transaction()
    // once it is read, it can be parked again
    expect(await insert(output, table('t', TEXT), 1)).toBe(false)
    yield
  })
  expect(store.progress.get('parked/public.t')).toMatchObject({ skipped: 1 })
})

// I10

test('a change that cannot be written parks its table and no other, with what came before it and none of what follows', async () => {
  const store = new Store()
  await store.run(async function* (output, transaction) {
    await read(output, 2)
    yield
    transaction()
    const [t, u] = [(await output.table(table('t', INT)))!, (await output.table(table('u', INT)))!]
    const change = (writer: ChangeWriter, ordinal: number, value: () => void) => {
      if (!writer.begin('c', ordinal)) return false
      writer.after()
      writer.int(ordinal)
      value()
      writer.end()
      return true
    }
    expect(change(t, 1, () => t.int(1))).toBe(true)
    const version = output.tablesVersion
    // the source gives what it has, and knows of nothing
    expect(change(t, 3, () => t.special('infinity'))).toBe(true)
    expect(output.tablesVersion).toBeGreaterThan(version)
    expect(change(u, 5, () => u.int(1))).toBe(true)
    expect(change(t, 7, () => t.int(1))).toBe(false)
    t.truncate(9)
    yield
  })
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.t': 2, 'n.public.u': 2 })
  expect(store.progress.get('parked/public.t')).toMatchObject({
    code: 'record.unrepresentable',
    message: 'public.t.value (of int32) holds a value that its Avro type cannot',
    fix: expect.stringMatching(/unrepresentable: text.*; then `millrace resnapshot FILE n\/public\.t`/),
    skipped: 3,
  })
  // corrected, it is read anew after a truncation; changes from before that reading need not be writable
  store.keep(readAnew(store.progress, 'public.t')!)
  await store.run(async function* (output, transaction) {
    transaction()
    const t = (await output.table(table('t', INT)))!
    expect(t.begin('d', 1)).toBe(true)
    t.key()
    t.null()
    t.end()
    yield
    await read(output, 1)
    yield
    transaction()
    expect(await insert(output, table('t', INT), 1)).toBe(true)
    yield
  })
  expect(store.progress.has('parked/public.t')).toBe(false)
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.t': 2 + 3, 'n.public.u': 2 })
})

test('a row that cannot be written parks its table while it is read, and the stream goes on at once', async () => {
  const store = new Store()
  await store.run(
    async function* (output, transaction) {
      await read(output, 2)
      yield
      transaction()
      expect(await insert(output, table('t', INT), 1)).toBe(false)
      expect(await insert(output, table('u', INT), 3)).toBe(true)
      yield
    },
    {
      snapshot: {
        estimate: async () => 2,
        async read(of, cursor, _limits, onView) {
          onView(null)
          const write = (to: ChangeWriter, beginRow: () => void, endRow: () => void) => {
            beginRow()
            if (of.name === 't') to.null()
            else to.int(1)
            to.int(10)
            endRow()
          }
          return { rows: 1, next: cursor === null && of.name === 't' ? 1 : null, fence: null, readAt: 5n, table: of, write }
        },
        sees: () => true,
      },
    },
  )
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.u': 2 })
  expect(store.progress.get('parked/public.t')).toMatchObject({ code: 'record.null_key', skipped: expect.any(Number) })
  expect(store.progress.get('snapshot/public.t')).toEqual({ done: false, next: null, rows: 0, clear: true })
})

test('a record that the log refuses parks its table, and the next start goes on without it', async () => {
  const store = new Store()
  const both: Script = async function* (output, transaction) {
    transaction()
    await insert(output, table('u', INT), 1)
    await insert(output, table('t', INT), 3)
    yield
  }
  const one: Partial<SourceConnector> = { tables: async () => [table('u', INT)] }
  expect(await store.run(both, one, 'n.public.t')).toBe('parked')
  expect([store.counts.size, store.progress.get('offset')]).toEqual([0, { at: 0 }])
  expect(store.progress.get('parked/public.t')).toMatchObject({
    code: 'record.too_large',
    fix: 'raise it; then `millrace resnapshot FILE n/public.t`',
    position: { commit: '0', ordinal: 0 },
  })
  expect(store.progress.get('snapshot/public.t')).toEqual({ done: false, next: null, rows: 0, clear: true })
  expect(await store.run(both, one, 'n.public.t')).toBe('stopped')
  expect(Object.fromEntries(store.counts)).toEqual({ 'n.public.u': 1 })
  expect(store.progress.get('parked/public.t')).toMatchObject({ skipped: 1 })
  expect(store.progress.get('offset')).toEqual({ at: 1 })
})

test('a table that cannot be captured as it is, is named while that lasts, and leaves no trace', async () => {
  const store = new Store()
  const error = new MillraceError('source.no_identity', 'bare has no key', { fix: 'add one' })
  const bare = { unfit: () => [{ table: { namespace: 'public', name: 'bare' }, error }], tables: async () => [table('u', INT)] }
  const rest: Script = async function* () {
    yield
  }
  const reading: Script = async function* (output) {
    await read(output, 1)
    yield
  }
  await store.run(reading, bare)
  expect(store.progress.get('parked/public.bare')).toMatchObject({ code: 'source.no_identity', fix: 'add one', skipped: 0 })
  // nobody can read it yet: it is named again
  expect(Object.fromEntries(readAnew(store.progress, 'public.bare')!)).toEqual({ 'parked/public.bare': null })
  store.keep(readAnew(store.progress, 'public.bare')!)
  await store.run(rest, bare)
  expect(store.progress.has('parked/public.bare')).toBe(true)
  // it has a key now, and is read without a truncation
  await store.run(reading, { unfit: () => [], tables: async () => [table('u', INT), table('bare', INT)] })
  expect(store.progress.has('parked/public.bare')).toBe(false)
  expect(store.counts.get('n.public.bare')).toBe(1)
  const gone = { unfit: () => [{ table: { namespace: 'public', name: 'gone' }, error }], tables: async () => [table('u', INT)] }
  await store.run(rest, gone)
  expect(store.progress.has('parked/public.gone')).toBe(true)
  await store.run(rest, { ...gone, unfit: () => [] })
  expect([...store.progress.keys()].filter((entry) => entry.endsWith('/public.gone'))).toEqual([])
})

test('a table that is gone before anything of it was captured is forgotten; one that left rows is parked', async () => {
  const gone = new MillraceError('source.table_gone', 'public.t does not exist', { fix: 'create it' })
  const read: SourceConnector['snapshot']['read'] = async (of, _cursor, _limits, onView) => {
    if (of.name === 't') throw gone
    onView(null)
    return { rows: 0, next: null, fence: null, readAt: 5n, table: of, write: () => {} }
  }
  const failing = { snapshot: { estimate: async () => 1, read, sees: () => true }, whyAbsent: async () => 'was dropped' }
  const untilRead: Script = async function* (output) {
    while (output.chunks.size < 1) await new Promise((resolve) => setImmediate(resolve))
    await output.chunks.emit(() => true)
    yield
  }
  const store = new Store()
  await store.run(untilRead, failing)
  expect(store.progress.get('snapshot/public.u')).toMatchObject({ done: true })
  expect(store.progress.has('parked/public.t')).toBe(false)
  // not in the list any more
  await store.run(untilRead, { ...failing, tables: async () => [table('u', INT), table('v', INT)] })
  expect(store.progress.get('snapshot/public.v')).toMatchObject({ done: true })
  expect(store.progress.has('parked/public.t')).toBe(false)

  const other = await parkedStore()
  other.progress.delete('parked/public.t')
  await other.run(
    async function* () {
      yield
    },
    { ...failing, tables: async () => [table('u', INT)] },
  )
  expect(other.progress.get('parked/public.t')).toMatchObject({ code: 'source.table_gone' })
})

test('two tables that share an id, by the dots in their names, are parked, both and no other, until one is renamed', async () => {
  const store = new Store()
  const [one, other, third] = [{ ...table('c', INT), namespace: 'a.b' }, { ...table('b.c', INT), namespace: 'a' }, table('u', INT)]
  const inserts: Script = async function* (output, transaction) {
    await read(output, 1)
    yield
    transaction()
    for (const [n, of] of [one, other, third].entries()) await insert(output, of, 2 * n + 1)
    yield
  }
  await store.run(inserts, { tables: async () => [one, other, third] })
  expect(store.progress.get('parked/a.b.c')).toMatchObject({
    code: 'source.schema_unsupported',
    message: expect.stringContaining('"a.b"."c" and "a"."b.c"'),
    fix: expect.stringMatching(/rename one.*millrace resnapshot FILE n\/a\.b\.c/),
    skipped: 2,
  })
  expect([...store.counts]).toEqual([['n.public.u', 2]])
  store.keep(readAnew(store.progress, 'a.b.c')!)
  const reading: Script = async function* (output) {
    await read(output, 1)
    yield
  }
  await store.run(reading, { tables: async () => [other, third] })
  expect(store.progress.has('parked/a.b.c')).toBe(false)
  // a truncation and its row: what came before the other was made may be there
  expect(store.counts.get('n.a.b__x2e_c')).toBe(2)
})

test.for([
  ['anew, after a truncation', true],
  ['again', false],
] as const)('a table that changes while its first rows, read %s, wait for their place is read once more, without a change in the stream', async ([, anew]) => {
  const [before, now] = [
    table('t', INT),
    { ...table('t', INT), columns: [...table('t', INT).columns, { ...table('t', INT).columns[1]!, id: 3, name: 'added' }] },
  ]
  let shape: TableSchema = before
  const reads: TableSchema[] = []
  const reader: SnapshotReader = {
    estimate: async () => 1,
    async read(_table, _cursor, _limits, onView) {
      onView(null)
      reads.push(shape)
      return { rows: 1, next: null, fence: null, readAt: 5n, table: shape, write() {} }
    },
    sees: () => true,
  }
  const progress = new Map<string, Json>([
    ['snapshot/public.t', { done: false, next: null, rows: 0, ...(anew ? { clear: true } : {}) }],
    ['shape/public.t', before as unknown as Json],
  ])
  const position = () => ({ commit: 0n, ordinal: 0 })
  const stop = new AbortController()
  const snapshot: ChunkedSnapshot = new ChunkedSnapshot(
    reader,
    { mode: 'initial', chunkRows: 1, chunkBytes: 1, parallel: 1 },
    (of) => intake.chunkWriter(of),
    (_readAt, first) => first !== null && intake.beforeReading(first),
    position,
    () => true,
  )
  const intake = new TableIntake({
    node: 'n',
    connector: { isRewritten: async () => true, whyAbsent: async () => null },
    progress,
    snapshot,
    writerFor: async () => ({ clear() {} }) as unknown as TableWriter,
    position,
    compacted: false,
  })
  let told = 0
  snapshot.onWaiting = () => void told++
  snapshot.start(stop.signal, (error) => {
    throw error
  })
  await intake.take([before])
  while (told < 2) await new Promise((resolve) => setImmediate(resolve))
  // the list is ahead of the stream, which has not come to the chunk yet
  shape = now
  await intake.take([now])
  await snapshot.emit(() => true)
  await intake.take([now])
  while (!snapshot.done) {
    await snapshot.emit(() => true)
    await new Promise((resolve) => setImmediate(resolve))
  }
  stop.abort()
  expect(reads).toEqual([before, now])
})

test('an error that is not of one table ends the capture', async () => {
  const run = new Store().run(async function* (output) {
    output.park(table('t', INT), new MillraceError('source.protocol', 'bytes'))
    yield
  })
  await expect(run).rejects.toMatchObject({ code: 'source.protocol' })
})

/** Rows 1 to 4 of a table, of which 3 and 4 lie in a part that comes, is read in chunks of one row, and leaves. */
test.for([false, true])('a part that comes is read alone, also after a crash (%s); when it leaves, the table is read anew', async (crashes) => {
  const store = new Store()
  const reads: Json[] = []
  const connector = {
    snapshot: {
      estimate: async () => 1,
      async read(of: TableSchema, cursor: Json | null, _limits: unknown, onView: (fence: unknown) => void) {
        const at = cursor === null ? 1 : (cursor as { at: number }).at
        onView(at)
        reads.push(cursor)
        const last = cursor === null ? 2 : (cursor as { last: number }).last
        const write = (to: ChangeWriter, beginRow: () => void, endRow: () => void) => {
          for (let id = at; id <= (cursor === null ? last : at); id++) {
            beginRow()
            to.int(id)
            to.int(id)
            endRow()
          }
        }
        return { rows: 1, next: cursor === null || at === last ? null : { at: at + 1, last }, fence: at, readAt: 5n, table: of, write }
      },
      sees: () => true,
    },
    tables: async () => [table('u', INT)],
  }
  const parts = (now: Json, came: Json | null, left: boolean) => async (_: unknown, before: Json | null) =>
    JSON.stringify(before) === JSON.stringify(now)
      ? { now, came: null, left: false }
      : { now, came: before === null ? null : came, left: before !== null && left }
  const settle: Script = async function* (output) {
    for (let i = 0; i < 100; i++) {
      await output.chunks.emit(() => true)
      await new Promise((resolve) => setImmediate(resolve))
      yield
    }
  }
  const rowsOf = () => store.counts.get('n.public.u')
  await store.run(settle, { ...connector, parts: parts(['a'], null, false) } as never)
  expect([rowsOf(), store.progress.get('parts/public.u'), reads]).toEqual([2, ['a'], [null]])
  const came = parts(['a', 'b'], { at: 3, last: 4 }, false)
  if (crashes) {
    // the first chunk is written, and the second not any more
    await store.run(
      async function* (output) {
        while ((rowsOf() ?? 0) < 3) {
          await output.chunks.emit((fence) => fence === 3)
          await new Promise((resolve) => setImmediate(resolve))
          yield
        }
      },
      { ...connector, parts: came } as never,
    )
    expect(store.progress.get('snapshot/public.u')).toMatchObject({ done: false, next: { at: 4, last: 4 } })
  }
  await store.run(settle, { ...connector, parts: came } as never)
  expect([rowsOf(), store.progress.get('parts/public.u')]).toEqual([4, ['a', 'b']])
  expect(reads.slice(0, 3)).toEqual([null, { at: 3, last: 4 }, { at: 4, last: 4 }])
  expect(store.progress.get('snapshot/public.u')).toMatchObject({ done: true, rows: 3 })
  await store.run(settle, { ...connector, parts: parts(['a'], null, true) } as never)
  // a truncation, and the rows of the whole table
  expect([rowsOf(), store.progress.get('parts/public.u'), reads.at(-1)]).toEqual([7, ['a'], null])
  await store.run(settle, { ...connector, parts: parts(['a'], null, true) } as never)
  expect(rowsOf()).toBe(7)
})

import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import fc from 'fast-check'
import { pino } from 'pino'
import { afterEach, expect, test, vi } from 'vitest'
import plugin, { type SearchConfig } from '../../../../connectors/search/index.ts'
import { openIndexFile, readIndexFile } from '../../../../connectors/search/index-file.ts'
import { type SearchOptions, searchIndex, wordsQuery } from '../../../../connectors/search/search-index.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'
import { History, ITEMS, targetRows } from '../../../../testing/sink-history.ts'
import { shutOut } from '../shut-out.ts'

const opened: (() => PromiseLike<void> | void)[] = []
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close()
})

const still = new AbortController().signal

async function products(settings: Partial<SearchConfig> = {}, table: TableSchema = ITEMS) {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-search-'))
  opened.push(() => rmSync(dir, { recursive: true, force: true }))
  if (plugin.kind !== 'sink') throw new Error('search is a sink')
  const context = { mesh: 'm', node: 'search', dataDir: dir, logger: pino({ enabled: false }), metric: () => {} }
  const open = async (target = { topic: 'shop.public.items', namespace: 'public', table: 'items' }) => {
    const sink = await plugin.open(plugin.config.parse(settings), context, target)
    opened.push(() => sink[Symbol.asyncDispose]())
    return sink
  }
  const sink = await open()
  await sink.prepare(table)
  const history = new History(table)
  await sink.apply(
    history.batch([
      history.put('c', [1n, 'red shoe', 'a shoe for running, very red', 1, 1000n]),
      history.put('c', [2n, 'blue shoe', "for the café; it's light", 1, 1000n]),
      history.put('c', [2n ** 60n, 'green hat', 'e-mail us: "AND" OR', 1, 1000n]),
    ]),
    still,
  )
  const file = path.join(dir, 'search.db')
  const find = (query: string, options: SearchOptions = {}) => searchIndex(file, settings.index ?? 'items', query, options)
  return { dir, file, sink, history, find, open, context }
}

const ids = (hits: ReturnType<typeof searchIndex>) => hits.map((hit) => hit.key.id)

test('finds rows by words, best first, with snippets and exact keys', async () => {
  const { find } = await products()
  const hits = find('shoe red')
  expect(hits).toEqual([{ key: { id: '1' }, snippet: expect.stringMatching(/\[shoe\]|\[red\]/), score: expect.any(Number) }])
  expect(ids(find('shoe')).sort()).toEqual(['1', '2'])
  expect(ids(find('shoe', { limit: 1 }))).toHaveLength(1)
  expect(find('hat')[0]!.key).toEqual({ id: '1152921504606846976' })
  expect(ids(find('CAFE'))).toEqual(['2'])
  expect(ids(find('sho*')).sort()).toEqual(['1', '2'])
  expect(find('nothing')).toEqual([])
})

test('follows updates, deletes and truncation', async () => {
  const { sink, history, find } = await products()
  await sink.apply(history.batch([history.put('u', [1n, 'red boot', 'a boot', 1, 1n]), history.delete(2n)]), still)
  expect(find('shoe')).toEqual([])
  expect(ids(find('boot'))).toEqual(['1'])
  await sink.apply(history.batch([history.truncate(), history.put('c', [5n, 'new boot', null, 1, 1n])]), still)
  expect(ids(find('boot'))).toEqual(['5'])
  expect(find('hat')).toEqual([])
})

test('a truncation leaves rows of other partitions that are newer than it, and older changes after it change nothing', async () => {
  const { sink, history, find } = await products()
  const late = history.put('c', [8n, 'late shoe', null, 1, 1n])
  const truncation = history.truncate()
  const newer = history.put('c', [9n, 'newer shoe', null, 1, 1n])
  await sink.apply(history.batch([newer]), still)
  await sink.apply(history.batch([truncation]), still)
  await sink.apply(history.batch([late]), still)
  expect(ids(find('shoe'))).toEqual(['9'])
})

test('plain words are never syntax', async () => {
  const { find } = await products()
  expect(ids(find('e-mail "AND" OR'))).toEqual([String(2n ** 60n)])
  expect(ids(find("it's"))).toEqual(['2'])
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (words) => {
      try {
        find(words)
      } catch (error) {
        expect(error).toMatchObject({ code: 'config.invalid', message: 'the query has no word to look for' })
        expect(words).not.toMatch(/[a-z0-9]/i)
      }
    }),
    { numRuns: 300 },
  )
  expect(() => wordsQuery(' -- "" * ')).toThrow(expect.objectContaining({ code: 'config.invalid', fix: expect.any(String) }))
})

test('FTS5 syntax goes through as it is, and its errors say how to repair the query', async () => {
  const { find } = await products()
  expect(ids(find('name : shoe NOT blue', { syntax: 'fts5' }))).toEqual(['1'])
  for (const wrong of ['AND', '"open', 'nocolumn : x', 'a b)']) {
    expect(() => find(wrong, { syntax: 'fts5' })).toThrow(expect.objectContaining({ code: 'config.invalid', fix: expect.stringContaining('plain words') }))
  }
})

test('a missing file or index is an error that says what there is', async () => {
  const { file, dir } = await products()
  expect(() => searchIndex(path.join(dir, 'none.db'), 'items', 'x')).toThrow(expect.objectContaining({ code: 'config.invalid' }))
  expect(() => searchIndex(file, 'item', 'x')).toThrow(expect.objectContaining({ code: 'config.invalid', fix: 'use one of items' }))
})

test('a renamed column is searched under its new name, a new text setting makes the index anew', async () => {
  const { sink, find, open } = await products()
  await sink.prepare({ ...ITEMS, columns: ITEMS.columns.map((column) => (column.name === 'name' ? { ...column, name: 'Body' } : column)) })
  expect(ids(find('Body : hat', { syntax: 'fts5' }))).toEqual([String(2n ** 60n)])
  const again = await open()
  await again.prepare(ITEMS)
  expect(ids(find('name : hat', { syntax: 'fts5' }))).toEqual([String(2n ** 60n)])
})

test('only the columns of the text setting are searched; one that is not there is an error', async () => {
  const { find } = await products({ text: ['name'] })
  expect(find('running')).toEqual([])
  expect(ids(find('red'))).toEqual(['1'])
  await expect(products({ text: ['nam'] })).rejects.toMatchObject({ code: 'sink.schema_unsupported', fix: expect.stringContaining('name') })
})

test('one file holds the indexes of several streams, but not two streams in one index', async () => {
  const { open } = await products()
  const other = await open({ topic: 'shop.public.orders', namespace: 'public', table: 'orders' })
  await other.prepare({ ...ITEMS, name: 'orders' })
  expect(await other.committed()).toEqual([])
  await expect(open({ topic: 'shop.other.items', namespace: 'other', table: 'items' })).rejects.toMatchObject({
    code: 'config.invalid',
    fix: expect.stringContaining('{namespace}'),
  })
})

test('files of others are left alone', async () => {
  const { dir, context } = await products()
  if (plugin.kind !== 'sink') throw new Error('search is a sink')
  const stream = { topic: 't', namespace: 'public', table: 'items' }
  const text = path.join(dir, 'text.db')
  writeFileSync(text, 'this is a text and no database at all, long enough to be read as one. '.repeat(20))
  const foreign = path.join(dir, 'foreign.db')
  const db = new DatabaseSync(foreign)
  db.exec('CREATE TABLE mine(a)')
  db.close()
  for (const file of [text, foreign]) {
    await expect((async () => plugin.open(plugin.config.parse({ path: file }), context, stream))()).rejects.toMatchObject({
      code: 'config.invalid',
      fix: expect.any(String),
    })
    expect(await plugin.check(plugin.config.parse({ path: file }), context)).toMatchObject([{ level: 'error', fix: expect.any(String) }])
  }
  expect(await plugin.check(plugin.config.parse({}), context)).toMatchObject([{ level: 'ok' }])
})

test('opened to be read, it makes neither file nor folder, no index in a file that is there, and sees what is made meanwhile', async () => {
  const { dir, file, context } = await products()
  if (plugin.kind !== 'sink') throw new Error('search is a sink')
  const stream = { topic: 'shop.public.items', namespace: 'public', table: 'items' }
  const look = async (settings: Partial<SearchConfig>) => {
    await using sink = await plugin.open(plugin.config.parse(settings), { ...context, readOnly: true }, stream)
    await sink.prepare(ITEMS)
    expect([await sink.committed(), await sink.recall!(), await targetRows(sink)]).toEqual([[], null, []])
  }
  const other = path.join(dir, 'far', 'away.db')
  await look({ path: other })
  expect(existsSync(path.dirname(other))).toBe(false)
  // an index that is not in the file stays out of it
  await look({ index: 'other' })
  {
    using db = new DatabaseSync(file, { readOnly: true })
    expect(db.prepare('SELECT name FROM millrace_index').all()).toEqual([{ name: 'items' }])
  }
  const empty = path.join(dir, 'empty.db')
  writeFileSync(empty, '')
  await look({ path: empty })
  expect(readFileSync(empty)).toHaveLength(0)
  // the audit waits for what the running mesh is about to make
  await using early = await plugin.open(plugin.config.parse({ path: other }), { ...context, readOnly: true }, stream)
  expect(await early.committed()).toEqual([])
  await using writer = await plugin.open(plugin.config.parse({ path: other }), context, stream)
  await writer.prepare(ITEMS)
  const history = new History(ITEMS)
  await writer.apply(history.batch([history.put('c', [1n, 'late', 'it came', 1, 1000n])]), still)
  expect(await early.committed()).toEqual(await writer.committed())
  await early.prepare(ITEMS)
  expect(await targetRows(early)).toHaveLength(1)
})

test('a table that the file lacked is seen once its writer makes it', async () => {
  const { file, sink, history, open, context } = await products()
  if (plugin.kind !== 'sink') throw new Error('search is a sink')
  await sink[Symbol.asyncDispose]()
  {
    // as an older version, which had no memos, leaves it
    using db = new DatabaseSync(file)
    db.exec('DROP TABLE millrace_memo')
  }
  await using early = await plugin.open(
    plugin.config.parse({}),
    { ...context, readOnly: true },
    { topic: 'shop.public.items', namespace: 'public', table: 'items' },
  )
  expect(await early.recall!()).toBeNull()
  const writer = await open()
  await writer.prepare(ITEMS)
  await writer.apply({ ...history.batch([history.put('u', [1n, 'cap', null, 1, 1n])]), memo: () => 'counted' }, still)
  expect([await early.recall!(), await early.committed()]).toEqual(['counted', await writer.committed()])
})

test('a reader leaves nothing beside a file that nobody has open, and cannot change it', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-search-'))
  opened.push(() => rmSync(dir, { recursive: true, force: true }))
  const file = path.join(dir, 'search.db')
  openIndexFile(file).close()
  const db = readIndexFile(file)
  expect(() => db.exec("INSERT INTO millrace_memo VALUES(1, '')")).toThrow(/readonly/)
  db.close()
  expect(readdirSync(dir)).toEqual(['search.db'])
})

test.skipIf(process.platform === 'win32')('a file that may not be seen is no empty index', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-search-'))
  opened.push(() => rmSync(dir, { recursive: true, force: true }))
  const file = path.join(dir, 'closed', 'search.db')
  mkdirSync(path.dirname(file))
  const refused = expect.objectContaining({ code: 'sink.forbidden', fix: expect.any(String) })
  shutOut(path.dirname(file), () => {
    expect(() => readIndexFile(file)).toThrow(refused)
    expect(() => searchIndex(file, 'items', 'shoe')).toThrow(refused)
  })
})

test('forgets what was deleted after a week, also while it runs', async () => {
  const { sink, history, file } = await products()
  const keys = () => {
    using db = new DatabaseSync(file, { readOnly: true })
    return db.prepare('SELECT key FROM doc_1 ORDER BY id').all().length
  }
  vi.useFakeTimers({ toFake: ['Date'] })
  opened.push(() => {
    vi.useRealTimers()
  })
  await sink.apply(history.batch([history.delete(1n), history.delete(2n)]), still)
  vi.setSystemTime(Date.now() + 6 * 86_400_000)
  await sink.apply(history.batch([history.put('c', [3n, 'hat', null, 1, 1n])]), still)
  expect(keys()).toBe(4)
  vi.setSystemTime(Date.now() + 2 * 86_400_000)
  await sink.apply(history.batch([history.put('u', [3n, 'cap', null, 1, 1n])]), still)
  expect(keys()).toBe(2)
})

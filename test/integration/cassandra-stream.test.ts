import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { readOffset, writeOffset } from '../../connectors/cassandra/cassandra-offset.ts'
import cassandra from '../../connectors/cassandra/index.ts'
import { tokenOf } from '../../connectors/cassandra/token.ts'
import { asMillraceError, type MillraceError, type PluginContext, type SourceConnector, type SourceOffset, UNCHANGED } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type CassandraKeyspace, LOCAL_DC, RELEASES, testCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason, type Release } from '../services/cassandra-jvm.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = cassandraSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const root = mkdtempSync(path.join(os.tmpdir(), 'millrace-cassandra-stream-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

let db: CassandraKeyspace
let capture: Capture | null = null
let marks = 0
afterEach(async () => {
  await capture?.stop()
  capture = null
  await db.drop()
})

function settings(more: object = {}) {
  const { port, keyspace, cdcRaw } = db
  return cassandra.config.parse({
    contactPoints: [`127.0.0.1:${port}`],
    localDataCenter: LOCAL_DC,
    tables: [`${keyspace}.*`],
    cdcRaw,
    consistency: 'ONE',
    ...more,
  })
}

function context(): PluginContext {
  return { mesh: 'test', node: 'shop', dataDir: path.join(root, db.keyspace), logger: pino({ level: 'silent' }), metric: () => {} }
}

/** A source that streams into a recording output until it is stopped. */
class Capture {
  readonly connector: SourceConnector
  readonly output = new RecordingOutput()
  offset: SourceOffset
  failure: MillraceError | null = null
  readonly #stop = new AbortController()
  readonly #done: Promise<void>

  private constructor(connector: SourceConnector, from: SourceOffset) {
    this.connector = connector
    this.offset = from
    this.#done = this.#run(from)
  }

  static async start(more: object = {}, resume: SourceOffset | null = null): Promise<Capture> {
    const connector = await cassandra.open(settings(more), context(), resume)
    return (capture = new Capture(connector, resume ?? connector.start))
  }

  async #run(from: SourceOffset): Promise<void> {
    try {
      for await (const offset of this.connector.changes(from, this.output, this.#stop.signal)) this.offset = offset
    } catch (error) {
      this.failure = asMillraceError(error)
    }
  }

  /** Waits until all that was written by now is streamed: a last write is, and a node that was held up may log late what it took in time. */
  async caughtUp(): Promise<void> {
    await db.cql('create table if not exists marks (id int primary key) with cdc = true')
    const mark = ++marks
    await db.cql('insert into marks (id) values (?)', [mark])
    const now = Date.now() * 1000
    await until('the stream passes now', () => {
      if (this.failure !== null) throw this.failure
      return readOffset(this.offset).through >= now && this.output.of(`${db.keyspace}.marks`).some(({ after }) => after?.id === mark)
    })
  }

  of(table: string): readonly Record<string, unknown>[] {
    return this.output.of(`${db.keyspace}.${table}`).map(({ op, key, after }) => ({
      op,
      ...(key === undefined ? {} : { key: Object.values(key) }),
      ...(after === undefined ? {} : { after: Object.values(after) }),
    }))
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#done
    await this.connector[Symbol.asyncDispose]()
  }
}

async function begin(release: Release, ...tables: readonly string[]): Promise<Capture> {
  db = await testCassandra(release)
  for (const table of tables) await db.cql(`create table ${table} ${table.includes(' with ') ? 'and' : 'with'} cdc = true`)
  return Capture.start()
}

describe.skipIf(skip !== null).each(RELEASES)(`Cassandra %s${skip === null ? '' : ` (${skip})`}`, (release) => {
  test('written columns are set, others unchanged; an insert of a row that is there leaves what it does not name', async () => {
    const run = await begin(release, 'items (id int primary key, name text, quantity int)')
    await db.cql('insert into items (id, name, quantity) values (1, ?, ?)', ['one', 1])
    await db.cql('update items set quantity = 2 where id = 1')
    await db.cql('insert into items (id, name) values (1, ?)', ['uno'])
    await db.cql('update items set name = null where id = 1')
    await db.cql('delete from items where id = 1')
    await run.caughtUp()
    expect(run.of('items')).toEqual([
      { op: 'c', after: [1, 'one', 1] },
      { op: 'u', after: [1, UNCHANGED, 2] },
      { op: 'c', after: [1, 'uno', UNCHANGED] },
      { op: 'u', after: [1, null, UNCHANGED] },
      { op: 'd', key: [1] },
    ])
  })

  test('deletes of ranges and partitions are deletes of the rows that are there', async () => {
    const run = await begin(release, 'lines (a text, b int, c int, note text, primary key (a, b, c)) with clustering order by (b desc, c asc)')
    for (const [b, c] of [
      [1, 1],
      [1, 2],
      [2, 1],
      [3, 1],
    ])
      await db.cql('insert into lines (a, b, c, note) values (?, ?, ?, ?)', ['x', b, c, 'n'])
    await db.cql('insert into lines (a, b, c, note) values (?, 1, 1, ?)', ['y', 'n'])
    const written = 5
    await db.cql(`delete from lines where a = 'x' and b = 1`)
    await db.cql(`delete from lines where a = 'x' and b > 2 and b <= 7`)
    await db.cql(`delete from lines where a = 'y'`)
    await run.caughtUp()
    const changes = run.of('lines')
    expect(changes.slice(0, written).every(({ op }) => op === 'c')).toBe(true)
    expect(changes.slice(written)).toEqual([
      { op: 'd', key: ['x', 1, 1] },
      { op: 'd', key: ['x', 1, 2] },
      { op: 'd', key: ['x', 3, 1] },
      { op: 'd', key: ['y', 1, 1] },
    ])
  })

  test('a deletion that may be of more rows than a connection takes requests is settled by reading them', async () => {
    const run = await begin(release, 'parts (a int, u uuid, primary key (a, u))')
    const count = 2500
    const uuid = (n: number) => `${(n * 1_700_000).toString(16).padStart(8, '0')}-0000-4000-8000-000000000000`
    for (let from = 0; from < count; from += 250) {
      const inserts = Array.from({ length: 250 }, (_, i) => `insert into parts (a, u) values (1, ${uuid(from + i)});`)
      await db.cql(`begin unlogged batch ${inserts.join(' ')} apply batch`)
    }
    await db.cql(`delete from parts where a = 1 and u > ${uuid(1000)}`)
    const left = (await db.cql('select u from parts where a = 1')).map(({ u }) => String(u))
    expect(left).toContain(uuid(1000))
    expect(left).not.toContain(uuid(1001))
    await run.caughtUp()
    const rows = new Set<unknown>()
    for (const { op, key, after } of run.of('parts')) op === 'd' ? rows.delete((key as unknown[])[1]) : rows.add((after as unknown[])[1])
    expect([...rows].sort()).toEqual(left.sort())
    expect(run.of('parts').filter(({ op }) => op === 'd')).toHaveLength(count - left.length)
  })

  test('a collection that is written whole is set, one that is added to is read', async () => {
    const run = await begin(release, 'sets (id int primary key, tags set<text>, list list<int>, map map<text, int>)')
    await db.cql(`insert into sets (id, tags, list, map) values (1, {'b', 'a'}, [2, 1], {'k': 1})`)
    await run.caughtUp()
    await db.cql(`update sets set tags = tags + {'c'} where id = 1`)
    await run.caughtUp()
    await db.cql(`update sets set list[0] = 7, map['l'] = 2 where id = 1`)
    await run.caughtUp()
    // list, map, tags: the catalog has them by name
    const entries = (...all: unknown[]) => all
    expect(run.of('sets').map(({ op, after }) => [op, after])).toEqual([
      ['c', [1, [2, 1], entries(['k', 1]), ['a', 'b']]],
      ['u', [1, [2, 1], entries(['k', 1]), ['a', 'b', 'c']]],
      ['u', [1, [7, 1], entries(['k', 1], ['l', 2]), ['a', 'b', 'c']]],
    ])
  })

  test('static columns are of every row of their partition', async () => {
    const run = await begin(release, 'orders (a int, b int, note text, region text static, primary key (a, b))')
    await db.cql('update orders set region = ? where a = 1', ['north'])
    await db.cql('insert into orders (a, b, note) values (1, 1, ?)', ['n'])
    await db.cql('insert into orders (a, b, note) values (1, 2, ?)', ['n'])
    await run.caughtUp()
    await db.cql('update orders set region = ? where a = 1', ['south'])
    await run.caughtUp()
    expect(run.of('orders')).toEqual([
      { op: 'u', after: [1, 1, 'north', 'n'] },
      { op: 'u', after: [1, 2, 'north', 'n'] },
      { op: 'u', after: [1, 1, 'south', UNCHANGED] },
      { op: 'u', after: [1, 2, 'south', UNCHANGED] },
    ])
  })

  test('a write that is older than what was seen of its row is settled by reading it', async () => {
    const run = await begin(release, 'items (id int primary key, name text, quantity int)')
    const now = Date.now() * 1000
    await db.cql(`insert into items (id, name, quantity) values (1, 'new', 1) using timestamp ${now}`)
    await db.cql(`insert into items (id, name, quantity) values (1, 'old', 0) using timestamp ${now - 1000}`)
    await db.cql(`delete from items using timestamp ${now - 500} where id = 1`)
    await db.cql(`delete from items using timestamp ${now + 500} where id = 1`)
    await db.cql(`update items using timestamp ${now + 200} set name = 'late' where id = 1`)
    await run.caughtUp()
    const rows = new Map<number, unknown>()
    for (const { op, after, key } of run.of('items')) {
      if (op === 'd') rows.delete((key as number[])[0]!)
      else rows.set((after as number[])[0]!, after)
    }
    expect([...rows]).toEqual([])
    expect(await db.cql('select * from items')).toEqual([])
  })

  test('a row that the log may lack after a kill is read, never changed in part', async () => {
    const run = await begin(release, 'items (p int, c int, v text, s text static, primary key (p, c))')
    const from = readOffset(run.offset)
    await run.stop()
    capture = null
    // the log of Millrace has the insert, by when its row was gone
    await db.cql('insert into items (p, c, v) values (1, 1, ?)', ['a'])
    const place = await db.synced()
    await db.cql('update items set s = ? where p = 1', ['x'])
    await db.cql('delete from items where p = 1 and c = 1')
    const again = await Capture.start({}, writeOffset({ ...from, logs: { [db.cdcRaw]: place } }))
    await again.caughtUp()
    expect(again.of('items').filter(({ op }) => op !== 'd')).toEqual([])
  })

  test('a write from a clock that is ahead does not put what follows out of sight of an audit', async () => {
    const run = await begin(release, 'items (id int primary key, name text)')
    const tomorrow = (Date.now() + 86_400_000) * 1000
    await db.cql(`insert into items (id, name) values (1, ?) using timestamp ${tomorrow}`, ['ahead'])
    await db.cql('insert into items (id, name) values (2, ?)', ['now'])
    await db.cql('insert into items (id, name) values (1, ?)', ['loses'])
    await run.caughtUp()
    const now = BigInt(Date.now()) * 1000n
    expect(run.output.of(`${db.keyspace}.items`).map(({ after, commit }) => [after!.id, after!.name, commit <= now])).toEqual([
      [1, 'ahead', true],
      [2, 'now', true],
      [1, 'ahead', true],
    ])
  })

  test('a row that is no more once its time has come, or its last column is taken, is deleted', async () => {
    const run = await begin(release, 'items (id int primary key, name text, quantity int)')
    await db.cql(`insert into items (id, name, quantity) values (1, 'short', 1) using ttl 1`)
    await db.cql(`insert into items (id, name, quantity) values (2, 'long', 1)`)
    await db.cql(`update items using ttl 1 set name = 'for a while' where id = 2`)
    await db.cql(`update items set name = 'only' where id = 3`)
    await run.caughtUp()
    await db.cql('update items set name = null where id = 3')
    await until('two rows have ended', () => run.of('items').filter(({ op }) => op === 'd').length === 2)
    await until('the column has ended', () =>
      run.of('items').some(({ op, after }) => op === 'u' && (after as unknown[])[0] === 2 && (after as unknown[])[1] === null),
    )
    expect(
      run
        .of('items')
        .filter(({ op }) => op === 'd')
        .map(({ key }) => (key as number[])[0])
        .sort(),
    ).toEqual([1, 3])
  })

  test('tables that are made, altered and dropped while it streams; a batch with a table that is not captured', async () => {
    const run = await begin(release, 'items (id int primary key, name text)')
    await db.cql(`insert into items (id, name) values (1, 'one')`)
    await db.cql('alter table items add extra int')
    await db.cql(`insert into items (id, name, extra) values (2, 'two', 2)`)
    await db.cql('create table later (id int primary key, note text) with cdc = true')
    await db.cql('create table aside (id int primary key, note text)')
    await db.cql(
      `begin batch insert into aside (id, note) values (1, 'a'); insert into later (id, note) values (1, 'l'); insert into items (id, name, extra) values (3, 'c', 3); apply batch`,
    )
    await db.cql('alter table items drop name')
    await db.cql('insert into items (id, extra) values (4, 4)')
    await run.caughtUp()
    await db.cql(`insert into later (id, note) values (2, 'm')`)
    await db.cql('drop table later')
    await run.caughtUp()
    const shape = run.output.tables.findLast(({ name }) => name === 'items')!
    expect(shape.columns.map(({ name }) => name)).toEqual(['id', 'extra'])
    expect(run.of('items').map(({ after }) => (after as number[])[0])).toEqual([1, 2, 3, 4])
    expect(run.of('later').map(({ after }) => after)).toEqual([
      [1, 'l'],
      [2, 'm'],
    ])
  })

  test('segments are deleted once they are acknowledged, and not before', async () => {
    const run = await begin(release, 'items (id int primary key, body text)')
    const indexes = () => readdirSync(db.cdcRaw).filter((name) => name.endsWith('_cdc.idx'))
    for (let n = 0; n < 14; n++) await db.cql('insert into items (id, body) values (?, ?)', [n, 'x'.repeat(200_000)])
    await run.caughtUp()
    const from = run.offset
    const held = indexes()
    expect(held.length).toBeGreaterThan(2)
    expect(run.of('items')).toHaveLength(14)
    run.connector.acknowledge(from)
    const { segment } = readOffset(from).logs[db.cdcRaw]!
    await until('the segments before are gone', () => indexes().every((name) => Number(/-(\d+)_cdc/.exec(name)![1]) >= segment))
    expect(existsSync(path.join(db.cdcRaw, held.at(-1)!))).toBe(true)
    await run.stop()
    capture = null
    const again = await Capture.start({}, from)
    await db.cql('insert into items (id, body) values (99, ?)', ['y'])
    await again.caughtUp()
    expect(again.of('items')).toEqual([{ op: 'c', after: [99, 'y'] }])
  })

  test('a broken segment stops the source, with its place', async () => {
    db = await testCassandra(release)
    await db.cql('create table items (id int primary key, body text) with cdc = true')
    const copy = mkdtempSync(path.join(root, 'cdc-'))
    // the node takes those away by itself that have no index
    const segments = () => {
      const names = readdirSync(db.cdcRaw)
      return names
        .filter((name) => name.endsWith('.log'))
        .flatMap((name) => {
          const index = name.replace('.log', '_cdc.idx')
          return names.includes(index) ? [{ name, index }] : []
        })
    }
    const bytes = (name: string) => readFileSync(path.join(db.cdcRaw, name))
    const copyAll = () => {
      for (const { name, index } of segments()) for (const one of [index, name]) writeFileSync(path.join(copy, one), bytes(one))
    }
    copyAll()
    const run = await Capture.start({ cdcRaw: copy })
    const from = run.offset
    await run.stop()
    capture = null
    const mark = 'a text that is found again'
    await db.cql('insert into items (id, body) values (2, ?)', [mark])
    let file = ''
    let at = 0
    await until('it is in a segment, and its index has it', () => {
      for (const { name, index } of segments()) {
        at = bytes(name).indexOf(mark)
        file = name
        if (at >= 0) return Number.parseInt(bytes(index).toString(), 10) > at
      }
      return false
    })
    copyAll()
    const broken = readFileSync(path.join(copy, file))
    broken[at] = broken[at]! ^ 1
    writeFileSync(path.join(copy, file), broken)
    const again = await Capture.start({ cdcRaw: copy }, from)
    await until('it fails', () => again.failure !== null)
    expect(again.failure).toMatchObject({ code: 'source.protocol', message: expect.stringContaining(file) })
    expect(again.of('items')).toEqual([])
  })

  test('whole rows, when they are asked for', async () => {
    db = await testCassandra(release)
    await db.cql('create table items (id int primary key, name text, quantity int) with cdc = true')
    const run = await Capture.start({ rows: 'whole' })
    await db.cql(`insert into items (id, name, quantity) values (1, 'one', 1)`)
    await run.caughtUp()
    await db.cql('update items set quantity = 2 where id = 1')
    await run.caughtUp()
    expect(run.of('items').map(({ after }) => after)).toEqual([
      [1, 'one', 1],
      [1, 'one', 2],
    ])
  })

  test('tokens are those of the server', async () => {
    db = await testCassandra(release)
    await db.cql('create table keys (k text primary key)')
    const texts = ['', 'a', 'ÿ', 'sixteen bytes in', 'and seventeen, ü', 'ünïcödé 🜚'.repeat(9)].filter((text) => text !== '')
    for (const k of texts) await db.cql('insert into keys (k) values (?)', [k])
    const rows = await db.cql('select k, token(k) as t from keys')
    expect(rows).toHaveLength(texts.length)
    for (const { k, t } of rows) expect(tokenOf(Buffer.from(k as string))).toBe(t)
  })

  test('the check says per table what is missing and how it is repaired', async () => {
    db = await testCassandra(release)
    const { keyspace, cql } = db
    await cql('create table good (id int primary key) with cdc = true')
    await cql('create table bad (id int primary key)')
    await cql('create table hits (id int primary key, n counter)')
    const findings = await cassandra.check(settings(), context())
    expect(findings).toContainEqual(expect.objectContaining({ level: 'ok', subject: `cdc of ${keyspace}.good` }))
    expect(findings).toContainEqual(
      expect.objectContaining({ level: 'warning', subject: `cdc of ${keyspace}.bad`, fix: `ALTER TABLE ${keyspace}.bad WITH cdc = true` }),
    )
    expect(findings).toContainEqual(expect.objectContaining({ level: 'warning', subject: `counters of ${keyspace}.hits` }))
    expect(findings.filter(({ level }) => level === 'error')).toEqual([])
  })
})

import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Connection } from 'mysql2/promise'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { type SourceOffset, UNCHANGED } from '../../core/plugin.ts'
import { databaseOn, FLAVORS, type Flavor, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { captureOf, MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

let db: MysqlDatabase
let capture: MysqlCapture
async function begin(flavor: Flavor, tables: string): Promise<void> {
  ;({ db, capture } = await captureOf(flavor, tables))
}
afterEach(async () => {
  await capture.stop()
  await db.drop()
})

/** The types of the events that `work` leads to; the server is shared, so others may be among them. */
async function eventsOf(work: () => Promise<unknown>): Promise<ReadonlySet<string>> {
  const status = async () => (await db.sql(db.flavor === 'mysql' ? 'show binary log status' : 'show binlog status'))[0]!
  const { File, Position } = await status()
  await work()
  const events = await db.sql(`show binlog events in '${File}' from ${Position}`)
  return new Set(events.map(({ Event_type }) => String(Event_type)))
}

describe.skipIf(skip !== null)('compressed transactions of MySQL', () => {
  beforeEach(() =>
    begin(
      'mysql',
      'create table items (id int primary key, body longtext, noise mediumblob); create table parts (id int primary key, name varchar(50)); create table aside (id int primary key)',
    ),
  )

  test('small ones are applied like others, between others', async () => {
    const session = await db.connect()
    const events = await eventsOf(async () => {
      for (const [base, on] of [
        [0, 'ON'],
        [3, 'OFF'],
        [6, 'ON'],
      ] as const) {
        await session.query(`set session binlog_transaction_compression = ${on}`)
        await session.query('start transaction')
        await session.query(`insert into items (id, body) values (${base + 1}, repeat('a', 1000)), (${base + 2}, repeat('b', 1000))`)
        await session.query(`insert into parts values (${base + 1}, 'one')`)
        await session.query(`update items set id = ${base + 3}, body = 'ß' where id = ${base + 2}`)
        await session.query(`delete from parts where id = ${base + 1}`)
        await session.query('commit')
      }
    })
    await session.end()
    expect(events).toContain('Transaction_payload')
    await capture.caughtUp()
    expect(capture.of('items').map(({ op, after }) => [op, (after as { id: number }).id])).toEqual([
      ['c', 1],
      ['c', 2],
      ['u', 3],
      ['c', 4],
      ['c', 5],
      ['u', 6],
      ['c', 7],
      ['c', 8],
      ['u', 9],
    ])
    expect(capture.of('parts').map(({ op }) => op)).toEqual(['c', 'd', 'c', 'd', 'c', 'd'])
    const { changes } = capture.output
    expect(new Set(changes.map(({ commit }) => commit)).size).toBe(3)
  })

  test('a large one goes through a file, with values larger than a chunk', async () => {
    const session = await db.connect()
    await session.query('set session binlog_transaction_compression = ON')
    await session.query('start transaction')
    for (let id = 0; id < 3000; id += 100) {
      const rows = Array.from({ length: 100 }, (_, n) => `(${id + n}, repeat('${id + n} ', 50), random_bytes(1000))`)
      await session.query(`insert into items values ${rows.join(', ')}`)
    }
    await session.query(`insert into items values (5000, repeat('long', 1000000), x'01')`)
    const [checks] = await session.query('select id, sha2(noise, 256) as noise, sha2(body, 256) as body from items order by id')
    const events = await eventsOf(() => session.query('commit'))
    await session.end()
    expect(events).toContain('Transaction_payload')
    await capture.caughtUp()
    const sum = (value: string | Uint8Array) => createHash('sha256').update(value).digest('hex')
    expect(
      capture.of('items').map(({ after }) => {
        const { id, noise, body } = after as { id: number; noise: Uint8Array; body: string }
        return { id, noise: sum(noise), body: sum(body) }
      }),
    ).toEqual(checks)
    await db.sql('insert into aside values (1)')
    await capture.caughtUp()
    expect(capture.of('aside')).toHaveLength(1)
  })
})

describe.skipIf(skip !== null)('compressed events of MariaDB', () => {
  beforeEach(() => begin('mariadb', 'create table items (id int primary key, body longtext, extra int)'))

  test('rows and statements are applied like others', async () => {
    await db.sql('set global log_bin_compress = ON')
    try {
      const session = await db.connect()
      const events = await eventsOf(async () => {
        await session.query(`insert into items values (1, repeat('a', 1000), 1), (2, repeat('é', 100000), null)`)
        await session.query(`update items set body = repeat('b', 500), id = 3 where id = 1`)
        await session.query(`delete from items where id = 2`)
        await session.query(`alter table items add column later int default null comment '${'a long comment '.repeat(50)}'`)
        await session.query(`insert into items values (4, repeat('c', 1000), 4, 5)`)
        await session.query(`truncate table /* ${'why not '.repeat(60)} */ items`)
      })
      await session.end()
      for (const type of ['Write_rows_compressed_v1', 'Update_rows_compressed_v1', 'Delete_rows_compressed_v1', 'Query_compressed'])
        expect(events).toContain(type)
    } finally {
      await db.sql('set global log_bin_compress = OFF')
    }
    await capture.caughtUp()
    expect(capture.of('items')).toEqual([
      { op: 'c', after: { id: 1, body: 'a'.repeat(1000), extra: 1 } },
      { op: 'c', after: { id: 2, body: 'é'.repeat(100_000), extra: null } },
      { op: 'u', before: { id: 1, body: 'a'.repeat(1000), extra: 1 }, after: { id: 3, body: 'b'.repeat(500), extra: 1 } },
      { op: 'd', before: { id: 2, body: 'é'.repeat(100_000), extra: null } },
      { op: 'c', after: { id: 4, body: 'c'.repeat(1000), extra: 4, later: 5 } },
      { op: 't' },
    ])
  })
})

describe.skipIf(skip !== null).each(FLAVORS)('two processes of one node on %s', (flavor) => {
  beforeEach(() => begin(flavor, 'create table items (id int primary key)'))

  test('the server lets the later one in and ends the earlier, which says so and does not come back', async () => {
    await db.sql('insert into items values (1)')
    await capture.caughtUp()
    const later = await MysqlCapture.start(db, {}, capture.offset)
    try {
      const error = await capture.failed()
      expect(error).toMatchObject({ code: 'source.in_use', category: 'conflict', fix: expect.stringContaining('serverId') })
      await db.sql('insert into items values (2)')
      await later.caughtUp()
      expect([capture, later].map((one) => one.of('items'))).toEqual([[{ op: 'c', after: { id: 1 } }], [{ op: 'c', after: { id: 2 } }]])
      expect(later.failure).toBe(null)
    } finally {
      await later.stop()
    }
  })

  test('another node streams beside it', async () => {
    const source = await mysql.open(mysqlSettings(db), { ...mysqlContext(db), node: 'other' }, null)
    await db.sql('insert into items values (1)')
    await capture.caughtUp()
    expect(capture.failure).toBe(null)
    await source[Symbol.asyncDispose]()
  })
})

describe.skipIf(skip !== null).each(FLAVORS)('rows of %s that lack columns', (flavor) => {
  const nothing = UNCHANGED
  let session: Connection
  beforeEach(async () => {
    await begin(
      flavor,
      `create table items (id int primary key, name varchar(20) default 'nobody', body longtext, quantity int not null default 7);
       create table bare (a int, b text, c int default 3)`,
    )
    session = await db.connect()
  })
  afterEach(() => session.end())
  /** What is looked up is as the statement left it. */
  async function run(...statements: readonly string[]): Promise<void> {
    for (const sql of statements) {
      await session.query(sql)
      await capture.caughtUp()
    }
  }

  test('MINIMAL: what did not change is unchanged, inserts and rows with a new key are whole', async () => {
    await run(
      `set session binlog_row_image = 'MINIMAL'`,
      `insert into items (id, body) values (1, 'x'), (2, null)`,
      'update items set quantity = 5 where id = 1',
      'update items set id = 3 where id = 1',
      'update items set name = null, id = 4 where id = 3',
      'delete from items where id > 1',
    )
    expect(capture.of('items')).toEqual([
      { op: 'c', after: { id: 1, name: 'nobody', body: 'x', quantity: 7 } },
      { op: 'c', after: { id: 2, name: 'nobody', body: null, quantity: 7 } },
      { op: 'u', after: { id: 1, name: nothing, body: nothing, quantity: 5 } },
      { op: 'u', key: { id: 1 }, after: { id: 3, name: 'nobody', body: 'x', quantity: 5 } },
      { op: 'u', key: { id: 3 }, after: { id: 4, name: null, body: 'x', quantity: 5 } },
      { op: 'd', key: { id: 2 } },
      { op: 'd', key: { id: 4 } },
    ])
  })

  test.each([
    ['bigint unsigned', '18446744073709551615'],
    ['decimal(40,10)', "'-123456789012345678901234567890.0123456789'"],
    ['decimal(20,5)', "'-12345.67890'"],
    ['bit(10)', "b'1000000001'"],
    ['year', '1999'],
    ['date', "'1969-12-31'"],
    ['datetime(6)', "'1969-12-31 23:59:59.999999'"],
    ['timestamp(3)', "'2024-06-30 01:02:03.456'"],
    ['time(2)', "'-838:59:58.99'"],
    ['char(20) character set latin1', "'Zürich'"],
    ['varchar(20) character set utf16', "'a🏔b'"],
    ['varbinary(8)', "x'00ff'"],
    ['binary(4)', "x'00ff'"],
    ["enum('a','é')", "'é'"],
    ["set('x','y')", "'x,y'"],
  ])('MINIMAL: a row is found by a key of type %s', async (type, value) => {
    await session.query(`create table keyed (k ${type} not null primary key, v int default 7, w varchar(20) default 'w') character set utf8mb4`)
    await run(`set session binlog_row_image = 'MINIMAL', time_zone = '+05:00'`, `insert into keyed (k) values (${value})`, 'delete from keyed')
    const [inserted, deleted] = capture.of('keyed') as unknown as [{ after: Record<string, unknown> }, { key: { k: unknown } }]
    expect(inserted.after).toMatchObject({ v: 7, w: 'w' })
    expect(deleted.key.k).toEqual(inserted.after.k)
  })

  test('NOBLOB: a large value that did not change is unchanged', async () => {
    await run(
      `set session binlog_row_image = 'NOBLOB'`,
      `insert into items values (1, 'n', repeat('long', 1000), 1)`,
      `update items set name = 'm' where id = 1`,
      'update items set id = 2 where id = 1',
      `update items set body = 'short' where id = 2`,
      'delete from items',
    )
    const body = 'long'.repeat(1000)
    expect(capture.of('items')).toEqual([
      { op: 'c', after: { id: 1, name: 'n', body, quantity: 1 } },
      { op: 'u', after: { id: 1, name: 'm', body: nothing, quantity: 1 } },
      { op: 'u', key: { id: 1 }, after: { id: 2, name: 'm', body, quantity: 1 } },
      { op: 'u', after: { id: 2, name: 'm', body: 'short', quantity: 1 } },
      { op: 'd', key: { id: 2 } },
    ])
  })

  test('a table without a key has its whole rows before an update, and is parked by an insert that cannot be completed', async () => {
    await run(`set session binlog_row_image = 'MINIMAL'`, `insert into bare values (1, 'one', 1)`, 'update bare set c = 2')
    expect(capture.of('bare')).toEqual([
      { op: 'c', after: { a: 1, b: 'one', c: 1 } },
      { op: 'u', before: { a: 1, b: 'one', c: 1 }, after: { a: 1, b: 'one', c: 2 } },
    ])
    if (flavor === 'mariadb') return
    await run('insert into bare (a) values (2), (3)', 'insert into items (id) values (1)')
    expect(capture.output.parked.get(`${db.database}.bare`)).toMatchObject({ error: { code: 'source.schema_unsupported' }, skipped: 2 })
    expect(capture.of('items')).toHaveLength(1)
  })

  test('a row that is gone when it is looked up is right in the end', async () => {
    const { offset } = capture
    await capture.stop()
    await session.query(`set session binlog_row_image = 'MINIMAL'`)
    for (const sql of [
      `insert into items (id, body) values (1, 'x'), (2, 'y'), (3, 'z')`,
      'delete from items where id = 1',
      'update items set id = 20 where id = 2',
      'update items set quantity = 30 where id = 3',
      'update items set id = 21 where id = 20',
    ])
      await session.query(sql)
    capture = await MysqlCapture.start(db, {}, offset)
    await capture.caughtUp()
    const rows = new Map<unknown, Record<string, unknown>>()
    for (const { op, key, after } of capture.of('items') as { op: string; key?: { id: number }; after?: Record<string, unknown> }[]) {
      if (key !== undefined) rows.delete(key.id)
      if (op === 'd' || after === undefined) continue
      const base = rows.get(after.id)
      rows.set(after.id, Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value === UNCHANGED ? base![name] : value])))
    }
    expect([...rows.values()]).toEqual(await db.sql('select * from items order by id = 3 desc'))
  })
})

describe.skipIf(skip !== null).each(FLAVORS)('many tables of %s', (flavor) => {
  const names = Array.from({ length: 40 }, (_, i) => `t${i}`)
  beforeEach(() => begin(flavor, names.map((name) => `create table ${name} (id int primary key, n int not null)`).join('; ')))

  test('are read as they were defined at each of their rows, listed before, in between and alone', async () => {
    const { connector } = capture
    const insert = (name: string, values: string) => `insert into ${name} values (${values})`
    await connector.tables()
    await db.sql(names.map((name) => insert(name, '1, 10')).join('; '))
    await capture.caughtUp()
    // in one go, so that the stream meets rows of all tables between two statements
    const [grown, kept] = [names.slice(0, 20), names.slice(20)]
    await db.sql(
      [
        ...grown.map((name) => `alter table ${name} add column late varchar(10) first`),
        ...grown.map((name) => insert(name, `'new', 2, 20`)),
        ...kept.map((name) => insert(name, '2, 20')),
        ...kept.map((name) => `alter table ${name} drop primary key, add primary key (n)`),
        ...grown.map((name) => insert(name, `'newer', 3, 30`)),
        ...kept.map((name) => insert(name, '3, 30')),
      ].join('; '),
    )
    await capture.caughtUp()
    const rows = (name: string) => capture.of(name).map(({ after }) => after)
    for (const name of grown)
      expect(rows(name)).toEqual([
        { id: 1, n: 10 },
        { late: 'new', id: 2, n: 20 },
        { late: 'newer', id: 3, n: 30 },
      ])
    for (const name of kept)
      expect(rows(name)).toEqual([
        { id: 1, n: 10 },
        { id: 2, n: 20 },
        { id: 3, n: 30 },
      ])
    const keys = (name: string) => capture.output.shape({ namespace: db.database, name })?.key
    expect(grown.map(keys)).toEqual(grown.map(() => [1]))
    expect(kept.map(keys)).toEqual(kept.map(() => [1]))
  })
})

describe.skipIf(skip !== null)('partial updates of JSON documents in MySQL', () => {
  test('a document of which only the changes came is read, and is whole', async () => {
    await begin(
      'mysql',
      'create table docs (id int primary key, a json, name varchar(20), b json); create table bare (a json); create table aside (id int primary key)',
    )
    const session = await db.connect()
    const changes = async (...statements: readonly string[]) => {
      for (const sql of statements) {
        await session.query(sql)
        await capture.caughtUp()
      }
    }
    const long = 'x'.repeat(300)
    const events = await eventsOf(() =>
      changes(
        `insert into docs values (1, json_object('k', '${long}', 'n', 1), 'one', json_array(1, '${long}')), (2, null, 'two', json_array(1, '${long}'))`,
        `set session binlog_row_value_options = 'PARTIAL_JSON'`,
        `update docs set a = json_set(a, '$.n', 2) where id = 1`,
        `update docs set b = json_set(b, '$[0]', 2), name = 'many'`,
        `set session binlog_row_image = 'MINIMAL'`,
        `update docs set a = json_set(a, '$.n', 3), id = 7 where id = 1`,
        `update docs set b = json_replace(b, '$[0]', 5) where id = 7`,
      ),
    )
    const a = (n: number) => `{"k": "${long}", "n": ${n}}`
    const b = (n: number) => `[${n}, "${long}"]`
    expect(events).toContain('Update_rows_partial')
    expect(capture.of('docs').map(({ op, key, after }) => ({ op, ...(key === undefined ? {} : { key }), after }))).toEqual([
      { op: 'c', after: { id: 1, a: a(1), name: 'one', b: b(1) } },
      { op: 'c', after: { id: 2, a: null, name: 'two', b: b(1) } },
      { op: 'u', after: { id: 1, a: a(2), name: 'one', b: b(1) } },
      { op: 'u', after: { id: 1, a: a(2), name: 'many', b: b(2) } },
      { op: 'u', after: { id: 2, a: null, name: 'many', b: b(2) } },
      { op: 'u', key: { id: 1 }, after: { id: 7, a: a(3), name: 'many', b: b(2) } },
      { op: 'u', after: { id: 7, a: UNCHANGED, name: UNCHANGED, b: b(5) } },
    ])
    // without a key it cannot be looked up
    await changes(`insert into bare values (json_object('k', '${long}', 'n', 1))`, `update bare set a = json_set(a, '$.n', 2)`, 'insert into aside values (1)')
    expect([...capture.output.parked.keys()]).toEqual([`${db.database}.bare`])
    expect(capture.of('aside')).toHaveLength(1)
    await session.end()
  })
})

describe.skipIf(skip !== null).each(FLAVORS)('rows of %s without the names of their columns', (flavor) => {
  let dir: string
  let server: MysqlServer
  // the setting is the whole server's
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-nameless-'))
    server = await startMysql({ flavor, dir, settings: { 'binlog-row-metadata': 'MINIMAL' } })
  })
  afterAll(async () => {
    await server?.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  beforeEach(async () => {
    db = await databaseOn(flavor, server.port)
    await db.sql('create table t (id int primary key, a int); create table aside (id int primary key, body longtext)')
    capture = await MysqlCapture.start(db)
    await db.sql('insert into t values (1, 10); insert into aside values (1, null)')
    await capture.caughtUp()
    await capture.stop()
  })
  const alter = 'alter table t drop column a, add column b int'
  const misread = () => expect.objectContaining({ code: 'source.table_gone', message: expect.stringMatching(/binlog\.\d+:\d+/) })
  const parked = () => [...capture.output.parked].map(([id, { error, skipped }]) => [id.split('.')[1], error, skipped])
  async function resume(from: SourceOffset, output = new RecordingOutput()): Promise<void> {
    capture = await MysqlCapture.start(db, {}, from, output)
    await capture.caughtUp()
  }

  test('from before an ALTER TABLE that keeps the layout have their table read anew', async () => {
    await db.sql(`insert into t values (2, 20); ${alter}; insert into t values (3, 30); insert into aside values (2, null)`)
    await resume(capture.offset)
    expect(parked()).toEqual([['t', misread(), 1]])
    expect(capture.of('aside')).toHaveLength(1)
    expect(capture.offset).not.toHaveProperty('ahead')
  })

  test('are right when no statement alters columns, and when it comes after they were described', async () => {
    await db.sql('insert into t values (2, 20); alter table t add index (a); insert into aside values (2, null); insert into t values (3, 30)')
    await resume(capture.offset)
    for (const sql of [alter, 'insert into t values (4, 40)', 'alter table t rename column b to c', 'insert into t values (5, 50)']) {
      await db.sql(sql)
      await capture.caughtUp()
    }
    expect(parked()).toEqual([])
    expect(capture.of('t').map(({ after }) => after)).toEqual([
      { id: 2, a: 20 },
      { id: 3, a: 30 },
      { id: 4, b: 40 },
      { id: 5, c: 50 },
    ])
  })

  test('are known to be in doubt after a restart between them and the ALTER TABLE', async () => {
    await db.sql('start transaction; insert into aside values (2, null); insert into t values (2, 20); commit')
    const output = new RecordingOutput()
    // between the rows of the transaction, so that it is on its way alone, and the second one is described afterwards
    let altered: Promise<unknown> | null = null
    const { table } = output
    output.table = async (schema) => {
      if (schema.name === 'aside') await (altered ??= db.sql(`${alter}; insert into t values (3, 30)`))
      return await table.call(output, schema)
    }
    const from = capture.offset
    let between: SourceOffset | null = null
    {
      await using connector = await mysql.open(mysqlSettings(db), mysqlContext(db), from)
      for await (const offset of connector.changes(from, output, new AbortController().signal)) {
        if (output.of(`${db.database}.t`).length === 0 || offset === from) continue
        between = offset
        break
      }
    }
    expect(between).toMatchObject({ ahead: [`${db.database}.t`] })
    const after = new RecordingOutput()
    after.tables.push(...output.tables)
    await resume(between!, after)
    expect(parked()).toEqual([['t', misread(), 1]])
  })
})

describe.skipIf(skip !== null)('several replication domains of MariaDB', () => {
  test('are one stream, which goes on from any of its offsets', async () => {
    await begin('mariadb', 'create table items (id int primary key, domain int)')
    const offsets: SourceOffset[] = []
    const session = await db.connect()
    for (let id = 0; id < 30; id++) {
      await session.query(`set session gtid_domain_id = ${id % 3}; insert into items values (${id}, ${id % 3})`)
      if (id % 10 !== 9) continue
      await capture.caughtUp()
      offsets.push(capture.offset)
    }
    await session.end()
    const ids = () => capture.of('items').map(({ after }) => (after as { id: number }).id)
    const from = (first: number) => Array.from({ length: 30 - first }, (_, i) => first + i)
    expect(ids()).toEqual(from(0))
    const commits = capture.output.changes.map(({ commit }) => commit)
    for (const [n, offset] of offsets.entries()) {
      await capture.stop()
      capture = await MysqlCapture.start(db, {}, offset)
      await capture.caughtUp()
      expect(ids()).toEqual(from(n * 10 + 10))
      expect(capture.output.changes.map(({ commit }) => commit)).toEqual(commits.slice(n * 10 + 10))
    }
  })
})

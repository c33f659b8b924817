import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import type { Connection } from 'mysql2/promise'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { cascadesOf, listTables } from '../../connectors/mysql/catalog.ts'
import mysql from '../../connectors/mysql/index.ts'
import { connectOptions } from '../../connectors/mysql/mysql-config.ts'
import { SESSION } from '../../connectors/mysql/server.ts'
import { SqlConnections } from '../../connectors/mysql/sql-connection.ts'
import { type SourceOffset, TablePatterns, UNCHANGED } from '../../core/plugin.ts'
import { databaseOn, FLAVORS, type MysqlDatabase, type MysqlServer, mysqlDatabase, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

let db: MysqlDatabase
let capture: MysqlCapture
async function begin(flavor: 'mysql' | 'mariadb', tables: string): Promise<void> {
  db = await mysqlDatabase(flavor)
  await db.sql(tables)
  capture = await MysqlCapture.start(db)
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

describe.skipIf(skip !== null).each(FLAVORS)('statements of %s that change rows', (flavor) => {
  let session: Connection
  beforeEach(async () => {
    await begin(
      flavor,
      `create table items (id int primary key, name varchar(20)); create table hole (id int) engine = ${flavor === 'mysql' ? 'blackhole' : 'memory'}; create table aside (id int primary key);
       create table parts (id int primary key) partition by range (id) (partition low values less than (10), partition high values less than (20));
       create table swapped (id int primary key); create table _swapped_gho (id int primary key)`,
    )
    session = await db.connect()
  })
  afterEach(() => session.end())
  const refused = { code: 'source.unprepared', message: expect.stringMatching(/binlog\.\d+:\d+/), fix: expect.stringContaining('--resnapshot') }

  test('a change that came as a statement is an error with its place, with functions and variables too', async () => {
    await session.query(`set session binlog_format = 'STATEMENT', @name = 'x'`)
    await session.query('insert into items values (floor(rand() * 1000), @name)')
    expect(await capture.failed()).toMatchObject(refused)
    expect(capture.output.changes).toEqual([])
  })

  test('so is LOAD DATA as a statement', async () => {
    const file = path.join(os.tmpdir(), `millrace-${db.database}.csv`)
    writeFileSync(file, '1,one\n2,two\n')
    try {
      await session.query(`set session binlog_format = 'STATEMENT'`)
      await session.query(`load data infile '${file}' into table items fields terminated by ','`)
    } finally {
      rmSync(file)
    }
    expect(await capture.failed()).toMatchObject(refused)
  })

  test('a whole table that is emptied, dropped and made again, is empty', async () => {
    await session.query(`insert into items values (1, 'one')`)
    await session.query(`set session binlog_format = 'STATEMENT'`)
    await session.query('delete from items')
    await session.query(`set session binlog_format = 'ROW'`)
    await session.query(`insert into items values (2, 'two')`)
    await session.query('drop table items')
    await session.query('create table if not exists items (id int primary key, name varchar(20), more int)')
    await session.query('create table if not exists items (id int primary key)')
    await session.query(`insert into items values (3, 'three', 3)`)
    await capture.caughtUp()
    expect(capture.of('items').map(({ op }) => op)).toEqual(['c', 't', 'c', 't', 'c'])
  })

  test('tables whose rows went without a trace are parked, and the others go on', async () => {
    for (const table of ['parts', 'swapped']) await session.query(`insert into ${table} values (1), (11)`.replace('11)', '2)'))
    await session.query('insert into _swapped_gho values (3)')
    await session.query('alter table parts truncate partition low')
    await session.query('rename table swapped to _swapped_del, _swapped_gho to swapped')
    await session.query('insert into aside values (1)')
    await session.query('insert into hole values (1)')
    await capture.caughtUp()
    const gone = { error: { code: 'source.table_gone', fix: expect.any(String) } }
    expect([...capture.output.parked].map(([id, parked]) => [id.split('.')[1], parked])).toEqual([
      ['parts', expect.objectContaining({ error: expect.objectContaining(gone.error) })],
      ['swapped', expect.objectContaining({ error: expect.objectContaining(gone.error) })],
    ])
    expect(capture.of('aside')).toHaveLength(1)
    expect(capture.of('hole')).toHaveLength(1)
  })
})

describe.skipIf(skip !== null).each(FLAVORS)('foreign keys of %s', (flavor) => {
  test('a table whose rows they delete is captured with that, or left out by name', async () => {
    const child = (name: string, rule: string) =>
      `create table ${name} (id int primary key, p int, foreign key fk_${name} (p) references parents (id) ${rule}); insert into ${name} values (1, ${name === 'kept' ? 2 : 1})`
    await begin(flavor, `create table parents (id int primary key); insert into parents values (1), (2)`)
    const { offset } = capture
    await capture.stop()
    await db.sql([child('deleted', 'on delete cascade'), child('emptied', 'on delete set null'), child('kept', 'on update restrict')].join(';'))
    await db.sql('delete from parents where id = 1')
    capture = await MysqlCapture.start(db, { cascades: 'ignore' }, offset)
    await capture.caughtUp()
    const isLogged = flavor === 'mysql'
    expect(capture.of('deleted').map(({ op }) => op)).toEqual(isLogged ? ['c', 'd'] : ['c'])
    expect(capture.of('emptied').map(({ op }) => op)).toEqual(isLogged ? ['c', 'u'] : ['c'])
    const names = async () => (await capture.connector.tables()).map(({ name }) => name)
    expect(await names()).toEqual(['deleted', 'emptied', 'kept', 'parents'])

    await capture.stop()
    capture = await MysqlCapture.start(db, {}, offset)
    expect(await names()).toEqual(isLogged ? ['deleted', 'emptied', 'kept', 'parents'] : ['kept', 'parents'])
    const left = isLogged ? [] : ['deleted', 'emptied']
    const unfit = capture.connector.unfit!()
    expect(unfit.map(({ table, error }) => [table.name, error.code, error.message.includes('fk_')])).toEqual(
      left.map((name) => [name, 'source.schema_unsupported', true]),
    )
    for (const name of left) {
      expect(await capture.connector.whyAbsent({ namespace: db.database, name })).toContain('foreign key')
      expect((await mysql.check(mysqlSettings(db), mysqlContext(db))).find(({ subject }) => subject === `binlog of ${db.database}.${name}`)?.level).toBe(
        'error',
      )
    }
    await using reader = await mysql.openReader!(mysqlSettings(db), mysqlContext(db))
    expect((await reader.tables()).map(({ name }) => name)).toEqual(await names())
  })
})

describe.skipIf(skip !== null).each(FLAVORS)('foreign keys of %s, as a user sees them who may only read', (flavor) => {
  test('are told with what they do to rows', async () => {
    const rules = {
      gone: 'on delete cascade',
      emptied: 'on delete set null',
      moved: 'on update cascade on delete restrict',
      kept: 'on delete no action',
      bare: '',
    }
    const child = ([name, rule]: readonly [string, string]) =>
      `create table ${name} (p int, constraint fk_${name} foreign key (p) references parents (id) ${rule})`
    await begin(flavor, ['create table parents (id int primary key)', ...Object.entries(rules).map(child)].join(';'))
    await using connections = new SqlConnections(connectOptions(mysqlSettings(db)), SESSION)
    const found = await connections.run('to look', async (connection) => {
      const tables = await listTables(connection, new TablePatterns([`${db.database}.*`]))
      return await cascadesOf(connection, flavor, [...tables.values()], new WeakMap())
    })
    const told = (name: string) => ({ namespace: db.database, name, constraint: `fk_${name}` })
    expect(found).toEqual(['emptied', 'gone', 'moved'].map(told))
  })
})

describe.skipIf(skip !== null)('foreign keys of MariaDB that come to a table that has been there', () => {
  test.each(['inplace', 'copy'])('it is left out once they delete its rows, and taken when they do no more (%s)', async (algorithm) => {
    await begin('mariadb', 'create table parents (id int primary key); create table child (id int primary key, p int, index (p))')
    const names = async () => (await capture.connector.tables()).map(({ name }) => name)
    const until = async (what: string, isSo: () => Promise<boolean>) => {
      for (const deadline = Date.now() + 60_000; !(await isSo()); await delay(100)) if (Date.now() > deadline) throw new Error(`still not: ${what}`)
    }
    const old = `select count(*) as n from information_schema.tables where table_schema = database() and create_time < now() - interval 4 second`
    await until('old tables', async () => Number((await db.sql(old))[0]!.n) === 2)
    expect(await names()).toEqual(['child', 'parents'])
    const session = await db.connect()
    await session.query('set foreign_key_checks = 0')
    await session.query(`alter table child add constraint gone foreign key (p) references parents (id) on delete cascade, algorithm = ${algorithm}`)
    await session.end()
    await until('left out', async () => (await names()).join() === 'parents')
    await db.sql(`alter table child drop foreign key gone, algorithm = ${algorithm}`)
    await until('taken', async () => (await names()).join() === 'child,parents')
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
  }, 150_000)
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

/** Puts other bytes of the same length into the one event of the file that has these. */
function rewriteEvent(file: string, from: string, to: string): void {
  const bytes = readFileSync(file)
  const found = bytes.indexOf(from)
  expect(found).toBeGreaterThan(0)
  for (let at = 4; at < bytes.length; ) {
    const end = at + bytes.readUInt32LE(at + 9)
    if (found > at && found < end) {
      bytes.write(to, found)
      bytes.writeUInt32LE(crc32(bytes.subarray(at, end - 4)), end - 4)
    }
    at = end
  }
  writeFileSync(file, bytes)
}

describe.skipIf(skip !== null).each(FLAVORS)('what cannot be read of %s', (flavor) => {
  let dir: string
  let server: MysqlServer
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-unreadable-'))
    server = await startMysql({ flavor, dir })
  }, 150_000)
  afterAll(async () => {
    await server?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  test('a statement has all captured tables read anew, and the stream goes on', async () => {
    db = await databaseOn(flavor, server.port)
    await db.sql('create table t (id int primary key, a int); create table aside (id int primary key); create table other (id int primary key)')
    capture = await MysqlCapture.start(db)
    await db.sql('insert into t values (1, 10); insert into aside values (1)')
    await capture.caughtUp()
    const before = capture
    await before.stop()
    await db.sql('alter table t modify a bigint; insert into t values (2, 20); truncate table t; insert into t values (3, 30); insert into other values (3)')
    const [{ Log_name: last }] = (await db.sql('show binary logs')).slice(-1) as [{ Log_name: string }]
    await db.sql('flush binary logs')
    for (const of of ['alter table ', 'truncate table ']) rewriteEvent(path.join(server.dataDir, last), `${of}t`, `${of}(`)
    const output = new RecordingOutput()
    output.tables.push(...before.output.tables)
    capture = await MysqlCapture.start(db, {}, before.offset, output)
    await capture.caughtUp()
    expect(output.rereads.map(({ name }) => name).sort()).toEqual(['aside', 't'])
    const gone = expect.objectContaining({ code: 'source.table_gone', message: expect.stringMatching(/binlog\.\d+:\d+ \(truncate table \( …\)/) })
    expect([...output.parked].map(([id, { error, skipped }]) => [id.split('.')[1], error, skipped])).toEqual([
      ['aside', gone, 0],
      ['t', gone, 1],
    ])
    expect(capture.of('t')).toEqual([{ op: 'c', after: { id: 2, a: 20n } }])
    expect(capture.of('other')).toHaveLength(1)
  })

  // before MariaDB 10.1, times said nothing of their fractions in row events
  const rows = async () => {
    db = await databaseOn(flavor, server.port)
    const { database, sql } = db
    await sql(`create table t (id int primary key); create database ${database}_other; set global mysql56_temporal_format = OFF`)
    const places = [database, `${database}_other`]
    for (const place of places) await sql(`create table ${place}.aged (id int primary key, a timestamp(6) null)`)
    await sql('set global mysql56_temporal_format = ON')
    capture = await MysqlCapture.start(db)
    const old = places.map((place) => `insert into ${place}.aged values (1, '2024-02-03 04:05:06.789'), (2, null), (3, '2025-02-03 04:05:06.789')`)
    await sql(`start transaction; ${old.join('; ')}; insert into t values (1); commit; drop database ${database}_other`)
    await capture.caughtUp()
    const error = expect.objectContaining({ code: 'source.schema_unsupported', message: expect.stringContaining('type 7') })
    expect([...capture.output.parked]).toEqual([[`${database}.aged`, expect.objectContaining({ error })]])
    expect(capture.of('t')).toEqual([{ op: 'c', after: { id: 1 } }])
  }
  if (flavor === 'mariadb') test('rows stop no table but their own, and none that is not captured', rows)
})

describe.skipIf(skip !== null)('a server that has the names of tables in lower case', () => {
  let dir: string
  let server: MysqlServer
  // MySQL takes the setting only while its data folder is made
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-lower-case-'))
    server = await startMysql({ flavor: 'mariadb', dir, settings: { 'lower-case-table-names': '1' } })
  }, 150_000)
  afterAll(async () => {
    await server?.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  beforeEach(async () => {
    db = await databaseOn('mariadb', server.port)
    await db.sql('create table Items (id int primary key, a int)')
    capture = await MysqlCapture.start(db)
  })

  test('statements concern them however they are written', async () => {
    await db.sql('insert into ITEMS values (1, 1); truncate table ITEMS; insert into iTems values (2, 2); alter table ITEMS rename column a to b')
    await capture.caughtUp()
    expect(capture.of('items').map(({ op }) => op)).toEqual(['c', 't', 'c'])
    expect(capture.output.rereads.map(({ name }) => name)).toEqual(['items'])
    await db.sql(`set session binlog_format = 'STATEMENT'; insert into ITEMS (id) values (3)`)
    expect(await capture.failed()).toMatchObject({ code: 'source.unprepared' })
  })
})

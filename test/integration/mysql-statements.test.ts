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
import { TablePatterns } from '../../core/plugin.ts'
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
  })
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
  })
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

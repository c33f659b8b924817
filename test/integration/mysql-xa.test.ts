import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Connection } from 'mysql2/promise'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { readOffset } from '../../connectors/mysql/mysql-offset.ts'
import { MillraceError } from '../../core/errors.ts'
import { databaseOn, KINDS, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { MysqlCapture, mysqlContext } from './mysql-capture.ts'
import { type RecordedChange, RecordingOutput } from './recording-output.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

describe.skipIf(skip !== null).each(KINDS)(`XA transactions of %s${skip === null ? '' : ` (${skip})`}`, (_, flavor, settings) => {
  let db: MysqlDatabase
  let capture: MysqlCapture
  let sessions: Connection[]
  const left: (() => Promise<unknown>)[] = []
  // of its own: what is prepared here stops captures that begin elsewhere on the server
  let server: MysqlServer
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-xa-'))
  beforeAll(async () => {
    server = await startMysql({ flavor, dir, settings })
  })
  afterAll(async () => {
    await server.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  beforeEach(async () => {
    db = await databaseOn(flavor, server.port)
    sessions = []
    await db.sql('create table items (id int primary key, body text); create table parts (id int primary key)')
  })
  afterEach(async () => {
    await capture?.stop()
    // what a failed test left prepared would hold the database
    for (const rollback of left.splice(0)) await rollback().catch(() => {})
    for (const session of sessions) await session.end()
    await db.drop()
  })

  /** A session of its own that has prepared what it was told to. */
  async function prepared(xid: string, ...statements: readonly string[]): Promise<Connection> {
    const session = await db.connect()
    sessions.push(session)
    for (const sql of [`xa start ${xid}`, ...statements, `xa end ${xid}`, `xa prepare ${xid}`]) await session.query(sql)
    left.push(() => session.query(`xa rollback ${xid}`))
    return session
  }
  const ids = (changes: readonly RecordedChange[]) => changes.map(({ op, before, after }) => `${op} ${String((after ?? before)!.id)}`)
  const xid = (name: string) => `'${db.database}','${name}',7`

  test('rows come where the commit is, and none of what is rolled back', async () => {
    capture = await MysqlCapture.start(db)
    const one = await prepared(xid('one'), `insert into items values (1, 'one')`, 'insert into parts values (1)', 'update parts set id = 10 where id = 1')
    const two = await prepared(xid('two'), `insert into items values (2, 'two')`)
    await db.sql(`insert into items values (3, 'between')`)
    await capture.caughtUp()
    expect(ids(capture.output.changes)).toEqual(['c 3'])
    expect(readOffset(capture.offset).prepared).toEqual(expect.any(String))
    await two.query(`xa rollback ${xid('two')}`)
    await one.query(`xa commit ${xid('one')}`)
    await db.sql(`insert into items values (4, 'after')`)
    await capture.caughtUp()
    expect(ids(capture.output.changes)).toEqual(['c 3', 'c 1', 'c 1', 'u 10', 'c 4'])
    expect(new Set(capture.output.changes.map(({ commit }) => commit)).size).toBe(3)
    expect(readOffset(capture.offset).prepared).toBe(undefined)
  })

  test('a commit in one phase is like any other', async () => {
    capture = await MysqlCapture.start(db)
    const session = await db.connect()
    sessions.push(session)
    for (const sql of [`xa start ${xid('a')}`, `insert into items values (1, 'one')`, `xa end ${xid('a')}`, `xa commit ${xid('a')} one phase`])
      await session.query(sql)
    await db.sql(`insert into items values (2, 'two')`)
    await capture.caughtUp()
    expect(ids(capture.output.changes)).toEqual(['c 1', 'c 2'])
    expect(readOffset(capture.offset).prepared).toBe(undefined)
  })

  test('what was prepared before a restart is committed after it, at the same positions, large ones too', async () => {
    capture = await MysqlCapture.start(db)
    const rows = Array.from({ length: 2000 }, (_, n) => `(${n + 10}, repeat('${n}', 200))`)
    const large = await prepared(xid('large'), `insert into items values ${rows.join(', ')}`, 'insert into parts values (1)')
    const undone = await prepared(xid('undone'), `insert into items values (5, 'no')`)
    await db.sql(`insert into items values (1, 'between')`)
    await capture.caughtUp()
    await undone.query(`xa rollback ${xid('undone')}`)
    const { offset } = capture
    const changes: RecordedChange[] = []
    // MariaDB streams from before what is prepared: what the log has already is left out
    const take = () => changes.push(...capture.output.changes)
    take()
    await capture.stop()
    await db.sql(`insert into items values (2, 'while it was away')`)
    capture = await MysqlCapture.start(db, {}, offset)
    await capture.caughtUp()
    take()
    expect(ids(changes)).toEqual(['c 1', 'c 2'])
    expect(readOffset(capture.offset).prepared).toEqual(expect.any(String))
    const again = capture.offset
    await capture.stop()
    capture = await MysqlCapture.start(db, {}, again)
    await large.query(`xa commit ${xid('large')}`)
    await db.sql(`insert into items values (3, 'after')`)
    await capture.caughtUp()
    take()
    expect(ids(changes)).toEqual(['c 1', 'c 2', ...rows.map((_, n) => `c ${n + 10}`), 'c 1', 'c 3'])
    expect(changes.map(({ commit }) => commit)).toEqual(changes.map(({ commit }) => commit).sort((a, b) => Number(a - b)))
    expect(readOffset(capture.offset).prepared).toBe(undefined)
  })

  test('what came while one was prepared is judged once, however often it is streamed', async () => {
    await db.sql(`create table days (id int primary key) partition by range (id) (partition p0 values less than (10), partition p1 values less than (100))`)
    capture = await MysqlCapture.start(db)
    await db.sql(`insert into days values (1), (11); insert into items values (1, 'one')`)
    const pending = await prepared(xid('pending'), 'insert into parts values (1)')
    await db.sql(`alter table days drop partition p0; insert into days values (12); insert into items values (2, 'two')`)
    await db.sql(`alter table items add column extra int not null default 7; insert into items values (3, 'three', 8)`)
    await capture.caughtUp()
    expect([...capture.output.parked.keys()]).toEqual([`${db.database}.days`])
    const { offset, output: before } = capture
    await capture.stop()
    // as after `millrace resnapshot`: the table is not parked any more, and its rows in the log are those of now
    const output = new RecordingOutput()
    output.tables.push(...before.tables)
    output.isRewritten = async () => true
    capture = await MysqlCapture.start(db, {}, offset, output)
    await db.sql(`insert into days values (13); insert into items values (4, 'four', 9)`)
    await pending.query(`xa commit ${xid('pending')}`)
    await capture.caughtUp()
    expect([...output.parked.keys()]).toEqual([])
    expect(output.rereads).toEqual([])
    expect(ids(output.changes)).toEqual(['c 13', 'c 4', 'c 1'])
  })

  test('one that was committed while another was prepared is not asked for after a restart', async () => {
    capture = await MysqlCapture.start(db)
    const first = await prepared(xid('first'), `insert into items values (1, 'one')`)
    const second = await prepared(xid('second'), 'insert into parts values (2)')
    await first.query(`xa commit ${xid('first')}`)
    await db.sql(`insert into items values (3, 'three')`)
    await capture.caughtUp()
    expect(ids(capture.output.changes)).toEqual(['c 1', 'c 3'])
    const { offset } = capture
    await capture.stop()
    capture = await MysqlCapture.start(db, {}, offset)
    await second.query(`xa commit ${xid('second')}`)
    await capture.caughtUp()
    expect(ids(capture.output.changes)).toEqual(['c 2'])
  })

  test('when a large one cannot be applied, its file goes with the stream', async () => {
    capture = await MysqlCapture.start(db)
    const scratch = path.join(mysqlContext(db).dataDir, 'scratch')
    const rows = Array.from({ length: 2000 }, (_, n) => `(${n}, repeat('x', 200))`)
    const large = await prepared(xid('large'), `insert into items values ${rows.join(', ')}`)
    await db.sql('insert into parts values (1)')
    await capture.caughtUp()
    expect(readdirSync(scratch)).toEqual(['xa-0'])
    capture.output.table = () => Promise.reject(new MillraceError('log.full', 'no room'))
    await large.query(`xa commit ${xid('large')}`)
    expect(await capture.failed()).toMatchObject({ code: 'log.full' })
    expect(readdirSync(scratch)).toEqual([])
  })

  test('a first start waits for what is prepared already, since views come after it', async () => {
    if (flavor === 'mysql') await db.sql(`grant xa_recover_admin on *.* to cdc@'127.0.0.1'`)
    const session = await prepared(xid('early'), `insert into items values (1, 'early')`)
    const looks = async () => Number(((await session.query(`show global status like 'Com_xa_recover'`))[0] as { Value: string }[])[0]!.Value)
    const before = await looks()
    let opened = false
    const opening = MysqlCapture.start(db).finally(() => {
      opened = true
    })
    // it has found what is prepared, and looked again
    await vi.waitFor(async () => expect(await looks()).toBeGreaterThanOrEqual(before + 2), { timeout: 120_000, interval: 10 })
    expect(opened).toBe(false)
    await session.query(`xa commit ${xid('early')}`)
    capture = await opening
    if (flavor === 'mysql') await db.sql(`revoke xa_recover_admin on *.* from cdc@'127.0.0.1'`)
    await db.sql(`insert into items values (2, 'late')`)
    await capture.caughtUp()
    expect(ids(capture.output.changes)).toEqual(['c 2'])
  })

  if (flavor === 'mysql')
    test('a commit of what was prepared before the capture began, and was not waited for, is an error', async () => {
      const session = await prepared(xid('early'), `insert into items values (1, 'early')`)
      capture = await MysqlCapture.start(db)
      await session.query(`xa commit ${xid('early')}`)
      expect(await capture.failed()).toMatchObject({ code: 'source.history_lost', fix: expect.stringContaining('--resnapshot') })
    })
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { type FileOffset, readOffset } from '../../connectors/mysql/mysql-offset.ts'
import { TupleWriter } from '../../core/event/tuple-writer.ts'
import type { SnapshotChunk, SourceOffset } from '../../core/plugin.ts'
import { databaseOn, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql, WITHOUT_GTIDS } from '../services/mysql.ts'
import { MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const still = new AbortController().signal

describe.skipIf(skip !== null)(`MySQL without GTIDs${skip === null ? '' : ` (${skip})`}`, () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-by-file-'))
  let server: MysqlServer
  let db: MysqlDatabase
  let capture: MysqlCapture | null = null
  beforeAll(async () => {
    server = await startMysql({ flavor: 'mysql', dir, settings: WITHOUT_GTIDS })
  })
  afterAll(async () => {
    await server.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  beforeEach(async () => {
    db = await databaseOn('mysql', server.port)
    await db.sql('create table items (id int primary key, body longtext)')
  })
  afterEach(async () => {
    await capture?.stop()
    capture = null
    await db.drop()
  })

  const start = async (resume: SourceOffset | null = null) => {
    capture = await MysqlCapture.start(db, {}, resume)
    return capture
  }
  const ids = ({ output }: MysqlCapture) => output.changes.map(({ op, before, after }) => `${op} ${String((after ?? before)!.id)}`)
  const place = (offset: SourceOffset) => readOffset(offset) as FileOffset
  /** Captures nothing, from where the server is now. @returns where that is */
  const offsetNow = async () => {
    const one = await start()
    await one.stop()
    capture = null
    return one.offset
  }
  const opening = (offset: SourceOffset, of = db) => mysql.open(mysqlSettings(of), mysqlContext(of), offset)

  const rowsOf = (chunk: SnapshotChunk) => {
    const rows: unknown[] = []
    const writer = new TupleWriter(chunk.table)
    chunk.write(
      writer,
      () => writer.start(),
      () => rows.push(writer.row()[0]),
    )
    return rows
  }

  test('transactions have the numbers of their places, the same when they are streamed again, over several files', async () => {
    const first = await start()
    const { offset: from } = first
    for (const id of [1, 2]) await db.sql(`insert into items values (${id}, 'x')`)
    await db.sql('flush binary logs; flush binary logs')
    await db.sql(`start transaction; insert into items values (3, 'x'); update items set body = 'y' where id = 1; commit`)
    await first.caughtUp()
    const { changes } = first.output
    expect(ids(first)).toEqual(['c 1', 'c 2', 'c 3', 'u 1'])
    const commits = changes.map(({ commit }) => commit)
    expect(commits[0]! < commits[1]! && commits[1]! < commits[2]! && commits[2] === commits[3]).toBe(true)
    expect(place(first.offset).file > place(from).file).toBe(true)
    expect(first.output.start!.source[0]).toBe(null)
    await first.stop()
    const again = await start(from)
    await again.caughtUp()
    expect(again.output.changes).toEqual(changes)
    expect(again.offset).toEqual(first.offset)
    await again.stop()
    await db.sql(`insert into items values (4, 'x')`)
    const further = await start(first.offset)
    await further.caughtUp()
    expect(ids(further)).toEqual(['c 4'])
    expect(further.output.changes[0]!.commit > commits[3]!).toBe(true)
  })

  test('an idle stream goes along to the next file, so that the one before can be purged', async () => {
    const one = await start()
    await db.sql('flush binary logs')
    await one.caughtUp()
    await one.stop()
    const [{ Log_name: last } = {}] = (await db.sql('show binary logs')).slice(-1)
    expect(place(one.offset).file).toBe(last)
    await db.sql(`insert into items values (1, 'x')`)
    const next = await start(one.offset)
    await next.caughtUp()
    expect(ids(next)).toEqual(['c 1'])
  })

  test('compressed transactions, in memory and by way of a file, and those with GTIDs among those without', async () => {
    const one = await start()
    const session = await db.connect()
    await session.query('set session binlog_transaction_compression = ON')
    await session.query(`insert into items values (1, repeat('a', 10000))`)
    await session.query(`insert into items with recursive n (i) as (select 2 union all select i + 1 from n where i < 1001) select i, sha2(i, 512) from n`)
    await session.query(`insert into items select id + 2000, repeat(sha2(id, 512), 100) from items where id < 1000`)
    await session.end()
    await db.sql(`set global enforce_gtid_consistency = ON; set global gtid_mode = OFF_PERMISSIVE; set global gtid_mode = ON_PERMISSIVE`)
    try {
      await db.sql(`insert into items values (5000, 'with a GTID')`)
      await one.caughtUp()
      expect(one.output.changes.length).toBe(1 + 1000 + 999 + 1)
      expect(one.output.start!.source[0]).toMatch(/^[0-9a-f-]{36}:\d+$/)
      await one.stop()
      // a restart that finds the other mode goes on by file
      const next = await start(one.offset)
      await db.sql(`insert into items values (5001, 'with a GTID')`)
      await next.caughtUp()
      expect(ids(next)).toEqual(['c 5001'])
      await next.stop()
      await db.sql('set global gtid_mode = ON')
      await expect(opening(next.offset)).rejects.toMatchObject({
        code: 'source.history_lost',
        message: expect.stringContaining(place(next.offset).file),
        fix: expect.stringMatching(/ON_PERMISSIVE.*--resnapshot/),
      })
      const byGtid = (await MysqlCapture.start(db)) as MysqlCapture
      await byGtid.stop()
      await db.sql('set global gtid_mode = ON_PERMISSIVE')
      await db.sql(`insert into items values (5002, 'with a GTID')`)
      const last = await start(next.offset)
      await last.caughtUp()
      expect(ids(last)).toEqual(['c 5002'])
      await expect(opening(byGtid.offset)).rejects.toMatchObject({ code: 'source.history_lost', fix: expect.stringContaining('--resnapshot') })
    } finally {
      await db.sql(
        `set global gtid_mode = ON_PERMISSIVE; set global gtid_mode = OFF_PERMISSIVE; set global gtid_mode = OFF; set global enforce_gtid_consistency = OFF`,
      )
    }
  })

  test('a transaction that is in the binlog, and that nobody can see yet, is waited for by every view', async () => {
    const one = await start()
    const [table] = await one.connector.tables()
    const reader = await mysql.openReader!(mysqlSettings(db), mysqlContext(db))
    const session = await db.connect()
    const looks = async () => Number((await db.sql(`show global status like 'Com_select'`))[0]!.Value)
    // a commit waits for a replica that is not there, after it was written to the binlog
    await db.sql(`install plugin rpl_semi_sync_source soname 'semisync_source.so'; set global rpl_semi_sync_source_timeout = 3600000`)
    const hold = (on: 0 | 1) => db.sql(`set global rpl_semi_sync_source_enabled = ${on}`)
    try {
      const views = [
        async () => {
          const chunk = await one.connector.snapshot.read(table!, null, { maxRows: 100, maxBytes: 1 << 20 }, () => {}, still)
          return { rows: rowsOf(chunk), sees: one.connector.snapshot.sees(chunk.fence, one.output.changes.at(-1)!.commit) }
        },
        async () => {
          const writer = new TupleWriter(table!)
          const rows: unknown[] = []
          const view = await reader.scan(table!, () => ({ writer, beginRow: () => writer.start(), endRow: () => rows.push(writer.row()[0]) }), still)
          return { rows, sees: view > one.output.changes.at(-1)!.commit }
        },
      ]
      for (const [i, view] of views.entries()) {
        const id = i + 1
        await hold(1)
        const commit = session.query(`insert into items values (${id}, 'x')`)
        while (one.output.changes.length <= i) await one.caughtUp()
        expect(await db.sql(`select id from items where id = ${id}`)).toEqual([])
        let taken = false
        const taking = view().finally(() => {
          taken = true
        })
        // it has looked, and looked again
        for (const before = await looks(); (await looks()) < before + 10; ) expect(taken).toBe(false)
        expect(taken).toBe(false)
        await hold(0)
        expect(await taking).toEqual({ rows: [1, 2].slice(0, i + 1), sees: true })
        await commit
      }
    } finally {
      await hold(0)
      await session.end()
      await reader[Symbol.asyncDispose]()
      await db.sql('uninstall plugin rpl_semi_sync_source')
    }
  })

  test('a view is told from the transaction after it', async () => {
    const one = await start()
    const [table] = await one.connector.tables()
    const read = () => one.connector.snapshot.read(table!, null, { maxRows: 100, maxBytes: 1 << 20 }, () => {}, still)
    const before = await read()
    await db.sql(`insert into items values (1, 'x')`)
    await one.caughtUp()
    const after = await read()
    const { commit } = one.output.changes[0]!
    expect([before, after].map(({ fence, rows }) => [rows, one.connector.snapshot.sees(fence, commit)])).toEqual([
      [0, false],
      [1, true],
    ])
  })

  test.each([
    ['setup_instruments', 'wait/lock/metadata/sql/mdl'],
    ['setup_consumers', 'global_instrumentation'],
  ])('without performance_schema saying what is being committed, by its %s, no view is taken', async (setup, name) => {
    const one = await start()
    const [table] = await one.connector.tables()
    const enable = (on: string) => db.sql(`update performance_schema.${setup} set enabled = '${on}' where name = '${name}'`)
    await enable('NO')
    try {
      const reading = one.connector.snapshot.read(table!, null, { maxRows: 100, maxBytes: 1 << 20 }, () => {}, still)
      const fix = expect.stringMatching(new RegExp(`nothing is being committed.*${setup} .*'${name}'`))
      await expect(reading).rejects.toMatchObject({ code: 'source.unprepared', message: expect.stringContaining(name), fix })
    } finally {
      await enable('YES')
    }
  })

  test('binlogs that were reset, are purged, cut off or of another server are told from those that were captured', async () => {
    const offset = await offsetNow()
    const other = { ...offset, server: '11111111-2222-3333-4444-555555555555' }
    await expect(opening(other)).rejects.toMatchObject({ code: 'source.identity_changed', fix: expect.stringContaining('--resnapshot') })
    await expect(opening({ ...offset, created: place(offset).created - 1 })).rejects.toMatchObject({
      code: 'source.history_lost',
      message: expect.stringContaining('reset'),
    })
    await expect(opening({ ...offset, position: place(offset).position + 1_000_000 })).rejects.toMatchObject({
      code: 'source.history_lost',
      message: expect.stringMatching(/ends at position \d+, before \d+/),
    })
    await db.sql('flush binary logs')
    const [{ Log_name: last } = {}] = (await db.sql('show binary logs')).slice(-1)
    await db.sql(`purge binary logs to '${last}'`)
    await expect(opening(offset)).rejects.toMatchObject({ code: 'source.history_lost', message: expect.stringContaining(`purged those before ${last}`) })
    const late = await offsetNow()
    await db.sql('reset binary logs and gtids')
    await expect(opening(late)).rejects.toMatchObject({ code: 'source.history_lost', message: expect.stringContaining('were reset') })
    // as long as the former one was, or longer
    const early = await offsetNow()
    // its first second must be over, or the next file of its name might be of the same
    while (Math.floor(Date.now() / 1000) <= place(early).created) await db.sql('do sleep(0.05)')
    await db.sql(`insert into items values (1, 'lost'); reset binary logs and gtids; insert into items values (2, repeat('x', 10000))`)
    await expect(opening(early)).rejects.toMatchObject({ code: 'source.history_lost', message: expect.stringMatching(/binlog\.000001.*reset/) })
  })

  test('binlogs that are reset while the stream waits for more of the first are noticed, by a view as well', async () => {
    await db.sql('reset binary logs and gtids')
    const one = await start()
    const [table] = await one.connector.tables()
    await db.sql(`insert into items values (1, repeat('x', 10000))`)
    await one.caughtUp()
    expect(place(one.offset).file).toBe('binlog.000001')
    await db.sql('reset binary logs and gtids')
    const reading = one.connector.snapshot.read(table!, null, { maxRows: 100, maxBytes: 1 << 20 }, () => {}, still)
    const lost = { code: 'source.history_lost', message: expect.stringMatching(/ends at binlog\.000001:\d+, before binlog\.000001:\d+.*reset/) }
    const refused = expect(reading).rejects.toMatchObject(lost)
    await one.connector.lag()
    await refused
    expect(await one.failed()).toMatchObject(lost)
    await expect(opening(one.offset)).rejects.toMatchObject({ code: 'source.history_lost' })
  })

  test('a file that takes the name of the next one while the stream is away is told too', async () => {
    const session = await db.connect()
    const one = await start()
    const xid = `'${db.database}','held',7`
    for (const sql of [`xa start ${xid}`, `insert into items values (1, 'held')`, `xa end ${xid}`, `xa prepare ${xid}`]) await session.query(sql)
    await db.sql('flush binary logs')
    await db.sql(`insert into items values (2, 'x')`)
    await one.caughtUp()
    await one.stop()
    expect(place(one.offset).prepared).toMatch(/^binlog\.\d+:\d+:\d+$/)
    // the stream begins in the file before, which is the one that was captured
    const restored = await MysqlCapture.start(db, {}, { ...one.offset, created: place(one.offset).created - 1 })
    expect(await restored.failed()).toMatchObject({ code: 'source.history_lost', message: expect.stringContaining(place(one.offset).file) })
    await restored.stop()
    // the binlog must also come to the place that was captured, not only to where the stream begins
    await expect(opening({ ...one.offset, position: place(one.offset).position + 1_000_000 })).rejects.toMatchObject({
      code: 'source.history_lost',
      message: expect.stringMatching(/ends at position \d+, before \d+/),
    })
    await expect(opening({ ...one.offset, file: 'binlog.900000' })).rejects.toMatchObject({
      code: 'source.history_lost',
      message: expect.stringMatching(/does not have binlog\.900000.*reset/),
    })
    const next = await start(one.offset)
    await session.query(`xa commit ${xid}`)
    await session.end()
    await next.caughtUp()
    expect(ids(next)).toEqual(['c 1'])
  })
})

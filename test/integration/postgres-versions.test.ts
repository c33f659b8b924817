import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pg from 'pg'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { type Json, type PluginContext, type SourceOffset, type TableParts, type TableSchema, UNCHANGED, type Value } from '../../core/plugin.ts'
import { databaseOn, type TestDatabase } from '../services/postgres.ts'
import { MAJORS, postgresBinOf, skipReason, versionDatabase } from '../services/postgres-versions.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'
import { RunningCapture, until } from './running-capture.ts'

const reason = skipReason()

describe.each(MAJORS)(`Postgres %i${reason === null ? '' : ` (skipped: ${reason})`}`, { skip: reason !== null }, (major) => {
  let db: TestDatabase
  let context: PluginContext
  /** Of one test, which changes settings. */
  let own: PostgresServer | null = null
  const running: RunningCapture[] = []

  const take = (made: TestDatabase, dataDir: string) => {
    db = made
    context = { mesh: 'test', node: db.database, dataDir, logger: pino({ level: 'silent' }), metric: () => {} }
  }

  beforeEach(async () => take(await versionDatabase(major), mkdtempSync(path.join(os.tmpdir(), 'millrace-pg-'))))

  afterEach(async () => {
    for (const capture of running.splice(0)) await capture.stop()
    await db.drop()
    await own?.stop('SIGQUIT')
    own = null
    rmSync(context.dataDir, { recursive: true, force: true })
  })

  const settings = (more: object = {}) => postgres.config.parse({ url: db.url, tables: ['public.*'], ...more })
  const slotName = () => `millrace_test_${db.database}`

  async function start(more: object = {}, resume: SourceOffset | null = null): Promise<RunningCapture> {
    const own = { ...context, dataDir: path.join(context.dataDir, String(running.length)) }
    const connector = await postgres.open(settings(more), own, resume)
    const capture = new RunningCapture(connector, resume ?? connector.start, db)
    running.push(capture)
    return capture
  }

  const spillDir = (capture: RunningCapture) => path.join(context.dataDir, String(running.indexOf(capture)), 'spill')
  const rows = (capture: RunningCapture, table: string) => capture.output.of(table).map(({ op, key, before, after }) => ({ op, key, before, after }))

  async function snapshot(capture: RunningCapture, name: string): Promise<{ readonly table: TableSchema; readonly rows: readonly (readonly Value[])[] }> {
    const table = (await capture.connector.tables()).find((one) => one.name === name)!
    const limits = { maxRows: 1000, maxBytes: 1_000_000 }
    const chunk = await capture.connector.snapshot.read(table, null, limits, () => {}, AbortSignal.timeout(60_000))
    expect(chunk.next).toBe(null)
    const writer = new RecordingWriter(chunk.table)
    chunk.write(
      writer,
      () => writer.row(),
      () => writer.end(),
    )
    return { table: chunk.table, rows: writer.rows }
  }

  it('reads the main types by snapshot and by stream, binary and text, as the same values', async () => {
    await db.sql(`create type mood as enum ('sad', 'glad'); create type pair as (x int, y text); create domain percent as int check (value between 0 and 100);
      create table kinds (id int primary key, b boolean, i2 int2, i8 int8, f4 float4, f8 float8, n numeric(12,2), wide numeric, t text, c char(4), raw bytea, u uuid, j json,
        jb jsonb, d date, tm time, ts timestamp, tz timestamptz, iv interval, e mood, a int[], ta text[], r int4range, mr int4multirange, ip inet, p pair, dom percent, twice int generated always as (id * 2) stored)`)
    const row = `true, -7, 9007199254740993, 1.5, 0.1, 123456.78, 12345678901234567890.123, 'grün', 'ab', '\\x00ff', '6f1c1f0e-0000-4000-8000-00000000002a', '{"a": 1}',
      '{"b": [2]}', '2024-02-29', '23:59:59.000001', '2024-02-29 12:00:00.5', '2024-02-29 12:00:00+02', '1 mon 2 days', 'glad', '{1,null,3}', '{a,"b c"}', '[1,5)', '{[1,2),[5,9)}',
      '10.0.0.0/8', '(1,one)', 42`
    const low = `false, -32768, -9223372036854775808, -0, 'NaN', -9999999999.99, -0.000001, '', '', '', '00000000-0000-0000-0000-000000000000', 'null', 'null', '0001-01-01 BC',
      '24:00:00', '0001-01-01', '9999-12-31 23:59:59.999999Z', '-1 day', 'sad', '{}', '{}', 'empty', '{}', '::1', '(,)', 0`
    const insert = (first: number) =>
      db.sql(`insert into kinds values (${first}, ${row}), (${first + 1}, ${Array(26).fill('null').join(', ')}), (${first + 2}, ${low})`)
    await insert(1)
    const binary = await start()
    const text = await start({ binary: false, slot: `${slotName()}_text`, publication: slotName() })
    await insert(1001)
    await Promise.all([binary.caughtUp(), text.caughtUp()])
    const read = await snapshot(binary, 'kinds')
    const names = read.table.columns.map(({ name }) => name)
    expect(names).not.toContain('twice')
    const streamed = (capture: RunningCapture) => capture.output.of('public.kinds').map(({ after }) => names.map((name) => after![name]))
    expect(read.rows.length).toBe(6)
    expect(streamed(binary)).toEqual(read.rows.slice(3))
    expect(streamed(text)).toEqual(read.rows.slice(3))
    expect(read.rows.slice(0, 3).map(([, ...values]) => values)).toEqual(read.rows.slice(3).map(([, ...values]) => values))
    const value = Object.fromEntries(names.map((name, i) => [name, read.rows[0]![i]]))
    expect(value).toMatchObject({
      b: true,
      i2: -7,
      i8: 9007199254740993n,
      f4: 1.5,
      f8: 0.1,
      n: 12345678n,
      wide: '12345678901234567890.123',
      t: 'grün',
      c: 'ab  ',
    })
    expect(value).toMatchObject({
      raw: new Uint8Array([0, 255]),
      u: '6f1c1f0e-0000-4000-8000-00000000002a',
      j: '{"a": 1}',
      jb: '{"b": [2]}',
      d: 19782,
      tm: 86_399_000_001n,
    })
    expect(value).toMatchObject({
      ts: 1_709_208_000_500_000n,
      tz: 1_709_200_800_000_000n,
      iv: 'P1M2D',
      e: 'glad',
      a: [1, null, 3],
      ta: ['a', 'b c'],
      r: '[1,5)',
    })
    expect(value).toMatchObject({ mr: '{[1,2),[5,9)}', ip: '10.0.0.0/8', p: [1, 'one'], dom: 42 })
  })

  it('captures updates with unsent values, deletes, changed keys, truncates and messages', async () => {
    await db.sql(`create table big (id int, part text, v text, n int, primary key (id, part)); alter table big alter v set storage external;
      create table whole (id int primary key, v text, n int); alter table whole alter v set storage external; alter table whole replica identity full;
      create table named (id int, code text not null unique, v int); alter table named replica identity using index named_code_key`)
    const capture = await start({ messages: true })
    const large = 'x'.repeat(10_000)
    await db.sql(`insert into big values (1, 'p', '${large}', 1)`)
    await db.sql('update big set n = 2')
    await db.sql('update big set id = 5')
    await db.sql('delete from big')
    await db.sql(`insert into whole values (1, '${large}', 1); update whole set n = 2; delete from whole`)
    await db.sql(`insert into named values (7, 'x', 1); update named set v = 2; update named set code = 'y'; delete from named`)
    await db.sql('begin; insert into named values (8, $$z$$, 1); truncate named, whole; commit')
    await db.sql(`select pg_logical_emit_message(false, 'loose', 'one'); begin; select pg_logical_emit_message(true, 'bound', 'two'); commit`)
    await capture.caughtUp()
    expect(rows(capture, 'public.big').map(({ op, key, after }) => ({ op, key, n: after?.n, id: after?.id }))).toEqual([
      { op: 'c', n: 1, id: 1 },
      { op: 'u', n: 2, id: 1 },
      { op: 'u', key: { id: 1, part: 'p' }, n: 2, id: 5 },
      { op: 'd', key: { id: 5, part: 'p' } },
    ])
    expect(rows(capture, 'public.big')[1]!.after!.v).toBe(UNCHANGED)
    expect(rows(capture, 'public.whole')).toEqual([
      { op: 'c', after: { id: 1, v: large, n: 1 } },
      { op: 'u', before: { id: 1, v: large, n: 1 }, after: { id: 1, v: large, n: 2 } },
      { op: 'd', before: { id: 1, v: large, n: 2 } },
      { op: 't' },
    ])
    expect(rows(capture, 'public.named')).toEqual([
      { op: 'c', after: { id: 7, code: 'x', v: 1 } },
      { op: 'u', after: { id: 7, code: 'x', v: 2 } },
      { op: 'u', key: { code: 'x' }, after: { id: 7, code: 'y', v: 2 } },
      { op: 'd', key: { code: 'y' } },
      { op: 'c', after: { id: 8, code: 'z', v: 1 } },
      { op: 't' },
    ])
    expect(capture.output.of('millrace.message').map(({ after }) => [after!.prefix, after!.transactional])).toEqual([
      ['loose', false],
      ['bound', true],
    ])
  })

  it('completes a row whose key changed with its large values', async () => {
    await db.sql('create table big (id int primary key, v text, n int); alter table big alter v set storage external')
    const capture = await start()
    const large = 'y'.repeat(10_000)
    await db.sql(`insert into big values (1, '${large}', 1)`)
    await db.sql('update big set id = 2')
    await capture.caughtUp()
    expect(rows(capture, 'public.big')[1]).toEqual({ op: 'u', key: { id: 1 }, after: { id: 2, v: large, n: 1 } })
  })

  it('receives a large transaction while it runs, and gives it as when it comes whole', async () => {
    await db.sql(`create table t (id int primary key, v text); alter database ${db.database} set logical_decoding_work_mem = '64kB'`)
    const streamed = await start()
    const whole = await start({ streaming: false, slot: `${slotName()}_whole`, publication: slotName() })
    const spilled = () => readdirSync(spillDir(streamed)).reduce((sum, name) => sum + statSync(path.join(spillDir(streamed), name)).size, 0)
    const other = new pg.Client(db.url)
    await other.connect()
    const fill = (from: number, count: number) => `insert into t select i, repeat(md5(i::text), 20) from generate_series(${from}, ${from + count - 1}) i`
    await other.query(`begin; ${fill(1, 1000)}`)
    await until('the server streams the transaction in progress', () => spilled() > 400_000)
    await other.query(`savepoint s; ${fill(10_001, 1000)}`)
    await until('the server streams the savepoint', () => spilled() > 900_000)
    await db.sql('insert into t values (-1, null)')
    await other.query(`rollback to s; update t set v = null where id = 7; ${fill(20_001, 1000)}`)
    await until('the other transaction is there', () => streamed.output.changes.length > 0)
    expect(streamed.output.changes.map((change) => change.after)).toEqual([{ id: -1, v: null }])
    await other.query('commit')
    await other.query(`begin; ${fill(30_001, 2000)}; rollback`)
    await other.end()
    await db.sql('insert into t values (-2, null)')
    await Promise.all([streamed.caughtUp(), whole.caughtUp()])
    const ids = streamed.output.changes.map((change) => change.after?.id as number)
    expect(ids.length).toBe(2003)
    expect(ids.filter((id) => id > 10_000 && id <= 20_000)).toEqual([])
    expect(streamed.output.changes).toEqual(whole.output.changes)
    await until('the scratch files are gone', () => readdirSync(spillDir(streamed)).length === 0)
  })

  it('gives prepared transactions when they are committed, whether it asks for them before or not', async () => {
    await db.sql('create table t (id int primary key)')
    const plain = await start()
    const early = major >= 15 ? await start({ twoPhase: true, slot: `${slotName()}_early`, publication: slotName() }) : null
    await db.sql(`begin; insert into t values (1); prepare transaction 'one-${db.database}'`)
    await db.sql(`begin; insert into t values (2); prepare transaction 'two-${db.database}'`)
    await db.sql('insert into t values (3)')
    await Promise.all([plain, early].map((capture) => until('the insert is there', () => capture === null || capture.output.changes.length === 1)))
    await db.sql(`rollback prepared 'one-${db.database}'`)
    await early?.stop()
    const resumed = early === null ? null : await start({ twoPhase: true, slot: `${slotName()}_early`, publication: slotName() }, early.offset)
    await db.sql(`commit prepared 'two-${db.database}'`)
    await plain.caughtUp()
    expect(plain.output.changes.map((change) => change.after?.id)).toEqual([3, 2])
    await resumed?.caughtUp()
    if (resumed !== null) expect(resumed.output.changes).toEqual(plain.output.changes)
  })

  it('takes all in the order in which sessions end transactions of every kind at once', async () => {
    await db.sql(`create table t (id int primary key, v text); alter database ${db.database} set logical_decoding_work_mem = '64kB'`)
    const capture = await start({ messages: true, twoPhase: major >= 15 })
    const ids: number[] = []
    const work = async (session: number) => {
      const client = new pg.Client(db.url)
      await client.connect()
      for (let turn = 0; turn < 40; turn++) {
        const id = session * 1_000_000 + turn * 1000
        const one = `insert into t values (${id}, 'small')`
        const many = `insert into t select i, repeat(md5(i::text), 20) from generate_series(${id}, ${id + 149}) i`
        const name = `'${db.database}-${id}'`
        const rolls = turn % 8 === 7
        const body = turn % 4 < 2 ? one : many
        await client.query(`select pg_logical_emit_message(false, 'loose', repeat('m', ${turn * 300}))`)
        await client.query(`begin; ${body}; savepoint s; insert into t values (${id + 999}, 'undone'); rollback to s`)
        await client.query(`select pg_logical_emit_message(false, 'inside', 'm'), pg_logical_emit_message(true, 'bound', 'm')`)
        if (turn % 2 === 0) await client.query(rolls ? 'rollback' : 'commit')
        else {
          await client.query(`prepare transaction ${name}`)
          await client.query(rolls ? `rollback prepared ${name}` : `commit prepared ${name}`)
        }
        if (!rolls) for (let i = 0; i < (body === one ? 1 : 150); i++) ids.push(id + i)
      }
      await client.end()
    }
    await Promise.all([1, 2, 3, 4].map(work))
    await capture.caughtUp()
    const read = rows(capture, 'public.t').map(({ after }) => after!.id as number)
    expect(read.toSorted((a, b) => a - b)).toEqual(ids.toSorted((a, b) => a - b))
    const messages = capture.output.of('millrace.message').map(({ after }) => after!.prefix)
    expect([messages.filter((prefix) => prefix === 'loose').length, messages.filter((prefix) => prefix === 'inside').length]).toEqual([160, 160])
  })

  if (major >= 15) {
    it('receives a large prepared transaction while it runs, and again after a restart before its commit', async () => {
      await db.sql(`create table t (id int primary key, v text); alter database ${db.database} set logical_decoding_work_mem = '64kB'`)
      const capture = await start({ twoPhase: true })
      await db.sql(`begin; insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 1000) i; prepare transaction 'big-${db.database}'`)
      await db.sql('insert into t values (-1, null)')
      await until('the insert is there', () => capture.output.changes.length === 1)
      expect(readdirSync(spillDir(capture)).length).toBe(1)
      await capture.stop()
      const resumed = await start({ twoPhase: true }, capture.offset)
      await db.sql(`commit prepared 'big-${db.database}'`)
      await resumed.caughtUp()
      expect(resumed.output.changes.map((change) => change.after?.id)).toEqual([-1, ...Array.from({ length: 1000 }, (_, i) => i + 1)])
    })

    it('uses a publication of a whole schema', async () => {
      await db.sql('create table t (id int primary key); create publication p for tables in schema public with (publish_via_partition_root = true)')
      const capture = await start({ publication: 'p' })
      await db.sql('insert into t values (1); create table later (id int primary key); insert into later values (2)')
      await capture.caughtUp()
      expect(capture.output.changes.map(({ table, after }) => [table, after?.id])).toEqual([
        ['public.t', 1],
        ['public.later', 2],
      ])
      expect((await capture.connector.tables()).map(({ name }) => name)).toContain('t')
    })
  }

  it('follows DDL within the stream', async () => {
    await db.sql('create table t (id int primary key, v text, gone int)')
    const capture = await start()
    await db.sql(`insert into t values (1, 'a', 0)`)
    await capture.caughtUp()
    await db.sql(`alter table t add w int default 5; insert into t values (2, 'b', 0, 6)`)
    await capture.caughtUp()
    await db.sql(`alter table t rename v to name; insert into t values (3, 'c', 0, 7); alter table t drop gone; insert into t values (4, 'd', 8)`)
    await capture.caughtUp()
    await db.sql(`alter table t alter w type bigint; insert into t values (5, 'e', 9007199254740993)`)
    await db.sql('create table later (id int primary key)')
    await until('the new table is listed', async () => (await capture.connector.tables()).some((table) => table.name === 'later'))
    await db.sql('insert into later values (1)')
    await capture.caughtUp()
    expect(capture.output.of('public.t').map((change) => change.after)).toEqual([
      { id: 1, v: 'a', gone: 0 },
      { id: 2, v: 'b', gone: 0, w: 6 },
      { id: 3, name: 'c', gone: 0, w: 7 },
      { id: 4, name: 'd', w: 8 },
      { id: 5, name: 'e', w: 9007199254740993n },
    ])
    const shapes = capture.output.tables.filter((table) => table.name === 't')
    expect(shapes.map((table) => table.columns.map(({ id }) => id).join())).toEqual(['1,2,3', '1,2,3,4', '1,2,3,4', '1,2,4', '1,2,4'])
    // the default and the new type changed rows without a word in the stream
    expect(capture.output.rereads.map((table) => table.name)).toEqual(['t', 't'])
    expect(capture.output.of('public.later').length).toBe(1)
  })

  it('starts again from an offset, and fails closed when the slot lost its history', async () => {
    // others have slots on the shared server
    await db.drop()
    const { dataDir } = context
    chmodSync(dataDir, 0o755)
    own = await startPostgres({ bin: await postgresBinOf(major), dataDir: path.join(dataDir, 'server') })
    take(await databaseOn(own.port), dataDir)
    await db.sql('create table t (id int primary key)')
    const first = await start()
    for (let i = 0; i < 3; i++) await db.sql(`insert into t select ${i} * 10 + n from generate_series(0, 4) n`)
    await first.caughtUp()
    await first.stop()
    const again = await start({}, first.connector.start)
    await again.caughtUp()
    expect(again.output.changes.length).toBe(15)
    expect(again.output.changes).toEqual(first.output.changes)
    await again.stop()
    await db.sql('insert into t values (1000)')
    const later = await start({}, first.offset)
    await later.caughtUp()
    expect(later.output.changes.map((change) => change.after)).toEqual([{ id: 1000 }])
    await later.stop()
    const lost = { code: 'source.history_lost', fix: `millrace run FILE --resnapshot ${db.database}` }
    await db.sql(`alter system set max_slot_wal_keep_size = '1MB'`)
    await db.sql('select pg_reload_conf()')
    await until('the slot is invalidated', async () => {
      await db.sql('create table if not exists filler (v int); insert into filler values (1); select pg_switch_wal(); checkpoint')
      const { rows } = await db.sql('select wal_status from pg_replication_slots where slot_name = $1', [slotName()])
      return rows[0].wal_status === 'lost'
    })
    await expect(start({}, later.offset)).rejects.toMatchObject(lost)
    const findings = await postgres.check(settings(), context)
    expect(findings).toContainEqual(
      expect.objectContaining({ level: 'error', subject: `replication slot ${slotName()}`, fix: expect.stringContaining('--resnapshot') }),
    )
    await db.sql('select pg_drop_replication_slot($1)', [slotName()])
    await expect(start({}, later.offset)).rejects.toMatchObject(lost)
  })

  it('notices that its publication is taken away while it runs', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start()
    await capture.caughtUp()
    await db.sql(`drop publication ${slotName()}`)
    await db.sql('insert into t values (1)')
    await until('the publication is missed', async () => {
      if (capture.failure !== null) return true
      return capture.connector.tables().then(
        () => false,
        (error: { code: string }) => error.code === 'source.history_lost',
      )
    })
    if (capture.failure !== null) expect(capture.failure).toMatchObject({ code: 'source.history_lost' })
    expect(capture.output.changes).toEqual([])
  })

  it('captures a partitioned table under its root', async () => {
    await db.sql(`create table part (id int, region text, v int, primary key (id, region)) partition by list (region);
      create table part_a partition of part for values in ('a'); create table part_b partition of part for values in ('b'); insert into part values (0, 'a', 0)`)
    const capture = await start()
    await db.sql(`insert into part values (1, 'a', 1), (2, 'b', 2)`)
    await db.sql(`update part set region = 'b' where id = 1`)
    await db.sql(`create table part_c partition of part for values in ('c'); insert into part values (3, 'c', 3)`)
    await capture.caughtUp()
    expect((await snapshot(capture, 'part')).rows).toEqual([
      [0, 'a', 0],
      [1, 'b', 1],
      [2, 'b', 2],
      [3, 'c', 3],
    ])
    await db.sql('truncate part')
    await capture.caughtUp()
    expect(rows(capture, 'public.part')).toEqual([
      { op: 'c', after: { id: 1, region: 'a', v: 1 } },
      { op: 'c', after: { id: 2, region: 'b', v: 2 } },
      { op: 'd', key: { id: 1, region: 'a' } },
      { op: 'c', after: { id: 1, region: 'b', v: 1 } },
      { op: 'c', after: { id: 3, region: 'c', v: 3 } },
      { op: 't' },
    ])
    expect(capture.output.changes.every((change) => change.table === 'public.part')).toBe(true)
  })

  it('follows partitions that come and go: says which, has what came read alone, and streams what is written to it', async () => {
    await db.sql(`create table part (id int, region text, primary key (id, region)) partition by list (region);
      create table part_a partition of part for values in ('a'); create table part_b partition of part for values in ('b');
      create table part_d (like part including all); insert into part_d select i, 'd' from generate_series(1, 7) i`)
    // no other table joins the publication, which would make a Postgres 14 look again
    const capture = await start({ tables: ['public.part'] })
    const { connector } = capture
    const table = (await connector.tables())[0]!
    const first = (await connector.parts!(table, null))!
    expect(first).toMatchObject({ came: null, left: false })
    await db.sql(`insert into part values (1, 'a'), (2, 'b')`)
    // a Postgres 14 decides here that this table is not published
    await db.sql(`insert into part_d values (8, 'd')`)
    await capture.caughtUp()
    await db.sql(`alter table part attach partition part_d for values in ('d')`)
    const moved = async (before: Json) => {
      let found: TableParts | null = null
      await until('the move of partitions is noticed', async () => {
        await connector.tables()
        found = await connector.parts!(table, before)
        return found !== null && JSON.stringify(found.now) !== JSON.stringify(before)
      })
      return found as unknown as TableParts
    }
    const attached = await moved(first.now)
    expect(attached.left).toBe(false)
    const read: unknown[] = []
    for (let cursor = attached.came; cursor !== null; ) {
      const chunk = await connector.snapshot.read(table, cursor, { maxRows: 3, maxBytes: 1e6 }, () => {}, new AbortController().signal)
      expect(chunk.rows).toBeLessThanOrEqual(3)
      read.push(chunk.rows)
      cursor = chunk.next
    }
    expect(read).toEqual([3, 3, 2])
    await db.sql(`insert into part_d values (9, 'd')`)
    await capture.caughtUp()
    expect(capture.output.of('public.part').map(({ after }) => after!.id)).toEqual([1, 2, 9])
    await db.sql('alter table part detach partition part_d')
    const detached = await moved(attached.now)
    expect(detached).toMatchObject({ came: null, left: true })
    await db.sql(`insert into part_d values (10, 'd'); insert into part values (3, 'a')`)
    await capture.caughtUp()
    expect(capture.output.of('public.part').map(({ after }) => after!.id)).toEqual([1, 2, 9, 3])
    // what it would have read is no partition any more
    const chunk = await connector.snapshot.read(table, attached.came, { maxRows: 3, maxBytes: 1e6 }, () => {}, new AbortController().signal)
    expect([chunk.rows, chunk.next]).toEqual([0, null])
    await db.sql('truncate part_a')
    expect(await moved(detached.now)).toMatchObject({ came: null, left: true })
    const findings = await postgres.check(settings(), context)
    expect(findings.filter(({ level }) => level === 'warning').map(({ subject }) => subject)).toContain('partitions of public.part')
  })

  it('leaves out what was replicated to this server, where the server can', async () => {
    await db.sql('create table t (id int primary key)')
    const any = await start()
    const none = { origin: 'none', slot: `${slotName()}_none`, publication: slotName() }
    if (major < 16) {
      await expect(start(none)).rejects.toMatchObject({ code: 'config.unsupported', fix: expect.stringContaining('origin: any') })
      expect((await postgres.check(settings(none), context)).filter((finding) => finding.level === 'error').map((finding) => finding.subject)).toEqual([
        'origin',
      ])
    }
    const local = major < 16 ? null : await start(none)
    const replica = new pg.Client(db.url)
    await replica.connect()
    await replica.query('insert into t values (1)')
    await replica.query(`select pg_replication_origin_create($1)`, [db.database])
    await replica.query(`select pg_replication_origin_session_setup($1)`, [db.database])
    await replica.query('insert into t values (2)')
    await replica.query('select pg_replication_origin_session_reset()')
    await replica.query('insert into t values (3)')
    await replica.query(`select pg_replication_origin_drop($1)`, [db.database])
    await replica.end()
    await any.caughtUp()
    expect(any.output.changes.map((change) => change.after?.id)).toEqual([1, 2, 3])
    await local?.caughtUp()
    if (local !== null) expect(local.output.changes.map((change) => change.after?.id)).toEqual([1, 3])
  })

  it('needs no superuser, and says which privilege is missing', async () => {
    const role = `role_${db.database}`
    const url = db.url.replace('postgres@', `${role}@`)
    await db.sql(`create role ${role} login; create schema app; create table app.t (id int primary key, v text);
      insert into app.t values (1, 'a')`)
    try {
      const more = { url, tables: ['app.*'] }
      const errors = async () => (await postgres.check(settings(more), context)).filter((finding) => finding.level === 'error')
      expect((await errors()).map((finding) => [finding.subject, finding.fix])).toEqual([
        ['replication privilege', `ALTER ROLE "${role}" REPLICATION`],
        [`publication ${slotName()}`, `GRANT CREATE ON DATABASE "${db.database}" TO "${role}"`],
        ['privileges on app.t', `GRANT USAGE ON SCHEMA "app" TO "${role}"; GRANT SELECT ON "app"."t" TO "${role}"`],
        ['privileges on app.t', expect.stringContaining(`ALTER TABLE "app"."t" OWNER TO "${role}"`)],
      ])
      await expect(start(more)).rejects.toMatchObject({ code: 'source.forbidden', fix: expect.any(String) })
      await db.sql(`alter role ${role} replication`)
      await expect(start(more)).rejects.toMatchObject({ code: 'source.forbidden', fix: expect.any(String) })
      expect((await db.sql('select slot_name from pg_replication_slots where database = $1', [db.database])).rows).toEqual([])
      await db.sql(`grant create on database ${db.database} to ${role}; alter table app.t owner to ${role}`)
      // to own a table is not enough
      expect((await errors()).map(({ subject, message, fix }) => [subject, message, fix])).toEqual([
        ['privileges on app.t', `role ${role} may not use its schema`, `GRANT USAGE ON SCHEMA "app" TO "${role}"`],
      ])
      await expect(start(more)).rejects.toMatchObject({ code: 'source.forbidden', fix: expect.any(String) })
      await db.sql(`grant usage on schema app to ${role}`)
      expect(await errors()).toEqual([])
      const capture = await start(more)
      await db.sql(`insert into app.t values (2, 'b')`)
      await capture.caughtUp()
      expect(rows(capture, 'app.t')).toEqual([{ op: 'c', after: { id: 2, v: 'b' } }])
      expect((await snapshot(capture, 't')).rows).toEqual([
        [1, 'a'],
        [2, 'b'],
      ])
      await capture.stop()
      await postgres.provisions!.drop(settings(more), context)
      expect((await db.sql('select 1 from pg_replication_slots where database = $1', [db.database])).rowCount).toBe(0)
      expect((await db.sql('select 1 from pg_publication')).rowCount).toBe(0)
    } finally {
      for (const capture of running.splice(0)) await capture.stop()
      await db.sql(`reassign owned by ${role} to postgres; drop owned by ${role}; drop role ${role}`)
    }
  })

  it('makes a slot that standbys follow, and reports how far it is behind', async () => {
    await db.sql('create table t (id int primary key, v text)')
    const capture = await start()
    const slot = async () =>
      (
        await db.sql(
          `select to_jsonb(s) -> 'failover' as failover, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 as retained, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::float8 as behind
             from pg_replication_slots s where slot_name = $1`,
          [slotName()],
        )
      ).rows[0]
    expect((await slot()).failover).toBe(major >= 17 ? true : null)
    await db.sql(`insert into t select i, repeat('x', 1000) from generate_series(1, 1000) i`)
    await capture.caughtUp()
    // nothing is acknowledged, and others write to the server too
    const least = (await slot()).behind
    const before = await capture.connector.lag()
    expect(before.behindBytes).toBeGreaterThan(1_000_000)
    expect(before.retainedBytes).toBeGreaterThanOrEqual(before.behindBytes)
    expect(before.behindBytes).toBeGreaterThanOrEqual(least)
    expect(before.behindBytes).toBeLessThanOrEqual((await slot()).behind)
    await until('the slot follows', async () => {
      capture.connector.acknowledge(capture.offset)
      return (await capture.connector.lag()).behindBytes < 500_000
    })
    await db.sql('select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1', [slotName()])
    await until('the slot is gone', async () => {
      await db.sql('select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active', [slotName()])
      return (await slot()) === undefined
    })
    await expect(capture.connector.lag()).rejects.toMatchObject({ code: 'source.history_lost' })
  })
})

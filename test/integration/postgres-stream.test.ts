import { mkdtempSync, readdirSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CapturedTables } from '../../connectors/postgres/captured-tables.ts'
import { CatalogConnection } from '../../connectors/postgres/catalog-connection.ts'
import postgres from '../../connectors/postgres/index.ts'
import { parseLsn } from '../../connectors/postgres/lsn.ts'
import { type PluginContext, type SourceOffset, TablePatterns, UNCHANGED } from '../../core/plugin.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { RunningCapture, until } from './running-capture.ts'

let db: TestDatabase
let context: PluginContext
const running: RunningCapture[] = []

beforeEach(async () => {
  db = await testDatabase()
  const dataDir = mkdtempSync(path.join(os.tmpdir(), 'millrace-pg-'))
  context = { mesh: 'test', node: db.database, dataDir, logger: pino({ level: 'silent' }), metric: () => {} }
})

afterEach(async () => {
  for (const capture of running.splice(0)) await capture.stop()
  await db.drop()
})

const settings = (more: object = {}) => postgres.config.parse({ url: db.url, tables: ['public.*', '!public.tmp_*'], ...more })
const slotName = () => `millrace_test_${db.database}`

async function start(more: object = {}, resume: SourceOffset | null = null): Promise<RunningCapture> {
  const connector = await postgres.open(settings(more), context, resume)
  const capture = new RunningCapture(connector, resume ?? connector.start, db)
  running.push(capture)
  return capture
}

const rows = (capture: RunningCapture, table: string) => capture.output.of(table).map(({ op, key, before, after }) => ({ op, key, before, after }))

describe('the Postgres stream', () => {
  it('captures inserts, updates and deletes under each replica identity', async () => {
    await db.sql(`create table d (id int primary key, v text); create table f (id int primary key, v text); alter table f replica identity full;
      create table i (id int, code text not null unique, v int); alter table i replica identity using index i_code_key;
      create table bare (v int); alter table bare replica identity full`)
    const capture = await start()
    await db.sql(`insert into d values (1, 'a'); update d set v = 'b'; delete from d`)
    await db.sql(`insert into f values (1, 'a'); update f set v = null; delete from f`)
    await db.sql(`insert into i values (7, 'x', 1); update i set v = 2; update i set code = 'y'; delete from i`)
    await db.sql('insert into bare values (1); update bare set v = 2; delete from bare')
    await capture.caughtUp()
    expect(rows(capture, 'public.d')).toEqual([
      { op: 'c', after: { id: 1, v: 'a' } },
      { op: 'u', after: { id: 1, v: 'b' } },
      { op: 'd', key: { id: 1 } },
    ])
    expect(rows(capture, 'public.f')).toEqual([
      { op: 'c', after: { id: 1, v: 'a' } },
      { op: 'u', before: { id: 1, v: 'a' }, after: { id: 1, v: null } },
      { op: 'd', before: { id: 1, v: null } },
    ])
    expect(rows(capture, 'public.i')).toEqual([
      { op: 'c', after: { id: 7, code: 'x', v: 1 } },
      { op: 'u', after: { id: 7, code: 'x', v: 2 } },
      { op: 'u', key: { code: 'x' }, after: { id: 7, code: 'y', v: 2 } },
      { op: 'd', key: { code: 'y' } },
    ])
    expect(rows(capture, 'public.bare')).toEqual([
      { op: 'c', after: { v: 1 } },
      { op: 'u', before: { v: 1 }, after: { v: 2 } },
      { op: 'd', before: { v: 2 } },
    ])
    expect(capture.output.changes.every((change) => change.ordinal % 2 === 1 && change.txId > 0n)).toBe(true)
  })

  it('refuses a table whose updates Postgres would refuse once it is published, with the ALTER that repairs it', async () => {
    await db.sql(
      'create table ok (id int primary key); create table bare (v int); create table none (id int primary key); alter table none replica identity nothing',
    )
    await expect(start()).rejects.toMatchObject({
      code: 'source.unprepared',
      fix: expect.stringContaining('ALTER TABLE "public"."bare" REPLICA IDENTITY FULL; ALTER TABLE "public"."none" REPLICA IDENTITY FULL'),
    })
    await db.sql('update bare set v = 1')
    const findings = await postgres.check(settings(), context)
    expect(findings.filter((finding) => finding.level === 'error').map((finding) => finding.subject)).toEqual([
      'replica identity of public.bare',
      'replica identity of public.none',
    ])
  })

  it.each([true, false])('marks unsent large values as unchanged, and completes a row whose key changed (binary %s)', async (binary) => {
    await db.sql(`create table big (id int, part text, v text, n int, primary key (id, part)); alter table big alter v set storage external;
      create table whole (id int primary key, v text, n int); alter table whole alter v set storage external; alter table whole replica identity full`)
    const capture = await start({ binary })
    const large = 'x'.repeat(10_000)
    await db.sql(`insert into big values (1, 'p', '${large}', 1)`)
    await db.sql('update big set n = 2')
    await db.sql('update big set id = 5')
    await db.sql(`insert into whole values (1, '${large}', 1); update whole set n = 2`)
    await capture.caughtUp()
    expect(rows(capture, 'public.big')).toEqual([
      { op: 'c', after: { id: 1, part: 'p', v: large, n: 1 } },
      { op: 'u', after: { id: 1, part: 'p', v: UNCHANGED, n: 2 } },
      { op: 'u', key: { id: 1, part: 'p' }, after: { id: 5, part: 'p', v: large, n: 2 } },
    ])
    expect(rows(capture, 'public.whole')[1]).toEqual({ op: 'u', before: { id: 1, v: large, n: 1 }, after: { id: 1, v: large, n: 2 } })
  })

  it('captures truncates and, when asked, logical messages', async () => {
    await db.sql('create table a (id int primary key); create table b (id int primary key); insert into a values (1)')
    const capture = await start({ messages: true })
    await db.sql('insert into a values (2)')
    await db.sql('begin; insert into a values (3); truncate a, b; insert into b values (4); commit')
    await db.sql(`select pg_logical_emit_message(false, 'loose', 'one')`)
    await db.sql(`begin; select pg_logical_emit_message(true, 'bound', 'two'); insert into a values (9); commit`)
    await capture.caughtUp()
    const tables = capture.output.changes.filter((change) => change.table !== 'millrace.message').slice(1)
    expect(tables.map(({ table, op, ordinal }) => [table, op, ordinal])).toEqual([
      ['public.a', 'c', 1],
      ['public.a', 't', 3],
      ['public.b', 't', 5],
      ['public.b', 'c', 7],
      ['public.a', 'c', 3],
    ])
    expect(capture.output.of('millrace.message').map(({ after, ordinal }) => ({ ...after, ordinal }))).toEqual([
      { prefix: 'loose', content: new Uint8Array(Buffer.from('one')), transactional: false, ordinal: 1 },
      { prefix: 'bound', content: new Uint8Array(Buffer.from('two')), transactional: true, ordinal: 1 },
    ])
  })

  it('spills large transactions, drops what they rolled back, and gives them the same ordinals as when they come whole', async () => {
    await db.sql(`create table t (id int primary key, v text); alter database ${db.database} set logical_decoding_work_mem = '64kB'`)
    const streamed = await start()
    const whole = await start({ streaming: false, slot: `${slotName()}_whole` })
    const spillDir = path.join(context.dataDir, 'spill')
    const spilled = () => readdirSync(spillDir).reduce((sum, name) => sum + statSync(path.join(spillDir, name)).size, 0)
    const other = new pg.Client(db.url)
    await other.connect()
    const fill = (from: number, to: number) => `insert into t select i, repeat(md5(i::text), 40) from generate_series(${from}, ${to}) i`
    await other.query('begin')
    await other.query(fill(1, 3000))
    await until('the server streams the transaction in progress', () => spilled() > 2_000_000)
    await other.query('savepoint s')
    await other.query(fill(100_001, 103_000))
    await until('the server streams the savepoint', () => spilled() > 5_000_000)
    await db.sql('insert into t values (-1, null)')
    await other.query('rollback to s')
    await other.query('update t set v = null where id = 7')
    await other.query(fill(200_001, 203_000))
    await until('the other transaction is there', () => streamed.output.changes.length > 0)
    expect(streamed.output.changes.map((change) => change.after)).toEqual([{ id: -1, v: null }])
    await other.query('commit')
    await other.query('begin')
    await other.query(fill(300_001, 306_000))
    await other.query('rollback')
    await other.end()
    await db.sql('insert into t values (-2, null)')
    await Promise.all([streamed.caughtUp(), whole.caughtUp()])
    const ids = streamed.output.changes.map((change) => change.after?.id as number)
    expect(ids.length).toBe(6003)
    expect(ids.filter((id) => id > 100_000 && id <= 103_000)).toEqual([])
    expect(streamed.output.changes).toEqual(whole.output.changes)
    await until('the scratch files are gone', () => readdirSync(spillDir).length === 0)
  })

  it('reads messages larger than its buffer', async () => {
    await db.sql('create table t (id int primary key, v text)')
    const capture = await start()
    await db.sql(`insert into t values (1, repeat('a', 300000)), (2, repeat('b', 9000000)), (3, 'c'), (4, repeat('d', 5000000)), (5, 'e')`)
    await db.sql(`insert into t values (6, 'f')`)
    await capture.caughtUp()
    const values = capture.output.changes.map((change) => change.after?.v as string)
    expect(values.map((value) => [value[0], value.at(-1), value.length])).toEqual([
      ['a', 'a', 300_000],
      ['b', 'b', 9_000_000],
      ['c', 'c', 1],
      ['d', 'd', 5_000_000],
      ['e', 'e', 1],
      ['f', 'f', 1],
    ])
  })

  it('follows prepared transactions, and sends them again after a restart before their commit', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start({ twoPhase: true })
    await db.sql(`begin; insert into t values (1); prepare transaction 'one-${db.database}'`)
    await db.sql(`begin; insert into t values (2); prepare transaction 'two-${db.database}'`)
    await db.sql('insert into t values (3)')
    await until('the insert is there', () => capture.output.changes.length === 1)
    await db.sql(`rollback prepared 'one-${db.database}'`)
    await capture.stop()
    const resumed = await start({ twoPhase: true }, capture.offset)
    await db.sql(`commit prepared 'two-${db.database}'`)
    await resumed.caughtUp()
    expect(resumed.output.changes.map((change) => change.after?.id)).toEqual([3, 2])
    expect(resumed.output.changes[0]).toEqual(capture.output.changes[0])
  })

  it('follows DDL within the stream, and takes in tables that appear', async () => {
    await db.sql('create table t (id int primary key, v text)')
    const capture = await start()
    await db.sql(`insert into t values (1, 'a')`)
    await capture.caughtUp()
    await db.sql(`alter table t add w int default 5; insert into t values (2, 'b', 6); analyze t; insert into t values (3, 'c', 7)`)
    await capture.caughtUp()
    expect(capture.output.of('public.t').map((change) => change.after)).toEqual([
      { id: 1, v: 'a' },
      { id: 2, v: 'b', w: 6 },
      { id: 3, v: 'c', w: 7 },
    ])
    expect(capture.output.tables.filter((table) => table.name === 't').length).toBe(2)
    // row 1 has 5 now, and no change says so
    expect(capture.output.rereads.map((table) => table.name)).toEqual(['t'])
    await db.sql(`alter table t add plain int; insert into t values (4, 'd', 8, 9)`)
    await capture.caughtUp()
    expect(capture.output.tables.filter((table) => table.name === 't').length).toBe(3)
    expect(capture.output.rereads.length).toBe(1)
    await db.sql('create table later (id int primary key); create table tmp_later (id int primary key)')
    await until('the new table is listed', async () => (await capture.connector.tables()).some((table) => table.name === 'later'))
    await db.sql('insert into later values (1); insert into tmp_later values (1)')
    await capture.caughtUp()
    expect(capture.output.of('public.later').length).toBe(1)
    expect(capture.output.of('public.tmp_later').length).toBe(0)
  })

  it('moves the offset of an idle slot, so that the server can forget its WAL', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start()
    const other = await testDatabase()
    try {
      await other.sql('create table noise as select generate_series(1, 10000) i')
      await capture.caughtUp()
      capture.connector.acknowledge(capture.offset)
      const acknowledged = parseLsn(capture.offset.lsn as string)
      await until('the slot follows', async () => {
        const { rows } = await db.sql('select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = $1', [slotName()])
        return parseLsn(rows[0].lsn) >= acknowledged
      })
      expect(capture.output.changes).toEqual([])
      expect((await capture.connector.lag()).retainedBytes).toBeGreaterThanOrEqual(0)
    } finally {
      await other.drop()
    }
  })

  it('places chunks where their fence says', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start()
    await db.sql('insert into t values (1)')
    const taken = await db.sql(
      `select pg_snapshot_xmin(s)::text as xmin, pg_snapshot_xmax(s)::text as xmax, array(select pg_snapshot_xip(s)::text) as xip, pg_current_wal_insert_lsn()::text as lsn from pg_current_snapshot() s`,
    )
    const row = taken.rows[0]
    const fence = { xmin: BigInt(row.xmin), xmax: BigInt(row.xmax), inProgress: new Set((row.xip as string[]).map(BigInt)), lsn: parseLsn(row.lsn) }
    await capture.caughtUp()
    // held back by a lock on nothing: the stream is idle, and only a question to the server brings it here
    capture.output.chunks.waiting.add(fence)
    await until('the chunk is placed on an idle stream', () => capture.output.emitted.length === 1)
    expect(capture.output.emitted[0]!.after).toBe(1)
    await db.sql('insert into t values (2)')
    await capture.caughtUp()
    const unseen = { ...fence, lsn: fence.lsn + 0x1000_0000n, xmax: fence.xmax + 1n }
    capture.output.chunks.waiting.add(unseen)
    await db.sql('insert into t values (3)')
    await db.sql('insert into t values (4)')
    await until('the chunk is placed before the transaction that it does not see', () => capture.output.emitted.length === 2)
    expect(capture.output.emitted[1]!.after).toBe(2)
  })

  it('fails closed when history is lost', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start()
    await db.sql('insert into t values (1)')
    await capture.caughtUp()
    await capture.stop()
    const { offset } = capture
    const lost = { code: 'source.history_lost', fix: `millrace run FILE --resnapshot ${db.database}` }
    await expect(start({}, { ...offset, system: '1' })).rejects.toMatchObject({ code: 'source.identity_changed' })
    await expect(start({}, { ...offset, timeline: 99 })).rejects.toMatchObject({ code: 'source.identity_changed' })
    await expect(start({}, { ...offset, lsn: 'FFFF/0' })).rejects.toMatchObject({ code: 'source.identity_changed' })
    await db.sql('insert into t values (2)')
    await until(
      'the slot is free',
      async () => (await db.sql('select 1 from pg_replication_slots where slot_name = $1 and not active', [slotName()])).rowCount === 1,
    )
    await db.sql('select pg_replication_slot_advance($1, pg_current_wal_lsn())', [slotName()])
    await expect(start({}, offset)).rejects.toMatchObject(lost)
    await db.sql('select pg_drop_replication_slot($1)', [slotName()])
    await expect(start({}, offset)).rejects.toMatchObject(lost)
    await db.sql(`drop publication ${slotName()}`)
    await expect(start({}, offset)).rejects.toMatchObject(lost)
  })

  it('notices that its publication or its slot is taken away while it runs', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start()
    await capture.caughtUp()
    await db.sql(`drop publication ${slotName()}`)
    await until('the publication is missed', async () => {
      try {
        await capture.connector.tables()
        return false
      } catch (error) {
        expect(error).toMatchObject({ code: 'source.history_lost' })
        return true
      }
    })
    await db.sql('select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1', [slotName()])
    await until('the stream ends', () => capture.failure !== null)
    expect(capture.failure).toMatchObject({ code: 'source.unreachable' })
  })

  it('misses a table that was taken out of its publication before it joins again, so that it is read anew', async () => {
    await db.sql('create table t (id int primary key); create table other (id int primary key)')
    await start()
    const name = slotName()
    const oid = (await db.sql(`select oid::int from pg_publication where pubname = '${name}'`)).rows[0].oid as number
    await using catalog = new CatalogConnection({ connectionString: db.url }, 20_000)
    const look = (resumed: boolean) => {
      const patterns = new TablePatterns(['public.*'])
      const { logger, node } = context
      const publication = { name, oid }
      return new CapturedTables({
        catalog,
        publication,
        patterns,
        mapping: { unrepresentable: 'error' },
        logger,
        node,
        version: 180_000,
        resumed,
        refreshMs: -1,
      })
    }
    const names = async (tables: CapturedTables) => (await tables.list()).map((table) => table.name)
    const running = look(false)
    expect(await names(running)).toEqual(['other', 't'])
    await db.sql(`alter publication ${name} drop table t`)
    expect(await names(running)).toEqual(['other'])
    expect(await names(running)).toEqual(['other', 't'])
    await db.sql(`alter publication ${name} drop table t`)
    const resumed = look(true)
    expect(await names(resumed)).toEqual(['other'])
    expect(await names(resumed)).toEqual(['other', 't'])
    await db.sql('create table late (id int primary key)')
    expect(await names(resumed)).toEqual(['late', 'other', 't'])
    await db.sql(`alter publication ${name} set (publish = 'insert')`)
    await expect(running.list()).rejects.toMatchObject({ code: 'source.history_lost', message: expect.stringContaining('leaves out some of insert') })
  })

  it('describes rows by the replica identity that they were written with, and large values whatever their storage is by now', async () => {
    const large = 'x'.repeat(10_000)
    await db.sql(`create table f (id int primary key, v text, n int); alter table f replica identity full; insert into f values (1, 'a', 1);
      create table d (id int primary key, v text, n int); alter table d alter v set storage external; insert into d values (1, '${large}', 1);
      create table p (id int primary key, v text, n int); alter table p alter v set storage external; insert into p values (1, '${large}', 1);
      alter table p alter v set storage plain`)
    const capture = await start()
    await db.sql('begin; update f set n = 2; alter table f replica identity default; commit')
    await db.sql('begin; update d set n = 2; alter table d replica identity full; commit')
    await db.sql('update p set n = 2')
    await capture.caughtUp()
    expect(rows(capture, 'public.f')).toEqual([{ op: 'u', before: { id: 1, v: 'a', n: 1 }, after: { id: 1, v: 'a', n: 2 } }])
    expect(capture.output.tables.find(({ name }) => name === 'f')?.key).toEqual([0])
    expect(rows(capture, 'public.d')).toEqual([{ op: 'u', after: { id: 1, v: UNCHANGED, n: 2 } }])
    expect(rows(capture, 'public.p')).toEqual([{ op: 'u', after: { id: 1, v: UNCHANGED, n: 2 } }])
  })

  it('gives a message without transaction a position of its own, also right before a commit', async () => {
    await db.sql('create table t (id int primary key)')
    const capture = await start({ messages: true })
    for (let id = 1; id <= 20; id++)
      await db.sql(`begin; insert into t values (${id}); select pg_logical_emit_message(false, 'loose', repeat('x', ${id})); commit`)
    await capture.caughtUp()
    expect(capture.output.changes.map(({ table }) => table)).toEqual(Array.from({ length: 20 }, () => ['millrace.message', 'public.t']).flat())
    expect(new Set(capture.output.changes.map(({ commit }) => commit)).size).toBe(40)
  })

  it('refuses a role that may not replicate', async () => {
    await db.sql('create table t (id int primary key)')
    await db.sql(`create role reader_${db.database} login`)
    try {
      await expect(start({ url: db.url.replace('postgres@', `reader_${db.database}@`) })).rejects.toMatchObject({ code: 'source.forbidden' })
    } finally {
      await db.sql(`drop role reader_${db.database}`)
    }
  })

  it('refuses a publication that leaves out changes, rows or columns', async () => {
    await db.sql('create table t (id int primary key, v text)')
    const left = { code: 'source.unprepared', message: expect.stringContaining('leaves out') }
    await db.sql(`create publication p for table t with (publish = 'insert', publish_via_partition_root = true)`)
    await expect(start({ publication: 'p' })).rejects.toMatchObject(left)
    await db.sql(`alter publication p set (publish = 'insert, update, delete, truncate'); alter publication p set table t where (id > 5)`)
    await expect(start({ publication: 'p' })).rejects.toMatchObject(left)
    await db.sql('alter publication p set table t (id)')
    await expect(start({ publication: 'p' })).rejects.toMatchObject(left)
    expect(
      (await postgres.check(settings({ publication: 'p' }), context)).some((finding) => finding.level === 'error' && finding.subject === 'publication p'),
    ).toBe(true)
    await db.sql('alter publication p set table t')
    const capture = await start({ publication: 'p' })
    await capture.stop()
    await db.sql('alter publication p set table t (id)')
    const lost = { code: 'source.history_lost', message: expect.stringContaining('columns of t') }
    await expect(start({ publication: 'p' }, capture.connector.start)).rejects.toMatchObject(lost)
    await db.sql('alter publication p set table t')
    const mine = settings({ publication: 'p' })
    expect((await postgres.provisions!.list(mine, context)).map(({ name, stays }) => [name, stays])).toEqual([
      [slotName(), null],
      ['p', 'Millrace did not make it'],
    ])
    await postgres.provisions!.drop(mine, context)
    expect((await postgres.provisions!.list(mine, context)).map(({ name }) => name)).toEqual(['p'])
    // it was there before us
    expect((await db.sql(`select 1 from pg_publication where pubname = 'p'`)).rowCount).toBe(1)
  })

  it('waits, as may pass, while whoever has the slot is silent, and refuses where somebody answers', async () => {
    // who stands still for some seconds is not silent
    await db.sql(`alter database ${db.database} set wal_sender_timeout = '12s'; create table t (id int primary key)`)
    const first = await start()
    const offset = first.connector.start
    await first.stop()
    const active = async () => (await db.sql('select active from pg_replication_slots where slot_name = $1', [slotName()])).rows[0]?.active === true
    await until('the first is gone', async () => !(await active()))
    // as of a host that died, but that the server never lets go
    const options = { connectionString: db.url, replication: 'database', options: '-c wal_sender_timeout=0', application_name: 'elsewhere' }
    const silent = new pg.Client(options as pg.ClientConfig)
    silent.on('error', () => {})
    await silent.connect()
    silent.query(`START_REPLICATION SLOT ${slotName()} LOGICAL 0/0 (proto_version '1', publication_names '${slotName()}')`).catch(() => {})
    await until('it is taken', active)
    await expect(postgres.open(settings(), context, offset)).rejects.toMatchObject({
      code: 'source.occupied',
      category: 'unavailable',
      message: expect.stringMatching(/ is held by the server process \d+, of elsewhere at 127\.0\.0\.1/),
      fix: expect.stringMatching(/pg_terminate_backend\(\d+\)/),
    })
    await silent.end()
    await start({}, offset)
    await expect(postgres.open(settings(), context, offset)).rejects.toMatchObject({
      code: 'source.in_use',
      message: expect.stringMatching(/ is in use by the server process \d+, of millrace at 127\.0\.0\.1/),
    })
  })

  it('captures a partitioned table under its root, whichever partition a row lies in', async () => {
    await db.sql(`create table part (id int, region text, v int, primary key (id, region)) partition by list (region);
      create table part_a partition of part for values in ('a'); create table part_b partition of part for values in ('b')`)
    const capture = await start()
    await db.sql(`insert into part values (1, 'a', 1), (2, 'b', 2)`)
    await db.sql(`update part set region = 'b' where id = 1`)
    await capture.caughtUp()
    expect(rows(capture, 'public.part')).toEqual([
      { op: 'c', after: { id: 1, region: 'a', v: 1 } },
      { op: 'c', after: { id: 2, region: 'b', v: 2 } },
      { op: 'd', key: { id: 1, region: 'a' } },
      { op: 'c', after: { id: 1, region: 'b', v: 1 } },
    ])
    expect((await capture.connector.tables()).filter((table) => table.name.startsWith('part')).map((table) => table.name)).toEqual(['part'])
  })

  it('sees the same rows as an independent reader', async () => {
    await db.sql('create table t (id int primary key, v text, n bigint)')
    const capture = await start({ binary: false })
    const slot = `${slotName()}_peer`
    await db.sql(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [slot])
    const service = new LogicalReplicationService({ connectionString: db.url }, { acknowledge: { auto: false, timeoutSeconds: 0 } })
    const theirs: unknown[] = []
    service.on('data', (_lsn: string, message: { tag: string; new?: object; key?: object }) => {
      if (['insert', 'update', 'delete'].includes(message.tag))
        theirs.push({ op: message.tag[0] === 'i' ? 'c' : message.tag[0], row: message.new ?? message.key })
    })
    service.on('error', () => {})
    void service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [slotName()] }), slot).catch(() => {})
    try {
      for (let i = 0; i < 40; i++) {
        await db.sql(`insert into t select ${i} * 100 + g, md5(g::text), g * 9007199254740993 from generate_series(1, 50) g`)
        await db.sql(`update t set v = v || '!' where id % 7 = ${i % 7} and id > ${i} * 100; delete from t where id = ${i} * 100 + 3`)
      }
      await capture.caughtUp()
      const ours = capture.output.of('public.t').map(({ op, after, key }) => ({ op, row: after === undefined ? { ...key } : { ...after, n: String(after.n) } }))
      await until('the other reader is there too', () => theirs.length >= ours.length)
      const plain = theirs.map((change) => {
        const { op, row } = change as { op: string; row: Record<string, unknown> }
        return op === 'd' ? { op, row: { id: row.id } } : { op, row: { ...row, n: String(row.n) } }
      })
      expect(ours.length).toBeGreaterThan(2000)
      expect(plain).toEqual(ours)
    } finally {
      await service.stop()
      await service.destroy().catch(() => {})
    }
  })
})

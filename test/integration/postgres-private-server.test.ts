/** What needs a Postgres server of its own settings, on every supported version. */
import { createHash } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pg from 'pg'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import { PgoutputDecoder, TAG } from '../../connectors/postgres/pgoutput.ts'
import { KEEPALIVE, ReplicationConnection } from '../../connectors/postgres/replication-connection.ts'
import { type PostgresServer, postgresBin, startPostgres } from '../../control/demo/postgres-server.ts'
import type { PluginContext } from '../../core/plugin.ts'
import { testDatabase } from '../services/postgres.ts'
import { MAJORS, postgresBinOf, skipReason } from '../services/postgres-versions.ts'
import { RunningCapture, until } from './running-capture.ts'

/** A process that stands still for four seconds has not died. */
const SENDER_TIMEOUT_MS = 6000
const reason = skipReason()

let dir: string
let server: PostgresServer | null = null

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-pg-'))
  chmodSync(dir, 0o755)
})

afterEach(async () => {
  await server?.stop('SIGQUIT')
  server = null
  rmSync(dir, { recursive: true, force: true })
})

describe.each([...MAJORS, 18] as const)('a Postgres %i of its own', (major) => {
  const skip = major !== 18 && reason !== null
  const context = (): PluginContext => ({ mesh: 'own', node: 'source', dataDir: dir, logger: pino({ level: 'silent' }), metric: () => {} })

  async function start(settings: Readonly<Record<string, string>>): Promise<pg.Client> {
    await server?.stop()
    server = await startPostgres({ bin: major === 18 ? postgresBin() : await postgresBinOf(major), dataDir: path.join(dir, 'data'), settings })
    const admin = new pg.Client(server.url)
    admin.on('error', () => {})
    await admin.connect()
    return admin
  }

  it.skipIf(skip)(`says what it lacks, asks for the password, and outlives a stalled log${skip ? ` (skipped: ${reason})` : ''}`, async () => {
    const settings = (user: string) => postgres.config.parse({ url: `postgres://${user}@127.0.0.1:${server!.port}/postgres`, tables: ['app.*'] })
    let admin = await start({ wal_level: 'replica' })
    await admin.query(`create role app login replication password 'right'; grant create on database postgres to app; create schema app authorization app;
      create table app.t (id int primary key, v text); alter table app.t owner to app; alter table app.t alter v set storage external`)
    const findings = await postgres.check(settings('postgres'), context())
    const fix = 'ALTER SYSTEM SET wal_level = logical; then restart the server'
    expect(findings.filter(({ level }) => level === 'error')).toEqual([{ level: 'error', subject: 'wal_level', message: 'it is replica', fix }])
    await expect(postgres.open(settings('postgres'), context(), null)).rejects.toMatchObject({ code: 'source.unprepared', fix })
    expect((await admin.query('select 1 from pg_publication')).rowCount).toBe(0)
    await admin.end()

    writeFileSync(path.join(dir, 'data', 'pg_hba.conf'), 'host all postgres 127.0.0.1/32 trust\nhost all app 127.0.0.1/32 scram-sha-256\n')
    admin = await start({ wal_sender_timeout: `${SENDER_TIMEOUT_MS}ms` })
    for (const user of ['app', 'app:wrong']) {
      const refusal = await postgres.open(settings(user), context(), null).catch((error: unknown) => error)
      expect(refusal).toMatchObject({ code: 'source.forbidden', fix: expect.stringMatching(/password.*pg_hba.conf/) })
      expect(String(refusal)).not.toContain('wrong')
      await expect(postgres.check(settings(user), context())).rejects.toMatchObject({ code: 'source.forbidden' })
    }
    const connector = await postgres.open(settings('app:right'), context(), null)
    const capture = new RunningCapture(connector, connector.start, { sql: (text) => admin.query(text) })
    await admin.query(`insert into app.t values (0, 'first')`)
    await until('the first row is there', () => capture.output.changes.length === 1)
    const sender = async () =>
      (
        await admin.query<{ pid: number; waiting: boolean; now: Date; replied: Date | null }>(
          `select a.pid, coalesce(a.wait_event = 'WalSenderWriteData', false) as waiting, clock_timestamp() as now, r.reply_time as replied
             from pg_stat_replication r join pg_stat_activity a on a.pid = r.pid`,
        )
      ).rows[0]
    const before = await sender()
    const release = capture.hold()
    await admin.query(`insert into app.t select i, repeat(md5(i::text), 60) from generate_series(1, 15000) i`)
    await until('the server can send no more', async () => (await sender())?.waiting === true)
    const stalledAt = (await sender())!.now.getTime()
    await until('the server heard from us long after', async () => {
      const now = await sender()
      // it wakes for a moment at each of our words
      expect(now).toMatchObject({ pid: before!.pid })
      return (now!.replied?.getTime() ?? 0) > stalledAt + 1.5 * SENDER_TIMEOUT_MS
    })
    expect(capture.output.changes.length).toBeLessThan(15_001)
    // what waits is then taken in one go, in which no timer comes to run
    capture.slowness = SENDER_TIMEOUT_MS / 10
    release()
    await capture.caughtUp()
    expect((await sender())!.pid).toBe(before!.pid)
    expect(capture.output.changes.map((change) => change.after!.id)).toEqual(Array.from({ length: 15_001 }, (_, i) => i))
    await capture.stop()
    await admin.end()
  })

  it.skipIf(skip)(`says for how much WAL it may be away, and when its slot loses it${skip ? ` (skipped: ${reason})` : ''}`, async () => {
    const admin = await start({})
    const retention = async () => {
      const findings = await postgres.check(postgres.config.parse({ url: server!.url, tables: ['public.*'] }), context())
      return findings.filter(({ subject }) => subject === 'max_slot_wal_keep_size' || subject === 'replication slot millrace_own_source')
    }
    await admin.query(`select pg_create_logical_replication_slot('millrace_own_source', 'pgoutput'); create table filler (v int)`)
    expect(await retention()).toEqual([
      {
        level: 'warning',
        subject: 'max_slot_wal_keep_size',
        message: expect.stringContaining('until its disk is full'),
        fix: expect.stringContaining('ALTER SYSTEM SET max_slot_wal_keep_size'),
      },
      { level: 'ok', subject: 'replication slot millrace_own_source', message: 'exists' },
    ])
    await admin.query(`alter system set max_slot_wal_keep_size = '16MB'`)
    await admin.query('select pg_reload_conf()')
    await until('the limit holds', async () => (await admin.query('show max_slot_wal_keep_size')).rows[0].max_slot_wal_keep_size === '16MB')
    const limit = { level: 'ok', subject: 'max_slot_wal_keep_size', message: expect.stringContaining('may be away for 16 MB of WAL') }
    const slot = { subject: 'replication slot millrace_own_source' }
    expect(await retention()).toEqual([limit, { ...slot, level: 'ok', message: 'exists' }])
    const fill = (segments: number) => admin.query('insert into filler values (1); select pg_switch_wal();'.repeat(segments))
    // beyond the limit, and nothing is removed before the next checkpoint
    await fill(4)
    expect(await retention()).toEqual([
      limit,
      { ...slot, level: 'warning', message: 'is about to lose its WAL', fix: expect.stringContaining('start the node now') },
    ])
    await until('the slot is invalidated', async () => {
      await fill(1)
      await admin.query('checkpoint')
      return (await admin.query('select wal_status from pg_replication_slots')).rows[0].wal_status === 'lost'
    })
    const lost = { ...slot, level: 'error', message: expect.stringMatching(/is invalidated \((wal_removed|its WAL is removed)\)/) }
    expect(await retention()).toEqual([limit, { ...lost, fix: 'millrace run FILE --resnapshot NODE' }])
    await admin.end()
  })
})

it('gives every row once, in order, while it paces the server', async () => {
  const db = await testDatabase()
  try {
    await db.sql('create table t (id int primary key, v text); alter table t alter v set storage external; create publication p for table t')
    const { rows } = await db.sql(`select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput')`, [db.database])
    await using connection = await ReplicationConnection.connect({
      config: { connectionString: db.url },
      onNotice: () => {},
      statusIntervalMs: 1000,
      silenceMs: 60_000,
      // any machine reaches it
      bulkBytesPerMs: 100,
    })
    const options = `proto_version '1', publication_names 'p'`
    await connection.start(`START_REPLICATION SLOT ${db.database} LOGICAL ${rows[0].lsn} (${options})`, (error) => error as never)
    const decoder = new PgoutputDecoder()
    const read: { readonly id: number; readonly v: string }[] = []
    const reading = (async () => {
      do {
        for (let kind = connection.next(); kind !== 0; kind = connection.next()) {
          const { bytes, view, messageAt, messageEnd } = connection
          if (kind === KEEPALIVE || decoder.decode(bytes, view, messageAt + 25, messageEnd, false, 0) !== TAG.insert) continue
          const idAt = decoder.newAt + 7
          const idEnd = idAt + view.getInt32(idAt - 4)
          const vAt = idEnd + 5
          read.push({ id: Number(bytes.toString('latin1', idAt, idEnd)), v: bytes.toString('latin1', vAt, vAt + view.getInt32(vAt - 4)) })
        }
      } while (await connection.read())
    })()
    let count = 0
    await until('the reader has paced the server a few times', async () => {
      if (connection.pauses >= 5) return true
      await db.sql(`insert into t select i, repeat(md5(i::text), 50) from generate_series(${count}, ${count + 9999}) i`)
      count += 10_000
      return false
    })
    await until('every row is there', () => read.length >= count)
    connection.interrupt()
    await reading
    const md5 = (id: number) => createHash('md5').update(String(id)).digest('hex')
    expect(read.map(({ id }) => id)).toEqual(Array.from({ length: count }, (_, i) => i))
    expect(read.filter(({ id, v }) => v !== md5(id).repeat(50))).toEqual([])
  } finally {
    await db.drop()
  }
})

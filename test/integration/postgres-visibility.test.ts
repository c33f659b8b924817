import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pg from 'pg'
import pino from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import { parseLsn } from '../../connectors/postgres/lsn.ts'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { TupleWriter } from '../../core/event/tuple-writer.ts'
import { type SourceConnector, type SourceReader, type TableSchema, UNCHANGED } from '../../core/plugin.ts'
import { RunningCapture, until } from './running-capture.ts'

let dir: string
let server: PostgresServer
let pool: pg.Pool

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-visibility-'))
  chmodSync(dir, 0o755)
  server = await startPostgres({ dataDir: path.join(dir, 'data'), settings: { synchronous_commit: 'local' } })
  pool = new pg.Pool({ connectionString: server.url })
  pool.on('error', () => {})
})
afterAll(async () => {
  await pool.end()
  await server.stop('SIGQUIT')
  rmSync(dir, { recursive: true, force: true })
})

const sql = (text: string) => pool.query(text)

/** The first chunk of a table, being read. */
class Reading {
  readonly chunk: ReturnType<SourceConnector['snapshot']['read']>
  #isRead = false

  constructor(connector: SourceConnector, table: TableSchema) {
    const reading = connector.snapshot.read(table, null, { maxRows: 10, maxBytes: 1_000_000 }, () => {}, new AbortController().signal)
    this.chunk = reading.finally(() => {
      this.#isRead = true
    })
  }

  /** Expects it not to be read while the server answers others. */
  async waits(): Promise<void> {
    for (let i = 0; i < 50; i++) await sql('select 1')
    expect(this.#isRead).toBe(false)
  }
}

/** In force for every process: a new session has what the postmaster has; the checkpointer, which lets commits wait, looks before its next checkpoint. */
async function setStandbys(names: string): Promise<void> {
  await sql(`alter system set synchronous_standby_names = '${names}'`)
  await sql('select pg_reload_conf()')
  await until('the setting is in force', async () => {
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    const { rows } = await client.query('show synchronous_standby_names')
    await client.end()
    return rows[0].synchronous_standby_names === names
  })
  await sql('checkpoint')
}

/** Commits `text` in such a way that it is in the WAL, and so in the stream, but cannot be seen until `release`: it waits for a standby that there is none. */
async function commitUnseen(text: string): Promise<{ release: () => Promise<void> }> {
  await setStandbys('nobody')
  const client = new pg.Client({ connectionString: server.url })
  await client.connect()
  const committed = client.query(`begin; set local synchronous_commit = on; ${text}; commit`)
  await until('the commit waits', async () => (await sql("select 1 from pg_stat_activity where wait_event = 'SyncRep'")).rowCount === 1)
  return {
    async release() {
      // ends the wait and not the commit; the setting goes after that, since others see it gone before the commit
      await sql("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
      await committed
      await client.end()
      await setStandbys('')
    },
  }
}

test('what is streamed before it can be seen is neither read too early nor overwritten by a chunk', async () => {
  await sql('create table t (id text primary key, big text, n int)')
  await sql("insert into t select 'a', string_agg(md5(j::text), ''), 0 from generate_series(1, 400) j")
  const { big } = (await sql("select big from t where id = 'a'")).rows[0]
  const context = { mesh: 'visible', node: 'source', dataDir: path.join(dir, 'node'), logger: pino({ level: 'silent' }), metric: () => {} }
  const connector = await postgres.open(postgres.config.parse({ url: server.url, tables: ['public.t'] }), context, null)
  const capture = new RunningCapture(connector, connector.start, { sql } as never)
  try {
    // a changed key, whose large value the server leaves out: it must be read from the row, which nobody sees yet
    const moved = await commitUnseen("update t set id = 'b' where id = 'a'")
    for (let i = 0; i < 50; i++) await sql('select 1')
    expect(capture.output.of('public.t')).toEqual([])
    await moved.release()
    await until('the change is streamed', async () => capture.output.of('public.t').length === 1)
    expect(capture.output.of('public.t')[0]!.after).toEqual({ id: 'b', big, n: 0 })

    // an update that the stream has and a view has not: no chunk may be read from such a view
    const updated = await commitUnseen("update t set n = 1 where id = 'b'")
    await until('the change is streamed', async () => capture.output.of('public.t').length === 2)
    expect(capture.output.of('public.t')[1]!.after).toEqual({ id: 'b', big: UNCHANGED, n: 1 })
    const [table] = await connector.tables()
    const reading = new Reading(connector, table!)
    await reading.waits()
    await updated.release()
    const chunk = await reading.chunk
    expect(chunk.rows).toBe(1)

    // the stream has rows of a shape that the catalog does not show yet
    const altered = await commitUnseen("alter table t drop column n, add column extra int not null default 5; insert into t values ('c', 'x', 6)")
    for (let i = 0; i < 50; i++) await sql('select 1')
    expect(capture.failure).toBe(null)
    expect(capture.output.of('public.t').length).toBe(2)
    await altered.release()
    await until('the insert is streamed', async () => capture.output.of('public.t').length === 3)
    expect(capture.output.of('public.t')[2]!.after).toEqual({ id: 'c', big: 'x', extra: 6 })
    expect(capture.output.tables.at(-1)!.columns.map(({ id, nullable }) => [id, nullable])).toEqual([
      [1, false],
      [2, true],
      [4, false],
    ])
    expect(capture.output.rereads.length).toBe(1)
  } finally {
    await capture.stop()
  }
})

test.each([
  { role: 'postgres', sees: true },
  { role: 'plain', sees: false },
])('what was streamed before a restart, and cannot be seen yet, is in no view of $role that is used', async ({ role, sees }) => {
  await sql(`do $$ begin create role plain login replication; exception when duplicate_object then end $$`)
  await sql(`grant create on database postgres to plain; create table u_${role} (id int primary key); alter table u_${role} owner to ${role}`)
  const url = server.url.replace('postgres@', `${role}@`)
  const context = { mesh: 'visible', node: role, dataDir: path.join(dir, role), logger: pino({ level: 'silent' }), metric: () => {} }
  const config = postgres.config.parse({ url, tables: [`public.u_${role}`] })
  const first = await postgres.open(config, context, null)
  const before = new RunningCapture(first, first.start, { sql } as never)
  const busy = new pg.Client({ connectionString: server.url })
  await busy.connect()
  try {
    // the stream asks the catalog about a table once, and waits until it sees the transaction
    await sql(`insert into u_${role} values (0)`)
    await until('the first row is streamed', () => before.output.of(`public.u_${role}`).length === 1)
    const inserted = await commitUnseen(`insert into u_${role} values (1)`)
    const end = parseLsn((await sql('select pg_current_wal_flush_lsn()::text as lsn')).rows[0].lsn)
    await until('the commit is durable in the log', () => before.offsets.length > 0 && parseLsn(before.offset.lsn as string) >= end)
    expect(before.output.of(`public.u_${role}`).length).toBe(2)
    await before.stop()
    // has written too, and is not committed
    await busy.query('begin; select pg_current_xact_id()')

    const second = await postgres.open(config, context, before.offset)
    const after = new RunningCapture(second, before.offset, { sql } as never)
    try {
      const [table] = await second.tables()
      const reading = new Reading(second, table!)
      await reading.waits()
      await inserted.release()
      if (!sees) {
        await reading.waits()
        await busy.query('commit')
      }
      expect((await reading.chunk).rows).toBe(2)
      expect(after.output.of(`public.u_${role}`)).toEqual([])
    } finally {
      await after.stop()
    }
  } finally {
    await before.stop()
    await busy.end()
  }
})

/** Ids of a table as the audit reads it. */
async function scan(reader: SourceReader, table: TableSchema): Promise<readonly unknown[]> {
  const ids: unknown[] = []
  const open = (shape: TableSchema) => {
    const writer = new TupleWriter(shape)
    return { writer, beginRow: () => writer.start(), endRow: () => ids.push(writer.row()[0]) }
  }
  await reader.scan(table, open, new AbortController().signal)
  return ids.sort()
}

test.each(['postgres', 'plain'])('the audit of %s reads no view of a table that lacks what the stream has of it', async (role) => {
  await sql(`do $$ begin create role plain login replication; exception when duplicate_object then end $$`)
  const [waited, other] = [`a_${role}`, `b_${role}`]
  for (const name of [waited, other])
    await sql(`create table ${name} (id int primary key); insert into ${name} values (1); alter table ${name} owner to ${role}`)
  const config = postgres.config.parse({ url: server.url.replace('postgres@', `${role}@`), tables: [`public.${waited}`, `public.${other}`] })
  const context = { mesh: 'visible', node: `audit-${role}`, dataDir: path.join(dir, `audit-${role}`), logger: pino({ level: 'silent' }), metric: () => {} }
  await using reader = await postgres.openReader(config, context)
  const tables = await reader.tables()
  const named = (name: string) => tables.find((table) => table.name === name)!
  const inserted = await commitUnseen(`insert into ${waited} values (2)`)
  expect(await scan(reader, named(other))).toEqual([1])
  let isRead = false
  const scanning = scan(reader, named(waited)).finally(() => {
    isRead = true
  })
  for (let i = 0; i < 50; i++) await sql('select 1')
  expect(isRead).toBe(false)
  await inserted.release()
  expect(await scanning).toEqual([1, 2])
})

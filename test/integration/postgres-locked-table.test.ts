/** Tables that others hold an ACCESS EXCLUSIVE lock of, on every supported version. */
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import { type PostgresFence, PostgresSnapshotReader } from '../../connectors/postgres/snapshot-reader.ts'
import { describeTable } from '../../connectors/postgres/type-mapping.ts'
import { SNAPSHOT_ENTRY } from '../../core/event/snapshot-progress.ts'
import type { PreparedRead, TableSchema } from '../../core/plugin.ts'
import { SourceBench, until } from '../../testing/source/source-run.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { MAJORS, skipReason, versionDatabase } from '../services/postgres-versions.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'

const reason = skipReason()
const note = reason === null ? '' : ` (skipped: ${reason})`

const LOCKED = { code: 'source.locked', category: 'unavailable' }
const { signal } = new AbortController()

describe.each([...MAJORS, 18] as const)('Postgres %i', (major) => {
  const skip = major !== 18 && reason !== null
  let db: TestDatabase
  let reader: PostgresSnapshotReader
  const clients: pg.Client[] = []

  beforeAll(async () => {
    if (skip) return
    db = await (major === 18 ? testDatabase() : versionDatabase(major))
    reader = new PostgresSnapshotReader({ connect: () => connected('millrace-reader'), mapping: { unrepresentable: 'text' }, joined: () => true })
  })
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.end()
  })
  afterAll(async () => {
    await reader?.[Symbol.asyncDispose]()
    await db?.drop()
  })

  async function connected(name: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: db.url, application_name: name })
    client.on('error', () => {})
    await client.connect()
    return client
  }

  /** Runs `sql` in a transaction that stays open until the test is over, or it is ended. */
  async function holding(sql: string): Promise<{ end(): Promise<void> }> {
    const client = await connected('other')
    clients.push(client)
    await client.query(`begin; ${sql}`)
    return { end: async () => void (await client.query('rollback')) }
  }

  async function tableOf(name: string): Promise<TableSchema> {
    const client = await connected('other')
    try {
      const { rows } = await client.query<{ oid: number }>('select $1::regclass::oid as oid', [name])
      return (await describeTable(client, rows[0]!.oid, { unrepresentable: 'text' })).table
    } finally {
      await client.end()
    }
  }

  /** Modes and grants of the locks that the reader has, or waits for, on tables of the database. */
  async function locks(): Promise<readonly string[]> {
    const { rows } = await db.sql(`select distinct l.relation::regclass::text || ' ' || l.mode || case when l.granted then '' else ' waits' end as lock
      from pg_locks l join pg_stat_activity a on a.pid = l.pid
      where a.datname = current_database() and a.application_name = 'millrace-reader' and l.locktype = 'relation' and l.relation >= 16384 order by 1`)
    return rows.map(({ lock }) => lock)
  }

  async function idsOf(prepared: PreparedRead, table: TableSchema): Promise<readonly unknown[]> {
    const fences: PostgresFence[] = []
    const chunk = await prepared.read(table, null, { maxRows: 100, maxBytes: 1 << 20 }, (fence) => fences.push(fence as PostgresFence), signal)
    expect(fences).toEqual([chunk.fence])
    const writer = new RecordingWriter(chunk.table)
    chunk.write(
      writer,
      () => writer.row(),
      () => writer.end(),
    )
    return writer.rows.map(([id]) => id)
  }

  it.skipIf(skip)(`a prepared chunk has the lock of its table, and a view of the moment at which it is read${note}`, async () => {
    await db.sql('create table prepared (id int primary key); insert into prepared values (1)')
    const table = await tableOf('prepared')
    await using prepared = await reader.prepare(table)
    expect(await locks()).toEqual(['prepared AccessShareLock'])
    await db.sql('insert into prepared values (2)')
    expect(await idsOf(prepared, table)).toEqual([1, 2])
    expect(await locks()).toEqual([])
    // one that is never read lets go of the lock, too
    const unread = await reader.prepare(table)
    expect(await locks()).toEqual(['prepared AccessShareLock'])
    await unread[Symbol.asyncDispose]()
    await until('the lock is gone', async () => (await locks()).length === 0)
  })

  it.skipIf(skip)(`a table, a partition or an index that is locked is not waited for, and read once it is not${note}`, async () => {
    await db.sql(`create table plain (id int primary key); insert into plain values (1);
      create table parted (id int primary key) partition by range (id); create table low partition of parted for values from (0) to (10);
      create table high partition of parted for values from (10) to (20); insert into parted values (1), (11)`)
    const plain = await tableOf('plain')
    const parted = await tableOf('parted')
    const onTable = await holding('lock table plain, high in access exclusive mode')
    for (const table of [plain, parted]) {
      await expect(reader.prepare(table)).rejects.toMatchObject(LOCKED)
      // nor do its rows have to be counted, or who writes to it be found, behind the lock
      await reader.estimate(table)
      expect(await reader.isReady(table, null)).toBe(false)
    }
    expect(await locks()).toEqual([])
    await onTable.end()
    {
      await using one = await reader.prepare(plain)
      await using both = await reader.prepare(parted)
      expect(await idsOf(one, plain)).toEqual([1])
      expect(await idsOf(both, parted)).toEqual([1, 11])
    }
    const onIndex = await holding('reindex index plain_pkey')
    {
      await using prepared = await reader.prepare(plain)
      await expect(idsOf(prepared, plain)).rejects.toMatchObject(LOCKED)
    }
    await onIndex.end()
    await using prepared = await reader.prepare(plain)
    expect(await idsOf(prepared, plain)).toEqual([1])
  })

  it.skipIf(skip)(`what cannot be locked is told by reading it${note}`, async () => {
    await db.sql('create table gone (id int primary key)')
    const table = await tableOf('gone')
    await db.sql('drop table gone')
    await using prepared = await reader.prepare(table)
    await expect(idsOf(prepared, table)).rejects.toMatchObject({ code: 'source.table_gone' })
  })

  it.skipIf(skip)(`a source streams, and its slot follows, while a table is locked before it starts and another in mid-snapshot${note}`, async () => {
    await db.sql(`create schema s; create table s.first (id int primary key); insert into s.first values (1); create table s.other (id int primary key);
      create table s.parted (id int primary key, v text) partition by range (id); create table s.low partition of s.parted for values from (0) to (100);
      create table s.high partition of s.parted for values from (100) to (1000); insert into s.parted select i, 'v' from generate_series(1, 200) i`)
    const settings = { url: db.url, tables: ['s.*'] }
    const source = { plugin: postgres, settings, namespace: 's', createTable: async () => {}, transact: async () => {}, dispose: async () => {} }
    await using bench = await SourceBench.open(async () => source, {})
    // a slot is not made beside a transaction that locks a table
    const before = await bench.start()
    await before.until('the slot is made', () => bench.log.stored.has('offset'))
    await before.stop()
    for (const entry of bench.log.stored.keys()) if (entry.startsWith(SNAPSHOT_ENTRY)) bench.log.stored.delete(entry)
    const first = await holding('lock table s.first in access exclusive mode')
    let high: Awaited<ReturnType<typeof holding>> | null = null
    let chunks = 0
    const run = await bench.start({
      snapshot: 'initial',
      chunkRows: 20,
      async beforeChunk({ name }) {
        if (name === 'parted' && ++chunks === 4) high = await holding('lock table s.high in access exclusive mode')
      },
    })
    await run.until('a partition is locked, and tried again', () => chunks > 5)
    await db.sql('insert into s.other values (1)')
    const { lsn } = (await db.sql('select pg_current_wal_lsn()::text as lsn')).rows[0]
    await until('the slot follows', async () => {
      if (run.failure !== null) throw run.failure
      const slot = 'select confirmed_flush_lsn >= $1::pg_lsn as follows from pg_replication_slots where database = $2'
      return (await db.sql(slot, [lsn, db.database])).rows[0].follows
    })
    const rowsOf = (name: string) => bench.log.changes.filter((change) => change.kind === 'row' && change.table.name === name).length
    expect(rowsOf('other')).toBe(1)
    expect([rowsOf('first'), rowsOf('parted')]).toEqual([0, 60])
    // a table that appears is found all the same
    await db.sql('create table s.later (id int primary key); insert into s.later values (1)')
    await run.until('it is captured', () => rowsOf('later') > 0)
    await first.end()
    await high!.end()
    await run.until('the snapshot is done', () => run.status?.state === 'running')
    expect([rowsOf('first'), rowsOf('parted')]).toEqual([1, 200])
    expect(run.failure).toBe(null)
  })
})

import { afterEach, expect, test } from 'vitest'
import { faultDir, node, shopYaml, startReading } from '../fault/shop-mesh.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { until } from './running-capture.ts'

let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  try {
    await db?.sql(`drop owned by ${reader(db)}; drop role if exists ${reader(db)}`)
  } finally {
    await db?.drop()
    remove()
  }
})

const reader = ({ database }: TestDatabase) => `reader_${database}`

/** Locks of everything that Millrace has open in the database, and backends of it that were given a transaction id, which only writing needs. */
async function looked({ sql, database }: TestDatabase): Promise<{ readonly onTables: readonly string[]; readonly writing: number }> {
  const { rows } = await sql(
    `select coalesce(array_agg(distinct l.mode) filter (where l.locktype = 'relation' and l.relation >= 16384), '{}') as "onTables",
            count(*) filter (where l.locktype = 'transactionid' or a.backend_xid is not null)::int as writing
       from pg_stat_activity a left join pg_locks l on l.pid = a.pid where a.datname = $1 and a.usename = $2`,
    [database, `reader_${database}`],
  )
  return rows[0]
}

test('a snapshot takes no lock but that of a SELECT and writes nothing, and the stream beside it is acknowledged', async () => {
  db = await testDatabase()
  const { sql, database } = db
  const role = reader(db)
  // a role that may read alone: whatever else was tried would fail
  await sql(`create table big (id int primary key, v text); insert into big select i, md5(i::text) from generate_series(1, 100000) i;
    create table small (id int primary key); create publication made_before for table big, small with (publish_via_partition_root = true);
    create role ${role} login replication; grant usage on schema public to ${role}; grant select on big, small to ${role}; analyze big`)
  const url = db.url.replace('postgres@', `${role}@`)
  mesh = new MeshProcess(dir, shopYaml({ name: database, url, chunkRows: 50, shop: 'publication: made_before' }))
  const relations = async () => (await sql(`select count(*)::int as n from pg_class where relnamespace = 'public'::regnamespace`)).rows[0].n
  const confirmed = async () => (await sql('select confirmed_flush_lsn::text as lsn from pg_replication_slots where database = $1', [database])).rows[0].lsn
  const isHalfRead = async () => {
    const { snapshot } = node(await mesh!.until('answering', () => true), 'shop')
    return snapshot.some(({ table, rows, done }) => table === 'public.big' && rows > 0 && !done)
  }
  const before = await relations()
  const seen: Awaited<ReturnType<typeof looked>>[] = []
  let id = 0
  let rows = 100_000
  // what counts was seen between two looks at a table that is half read, of which one found a chunk being read
  for (let isSeen = false, args: readonly string[] = []; !isSeen; args = ['--resnapshot', 'shop']) {
    await startReading(mesh, { args })
    const looks: typeof seen = []
    await sql('insert into small values ($1)', [++id])
    const { lsn } = (await sql('select pg_current_wal_lsn()::text as lsn')).rows[0]
    await until('the slot follows', async () => {
      looks.push(await looked(db!))
      return (await sql('select $1::pg_lsn >= $2::pg_lsn as follows', [await confirmed(), lsn])).rows[0].follows
    })
    isSeen = (await isHalfRead()) && looks.some(({ onTables }) => onTables.length > 0)
    if (isSeen) {
      seen.push(...looks)
      continue
    }
    await mesh.stop()
    // there is more to read, for a machine that was done before its slot followed
    await sql(`insert into big select i, md5(i::text) from generate_series(${rows + 1}, ${2 * rows}) i`)
    rows *= 2
  }
  expect(new Set(seen.flatMap(({ onTables }) => onTables))).toEqual(new Set(['AccessShareLock']))
  expect(seen.filter(({ writing }) => writing > 0)).toEqual([])
  expect(await relations()).toBe(before)
})

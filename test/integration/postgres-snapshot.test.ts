import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { copyPieces } from '../../connectors/postgres/snapshot-copy.ts'
import { type PostgresFence, PostgresSnapshotReader } from '../../connectors/postgres/snapshot-reader.ts'
import { describeTable } from '../../connectors/postgres/type-mapping.ts'
import type { ChunkLimits, Json, SnapshotChunk, TableSchema, Value } from '../../core/plugin.ts'
import { seeded } from '../../testing/source/workload.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'
import { until } from './running-capture.ts'

let db: TestDatabase
let reader: PostgresSnapshotReader
let connections = 0
const { signal } = new AbortController()
const MANY = { maxRows: 1_000_000, maxBytes: 2 ** 30 }

beforeAll(async () => {
  db = await testDatabase()
  reader = new PostgresSnapshotReader({
    connect: async () => {
      const client = new pg.Client({ connectionString: db.url })
      await client.connect()
      connections++
      return client
    },
    mapping: { unrepresentable: 'text' },
  })
})

afterAll(async () => {
  await reader?.[Symbol.asyncDispose]()
  await db?.drop()
})

async function tableOf(name: string): Promise<TableSchema> {
  const client = new pg.Client({ connectionString: db.url })
  await client.connect()
  const { rows } = await client.query<{ oid: number }>('select $1::regclass::oid as oid', [name])
  const { table } = await describeTable(client, rows[0]!.oid, { unrepresentable: 'text' })
  await client.end()
  return table
}

function rowsOf(chunk: SnapshotChunk): readonly (readonly Value[])[] {
  const writer = new RecordingWriter(chunk.table)
  chunk.write(
    writer,
    () => writer.row(),
    () => writer.end(),
  )
  expect(writer.rows.length).toBe(chunk.rows)
  return writer.rows
}

interface Chunk {
  readonly rows: readonly (readonly Value[])[]
  readonly fence: PostgresFence
  readonly table: TableSchema
  readonly next: Json | null
}

/** Reads a table to its end; every cursor goes through JSON, as in the log's progress. */
async function readAll(table: TableSchema, limits: ChunkLimits, between: (chunk: Chunk) => Promise<unknown> = async () => {}): Promise<readonly Chunk[]> {
  const chunks: Chunk[] = []
  let cursor: Json | null = null
  do {
    const views: PostgresFence[] = []
    const chunk = await reader.read(table, cursor, limits, (fence) => views.push(fence as PostgresFence), signal)
    expect(views).toEqual([chunk.fence])
    const read = { rows: rowsOf(chunk), fence: chunk.fence as PostgresFence, table: chunk.table, next: chunk.next }
    chunks.push(read)
    cursor = JSON.parse(JSON.stringify(chunk.next)) as Json | null
    if (cursor !== null) await between(read)
  } while (cursor !== null)
  return chunks
}

const allRows = (chunks: readonly Chunk[]) => chunks.flatMap(({ rows }) => rows)

const sees = (fence: PostgresFence, xid: bigint) => xid < fence.xmin || (xid < fence.xmax && !fence.inProgress.has(xid))

describe('a table with a key', () => {
  it('reads 200 000 rows in chunks while they change, each chunk exactly what its fence sees', async () => {
    await db.sql(`create table busy (id bigint primary key, version int not null, note text);
      create table history (id bigint, version int, gone boolean, xid xid8 default pg_current_xact_id());
      insert into busy select g * 2, 0, 'row ' || g from generate_series(1, 200000) g; analyze busy`)
    expect(await reader.estimate(await tableOf('busy'))).toBe(200_000)
    const table = await tableOf('busy')
    let stop = false
    let transactions = 0
    const write = async (seed: number) => {
      const random = seeded(seed)
      const client = new pg.Client({ connectionString: db.url })
      await client.connect()
      while (!stop) {
        const id = random(400_000) + 1
        const rolledBack = random(10) === 0
        const victim = random(400_000) + 1
        try {
          await client.query('begin')
          const { rows } = await client.query<{ id: string; version: number }>('update busy set version = version + 1 where id = $1 returning id, version', [
            id,
          ])
          if (rows.length > 0) await client.query('insert into history values ($1, $2, false)', [id, rows[0]!.version])
          else {
            await client.query('insert into busy values ($1, 1, $2) on conflict do nothing', [id, 'new'])
            await client.query('insert into history values ($1, 1, false)', [id])
          }
          const gone = await client.query('delete from busy where id = $1', [victim])
          if (gone.rowCount === 1) await client.query('insert into history values ($1, null, true)', [victim])
          await client.query(rolledBack ? 'rollback' : 'commit')
          transactions++
        } catch (error) {
          // the two of them met
          if ((error as { readonly code?: string }).code !== '40P01') throw error
          await client.query('rollback')
        }
      }
      await client.end()
    }
    const writers = [write(1), write(2)]
    // whoever reads faster than they write waits for them
    const written = async () => {
      const before = transactions
      await until('some transactions have ended', () => transactions >= before + 3)
    }
    const chunks = await readAll(table, { maxRows: 20_000, maxBytes: 2 ** 24 }, written)
    stop = true
    await Promise.all(writers)
    expect(transactions).toBeGreaterThan(20)
    expect(chunks.length).toBeGreaterThanOrEqual(10)

    // what the fence says it sees of each row's history must be what the chunk holds
    const { rows: history } = await db.sql('select id::int8::text, version, gone, xid::text as xid from history order by xid, version nulls last')
    const changesOf = new Map<bigint, { version: number | null; xid: bigint }[]>()
    for (const { id, version, xid } of history as { id: string; version: number | null; xid: string }[]) {
      const list = changesOf.get(BigInt(id)) ?? []
      changesOf.set(BigInt(id), list)
      list.push({ version, xid: BigInt(xid) })
    }
    let low = 0n
    for (const { rows, fence, next } of chunks) {
      const ids = rows.map((row) => row[0] as bigint)
      expect(ids.every((id, i) => id > (i === 0 ? low : ids[i - 1]!))).toBe(true)
      const held = new Map(rows.map((row) => [row[0] as bigint, row[1] as number]))
      const high = next === null ? 2n ** 62n : ids.at(-1)!
      for (const [id, changes] of changesOf) {
        if (id <= low || id > high) continue
        const seen = changes.filter(({ xid }) => sees(fence, xid))
        const versions = seen.flatMap(({ version }) => (version === null ? [] : [version]))
        const unseen = changes.some(({ xid }) => !sees(fence, xid))
        if (seen.length === 0) expect(held.get(id)).toBe(id % 2n === 0n ? 0 : undefined)
        // versions only rise; of two transactions on one row the later one may have the lower id
        else if (seen.every(({ version }) => version !== null)) expect([id, held.get(id), unseen]).toEqual([id, Math.max(...versions), unseen])
      }
      low = high
    }
    const fences = chunks.map(({ fence }) => fence)
    expect(fences.every((fence, i) => i === 0 || (fence.lsn >= fences[i - 1]!.lsn && fence.xmax >= fences[i - 1]!.xmax))).toBe(true)
    expect(fences.every((fence) => fence.xmin <= fence.xmax && [...fence.inProgress].every((xid) => xid >= fence.xmin && xid < fence.xmax))).toBe(true)
  })

  it('resumes behind odd characters in composite keys of text and uuid, in the order of the index and with its collation', async () => {
    await db.sql(`create collation if not exists german (provider = icu, locale = 'de-u-ks-level2', deterministic = false);
      create table odd (name text collate german not null, id uuid not null, "Third ""one" varchar(30) collate "C" not null, n int, primary key (id, name, "Third ""one"));
      alter table odd drop constraint odd_pkey;
      create unique index odd_key on odd ("Third ""one", name collate "C" text_pattern_ops, id); alter table odd replica identity using index odd_key`)
    const parts = ['', ' ', "'", '"', '\\', "\\'", 'ä', 'A', 'a', 'Z', '\n', '🐘', "'); drop table odd; --", '$1', '%', ',']
    for (const [i, a] of parts.entries())
      for (const [j, b] of parts.entries())
        await db.sql('insert into odd values ($1, $2, $3, $4)', [a, `00000000-0000-4000-8000-${String(j % 3).padStart(12, '0')}`, b, i * parts.length + j])
    const table = await tableOf('odd')
    expect(table.key.map((i) => table.columns[i]!.name)).toEqual(['name', 'id', 'Third "one'])
    for (const maxRows of [1, 7, 100]) {
      const chunks = await readAll(table, { maxRows, maxBytes: 2 ** 24 })
      const numbers = allRows(chunks).map((row) => row[3])
      expect(numbers.length).toBe(parts.length ** 2)
      expect(new Set(numbers).size).toBe(parts.length ** 2)
      const { rows } = await db.sql('select n from odd order by "Third ""one" collate "C", name collate "C", id')
      expect(numbers).toEqual(rows.map(({ n }) => n))
    }
  })

  it('reads keys of many types to the end, whatever the chunk', async () => {
    await db.sql(`create extension if not exists citext; create type shade as enum ('z', 'y', 'x');
      create table typed (a timestamptz, b numeric, c shade, d citext, e bytea, f interval, g int[], h char(4), i date, j float8, k inet, n int, primary key (a, b, c, d, e, f, g, h, i, j, k));
      insert into typed select timestamptz '2026-01-01' + (g % 7) * interval '1.000001 s', (g % 5)::numeric / 3, (array['z','y','x'])[1 + g % 3]::shade, chr(65 + g % 3 + 32 * (g % 2)), decode(lpad(to_hex(g), 4, '0'), 'hex'),
        make_interval(days => g % 4, secs => g), array[g % 3, null, g], chr(97 + g % 9), date '1970-01-01' - g, 1.0 / g, '10.0.0.1'::inet + g, g from generate_series(1, 500) g`)
    const chunks = await readAll(await tableOf('typed'), { maxRows: 13, maxBytes: 2 ** 24 })
    const { rows } = await db.sql('select n from typed order by a, b, c, d, e, f, g, h, i, j, k')
    expect(allRows(chunks).map((row) => row[11])).toEqual(rows.map(({ n }) => n))
  })

  it('stops at maxBytes on a whole row, and goes on after it', async () => {
    await db.sql(
      `create table wide (id int primary key, body text); alter table wide alter body set storage external; insert into wide select g, repeat('x', 100000) from generate_series(1, 60) g`,
    )
    const before = connections
    const chunks = await readAll(await tableOf('wide'), { maxRows: 1000, maxBytes: 1_000_000 })
    expect(allRows(chunks).map((row) => row[0])).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
    expect(chunks.length).toBeGreaterThan(4)
    for (const { rows } of chunks) expect(rows.length).toBeLessThan(25)
    // the second chunk knows how long rows are, so only the first had to be cut
    expect(connections - before).toBeLessThan(3)
  })

  it('reads a row larger than maxBytes', async () => {
    const chunks = await readAll(await tableOf('wide'), { maxRows: 1000, maxBytes: 1 })
    expect(allRows(chunks).length).toBe(60)
  })

  it('gives each chunk the shape that the table had when it was read', async () => {
    await db.sql(`create table reshaped (id int primary key, a text, b int); insert into reshaped select g, 'a' || g, g from generate_series(1, 30) g`)
    const steps = [`alter table reshaped add column c text default 'new'`, 'alter table reshaped drop column b', 'alter table reshaped rename a to z']
    const chunks = await readAll(await tableOf('reshaped'), { maxRows: 8, maxBytes: 2 ** 24 }, () => db.sql(steps.shift() ?? 'select 1'))
    expect(chunks.map(({ table }) => table.columns.map(({ name, id }) => `${name}${id}`).join())).toEqual([
      'id1,a2,b3',
      'id1,a2,b3,c4',
      'id1,a2,c4',
      'id1,z2,c4',
    ])
    expect(allRows(chunks).map((row) => row[0])).toEqual(Array.from({ length: 30 }, (_, i) => i + 1))
    expect(chunks[2]!.rows[0]).toEqual([17, 'a17', 'new'])
  })

  it('starts again when the key changed or the table was made anew, ends when it was dropped, and refuses when it was renamed', async () => {
    await db.sql(`create table rekeyed (id int primary key, other int not null unique); insert into rekeyed select g, 100 - g from generate_series(1, 20) g`)
    const table = await tableOf('rekeyed')
    const first = await reader.read(table, null, { maxRows: 5, maxBytes: 2 ** 20 }, () => {}, signal)
    await db.sql('alter table rekeyed replica identity using index rekeyed_other_key')
    expect((await reader.read(table, first.next, MANY, () => {}, signal)).rows).toBe(20)
    await db.sql(`alter table rekeyed rename to other_name`)
    await expect(reader.read(table, first.next, MANY, () => {}, signal)).rejects.toMatchObject({
      code: 'source.table_gone',
      message: expect.stringContaining('renamed'),
    })
    await db.sql(`drop table other_name; create table rekeyed (id int primary key); insert into rekeyed values (1), (7)`)
    expect((await reader.read(table, first.next, MANY, () => {}, signal)).rows).toBe(2)
    await db.sql('drop table rekeyed')
    expect(await reader.read(table, first.next, MANY, () => {}, signal)).toMatchObject({ rows: 0, next: null })
    await expect(reader.read(table, null, MANY, () => {}, signal)).rejects.toMatchObject({ code: 'source.table_gone' })
  })

  it('reads a partitioned table through its root, and a parent without its children', async () => {
    await db.sql(`create table parted (id int, at date, primary key (id, at)) partition by range (at);
      create table parted_1 partition of parted for values from ('2026-01-01') to ('2026-02-01');
      create table parted_2 (at date not null, extra int, id int not null); alter table parted_2 drop column extra; alter table parted attach partition parted_2 for values from ('2026-02-01') to ('2026-03-01');
      insert into parted select g, date '2026-01-01' + g % 50 from generate_series(1, 100) g;
      create table parent (id int primary key); create table child () inherits (parent); insert into parent values (1); insert into child values (2)`)
    expect(allRows(await readAll(await tableOf('parted'), { maxRows: 9, maxBytes: 2 ** 20 })).map((row) => row[0])).toEqual(
      Array.from({ length: 100 }, (_, i) => i + 1),
    )
    expect(allRows(await readAll(await tableOf('parent'), MANY))).toEqual([[1]])
  })

  it('leaves generated columns out, and reads types without a binary form as text', async () => {
    await db.sql(`create table special_types (id int primary key, doubled int generated always as (id * 2) stored, q tsquery, acl aclitem, acls aclitem[], r regclass);
      insert into special_types values (1, default, 'a & b', 'postgres=r/postgres', '{postgres=r/postgres}', 'pg_class')`)
    expect(allRows(await readAll(await tableOf('special_types'), MANY))).toEqual([[1, `'a' & 'b'`, 'postgres=r/postgres', ['postgres=r/postgres'], 'pg_class']])
  })

  it('uses the index to go on in a large table', async () => {
    await db.sql(`set client_min_messages = warning; load 'auto_explain'`).catch(() => {})
    const table = await tableOf('busy')
    const chunk = await reader.read(table, null, { maxRows: 1000, maxBytes: 2 ** 24 }, () => {}, signal)
    const { rows } = await db.sql(
      `explain select id from only public.busy where id operator(pg_catalog.>) '${(chunk.next as { after: string[] }).after[0]}'::bigint order by id using operator(pg_catalog.<) limit 1000`,
    )
    expect(rows.map((row) => Object.values(row as object)[0]).join('\n')).toMatch(/Index (Only )?Scan/)
  })

  it('fails, rather than leave rows out, where row security would hide some', async () => {
    await db.sql(`create table secured (id int primary key, owner text); insert into secured values (1, 'a'), (2, 'b'); alter table secured enable row level security;
      create policy own on secured using (owner = 'a'); do $$ begin create role row_reader login; exception when duplicate_object then null; end $$; grant select on secured to row_reader`)
    const table = await tableOf('secured')
    const limited = new PostgresSnapshotReader({
      connect: async () => {
        const client = new pg.Client({ host: db.host, port: db.port, database: db.database, user: 'row_reader' })
        await client.connect()
        return client
      },
      mapping: { unrepresentable: 'error' },
    })
    await expect(limited.read(table, null, MANY, () => {}, signal)).rejects.toMatchObject({ code: 'source.forbidden' })
    await limited[Symbol.asyncDispose]()
    await db.sql('drop owned by row_reader; drop role row_reader')
  })

  it('reads several tables at once, each on its own connection', async () => {
    const tables = await Promise.all(['busy', 'odd', 'typed', 'wide'].map(tableOf))
    const chunks = await Promise.all(tables.map((table) => reader.read(table, null, { maxRows: 50, maxBytes: 2 ** 26 }, () => {}, signal)))
    expect(chunks.map(({ rows, table }) => [table.name, rows])).toEqual([
      ['busy', 50],
      ['odd', 50],
      ['typed', 50],
      ['wide', 50],
    ])
  })
})

describe('a table without a key', () => {
  it('is read by page, every row once', async () => {
    await db.sql(
      `create table bare (n int, body text); insert into bare select g, repeat('y', g % 200) from generate_series(1, 5000) g; delete from bare where n % 7 = 0`,
    )
    const { rows } = await db.sql('select n from bare')
    const chunks = await readAll(await tableOf('bare'), { maxRows: 700, maxBytes: 2 ** 20 })
    expect(
      allRows(chunks)
        .map((row) => row[0])
        .sort((a, b) => (a as number) - (b as number)),
    ).toEqual(rows.map(({ n }) => n).sort((a, b) => a - b))
    expect(chunks.length).toBeGreaterThan(5)
    expect(allRows(chunks).every((row) => row.length === 2)).toBe(true)
  })

  it('is read from its start again when its file is written anew', async () => {
    const table = await tableOf('bare')
    const first = await reader.read(table, null, { maxRows: 1000, maxBytes: 2 ** 20 }, () => {}, signal)
    await db.sql('vacuum full bare')
    const { rows } = await db.sql('select count(*)::int as n from bare')
    expect((await reader.read(table, first.next, MANY, () => {}, signal)).rows).toBe(rows[0]!.n)
  })

  it('reads partitions one after another', async () => {
    await db.sql(`create table bare_parted (n int) partition by range (n); create table bare_a partition of bare_parted for values from (0) to (100);
      create table bare_b partition of bare_parted for values from (100) to (200); create table bare_empty partition of bare_parted for values from (200) to (300); insert into bare_parted select generate_series(1, 150)`)
    const numbers = allRows(await readAll(await tableOf('bare_parted'), { maxRows: 20, maxBytes: 2 ** 20 })).map((row) => row[0])
    expect(numbers).toEqual(Array.from({ length: 150 }, (_, i) => i + 1))
    expect(await readAll(await tableOf('bare_empty'), MANY)).toHaveLength(1)
  })
})

describe('a whole table in one view', () => {
  it('is read in pieces of a few bytes, or of one row, however its rows grow', async () => {
    await db.sql(`create table growing (id int primary key, v text); alter table growing alter v set storage external;
      insert into growing select g, case when g <= 3000 then 'x' else repeat('y', 100000) end from generate_series(1, 3050) g`)
    const client = new pg.Client({ connectionString: db.url })
    client.on('error', () => {})
    await client.connect()
    try {
      const sql = 'copy (select id, v from growing order by id) to stdout (format binary)'
      const pieces: { readonly rows: number; readonly length: number }[] = []
      await copyPieces(client, sql, 10_000, ({ rows, length }) => pieces.push({ rows, length }), signal)
      expect(pieces.reduce((sum, { rows }) => sum + rows, 0)).toBe(3050)
      expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThan(10_000 + 101_000)
      expect(pieces.length).toBeGreaterThan(50)
      const failing = copyPieces(client, sql, 10_000, fail, signal)
      await expect(failing).rejects.toThrow('taken wrongly')
    } finally {
      ;(client as pg.Client & { readonly connection: pg.Connection }).connection.stream.destroy()
    }
    const table = await tableOf('growing')
    const writer = new RecordingWriter(table)
    await reader.scan(table, () => ({ writer, beginRow: () => writer.row(), endRow: () => writer.end() }), signal)
    expect(writer.rows.map(([id]) => id as number).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 3050 }, (_, i) => i + 1))
  })
})

function fail(): never {
  throw new Error('taken wrongly')
}

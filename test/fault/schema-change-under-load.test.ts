import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, node, shopYaml, startReading } from './shop-mesh.ts'

const ROWS = 30_000
let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  folder?.remove()
})

/** Each is followed by changes in the new shape; together they leave no column as it was. */
const CHANGES = [
  'alter table wares add column added int',
  "alter table wares add column filled text not null default 'filled'",
  'alter table wares rename column name to title',
  'alter table wares alter column amount type bigint',
  'alter table wares drop column old',
  'alter table wares alter column code type text',
  'alter table wares drop column added, add column priced numeric(12,3) default 1.5',
  // locked first: whoever waits for one of its rows meanwhile would wait in a circle with the change of its shape
  'begin; lock table wares in access exclusive mode; update wares set filled = filled where id % 700 = 0; alter table wares add column inside date; update wares set inside = current_date where id % 900 = 0; commit',
]

test('columns come, go, change name and type in the middle of the snapshot and of the stream, rows changing all the while: equal in the newest shape', async () => {
  folder = faultDir()
  db = await testDatabase()
  const { url, database, sql } = db
  await sql('create table wares (id int primary key, name text, amount int, code varchar(20), old text)')
  await sql(`insert into wares select i, 'ware ' || i, i, 'c' || i % 100, repeat('old', 10) from generate_series(1, ${ROWS}) i`)
  mesh = new MeshProcess(folder.dir, shopYaml({ name: database, url, chunkRows: 500 }))
  let over = false
  let statements = 0
  const busy = (async () => {
    for (let i = 1; !over; i++) {
      // columns that every shape has
      await sql('insert into wares (id, amount) values ($1, $2)', [ROWS + i, i])
      await sql('update wares set amount = amount + 1 where id = $1 or id = $2', [1 + ((i * 7919) % ROWS), ROWS + i])
      await sql('delete from wares where id = $1', [1 + ((i * 104_729) % ROWS)])
      statements += 3
      // no faster than a busy machine follows
      await delay(5)
    }
  })()
  busy.catch((error: unknown) => console.error('the workload failed:', error))
  const half = CHANGES.length / 2
  try {
    await startReading(mesh, { rows: 500 })
    for (const [index, change] of CHANGES.entries()) {
      if (index === half) await mesh.until('following', (status) => node(status, 'shop').state === 'running')
      const { rows } = node(await mesh.until('answering', () => true), 'shop')
      await sql(change)
      await mesh.until(`going on after: ${change}`, (status) => node(status, 'shop').rows >= rows + 20)
    }
    await mesh.until('rows changed all the while', () => statements > 30)
  } finally {
    over = true
    await busy
  }
  const [audit] = await expectEqual(mesh, ['public.wares'])
  expect(audit!.source.rows).toBe((await sql('select count(*)::int as n from wares')).rows[0].n)
  const status = await mesh.until('answering', () => true)
  expect(status.nodes.map(({ node: name, rejected, error }) => ({ name, rejected, error }))).toEqual(
    ['shop', 'lake', 'search'].map((name) => ({ name, rejected: 0, error: null })),
  )
  expect(await mesh.stop()).toBe(0)
})

test('columns with defaults come to tables that nothing else changed, running and killed: old rows get them too', async () => {
  folder = faultDir()
  db = await testDatabase()
  const { url, database, sql } = db
  for (const table of ['calm', 'killed']) {
    await sql(`create table ${table} (id int primary key, name text); insert into ${table} select i, 'row ' || i from generate_series(1, 5000) i`)
  }
  mesh = new MeshProcess(folder.dir, shopYaml({ name: database, url, chunkRows: 500 }))
  mesh.start()
  await mesh.until('following', (status) => node(status, 'shop').state === 'running' && node(status, 'lake').rows === 10_000)
  // the first change that the stream ever has of this table is of the new shape already
  await sql("alter table calm add column mood text default 'fine'")
  await sql('update calm set name = name where id = 1')
  await expectEqual(mesh, ['public.calm', 'public.killed'])
  await mesh.kill()
  await sql('alter table killed add column lives int not null default 9')
  await sql('update killed set name = name where id = 1')
  // killed again as soon as it wrote the changes, while it reads the table anew or when it has
  for (const rows of [1, 1000]) {
    await sql(`update killed set name = name where id <= ${rows}`)
    mesh.start()
    await mesh.until(`${rows} rows written`, (status) => node(status, 'shop').rows >= rows)
    await mesh.kill()
  }
  mesh.start()
  await expectEqual(mesh, ['public.calm', 'public.killed'])
  expect(await mesh.stop()).toBe(0)
})

import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { readRunning } from '../../core/runtime/data-folder.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, node, shopYaml } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  folder?.remove()
})

async function start(tables: string): Promise<{ mesh: MeshProcess; sql: TestDatabase['sql'] }> {
  folder = faultDir()
  db = await testDatabase()
  await db.sql(tables)
  mesh = new MeshProcess(folder.dir, shopYaml({ name: db.database, url: db.url, chunkRows: 500 }))
  mesh.start()
  await mesh.until('following', follows)
  return { mesh, sql: db.sql }
}

const follows = (status: MeshStatus) => node(status, 'shop').state === 'running' && node(status, 'shop').snapshot.every(({ done }) => done)
const parked = (status: MeshStatus) => node(status, 'shop').parked.map(({ table, error }) => [table, error.code])

// I10
test('a column of one of several tables under load gets a type that the registry refuses: only that table stops, named, and is equal again once it is repaired', async () => {
  const wares = (name: string) =>
    `create table ${name} (id int primary key, amount int, note text); insert into ${name} select i, i, 'row ' || i from generate_series(1, 3000) i;`
  const { mesh, sql } = await start(['victim', 'other', 'third'].map(wares).join('\n'))
  let over = false
  const busy = (async () => {
    for (let i = 1; !over; i++) {
      for (const table of ['victim', 'other', 'third']) {
        // an unknown literal takes whatever type the column has
        await sql(`insert into ${table} values (${3000 + i}, '${i}', 'new'); update ${table} set note = note || '!' where id = ${1 + ((i * 7919) % 3000)};
          delete from ${table} where id = ${1 + ((i * 104_729) % 3000)}`)
      }
      // no faster than a busy machine follows
      await delay(10)
    }
  })()
  busy.catch((error: unknown) => console.error('the workload failed:', error))
  try {
    await sql('alter table victim alter column amount type text')
    const counts = (now: MeshStatus) => (node(now, 'shop').parked[0]?.skipped ?? 0) > 20
    const status = await mesh.until('parked, and counting', (now) => counts(now) && mesh.output.includes('public.victim is parked'))
    const shop = node(status, 'shop')
    expect(shop.state).toBe('degraded')
    expect(parked(status)).toEqual([['public.victim', 'schema.incompatible']])
    expect(shop.parked[0]!.error.fix).toContain('millrace resnapshot FILE shop/public.victim')
    expect(shop.error).toEqual(shop.parked[0]!.error)
    expect(mesh.output.match(/public\.victim is parked/g)?.length).toBe(1)
    await mesh.kill()
    mesh.start()
    await mesh.until('still parked, the others going on', (now) => parked(now).length === 1 && node(now, 'shop').rows > 50)
    const audits = await mesh.audit()
    expect(audits.map(({ table, equal, parked: aside }) => [table, equal, aside === true])).toEqual([
      ['public.victim', false, true],
      ['public.other', true, false],
      ['public.third', true, false],
    ])
    expect(audits[0]!.differences[0]).toContain('schema.incompatible')
    const shown = await mesh.command('status')
    expect(shown.exitCode).toBe(1)
    expect(shown.text).toContain('public.victim is parked')
    expect(await mesh.command('resnapshot', 'shop/public.none')).toMatchObject({ exitCode: 2 })
    // what was written as text while it was stopped comes before the reading, and must not park the table again
    expect(await mesh.stop()).toBe(2)
    await sql("update victim set amount = '77' where id between 1 and 50")
    await sql('alter table victim alter column amount type int using amount::int')
    expect(await mesh.command('resnapshot', 'shop/public.victim')).toMatchObject({ exitCode: 0 })
    mesh.start()
    await mesh.until('going on', (now) => parked(now).length === 0 && follows(now))
  } finally {
    over = true
    await busy
  }
  expect(mesh.output.match(/public\.victim is parked/g)?.length).toBe(2)
  await expectEqual(mesh, ['public.other', 'public.third', 'public.victim'])
  expect(await mesh.stop()).toBe(0)
})

test('DDL on tables that nobody writes to reaches log and sinks by itself', async () => {
  const names = ['defaulted', 'widened', 'rekeyed', 'renamed', 'remade', 'whole', 'untouched']
  const { mesh, sql } = await start(
    names
      .map((name) => `create table ${name} (id int primary key, v int, t text); insert into ${name} select i, i, 't' || i from generate_series(1, 1500) i;`)
      .join('\n'),
  )
  await sql("alter table defaulted add column mood text default 'fine'")
  await sql('alter table widened alter column v type bigint using v::bigint * 5000000000')
  await sql('alter table rekeyed alter column id type bigint using id::bigint + 5000000000')
  await sql('alter table renamed rename column t to title; alter table renamed add column plain int')
  await sql('drop table remade; create table remade (id int primary key, v int, t text); insert into remade values (1, 7, null), (5000, 8, null)')
  await sql('alter table whole replica identity full; alter table whole alter column t set storage plain')
  const tables = names.map((name) => `public.${name}`).sort()
  // until then it is in no publication
  await mesh.until('taken up', (status) => node(status, 'shop').snapshot.some(({ table, rows, done }) => table === 'public.remade' && rows === 2 && done))
  const audits = await expectEqual(mesh, tables)
  expect(audits.find(({ table }) => table === 'public.remade')!.source.rows).toBe(2)
  const { snapshot } = node(await mesh.until('following', follows), 'shop')
  expect(snapshot.map(({ table }) => table).sort()).toEqual(tables)
  // and when something is written after all
  await sql(names.map((name) => `update ${name} set v = 3 where id in (select min(id) from ${name});`).join(' '))
  await expectEqual(mesh, tables)
  expect(await mesh.stop()).toBe(0)
})

test('a table that was dropped while Millrace was stopped is named until somebody takes note, and read again when it comes back', async () => {
  const make = 'create table gone (id int primary key, v text); insert into gone select i, repeat($$x$$, i % 9) from generate_series(1, 700) i;'
  const { mesh, sql } = await start(`${make} create table kept (id int primary key); insert into kept values (1)`)
  await expectEqual(mesh, ['public.gone', 'public.kept'])
  await mesh.stop()
  await sql('delete from gone where id < 10; drop table gone')
  mesh.start()
  await mesh.until('told', (status) => JSON.stringify(parked(status)) === '[["public.gone","source.table_gone"]]')
  expect((await mesh.audit()).map(({ table, equal }) => [table, equal])).toEqual([
    ['public.gone', false],
    ['public.kept', true],
  ])
  expect(await mesh.command('resnapshot', 'shop/public.gone')).toMatchObject({ exitCode: 0 })
  await mesh.until('noted', (status) => follows(status) && parked(status).length === 0)
  await expectEqual(mesh, ['public.kept'])
  // without one row that it had before
  await sql('create table gone (id int primary key, v text); insert into gone values (5000, $$new$$)')
  await mesh.until('read again', (status) => node(status, 'shop').snapshot.some(({ table, done }) => table === 'public.gone' && done))
  const [gone] = await expectEqual(mesh, ['public.gone', 'public.kept'])
  expect(gone!.source.rows).toBe(1)
  // and while it runs, under its own eyes
  await sql('alter table gone rename to moved')
  await mesh.until('told', (status) => parked(status).length === 1 && node(status, 'shop').snapshot.some(({ table, done }) => table === 'public.moved' && done))
  expect((await mesh.audit()).map(({ table, equal }) => [table, equal])).toEqual([
    ['public.gone', false],
    ['public.kept', true],
    ['public.moved', true],
  ])
  expect(await mesh.stop()).toBe(2)
})

test('a value that its type cannot hold, and a table without a key, stop neither their neighbours nor the next start', async () => {
  const { mesh, sql } = await start(`create table dates (id int primary key, day date); insert into dates select i, '2026-01-01' from generate_series(1, 900) i;
    create table other (id int primary key, v int); insert into other select i, i from generate_series(1, 900) i`)
  await sql("update dates set day = 'infinity' where id = 7; create table bare (v int); insert into bare select generate_series(1, 10)")
  const named = [
    ['public.bare', 'source.no_identity'],
    ['public.dates', 'record.unrepresentable'],
  ]
  const both = (status: MeshStatus) => JSON.stringify(parked(status).sort()) === JSON.stringify(named)
  await mesh.until('both are named', both)
  const goesOn = async () => {
    const before = node(await mesh.until('answering', () => true), 'shop').rows
    await sql('update other set v = v + 1; update dates set id = id')
    const skipped = (status: MeshStatus) => node(status, 'shop').parked.find(({ table }) => table === 'public.dates')?.skipped ?? 0
    await mesh.until('the other table goes on', (status) => node(status, 'shop').rows >= before + 900 && skipped(status) > 0)
  }
  await goesOn()
  await mesh.kill()
  mesh.start()
  await mesh.until('both are named again', both)
  await goesOn()
  const { host, port } = readRunning(mesh.dataDir)!
  const metrics = await (await fetch(`http://${host}:${port}/metrics`)).text()
  expect(metrics).toMatch(/millrace_parked_tables\{node="shop",.*\} 2/)
  expect(metrics).toMatch(/millrace_parked_changes\{node="shop",table="public.dates",.*\} [1-9]/)
  await sql("update dates set day = '2026-02-02' where id = 7; alter table bare add primary key (v)")
  expect(await mesh.command('resnapshot', 'shop/public.dates')).toMatchObject({ exitCode: 0 })
  await mesh.until('both are read', (status) => parked(status).length === 0 && follows(status) && node(status, 'shop').snapshot.length === 3)
  await expectEqual(mesh, ['public.bare', 'public.dates', 'public.other'])
  expect(await mesh.stop()).toBe(0)
})

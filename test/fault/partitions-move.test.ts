import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { skipReason, versionDatabase } from '../services/postgres-versions.ts'
import { expectEqual, faultDir, node, shopYaml, startReading } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  folder?.remove()
})

const reason = skipReason()
const SERVERS = [
  { what: 'the newest Postgres', skipped: null, open: testDatabase },
  // it forgets to look again at tables that it has judged before
  { what: 'Postgres 14', skipped: reason, open: () => versionDatabase(14) },
]

/** Rows that a table brings along, and the primary key of the whole. */
const READY = (name: string, region: string, rows: number) =>
  `create table ${name} (like orders including all); insert into ${name} select i, '${region}', 'ready' from generate_series(1, ${rows}) i`

test.for(SERVERS)('partitions come and go under load, while it runs, reads, is killed and is away: equal, on $what', async ({ what, skipped, open }, {
  skip,
}) => {
  if (skipped !== null) return skip(`${what}: ${skipped}`)
  folder = faultDir()
  db = await open()
  const { url, database, sql } = db
  await sql(`create table orders (id int not null, region text not null, status text, primary key (region, id)) partition by list (region);
    create table orders_a partition of orders for values in ('a'); create table orders_b partition of orders for values in ('b');
    insert into orders select i, 'a', 'old' from generate_series(1, 20000) i; insert into orders select i, 'b', 'old' from generate_series(1, 2000) i;
    create table nested (like orders including all) partition by range (id);
    create table nested_1 partition of nested for values from (1) to (100); create table nested_2 partition of nested for values from (100) to (10000)`)
  // written to while it is no partition, under the eyes of the stream
  await sql(READY('orders_c', 'c', 3000))
  mesh = new MeshProcess(folder.dir, shopYaml({ name: database, url, chunkRows: 500, shop: '' }).replace('public.*', 'public.orders'))
  let over = false
  const present = new Set(['orders_a', 'orders_b'])
  const busy = (async () => {
    for (let i = 1; !over; i++) {
      await sql(`insert into orders values ($1, 'a', 'new')`, [100_000 + i])
      await sql(`update orders set status = 'changed' where id in ($1, $2)`, [1 + ((i * 7919) % 3000), 100_000 + i])
      await sql(`delete from orders where region = 'a' and id = $1`, [1 + ((i * 104_729) % 20_000)])
      // alone too, whether or not it is a partition
      if (present.has('orders_c') || i % 3 === 0) await sql(`update orders_c set status = status || '.' where id = $1`, [1 + (i % 3000)])
      // no faster than a busy machine follows
      await delay(5)
    }
  })()
  busy.catch((error: unknown) => console.error('the workload failed:', error))
  const noticed = (...moves: readonly string[]) => mesh!.until(moves.join(', '), () => moves.every((move) => mesh!.output.slice(from).includes(move)))
  let from = 0
  try {
    await startReading(mesh, { rows: 500 })
    await sql(`alter table orders attach partition orders_c for values in ('c')`)
    present.add('orders_c')
    await noticed('orders_c was attached')
    await mesh.until('following', (status) => node(status, 'shop').state === 'running')
    await expectEqual(mesh, ['public.orders'])

    // made, filled and attached at once; with partitions of its own; and killed while it reads
    await sql(`begin; ${READY('orders_d', 'd', 4000)}; alter table orders attach partition orders_d for values in ('d'); commit`)
    await sql(`insert into nested select i, 'n', 'ready' from generate_series(1, 3000) i; alter table orders attach partition nested for values in ('n')`)
    await noticed('orders_d was attached', 'nested_2 was attached')
    await mesh.kill()
    mesh.start()
    await expectEqual(mesh, ['public.orders'])

    await sql('alter table orders detach partition orders_c')
    present.delete('orders_c')
    await sql(`truncate orders_d; insert into orders_d values (1, 'd', 'after the truncation')`)
    await noticed('orders_c was detached', 'orders_d was truncated')
    await expectEqual(mesh, ['public.orders'])

    await mesh.stop()
    from = mesh.output.length
    await sql(`drop table orders_d; alter table orders attach partition orders_c for values in ('c')`)
    present.add('orders_c')
    mesh.start()
    await noticed('orders_d was detached or dropped', 'orders_c was attached')
    await mesh.until('following', (status) => node(status, 'shop').state === 'running')
  } finally {
    over = true
    await busy
  }
  const [audit] = await expectEqual(mesh, ['public.orders'])
  expect(audit!.source.rows).toBe((await sql('select count(*)::int as n from orders')).rows[0].n)
  const status = await mesh.until('answering', () => true)
  expect(status.nodes.map(({ node: name, rejected, error }) => ({ name, rejected, error }))).toEqual(
    ['shop', 'lake', 'search'].map((name) => ({ name, rejected: 0, error: null })),
  )
  expect(await mesh.stop()).toBe(0)
})

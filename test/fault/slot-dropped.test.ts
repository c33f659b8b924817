import path from 'node:path'
import pg from 'pg'
import { afterEach, expect, test } from 'vitest'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { freePorts } from '../services/free-ports.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { expectEqual, faultDir, flows, keepBusy, keepTouching, moreRows, openShop, shopYaml, startReading } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let server: PostgresServer | null = null
let mesh: MeshProcess | null = null
let client: pg.Client | null = null
afterEach(async () => {
  await mesh?.kill()
  await client?.end()
  await server?.stop('SIGQUIT')
  folder?.remove()
})

async function begin(settings: Readonly<Record<string, string>> = {}, busy = keepBusy) {
  folder = faultDir()
  server = await startPostgres({ dataDir: path.join(folder.dir, 'postgres'), port: (await freePorts(1))[0]!, settings })
  client = new pg.Client({ connectionString: server.url })
  await client.connect()
  await openShop(server.url, 4000)
  mesh = new MeshProcess(path.join(folder.dir, 'mesh'), shopYaml({ name: 'slots', url: server.url, chunkRows: 300 }))
  mesh.start()
  const shop = busy(server.url)
  await mesh.until('flowing', flows)
  await moreRows(mesh, 100)
  return { shop, mesh, client, server }
}

const SLOT = 'millrace_slots_shop'
/** Rows that come, change and go while nothing captures them. */
const UNSEEN = [
  "delete from order_lines where line_no % 3 = 0; delete from customers where name like 'A%'",
  "update products set price = 1, description = upper(description) where sku like '%7'",
  "insert into orders (customer_id, note) select md5('c' || i)::uuid, 'unseen' from generate_series(1, 50) i",
]

/** The source halts, says what is lost and which command repairs it, and does so again when it is just started again. */
async function expectHistoryLost(mesh: MeshProcess, message: RegExp): Promise<void> {
  expect(await mesh.ended()).toBe(1)
  for (const again of [false, true]) {
    const before = again ? mesh.output.length : 0
    if (again) {
      mesh.start()
      expect(await mesh.ended()).toBe(1)
    }
    const said = mesh.output.slice(before)
    expect(said).toContain('source.history_lost')
    expect(said).toMatch(message)
    expect(said).toContain('--resnapshot shop')
  }
}

test('a slot dropped under load: the source fails for good, and a new reading makes everything equal, deletes that no stream held included', async () => {
  const { shop, mesh, client } = await begin()
  for (let dropped = false; !dropped; ) {
    await client.query('select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active_pid is not null', [SLOT])
    dropped = await client.query('select pg_drop_replication_slot($1)', [SLOT]).then(
      () => true,
      () => false,
    )
  }
  for (const statement of UNSEEN) await client.query(statement)
  await expectHistoryLost(mesh, new RegExp(`the slot ${SLOT} is gone; the changes after [0-9A-F]+/[0-9A-F]+ are not kept`))
  // killed in the middle of the new reading, it goes on with it
  await startReading(mesh, { args: ['--resnapshot', 'shop'] })
  await mesh.kill()
  mesh.start()
  await mesh.until('flowing', flows)
  await moreRows(mesh, 50)
  await shop.stop()
  const audit = await expectEqual(mesh)
  for (const { table } of audit) {
    const { rows } = await client.query(`select count(*)::int as n from ${table}`)
    expect(audit.find((one) => one.table === table)!.sinks.search!.rows).toBe(rows[0].n)
  }
  expect(await mesh.stop()).toBe(0)
})

test('a slot that Postgres invalidated for want of WAL: the same, and the new reading replaces the dead slot', async () => {
  // no more WAL than the slot may lag behind on any machine
  const { shop, mesh, client } = await begin({ max_slot_wal_keep_size: '16MB', wal_keep_size: '0', max_wal_size: '64MB', min_wal_size: '32MB' }, keepTouching)
  await shop.stop()
  await mesh.kill()
  for (const statement of UNSEEN) await client.query(statement)
  await client.query(
    "create table bulk (body text); alter table bulk replica identity full; insert into bulk select repeat('x', 1000) from generate_series(1, 10) i",
  )
  for (let lost = false; !lost; ) {
    await client.query('insert into bulk select repeat(md5(i::text), 60) from generate_series(1, 20000) i; select pg_switch_wal(); checkpoint')
    const { rows } = await client.query('select wal_status from pg_replication_slots where slot_name = $1', [SLOT])
    lost = rows[0].wal_status === 'lost'
  }
  await client.query('drop table bulk')
  mesh.start()
  await expectHistoryLost(mesh, new RegExp(`Postgres invalidated the slot ${SLOT} `))
  mesh.start(['--resnapshot', 'shop'])
  await mesh.until('flowing', flows)
  await expectEqual(mesh)
  expect(await mesh.stop()).toBe(0)
})

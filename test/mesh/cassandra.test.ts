import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { afterEach, describe, expect, test } from 'vitest'
import cassandra from '../../connectors/cassandra/index.ts'
import { until } from '../../testing/source/source-run.ts'
import { type CassandraKeyspace, LOCAL_DC, RELEASES, testCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason } from '../services/cassandra-jvm.ts'
import { MeshProcess } from '../services/mesh-process.ts'

const skip = cassandraSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

let shop: CassandraKeyspace | null = null
let mesh: MeshProcess | null = null
const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-cassandra-'))
afterEach(async () => {
  await mesh?.kill()
  await shop?.drop()
  shop = null
  mesh = null
  rmSync(dir, { recursive: true, force: true })
})

function yaml({ keyspace, port, cdcRaw }: CassandraKeyspace): string {
  return `mesh: ${keyspace.replaceAll('_', '-')}
dataDir: state
sources:
  shop:
    kind: cassandra
    contactPoints: ['127.0.0.1:${port}']
    localDataCenter: ${LOCAL_DC}
    tables: ['${keyspace}.*']
    cdcRaw: ${cdcRaw}
    consistency: ONE
    snapshot: { chunkRows: 200, parallel: 2 }
sinks:
  lake: { kind: iceberg, from: [shop], warehouse: ./lake, commitRows: 5000, commitMs: 200 }
  search: { kind: search, from: [shop], path: ./search.db }
`
}

async function createShop({ cql, client, keyspace }: CassandraKeyspace): Promise<void> {
  await cql('create table customers (id int primary key, name text, tags set<text>, score double) with cdc = true')
  await cql(
    'create table orders (customer text, id int, qty int, price decimal, note text, lines map<int, text>, region text static, primary key (customer, id)) with cdc = true',
  )
  await cql('create table visits (id int primary key, n counter)')
  await cql('create table unwatched (id int primary key, note text)')
  const rows = (text: string, values: readonly unknown[][]) =>
    Promise.all(values.map((one) => client.execute(`insert into ${keyspace}.${text}`, one, { prepare: true })))
  for (let from = 0; from < 900; from += 100) {
    const ids = Array.from({ length: 100 }, (_, i) => from + i)
    await rows(
      'customers (id, name, tags, score) values (?, ?, ?, ?)',
      ids.map((i) => [i, `customer ${i}`, new Set([`t${i % 3}`]), i / 7]),
    )
    await rows(
      'orders (customer, id, qty, note) values (?, ?, ?, ?)',
      ids.map((i) => [`c${i % 60}`, i, i, 'é'.repeat(i % 50)]),
    )
  }
}

/** Writes of every kind until it is stopped, no faster than rows are read back on a busy machine. */
function keepBusy({ cql }: CassandraKeyspace): { stop(): Promise<number> } {
  let over = false
  const work = (async () => {
    let n = 0
    for (; !over; n++, await delay(5)) {
      const id = (n * 7919) % 900
      const customer = `c${id % 60}`
      await cql('insert into customers (id, name) values (?, ?)', [10_000 + n, `new ${n}`])
      await cql('update orders set note = ?, qty = ? where customer = ? and id = ?', [`turn ${n}`, n, customer, id])
      await cql(`update customers set tags = tags + {'more'} where id = ?`, [id])
      if (n % 3 === 0) await cql('update orders set region = ? where customer = ?', [`r${n}`, customer])
      if (n % 5 === 0) await cql('delete from customers where id = ?', [id])
      if (n % 7 === 0) await cql('delete note from orders where customer = ? and id = ?', [customer, id])
      if (n % 11 === 0) await cql('delete from orders where customer = ? and id >= ? and id < ?', [customer, id, id + 61])
      if (n % 13 === 0) await cql(`update orders set lines[${n}] = 'x' where customer = ? and id = ?`, [customer, id])
      if (n % 17 === 0) await cql('insert into orders (customer, id, qty) values (?, ?, ?) using ttl 1', [customer, -1 - n, n])
      if (n % 19 === 0) await cql('delete from orders where customer = ?', [`c${(id + 1) % 60}`])
      if (n % 23 === 0)
        await cql(`begin batch insert into orders (customer, id, qty) values ('b', ${n}, 1); insert into unwatched (id, note) values (${n}, 'x'); apply batch`)
      if (n % 29 === 0) await cql('update orders set qty = ?, note = ? where customer = ? and id = ?', [null, null, customer, 20_000 + n])
    }
    return n
  })()
  return {
    stop() {
      over = true
      return work
    },
  }
}

describe.skipIf(skip !== null)(`Cassandra${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(RELEASES)('%s: snapshot beside a busy stream, a graceful restart, kills: log, lake and search stay equal, and segments go', {
    timeout: 600_000,
  }, async (release) => {
    shop = await testCassandra(release)
    await createShop(shop)
    mesh = new MeshProcess(dir, yaml(shop))
    const busy = keepBusy(shop)
    mesh.start()
    await mesh.until('snapshot done', ({ nodes }) => nodes[0]!.snapshot.length === 2 && nodes[0]!.snapshot.every(({ done }) => done))
    expect(await mesh.stop()).toBe(0)
    for (let round = 0; round < 3; round++) {
      mesh.start()
      await mesh.until('rows go on', (status) => status.nodes[0]!.rows > 100)
      await mesh.kill()
    }
    mesh.start()
    await mesh.until('rows go on', (status) => status.nodes[0]!.rows > 500)
    expect(await busy.stop()).toBeGreaterThan(50)
    const { cdcRaw, keyspace, cql } = shop
    await until('no row has a time to live left', async () => (await cql('select id from orders where id < 0 allow filtering')).length === 0)
    const audit = await mesh.audit()
    expect(audit.map(({ table, equal, differences, source }) => ({ table, equal, differences, empty: source.rows === 0 }))).toEqual(
      ['customers', 'orders'].map((name) => ({ table: `${keyspace}.${name}`, equal: true, differences: [], empty: false })),
    )
    const segments = () => readdirSync(cdcRaw).filter((name) => name.endsWith('_cdc.idx'))
    const written = segments()
    for (let n = 0; n < 12; n++) await cql('insert into customers (id, name) values (?, ?)', [99_999, 'x'.repeat(250_000)])
    await until('what was read is deleted', () => segments().length < 3 && !written.every((name) => segments().includes(name)))
    expect(await mesh.stop()).toBe(0)
  })

  test('4.0, in short: its settings are understood, and snapshot and stream are equal to it', { timeout: 600_000 }, async () => {
    shop = await testCassandra('4.0')
    const { cql, keyspace, port, cdcRaw } = shop
    await createShop(shop)
    const settings = { contactPoints: [`127.0.0.1:${port}`], localDataCenter: LOCAL_DC, tables: [`${keyspace}.customers`, `${keyspace}.orders`], cdcRaw }
    const context = { mesh: 'test', node: 'shop', dataDir: dir, logger: pino({ level: 'silent' }), metric: () => {} }
    const findings = await cassandra.check(cassandra.config.parse(settings), context)
    expect(findings.filter(({ level }) => level !== 'ok')).toEqual([])
    expect(findings).toContainEqual({ level: 'ok', subject: 'commitlog_sync_period', message: '100 ms' })
    mesh = new MeshProcess(dir, yaml(shop))
    mesh.start()
    await mesh.until('snapshot done', ({ nodes }) => nodes[0]!.snapshot.length === 2 && nodes[0]!.snapshot.every(({ done }) => done))
    await cql(`insert into customers (id, name, tags, score) values (1000, 'new', {'x'}, 1.5)`)
    for (let id = 0; id < 300; id += 3) await cql(`update customers set tags = tags + {'more'} where id = ?`, [id])
    await cql(`update orders set region = 'north' where customer = 'c1'`)
    await cql(`update orders set lines = lines + {1: 'x', 2: 'y'}, price = 1.50 where customer = 'c2' and id = 2`)
    await cql('delete from customers where id = 5')
    await cql(`delete from orders where customer = 'c3' and id > 60 and id <= 400`)
    await cql(`delete from orders where customer = 'c4'`)
    const audit = await mesh.audit()
    expect(audit.map(({ table, equal, differences, source }) => ({ table, equal, differences, rows: source.rows }))).toEqual([
      { table: `${keyspace}.customers`, equal: true, differences: [], rows: 900 },
      { table: `${keyspace}.orders`, equal: true, differences: [], rows: 900 - 6 - 15 },
    ])
    expect(await mesh.stop()).toBe(0)
  })

  test.each(RELEASES)('%s: a table that is truncated while it streams or while nobody reads, or dropped and made again, is emptied everywhere', {
    timeout: 600_000,
  }, async (release) => {
    shop = await testCassandra(release)
    const { cql, client, keyspace } = shop
    const create = (name: string, columns: string) => cql(`create table ${name} (id int primary key, ${columns}) with cdc = true`)
    const fill = (name: string, from: number, count: number) =>
      Promise.all(
        Array.from({ length: count }, (_, n) =>
          client.execute(`insert into ${keyspace}.${name} (id, name) values (?, ?)`, [from + n, `${name} ${n}`], { prepare: true }),
        ),
      )
    const equal = async (rows: Readonly<Record<string, number>>) => {
      const audit = await mesh!.audit()
      expect(audit.map(({ table, equal, differences, source }) => ({ table, equal, differences, rows: source.rows }))).toEqual(
        Object.entries(rows).map(([name, count]) => ({ table: `${keyspace}.${name}`, equal: true, differences: [], rows: count })),
      )
    }
    await create('again', 'name text')
    await create('items', 'name text, quantity int')
    await fill('again', 0, 30)
    mesh = new MeshProcess(dir, yaml(shop))
    mesh.start()
    await mesh.until('snapshot done', ({ nodes }) => nodes[0]!.snapshot.length === 2 && nodes[0]!.snapshot.every(({ done }) => done))
    await fill('items', 0, 60)
    await mesh.until('rows are captured', ({ nodes }) => nodes[0]!.rows >= 90)
    await cql('truncate items')
    // one that was there before, of which the log says only a part
    await cql('update items set quantity = 5 where id = 7')
    await fill('items', 100, 10)
    await equal({ again: 30, items: 11 })
    await mesh.kill()
    await fill('items', 200, 40)
    // newer by its own word than whatever comes after the truncation
    await cql(`insert into items (id, name) values (300, 'ahead') using timestamp ${Date.now() * 1000 + 3_600_000_000}`)
    await cql('truncate items')
    await fill('items', 400, 5)
    await cql('drop table again')
    await create('again', 'name text, more int')
    await fill('again', 1000, 3)
    mesh.start()
    await equal({ again: 3, items: 5 })
    expect(await mesh.stop()).toBe(0)
  })
})

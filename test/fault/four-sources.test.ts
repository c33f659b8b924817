/** The example of four sources as it stands in mesh-config: four real databases that are written to all the while, and a mesh that is killed. */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { skipReason as registrySkipReason, testRegistry } from '../services/apicurio.ts'
import { type CassandraKeyspace, type CassandraServer, keyspaceOn, startCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason } from '../services/cassandra-jvm.ts'
import { skipReason as kafkaSkipReason, testKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { databaseOn, type Flavor, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { testDatabase } from '../services/postgres.ts'
import { ICEBERG_READERS, LOAD_DUCKDB, pythonSession, pythonSkipReason, pythonWith } from '../services/python.ts'
import { createMysqlShop, mysqlTurn } from './mysql-shop.ts'
import { RandomKills } from './random-kills.ts'
import { faultDir, node } from './shop-mesh.ts'

const skip = mysqlSkipReason() ?? cassandraSkipReason() ?? pythonSkipReason()
const kafkaSkip = skip ?? kafkaSkipReason() ?? registrySkipReason()
if (kafkaSkip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${kafkaSkip}`)

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 6)
const KAFKA_ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 3)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)
/** The transaction of a source after which its tables get a column. */
const ALTER_AT = 60

const SOURCES = ['shop', 'billing', 'stock', 'devices']
const TABLES = [
  ...['customers', 'order_lines', 'orders', 'products', 'reviews'].map((table) => `shop public.${table}`),
  ...['billing', 'stock'].flatMap((source) => ['customers', 'orders'].map((table) => `${source} ${source}.${table}`)),
  ...['readings', 'sensors'].map((table) => `devices devices.${table}`),
]

const ORDERS = `${LOAD_DUCKDB}
def orders(location):
    return connection.execute("select id, line, customer, price::varchar, note from iceberg_scan('" + location + "') order by id, line").fetchall()
`

const { dir, remove } = faultDir()
type Cleanup = (() => Promise<unknown> | undefined)[]
const afterAllTests: Cleanup = [async () => remove()]
const afterTest: Cleanup = []
const run = async (cleanup: Cleanup) => {
  for (const end of cleanup.splice(0).reverse()) await end()
}
afterEach(() => run(afterTest))
afterAll(() => run(afterAllTests))

interface Servers {
  readonly mysql: MysqlServer
  readonly mariadb: MysqlServer
  readonly cassandra: CassandraServer
}

/** Servers of this file: its databases have fixed names, and sources take segments of Cassandra's log away. */
async function startServers(): Promise<Servers> {
  const started = <S extends { stop(signal: 'SIGKILL'): Promise<void> }>(server: S): S => {
    afterAllTests.push(() => server.stop('SIGKILL'))
    return server
  }
  const [mysql, mariadb, cassandra] = await Promise.all([
    startMysql({ flavor: 'mysql', dir: path.join(dir, 'mysql') }).then(started),
    startMysql({ flavor: 'mariadb', dir: path.join(dir, 'mariadb') }).then(started),
    startCassandra({ release: '5.0', dir: path.join(dir, 'cassandra') }).then(started),
  ])
  return { mysql, mariadb, cassandra }
}

async function mysqlDatabase(flavor: Flavor, { port }: MysqlServer, name: string): Promise<MysqlDatabase> {
  const db = await databaseOn(flavor, port, name)
  afterTest.push(() => db.drop())
  await createMysqlShop(db)
  return db
}

async function cassandraKeyspace({ port, cdcRaw }: CassandraServer): Promise<CassandraKeyspace> {
  const keyspace = await keyspaceOn('5.0', port, cdcRaw)
  afterTest.push(() => keyspace.drop())
  const { cql, client } = keyspace
  await cql('create table sensors (id int primary key, name text, tags set<text>, level double) with cdc = true')
  await cql('create table readings (sensor int, at int, value decimal, note text, place text static, primary key (sensor, at)) with cdc = true')
  for (let from = 0; from < 600; from += 100) {
    const put = (text: string, values: (i: number) => readonly unknown[]) =>
      Promise.all(Array.from({ length: 100 }, (_, i) => client.execute(text, values(from + i) as unknown[], { prepare: true })))
    await put('insert into sensors (id, name, tags, level) values (?, ?, ?, ?)', (i) => [i, `sensor ${i}`, new Set([`t${i % 3}`]), i / 7])
    await put('insert into readings (sensor, at, note) values (?, ?, ?)', (i) => [i % 50, i, 'é'.repeat(i % 50)])
  }
  return keyspace
}

const microsFromNow = (seconds: number) => String((Date.now() + seconds * 1000) * 1000)

async function cassandraTurn({ cql }: CassandraKeyspace, n: number): Promise<void> {
  const id = (n * 7919) % 600
  await cql('insert into sensors (id, name) values (?, ?)', [10_000 + n, `new ${n}`])
  await cql('update readings set note = ? where sensor = ? and at = ?', [`turn ${n}`, id % 50, id])
  if (n % 3 === 0) await cql(`update sensors set tags = tags + {'more'} where id = ?`, [id])
  if (n % 5 === 0) await cql('delete from sensors where id = ?', [id])
  if (n % 7 === 0) await cql('update readings set place = ? where sensor = ?', [`place ${n}`, id % 50])
  if (n % 11 === 0) await cql('delete from readings where sensor = ? and at >= ? and at < ?', [id % 50, id, id + 60])
  // clocks of clients that are off: the newest write time wins, whatever came last
  if (n % 17 === 0) await cql('update readings using timestamp ? set note = ? where sensor = ? and at = ?', [microsFromNow(-86_400), 'late', id % 50, id])
  if (n % 19 === 0) await cql('update sensors using timestamp ? set level = ? where id = ?', [microsFromNow(86_400), n, id])
  // what stands for a change of the key: the row goes, and comes under another
  if (n % 13 === 0) await cql('begin batch delete from sensors where id = ?; insert into sensors (id, name) values (?, ?); apply batch', [id, 1e6 + n, 'x'])
}

/** Writes to all four, each at its own pace, until it is stopped and each has come past its change of shape. @returns how many transactions each had */
function keepBusy(shopUrl: string, mysqls: readonly MysqlDatabase[], devices: CassandraKeyspace): { stop(): Promise<readonly number[]> } {
  let over = false
  const loop = async (turn: (n: number) => Promise<unknown>, alter: () => Promise<unknown>) => {
    let n = SEED
    for (; !over || n - SEED <= ALTER_AT; n++) {
      await turn(n)
      if (n === SEED + ALTER_AT) await alter()
      // no faster than a busy machine follows
      await delay(10)
    }
    return n - SEED
  }
  const shop = async () => {
    let statements = 0
    for (let part = 0; !over || statements <= ALTER_AT; part++) {
      const work = runWorkload(shopUrl, 2, SEED + part, part === 0 ? 'evolve' : 'steady')
      await work.done
      statements += work.statements()
    }
    return statements
  }
  const mysql = async (db: MysqlDatabase) => {
    const connection = await db.connect()
    const turns = await loop(
      (n) => mysqlTurn(connection, n),
      () => connection.query(`alter table customers add column region varchar(20) default 'nowhere'`),
    )
    await connection.end()
    return turns
  }
  const cassandra = () =>
    loop(
      (n) => cassandraTurn(devices, n),
      () => devices.cql('alter table sensors add firmware text'),
    )
  const work = Promise.all([shop(), ...mysqls.map(mysql), cassandra()])
  work.catch((error: unknown) => console.error('a workload failed:', error))
  return {
    stop() {
      over = true
      return work
    },
  }
}

/** Where the streams go, and who reads Cassandra's log: the mesh itself, or an agent beside the database. */
interface Place {
  readonly rounds: number
  /** Lines of the mesh file. */
  readonly log: string
  readonly registry: string
  /** Added to the names of the sources, since the log is shared with other tests. */
  readonly suffix: string
  readonly hasAgent: boolean
}

async function kafka(): Promise<Place> {
  const { brokers } = await testKafka()
  const { url } = await testRegistry()
  const unique = randomBytes(4).toString('hex')
  return {
    rounds: KAFKA_ROUNDS,
    log: `log: { kind: kafka, brokers: [${brokers.map((broker) => `'${broker}'`).join(', ')}], progressTopic: progress-${unique} }\ntopics: { partitions: 3 }`,
    registry: `registry: { kind: confluent, url: '${url}' }`,
    suffix: `-${unique}`,
    hasAgent: true,
  }
}

describe.skipIf(skip !== null)(`four sources in one mesh${skip === null ? '' : ` (${skip})`}`, () => {
  let python = ''
  let servers: Servers
  beforeAll(async () => {
    python = await pythonWith(ICEBERG_READERS)
    servers = await startServers()
  }, 900_000)

  const proveEqual = async ({ rounds, log, registry, suffix, hasAgent }: Place) => {
    const [shop, billing, stock, devices] = await Promise.all([
      testDatabase(),
      mysqlDatabase('mysql', servers.mysql, 'billing'),
      mysqlDatabase('mariadb', servers.mariadb, 'stock'),
      cassandraKeyspace(servers.cassandra),
    ])
    afterTest.push(() => shop.drop())
    await createShop(shop.url, 6000)
    const yaml = readFileSync(path.join(import.meta.dirname, '..', '..', 'mesh-config', 'four-sources.mesh.yaml'), 'utf8')
    // a change that a sink cannot hold is a mistake of ours
    const strict = yaml
      .replaceAll('.millrace-four', 'state')
      .replace('log: embedded', log)
      .replace('registry: embedded', registry)
      .replaceAll(new RegExp(`\\b(${SOURCES.join('|')})(?=[:,\\]])`, 'g'), `$1${suffix}`)
      .replace('devices.*', `${devices.keyspace}.*`)
      .replaceAll(/kind: (iceberg|search)/g, '$&\n    onRejected: halt')
    const env = {
      SHOP_URL: shop.url,
      BILLING_URL: billing.url,
      STOCK_URL: stock.url,
      DEVICES_CONTACT_POINT: `127.0.0.1:${devices.port}`,
      DEVICES_CDC_RAW: devices.cdcRaw,
    }
    const mesh = new MeshProcess(path.join(dir, `mesh${suffix}`), strict, env)
    const agent = hasAgent ? new MeshProcess(path.join(dir, `agent${suffix}`), strict, env, 'cassandra') : null
    const processes = agent === null ? [mesh] : [mesh, agent]
    for (const one of processes) afterTest.push(() => one.kill())
    if (agent !== null) expect(await mesh.command('pause', `devices${suffix}`)).toMatchObject({ exitCode: 0 })
    const kills = processes.map((_, i) => new RandomKills(SEED + i))
    const busy = keepBusy(shop.url, [billing, stock], devices)
    let turns: readonly number[] = []
    try {
      for (let round = 0; round < rounds; round++) {
        for (const one of processes) one.start()
        await Promise.all(processes.map((one, i) => kills[i]!.kill(one, 4000)))
      }
      for (const one of processes) one.start()
      const readOn = (names: readonly string[]) => (status: MeshStatus) => names.every((name) => node(status, `${name}${suffix}`).rows > 200)
      if (agent !== null) await agent.until('its source reads on', readOn(['devices']))
      await mesh.until('every source reads on', readOn(SOURCES.filter((name) => agent === null || name !== 'devices')))
    } finally {
      turns = await busy.stop()
    }
    expect(Math.min(...turns)).toBeGreaterThan(ALTER_AT)

    const tables = await mesh.auditCommand()
    const plain = (name: string) => name.replace(suffix, '')
    expect(tables.map(({ node, table }) => `${plain(node)} ${table}`.replace(devices.keyspace, 'devices'))).toEqual(TABLES)
    for (const { table, equal, differences, ledger, source } of tables) {
      expect({ table, equal, differences, ledger: ledger.equal, empty: source.rows === 0 }).toEqual({
        table,
        equal: true,
        differences: [],
        ledger: true,
        empty: false,
      })
    }
    // the counts that the mesh keeps say the same, and so does an engine that knows nothing of Millrace
    const done = Date.now()
    const { audit } = await mesh.until('audited', ({ audit: { throughMs } }) => throughMs !== null && throughMs > done)
    expect(audit).toMatchObject({ differences: [], uncounted: [] })
    for (const one of processes) {
      expect(one.output).not.toMatch(/audit\.unequal|parked|log\.fenced/)
      expect(await one.stop()).toBe(0)
    }
    await using judge = pythonSession(python, ORDERS)
    const orders = await billing.sql('select id, line, customer, cast(price as char) as price, note from orders order by id, line')
    expect(await judge.call('orders', path.join(mesh.dataDir, 'lake', 'billing', 'orders'))).toEqual(orders.map((row) => Object.values(row)))
  }

  test(`Postgres, MySQL, MariaDB and Cassandra into one lake and one index: ${ROUNDS} kills under live writes, and all are equal (seed ${SEED})`, () =>
    proveEqual({ rounds: ROUNDS, log: 'log: embedded', registry: 'registry: embedded', suffix: '', hasAgent: false }))

  const overKafka = `the same over Kafka, Cassandra by its agent: ${KAFKA_ROUNDS} kills of both processes (seed ${SEED})`
  test.skipIf(kafkaSkip !== null)(`${overKafka}${kafkaSkip === null ? '' : ` (skipped: ${kafkaSkip})`}`, async () => proveEqual(await kafka()))
})

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Connection } from 'mysql2/promise'
import { afterEach, describe, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { databaseOn, FLAVORS, type Flavor, KINDS, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { mysqlMeshYaml } from '../services/mysql-mesh.ts'
import { createMysqlShop, mysqlTurn } from './mysql-shop.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const ROUNDS = 8
/** What was committed is there after kill -9; a replica has it in a binlog of its own. */
const DURABLE = { 'innodb-flush-log-at-trx-commit': '1', 'sync-binlog': '1', 'log-slave-updates': 'ON' }

/** How a replica follows, and how it ceases to. */
const REPLICATION: Readonly<Record<Flavor, { reset: string; follow(port: number): string; executed: string; waitFor: string; promote: string }>> = {
  mysql: {
    reset: 'reset binary logs and gtids',
    follow: (port) =>
      `change replication source to source_host = '127.0.0.1', source_port = ${port}, source_user = 'root', source_auto_position = 1, get_source_public_key = 1; start replica`,
    executed: '@@global.gtid_executed',
    waitFor: 'wait_for_executed_gtid_set',
    promote: 'stop replica; reset replica all',
  },
  mariadb: {
    reset: `reset master; set global gtid_slave_pos = ''`,
    follow: (port) =>
      `change master to master_host = '127.0.0.1', master_port = ${port}, master_user = 'root', master_use_gtid = slave_pos, master_ssl = 0; start slave`,
    executed: '@@global.gtid_binlog_pos',
    waitFor: 'master_gtid_wait',
    promote: 'stop slave; reset slave all',
  },
}

const cleanup: (() => Promise<unknown> | undefined)[] = []
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

function folder(): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-fault-'))
  cleanup.push(async () => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** A server that a test may end and start again. */
class Server {
  readonly flavor: Flavor
  readonly dir: string
  readonly serverId: number
  readonly #settings: Readonly<Record<string, string>>
  #running: MysqlServer | null = null

  constructor(flavor: Flavor, dir: string, serverId: number, settings: Readonly<Record<string, string>> = {}) {
    this.flavor = flavor
    this.#settings = { ...DURABLE, ...settings }
    this.dir = dir
    this.serverId = serverId
    cleanup.push(() => this.stop())
  }

  get dataDir(): string {
    return this.#running!.dataDir
  }

  get port(): number {
    return this.#running!.port
  }

  async start(port?: number): Promise<this> {
    const { flavor, dir, serverId } = this
    this.#running = await startMysql({ flavor, dir, serverId, settings: this.#settings, ...(port === undefined ? {} : { port }) })
    return this
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    await this.#running?.stop(signal)
  }
}

async function databaseOf(server: Server, name = 'shop'): Promise<MysqlDatabase> {
  const db = await databaseOn(server.flavor, server.port, name)
  cleanup.push(() => db.drop().catch(() => {}))
  return db
}

function meshOf(dir: string, db: MysqlDatabase): MeshProcess {
  const mesh = new MeshProcess(dir, mysqlMeshYaml(db, 300))
  cleanup.push(() => mesh.kill())
  return mesh
}

/** Writes until it is stopped, through restarts of the server. */
function keepBusy(db: MysqlDatabase): { stop(): Promise<void> } {
  let over = false
  const work = (async () => {
    let connection: Connection | null = null
    for (let n = 0; !over; n++) {
      try {
        if (connection === null) {
          connection = await db.connect()
          connection.on('error', () => {})
        }
        await mysqlTurn(connection, n)
        // no faster than a busy machine reads the end of a table that grows
        await delay(5)
      } catch {
        connection?.destroy()
        connection = null
        await delay(20)
      }
    }
    await connection?.end()
  })()
  return {
    stop() {
      over = true
      return work
    },
  }
}

const rows = (status: { nodes: readonly { rows: number }[] }) => status.nodes[0]!.rows
const isRead = ({ nodes }: { nodes: readonly { snapshot: readonly { done: boolean }[] }[] }) =>
  nodes[0]!.snapshot.length === 2 && nodes[0]!.snapshot.every(({ done }) => done)

async function expectEqual(mesh: MeshProcess): Promise<void> {
  const audit = await mesh.audit()
  expect(audit.map(({ table, equal, differences, source }) => ({ table, equal, differences, empty: source.rows === 0 }))).toEqual(
    ['customers', 'orders'].map((name) => ({ table: `shop.${name}`, equal: true, differences: [], empty: false })),
  )
}

describe.skipIf(skip !== null)(`MySQL and MariaDB in trouble${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(KINDS)(`%s: ${ROUNDS} kills of the mesh, one of the server: everything is equal`, async (_, flavor, settings) => {
    const dir = folder()
    const server = await new Server(flavor, path.join(dir, 'server'), 1, settings).start()
    const db = await databaseOf(server)
    await createMysqlShop(db)
    const mesh = meshOf(path.join(dir, 'mesh'), db)
    const busy = keepBusy(db)
    for (let round = 0; round < ROUNDS; round++) {
      mesh.start()
      const first = rows(await mesh.until('answering', () => true))
      await mesh.until('further', (status) => rows(status) >= first + ((round * 397) % 900))
      if (round === ROUNDS >> 1) {
        const { port } = server
        await server.stop('SIGKILL')
        await server.start(port)
        const before = rows(await mesh.until('answering', () => true))
        await mesh.until('going on after the server was killed', (status) => rows(status) > before + 50)
      }
      await mesh.kill()
    }
    mesh.start()
    await mesh.until('the tables are read', isRead)
    await busy.stop()
    await expectEqual(mesh)
    expect(await mesh.stop()).toBe(0)
  })

  test.each(
    KINDS,
  )('%s: an event that is broken, and a purged binlog, halt the source for good, and a new reading makes everything equal', async (_, flavor, settings) => {
    const dir = folder()
    const server = await new Server(flavor, path.join(dir, 'server'), 1, settings).start()
    const db = await databaseOf(server)
    await createMysqlShop(db)
    const mesh = meshOf(path.join(dir, 'mesh'), db)
    mesh.start()
    await mesh.until('the tables are read', isRead)
    expect(await mesh.stop()).toBe(0)
    const halts = async (...says: readonly string[]) => {
      for (const again of [false, true]) {
        const before = mesh.output.length
        mesh.start()
        expect(await mesh.ended()).toBe(1)
        for (const what of says) expect([again, mesh.output.slice(before)]).toEqual([again, expect.stringContaining(what)])
      }
    }
    const mark = 'a text that is found again'
    await db.sql('delete from customers where id % 3 = 0; update orders set note = ? where id = 100; update orders set price = 0 where id < 100', [mark])
    await db.sql('flush binary logs')
    const binlogs = readdirSync(server.dataDir).filter((name) => /^binlog\.\d+$/.test(name))
    const broken = binlogs.find((name) => readFileSync(path.join(server.dataDir, name)).includes(mark))!
    const bytes = readFileSync(path.join(server.dataDir, broken))
    // not in the statement, which MariaDB keeps beside its rows and does not send
    bytes[bytes.lastIndexOf(mark)]! ^= 1
    writeFileSync(path.join(server.dataDir, broken), bytes)
    await halts('source.protocol', broken)

    for (let logs = await db.sql('show binary logs'); logs.length > 1; logs = await db.sql('show binary logs')) {
      // one that the server still sends to a mesh that is gone stays until it notices
      await delay(20)
      await db.sql(`purge binary logs to '${logs.at(-1)!.Log_name}'`)
    }
    await halts('source.history_lost', '--resnapshot shop')
    mesh.start(['--resnapshot', 'shop'])
    await mesh.until('the tables are read', isRead)
    await expectEqual(mesh)
    expect(await mesh.stop()).toBe(0)
  })

  test.each(FLAVORS)('%s: a replica that was promoted goes on by GTID, and one that lacks transactions is refused', async (flavor) => {
    const dir = folder()
    const { reset, follow, executed: executedSql, waitFor, promote } = REPLICATION[flavor]
    const primary = await new Server(flavor, path.join(dir, 'primary'), 1).start()
    const replica = await new Server(flavor, path.join(dir, 'replica'), 2).start()
    const db = await databaseOf(primary)
    // before there is anything else: the replica has no transactions of its own
    const second = await databaseOn(flavor, replica.port, 'shop')
    await second.sql(`drop database shop; ${reset}`)
    await second.sql(follow(primary.port))
    const executed = async (of: MysqlDatabase) => String((await of.sql(`select ${executedSql} as g`))[0]!.g)
    const caughtUp = async (gtids: string) => {
      const [row] = await second.sql(`select ${waitFor}(?, 240) as late`, [gtids])
      expect(row!.late).toBe(0)
    }
    await createMysqlShop(db)
    await caughtUp(await executed(db))
    const mesh = meshOf(path.join(dir, 'mesh'), db)
    mesh.start()
    const busy = keepBusy(db)
    await mesh.until('the tables are read', isRead)
    const before = rows(await mesh.until('answering', () => true))
    await mesh.until('rows go on', (status) => rows(status) > before + 200)
    await busy.stop()
    await caughtUp(await executed(db))
    await mesh.kill()
    await second.sql(promote)
    await primary.stop()
    // the same node on the promoted server
    const promoted = await databaseOf(replica)
    const moved = meshOf(path.join(dir, 'mesh'), promoted)
    moved.start()
    const again = keepBusy(promoted)
    const resumed = rows(await moved.until('answering', () => true))
    await moved.until('rows of the promoted server', (status) => rows(status) > resumed + 200)
    await again.stop()
    await expectEqual(moved)
    expect(await moved.stop()).toBe(0)
    // back to the old primary, which never had what was captured since
    await primary.start()
    const old = meshOf(path.join(dir, 'mesh'), await databaseOf(primary))
    old.start()
    expect(await old.ended()).toBe(1)
    expect(old.output).toContain('source.identity_changed')
    await second.sql('do 0')
  })
})

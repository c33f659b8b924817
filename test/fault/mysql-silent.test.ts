import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { CATALOG_SILENCE_MS } from '../../connectors/mysql/sql-connection.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { until } from '../../testing/source/source-run.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { FLAVORS, type MysqlDatabase, mysqlDatabase, mysqlSkipReason } from '../services/mysql.ts'
import { mysqlMeshYaml } from '../services/mysql-mesh.ts'
import { createMysqlShop, mysqlTurn } from './mysql-shop.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

/** Far above what a stop takes, below what an answer about the catalog is waited for. */
const STOP_MS = 30_000

/** Stands before a server and, from `hush` on, keeps what connections it has open and passes nothing on, as a network does that lost its way. */
class Network {
  readonly #server: net.Server
  readonly #pairs = new Set<readonly [client: net.Socket, server: net.Socket]>()
  /** A question came to a silent connection. */
  asked = false

  constructor(upstream: number) {
    this.#server = net.createServer((client) => {
      const server = net.connect(upstream, '127.0.0.1')
      const pair = [client, server] as const
      this.#pairs.add(pair)
      client.pipe(server)
      server.pipe(client)
      for (const socket of pair) {
        socket.on('error', () => {})
        socket.on('close', () => {
          this.#pairs.delete(pair)
          for (const one of pair) one.destroy()
        })
      }
    })
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return (this.#server.address() as net.AddressInfo).port
  }

  /** New connections are as before. @returns how many are silent */
  hush(): number {
    for (const [client, server] of this.#pairs) {
      server.unpipe().pause()
      client
        .unpipe()
        .on('data', () => (this.asked = true))
        .resume()
    }
    return this.#pairs.size
  }

  close(): void {
    this.#server.close()
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy()
  }
}

const cleanup: (() => Promise<unknown> | void)[] = []
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

describe.skipIf(skip !== null)(`a server that falls silent${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(FLAVORS)('%s: the source says so, connects again, and nothing is lost; a stop waits for no answer', async (flavor) => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-silent-'))
    cleanup.push(() => rmSync(dir, { recursive: true, force: true }))
    const db: MysqlDatabase = await mysqlDatabase(flavor)
    cleanup.push(() => db.drop())
    await createMysqlShop(db)
    const network = new Network(db.port)
    cleanup.push(() => network.close())
    const port = await network.listen()
    const url = db.url.replace(`:${db.port}/`, `:${port}/`)
    const mesh = new MeshProcess(dir, mysqlMeshYaml({ database: db.database, url }, 300))
    cleanup.push(() => mesh.kill())
    const session = await db.connect()
    cleanup.push(() => session.end())
    const shop = ({ nodes }: MeshStatus) => nodes.find(({ node }) => node === 'shop')!
    mesh.start()
    await mesh.until('the tables are read', (status) => shop(status).snapshot.length === 2 && shop(status).snapshot.every(({ done }) => done))
    for (let n = 0; n < 20; n++) await mysqlTurn(session, n)

    const hushedAt = performance.now()
    expect(network.hush()).toBeGreaterThan(0)
    // committed while nobody hears of it
    for (let n = 20; n < 40; n++) await mysqlTurn(session, n)
    // it is degraded for a moment only, since it can connect again
    await mesh.until('the silence is noticed', () => /silent for \d+ ms/.test(mesh.output))
    // by the missing heartbeats, whatever else it asks
    expect(performance.now() - hushedAt).toBeLessThan(CATALOG_SILENCE_MS)
    await mesh.until('running again', (status) => shop(status).state === 'running')
    for (let n = 40; n < 60; n++) await mysqlTurn(session, n)
    const audit = await mesh.audit()
    expect(audit.map(({ table, equal, differences }) => ({ table, equal, differences }))).toEqual(
      ['customers', 'orders'].map((name) => ({ table: `${db.database}.${name}`, equal: true, differences: [] })),
    )

    network.asked = false
    network.hush()
    await until('the catalog is asked', () => network.asked)
    const from = performance.now()
    expect(await mesh.stop()).toBe(0)
    expect(performance.now() - from).toBeLessThan(STOP_MS)
  })
})

/** The demo's shop under a mesh that captures it, for tests that each break something of their own. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { expect } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import type { SourceTableAudit } from '../../core/runtime/audit-mesh.ts'
import type { MeshStatus, NodeStatus } from '../../core/runtime/mesh-status.ts'
import type { MeshProcess } from '../services/mesh-process.ts'

/** A folder for one test; servers that run as another user can reach into it. */
export function faultDir(): { readonly dir: string; remove(): void } {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-fault-'))
  chmodSync(dir, 0o755)
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) }
}

export interface ShopYaml {
  /** Part of the slot's name: one per database. */
  readonly name: string
  /** Name of the source, so of its topics. */
  readonly source?: string
  readonly url: string
  /** Most rows of a snapshot's chunk. */
  readonly chunkRows?: number
  /** Further settings of the source, the lake and the search sink in YAML's flow style. */
  readonly shop?: string
  readonly lake?: string
  readonly search?: string
  /** Further lines of the file, such as `log:` or `registry:`. */
  readonly more?: string
}

export function shopYaml({
  name,
  source = 'shop',
  url,
  chunkRows = 1000,
  shop = '',
  lake = 'warehouse: ./lake',
  search = 'path: ./search.db',
  more = '',
}: ShopYaml): string {
  return `mesh: ${name.replaceAll('_', '-')}
dataDir: state
${more}
sources:
  ${source}: { kind: postgres, url: '${url}', tables: [public.*], snapshot: { chunkRows: ${chunkRows}, parallel: 2 }${shop === '' ? '' : `, ${shop}`} }
sinks:
  lake: { kind: iceberg, from: [${source}], commitRows: 5000, commitMs: 200, ${lake} }
  search: { kind: search, from: [${source}], ${search} }
`
}

/** The shop as it is after the demo's workload evolved it, so that {@link keepBusy} may begin at any time. */
export async function openShop(url: string, rows: number): Promise<void> {
  await createShop(url, rows)
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`alter table customers add column loyalty_points int, add column region text default 'nowhere';
    create table reviews (sku text not null, customer_id uuid not null, stars smallint not null, body text, primary key (sku, customer_id));
    insert into reviews select 'SKU-' || lpad(i::text, 7, '0'), md5('c' || i)::uuid, 1 + i % 5, 'review number ' || i from generate_series(1, 100) i`)
  await client.end()
}

const IS_AWAY = /terminat|connection error|ECONN|ENOTFOUND|EPIPE|not yet accepting|starting up|shutting down|recovery mode/i

/**
 * Keeps the shop busy until it is told to stop, and goes on by itself after the database was away. In bursts, a third of the time: a reading in small chunks that
 * shares a slow machine with it must come to the end of a table that grows.
 */
export function keepBusy(url: string, seed = 7): { stop(): Promise<void> } {
  let over = false
  const work = (async () => {
    for (let part = 0; !over; part++) {
      await runWorkload(url, 0.15, seed + part, 'steady').done.catch((error: Error & { code?: string }) => {
        // only a database that is away is no mistake of the workload
        if (!IS_AWAY.test(`${error.code} ${error.message}`)) throw error
      })
      await delay(300)
    }
  })()
  // shown at once: the test may be waiting for rows that no longer come
  work.catch((error: unknown) => console.error('the workload failed:', error))
  return {
    stop() {
      over = true
      return work
    },
  }
}

/** Changes a row of each table now and then until it is told to stop: no faster than sinks follow on a busy machine. */
export function keepTouching(url: string): { stop(): Promise<void> } {
  let over = false
  const work = (async () => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    for (let turn = 0; !over; turn++) {
      await client.query(`insert into orders (customer_id, note) select id, 'touched ${turn}' from customers limit 1;
        insert into order_lines select max(id), ${turn}, 'SKU-0000001', 1, 1 from orders;
        update customers set loyalty_points = ${turn} where id = (select id from customers order by id offset ${turn % 10} limit 1);
        update products set price = ${turn} where sku = (select sku from products order by sku offset ${turn % 10} limit 1);
        update reviews set stars = ${turn % 5} where sku = 'SKU-${String(1 + (turn % 50)).padStart(7, '0')}'`)
      await delay(20)
    }
    await client.end()
  })()
  work.catch((error: unknown) => console.error('the workload failed:', error))
  return {
    stop() {
      over = true
      return work
    },
  }
}

export function node(status: MeshStatus, name: string): NodeStatus {
  const found = status.nodes.find((one) => one.node === name)
  if (found === undefined) throw new Error(`the mesh has no node ${name}`)
  return found
}

/** The source follows its stream and every sink has rows. */
export function flows(status: MeshStatus): boolean {
  const [shop, ...sinks] = status.nodes
  return shop!.state === 'running' && shop!.snapshot.length > 0 && shop!.snapshot.every(({ done }) => done) && sinks.every(({ rows }) => rows > 0)
}

/** A table is half read: more than `rows` of it. */
function reads(status: MeshStatus, rows: number): boolean {
  return node(status, 'shop').snapshot.some((table) => table.rows > rows && !table.done)
}

export interface Reading {
  readonly args?: readonly string[]
  /** Makes the tables be read again while the mesh is away. @returns the arguments of the next start */
  readonly again?: () => Promise<readonly string[]>
  /** More than so many of a table. */
  readonly rows?: number
  /** So many tables are to be read, those that were read before included. */
  readonly tables?: number
}

/** Starts the mesh and waits until its source is in the middle of a table: a reading that was over before anybody looked is begun again, in smaller chunks. */
export async function startReading(mesh: MeshProcess, reading: Reading = {}): Promise<MeshStatus> {
  const { args = [], again = async () => ['--resnapshot', 'shop'], rows = 0, tables = 1 } = reading
  const isOver = ({ state, snapshot }: NodeStatus) => state === 'running' && snapshot.length >= tables && snapshot.every(({ done }) => done)
  mesh.start(args)
  for (let tries = 0; tries < 10; tries++) {
    const status = await mesh.until('in the middle of a table', (now) => reads(now, rows) || isOver(node(now, 'shop')))
    if (reads(status, rows)) return status
    await mesh.stop()
    halveChunks(mesh)
    mesh.start(await again())
  }
  throw new Error('every reading was over before anybody looked')
}

/** However fast the machine is, some tries later a reading takes long enough to be seen. */
export function halveChunks({ file }: MeshProcess): void {
  const halved = (_: string, rows: string) => `chunkRows: ${Math.max(20, Number(rows) >> 1)}`
  writeFileSync(file, readFileSync(file, 'utf8').replace(/chunkRows: (\d+)/, halved))
}

/** Waits until the source wrote `rows` more. */
export async function moreRows(mesh: MeshProcess, rows: number): Promise<MeshStatus> {
  const written = (status: MeshStatus) => status.nodes.reduce((sum, one) => sum + (one.role === 'source' ? one.rows : 0), 0)
  const before = written(await mesh.until('answering', () => true))
  return mesh.until(`${rows} rows further`, (status) => written(status) >= before + rows)
}

export const SHOP_TABLES = ['public.customers', 'public.order_lines', 'public.orders', 'public.products', 'public.reviews']

/** Audits beside the running mesh: source, log and every sink are equal, and the log holds exactly what capture wrote. */
export async function expectEqual(
  mesh: MeshProcess,
  tables: readonly string[] = SHOP_TABLES,
  empty: readonly string[] = [],
): Promise<readonly SourceTableAudit[]> {
  const audit = await mesh.audit().catch(async (error: Error) => {
    throw new Error(`${error.message}\n${JSON.stringify(await mesh.status())}\n${mesh.output.slice(-3000)}`)
  })
  expect(audit.map(({ table }) => table)).toEqual(tables)
  for (const { table, equal, differences, ledger, source } of audit) {
    expect({ table, equal, differences, ledger: ledger.equal }).toEqual({ table, equal: true, differences: [], ledger: true })
    expect({ table, empty: source.rows === 0 }).toEqual({ table, empty: empty.includes(table) })
  }
  return audit
}

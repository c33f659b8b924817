import path from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { type EmbeddedRegistry, openEmbeddedRegistry } from '../../core/schema/embedded-registry.ts'
import { type RegistryServer, serveRegistry } from '../../core/schema/serve-registry.ts'
import { freePorts } from '../services/free-ports.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, node, openShop, SHOP_TABLES, shopYaml } from './shop-mesh.ts'

const { dir, remove } = faultDir()
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
let registry: EmbeddedRegistry | null = null
let server: RegistryServer | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  await server?.[Symbol.asyncDispose]()
  await registry?.[Symbol.asyncDispose]()
  remove()
})

test('the schema registry is away when a column and a table appear: known shapes flow on until then, the source waits and goes on by itself', async () => {
  db = await testDatabase()
  const { url, database, sql } = db
  await openShop(url, 2000)
  registry = await openEmbeddedRegistry({ file: path.join(dir, 'registry.db') })
  const [port] = await freePorts(1)
  server = await serveRegistry(registry, { port: port! })
  mesh = new MeshProcess(
    path.join(dir, 'mesh'),
    shopYaml({ name: database, url, more: `registry: { kind: confluent, url: '${server.url}', timeoutMs: 2000 }` }),
  )
  mesh.start()
  const shop = keepBusy(url)
  await mesh.until('flowing', flows)

  await server[Symbol.asyncDispose]()
  // schemas that are known need no registry
  const flowing = await moreRows(mesh, 100)
  expect(node(flowing, 'shop')).toMatchObject({ state: 'running', error: null })

  await sql(
    "alter table customers add column vip boolean default true; create table coupons (code text primary key, percent int); insert into coupons select 'C' || i, i % 50 from generate_series(1, 300) i",
  )
  await mesh.until('degraded', (status) => node(status, 'shop').state === 'degraded' && node(status, 'shop').error?.code === 'registry.unreachable')
  await sql('update coupons set percent = percent + 1 where percent < 10')
  expect(registry.operations.subjects('live').some((subject) => subject.includes('coupons'))).toBe(false)

  server = await serveRegistry(registry, { port: port! })
  await mesh.until('running', (status) => node(status, 'shop').state === 'running')
  await moreRows(mesh, 100)
  await shop.stop()
  const audit = await expectEqual(mesh, [...SHOP_TABLES, 'public.coupons'].sort())
  expect(audit.find(({ table }) => table === 'public.coupons')!.sinks.lake!.rows).toBe(300)
  expect(await mesh.stop()).toBe(0)
})

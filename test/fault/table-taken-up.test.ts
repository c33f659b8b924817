import { writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, flows, keepTouching, node, openShop, SHOP_TABLES, shopYaml, startReading } from './shop-mesh.ts'

let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

test('tables that the mesh file names later are read while the rest streams, also across a kill, and nothing of them is missing', async () => {
  db = await testDatabase()
  const { url, database } = db
  await openShop(url, 20_000)
  const yaml = shopYaml({ name: database, url, chunkRows: 200 })
  mesh = new MeshProcess(dir, yaml.replace('[public.*]', '[public.customers, public.reviews]'))
  const touching = keepTouching(url)
  try {
    mesh.start()
    await mesh.until('flowing', flows)
    await expectEqual(mesh, ['public.customers', 'public.reviews'])
    expect(await mesh.stop()).toBe(0)

    writeFileSync(mesh.file, yaml)
    const files = mesh
    const again = async () => {
      for (const table of ['order_lines', 'orders', 'products']) {
        expect(await files.command('resnapshot', `shop/public.${table}`)).toMatchObject({ exitCode: 0 })
      }
      return []
    }
    const reading = await startReading(mesh, { again, tables: SHOP_TABLES.length })
    expect(new Set(node(reading, 'shop').snapshot.map(({ table }) => table))).toEqual(new Set(SHOP_TABLES))
    expect(
      node(reading, 'shop')
        .snapshot.filter(({ done }) => done)
        .map(({ table }) => table),
    ).toEqual(expect.arrayContaining(['public.customers', 'public.reviews']))
    const before = node(reading, 'shop').rows
    await mesh.until('further', (status) => node(status, 'shop').rows > before)
    await mesh.kill()
    mesh.start()
    await mesh.until('flowing', flows)
    const audit = await expectEqual(mesh)
    // read once: what was there, and a change for each touch
    const lines = audit.find(({ table }) => table === 'public.order_lines')!
    expect(lines.ledger.captured).toBeGreaterThanOrEqual(lines.source.rows)
  } finally {
    await touching.stop()
  }
  expect(await mesh.stop()).toBe(0)
})

/** A whole mesh on the older majors; the newest one is under all others. */
import { afterEach, expect, test } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import { expectEqual, faultDir, node, shopYaml } from '../fault/shop-mesh.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import type { TestDatabase } from '../services/postgres.ts'
import { skipReason, versionDatabase } from '../services/postgres-versions.ts'

const reason = skipReason()
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

const title = 'Postgres %i: a shop that changes its tables while it is captured is equal in source, log, lake and search'
test.skipIf(reason !== null).each([14, 15, 16] as const)(`${title}${reason === null ? '' : ` (skipped: ${reason})`}`, { timeout: 900_000 }, async (major) => {
  db = await versionDatabase(major)
  await createShop(db.url, 3000)
  mesh = new MeshProcess(dir, shopYaml({ name: db.database, url: db.url }))
  mesh.start()
  await mesh.until('reading', ({ nodes }) => nodes.some(({ snapshot }) => snapshot.length > 0))
  await runWorkload(db.url, 2, major, 'evolve').done
  const tables = await expectEqual(mesh)
  expect(tables.every(({ ledger }) => ledger.captured > 0)).toBe(true)
  // the status may be a moment older than the log
  const status = await mesh.until('following', (now) => node(now, 'shop').state === 'running')
  expect(node(status, 'shop')).toMatchObject({ parked: [], error: null })
  expect(await mesh.stop()).toBe(0)
})

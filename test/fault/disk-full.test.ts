import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, node, openShop, shopYaml } from './shop-mesh.ts'

const { dir, remove } = faultDir()
const state = path.join(dir, 'state')
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const reason = mountSmallDisk()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  if (reason === null) execFileSync('umount', ['-l', state])
  remove()
})

/** Why there is none, or null. */
function mountSmallDisk(): string | null {
  if (process.platform !== 'linux') return 'a small disk is made with tmpfs, which is of Linux'
  if (process.getuid?.() !== 0) return 'only root may mount a small disk'
  mkdirSync(state)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', state], { stdio: 'ignore' })
    return null
  } catch {
    return 'mounting is not allowed here'
  }
}

describe.skipIf(reason !== null)(`the log's disk${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  test('is full: a clear error, the source waits, and goes on when there is room', async () => {
    db = await testDatabase()
    await openShop(db.url, 2000)
    mesh = new MeshProcess(dir, shopYaml({ name: db.database, url: db.url }))
    mesh.start()
    const shop = keepBusy(db.url)
    await mesh.until('flowing', flows)
    const ballast = path.join(state, 'ballast')
    const { bavail, bsize } = statfsSync(state)
    writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - 200_000)))
    // more than the 200 kB that are left
    await db.sql("insert into orders (customer_id, note) select md5('c1')::uuid, repeat(md5(i::text), 20) from generate_series(1, 3000) i")
    const full = await mesh.until('full', (status) => node(status, 'shop').error?.code === 'log.full')
    expect(node(full, 'shop')).toMatchObject({ state: 'degraded', error: { category: 'unavailable' } })
    expect(node(full, 'shop').error!.fix).toMatch(/room|space/)
    rmSync(ballast)
    await mesh.until('running', (status) => node(status, 'shop').state === 'running' && node(status, 'shop').error === null)
    await moreRows(mesh, 100)
    await shop.stop()
    await expectEqual(mesh)
    expect(await mesh.stop()).toBe(0)
  })
})

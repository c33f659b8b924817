import { afterEach, expect, test } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { RandomKills } from './random-kills.ts'
import { expectEqual, faultDir, halveChunks, node, shopYaml } from './shop-mesh.ts'

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 25)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)
/** A round takes some ten seconds on two cores. */
const TIMEOUT_MS = (ROUNDS + 5) * 120_000

let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

/** Writes a record of the log once more while the mesh is away: no sink shows it, the audit does, also after one more kill. */
async function expectFound(killed: MeshProcess): Promise<void> {
  const topic = 'shop.public.customers'
  const doubled = await killed.doubleRecord(topic)
  for (let starts = 0; starts < 2; starts++) {
    killed.start()
    const { audit } = await killed.until('found', ({ audit: { differences } }) => new Set(differences.map(({ sink }) => sink)).size === 2)
    for (const { stream, difference, fromMs, untilMs } of audit.differences) {
      expect(stream).toBe(topic)
      expect(difference).toMatch(/^1 (read|insert|update|delete) too many$/)
      expect((fromMs ?? 0) <= doubled && doubled < untilMs).toBe(true)
    }
    await killed.kill()
    expect(killed.output.split('"code":"audit.unequal"').length - 1).toBe(2 * (starts + 1))
  }
}

function isRead(status: MeshStatus): boolean {
  const { snapshot } = node(status, 'shop')
  return snapshot.length > 0 && snapshot.every(({ done }) => done)
}

// I1, I7
test(`killed ${ROUNDS} times at random points of snapshot and stream, everything is equal after each and nothing is there twice (seed ${SEED})`, {
  timeout: TIMEOUT_MS,
}, async () => {
  db = await testDatabase()
  const { url, database } = db
  await createShop(url, 12_000)
  mesh = new MeshProcess(dir, shopYaml({ name: database, url, chunkRows: 250 }))
  const kills = new RandomKills(SEED)
  for (let round = 0; round < ROUNDS; round++) {
    // now and then all tables are read again, also until a kill came in the midst of it; the reading that goes on after a kill is killed once more
    const reads = round % 8 === 0 || kills.inSnapshot === 0
    if (reads) {
      await mesh.kill()
      if (round > 0 && kills.inSnapshot === 0) halveChunks(mesh)
      mesh.start(round === 0 ? [] : ['--resnapshot', 'shop'])
    }
    const workload = runWorkload(url, 1.5, SEED + round, round === 0 ? 'evolve' : 'steady')
    try {
      if (reads) {
        await kills.kill(mesh, 1500)
        mesh.start()
      }
      await kills.kill(mesh, reads ? 1500 : 4000)
    } finally {
      await workload.done
    }
    mesh.start()
    await mesh.until('all is read', isRead)
    await expectEqual(mesh)
  }
  // whatever was killed when, each change was counted once where it was captured and once where it landed
  const done = Date.now()
  const { audit } = await mesh.until('audited', ({ audit: { throughMs } }) => throughMs !== null && throughMs > done)
  expect(audit).toMatchObject({ differences: [], uncounted: [] })
  expect(mesh.output).not.toContain('audit.unequal')
  expect(await mesh.stop()).toBe(0)
  await expectFound(mesh)
  expect({ inSnapshot: kills.inSnapshot > 0, inStream: kills.inStream > 0 }).toEqual({ inSnapshot: true, inStream: ROUNDS > 1 })
})

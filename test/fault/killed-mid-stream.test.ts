import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, shopYaml } from './shop-mesh.ts'

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 25)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)
const LONGEST_ROUND_MS = 2500

let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

/** Everything that moves: rows of sources and sinks, rows read by snapshots. */
function moved(status: MeshStatus): number {
  return status.nodes.reduce((sum, { rows, snapshot }) => sum + rows + snapshot.reduce((read, table) => read + table.rows, 0), 0)
}

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

test(`killed ${ROUNDS} times at random points of snapshot and stream, everything is equal and nothing is there twice (seed ${SEED})`, async () => {
  db = await testDatabase()
  const { url, database } = db
  await createShop(url, 12_000)
  mesh = new MeshProcess(dir, shopYaml({ name: database, url, chunkRows: 250 }))
  let state = SEED
  const random = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 4_294_967_296) * below)
  }
  let over = false
  const workload = (async () => {
    for (let part = 0; !over; part++) await runWorkload(url, 2, SEED + part, part === 0 ? 'evolve' : 'steady').done
  })()
  let killedInSnapshot = 0
  let killedInStream = 0
  try {
    for (let round = 0; round < ROUNDS; round++) {
      mesh.start()
      // a kill soon after the start, in the middle of a burst, or while it only follows
      const after = random(3) === 0 ? random(5) : random(round < ROUNDS / 2 ? 1500 : 4000)
      const first = await mesh.until('answering', () => true)
      const answeredAt = Date.now()
      const goal = moved(first) + after
      const last = await mesh.until(`${after} rows further`, (status) => moved(status) >= goal || Date.now() - answeredAt > LONGEST_ROUND_MS)
      for (let turns = random(6); turns > 0; turns--) await delay(0)
      await mesh.kill()
      if (last.nodes.some(({ snapshot }) => snapshot.some(({ done }) => !done))) killedInSnapshot++
      else killedInStream++
    }
  } finally {
    over = true
    await workload
  }
  mesh.start()
  await expectEqual(mesh)
  // whatever was killed when, each change was counted once where it was captured and once where it landed
  const done = Date.now()
  const { audit } = await mesh.until('audited', ({ audit: { throughMs } }) => throughMs !== null && throughMs > done)
  expect(audit).toMatchObject({ differences: [], uncounted: [] })
  expect(mesh.output).not.toContain('audit.unequal')
  expect(await mesh.stop()).toBe(0)
  await expectFound(mesh)
  expect({ killedInSnapshot: killedInSnapshot > 0, killedInStream: killedInStream > 0 }).toEqual({ killedInSnapshot: true, killedInStream: ROUNDS >= 10 })
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 25)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)

let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
let dir = ''
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  if (dir !== '') rmSync(dir, { recursive: true, force: true })
})

/** Everything that moves: rows of sources and sinks, rows read by snapshots. */
function moved(status: MeshStatus): number {
  return status.nodes.reduce((sum, { rows, snapshot }) => sum + rows + snapshot.reduce((read, table) => read + table.rows, 0), 0)
}

test(`killed ${ROUNDS} times at random points of snapshot and stream, everything is equal and nothing is there twice (seed ${SEED})`, async () => {
  db = await testDatabase()
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-kill-'))
  await createShop(db.url, 12_000)
  mesh = new MeshProcess(
    dir,
    `mesh: ${db.database.replaceAll('_', '-')}
dataDir: state
sources:
  shop: { kind: postgres, url: '${db.url}', tables: [public.*], snapshot: { chunkRows: 500, parallel: 2 } }
sinks:
  lake: { kind: iceberg, from: [shop], warehouse: ./lake, commitRows: 2000, commitMs: 200 }
  search: { kind: search, from: [shop], path: ./search.db }
`,
  )
  let state = SEED
  const random = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 4_294_967_296) * below)
  }
  let over = false
  const workload = (async () => {
    for (let part = 0; !over; part++) await runWorkload(db!.url, 2, SEED + part, part === 0 ? 'evolve' : 'steady').done
  })()
  try {
    for (let round = 0; round < ROUNDS; round++) {
      mesh.start()
      // a kill soon after the start, in the middle of a burst, or while it only follows
      const after = random(3) === 0 ? random(5) : random(4000)
      const begin = Date.now()
      const first = await mesh.until('answering', () => true)
      const goal = moved(first) + after
      await mesh.until(`${after} rows further`, (status) => moved(status) >= goal || Date.now() - begin > 3000)
      for (let turns = random(6); turns > 0; turns--) await delay(0)
      await mesh.kill()
    }
  } finally {
    over = true
    await workload
  }
  mesh.start()
  const audit = await mesh.audit()
  expect(audit.map(({ table }) => table)).toEqual(['public.customers', 'public.order_lines', 'public.orders', 'public.products', 'public.reviews'])
  for (const { table, equal, differences, ledger, source } of audit) {
    expect({ table, equal, differences, ledger: ledger.equal }).toEqual({ table, equal: true, differences: [], ledger: true })
    expect(source.rows).toBeGreaterThan(0)
  }
  expect(await mesh.stop()).toBe(0)
})

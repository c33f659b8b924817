import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { type KafkaServer, skipReason, startKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { readCommitted } from './committed-records.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, node, openShop, shopYaml, startReading } from './shop-mesh.ts'

const reason = skipReason()
let folder: ReturnType<typeof faultDir>
let broker: KafkaServer | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
beforeEach(() => {
  folder = faultDir()
})
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  await broker?.kill()
  folder.remove()
})

/** Every node has been seen degraded since the broker went: each tries again at times of its own. */
function untilDegraded(): (status: MeshStatus) => boolean {
  const waiting = new Set(['shop', 'lake', 'search'])
  return ({ nodes }) => {
    for (const { node, state, error } of nodes) if (state === 'degraded' && error?.code === 'log.unreachable') waiting.delete(node)
    return waiting.size === 0
  }
}

const working = (status: MeshStatus) => status.nodes.every(({ state, error }) => (state === 'running' || state === 'snapshotting') && error === null)

// I5
const title = 'the only broker is killed while tables are read and again under load: every node says so and goes on by itself, nothing lost, nothing doubled'
test.skipIf(reason !== null)(`${title}${reason === null ? '' : ` (skipped: ${reason})`}`, async () => {
  broker = await startKafka({ dir: path.join(folder.dir, 'kafka') })
  db = await testDatabase()
  const { url, database } = db
  await openShop(url, 8000)
  const { brokers } = broker
  const more = `log: { kind: kafka, brokers: ['${brokers[0]}'], unreachableMs: 3000 }\ntopics: { partitions: 3 }`
  mesh = new MeshProcess(path.join(folder.dir, 'mesh'), shopYaml({ name: database, url, chunkRows: 250, more }))
  await startReading(mesh)
  let shop: ReturnType<typeof keepBusy> | null = null
  for (const round of ['reading', 'streaming']) {
    await broker.kill()
    shop ??= keepBusy(url)
    await mesh.until(`degraded while ${round}`, untilDegraded())
    await broker.restart()
    await mesh.until(`working again after ${round}`, working)
    await mesh.until('flowing', flows)
    await moreRows(mesh, 100)
  }
  await shop!.stop()
  const audit = await expectEqual(mesh)
  const done = Date.now()
  const status = await mesh.until('audited', ({ audit: { throughMs } }) => throughMs !== null && throughMs > done)
  expect(status.audit).toMatchObject({ differences: [], uncounted: [] })
  expect(node(status, 'shop').parked).toEqual([])
  expect(mesh.output).not.toMatch(/audit\.unequal|log\.fenced/)
  expect(await mesh.stop()).toBe(0)
  const captured = new Map(audit.map(({ table, ledger }) => [`shop.${table}`, { records: ledger.captured, doubled: [] }]))
  expect(await readCommitted(brokers, [...captured.keys()])).toEqual(captured)
})

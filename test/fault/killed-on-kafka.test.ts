import { randomBytes } from 'node:crypto'
import { afterEach, expect, test } from 'vitest'
import { skipReason, testKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { readCommitted } from './committed-records.ts'
import { RandomKills } from './random-kills.ts'
import { expectEqual, faultDir, flows, halveChunks, keepBusy, keepTouching, openShop, shopYaml } from './shop-mesh.ts'

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 8)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)
/** A round takes some twenty seconds on two cores. */
const TIMEOUT_MS = (ROUNDS + 5) * 240_000

const reason = skipReason()
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

// I5, I7
const title = `killed ${ROUNDS} times on Kafka, everything is equal after each, and committed readers get nothing twice (seed ${SEED})`
test.skipIf(reason !== null)(`${title}${reason === null ? '' : ` (skipped: ${reason})`}`, { timeout: TIMEOUT_MS }, async () => {
  const { brokers } = await testKafka()
  db = await testDatabase()
  const { url, database } = db
  const unique = randomBytes(4).toString('hex')
  const source = `shop-${unique}`
  await openShop(url, 8000)
  const list = brokers.map((broker) => `'${broker}'`).join(', ')
  const more = `log: { kind: kafka, brokers: [${list}], progressTopic: progress-${unique} }\ntopics: { partitions: 3 }`
  mesh = new MeshProcess(dir, shopYaml({ name: database, source, url, chunkRows: 250, more }))
  const kills = new RandomKills(SEED)
  const touching = keepTouching(url)
  try {
    for (let round = 0; round < ROUNDS; round++) {
      // every other round all tables are read, at first and then again, until a kill came in the midst of it; in those between the stream is full
      const reads = round % 2 === 0
      if (reads && round > 0 && kills.inSnapshot === 0) halveChunks(mesh)
      const shop = reads ? null : keepBusy(url, SEED + round)
      mesh.start(reads && round > 0 ? ['--resnapshot', source] : [])
      await kills.kill(mesh, 1500)
      await shop?.stop()
      mesh.start()
      await mesh.until('flowing', flows)
      await expectEqual(mesh)
      if (round < ROUNDS - 1) await mesh.kill()
    }
  } finally {
    await touching.stop()
  }
  const audit = await expectEqual(mesh)
  const done = Date.now()
  const status = await mesh.until('audited', ({ audit: { throughMs } }) => throughMs !== null && throughMs > done)
  expect(status.audit).toMatchObject({ differences: [], uncounted: [] })
  expect(mesh.output).not.toContain('audit.unequal')
  expect(await mesh.stop()).toBe(0)
  const captured = new Map(audit.map(({ table, ledger }) => [`${source}.${table}`, { records: ledger.captured, doubled: [] }]))
  expect(await readCommitted(brokers, [...captured.keys()])).toEqual(captured)
  expect({ inSnapshot: kills.inSnapshot > 0, inStream: kills.inStream > 0 }).toEqual({ inSnapshot: true, inStream: true })
})

import { randomBytes } from 'node:crypto'
import kafkajs from 'kafkajs'
import { afterEach, expect, test } from 'vitest'
import { skipReason, testKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { RandomKills } from './random-kills.ts'
import { expectEqual, faultDir, flows, keepBusy, keepTouching, openShop, shopYaml } from './shop-mesh.ts'

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 8)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)

const reason = skipReason()
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

interface Committed {
  readonly records: number
  /** Positions that came more than once in one partition. */
  readonly doubled: readonly string[]
}

/** What another client, which reads committed records only, finds in topics that nobody writes to any more; appends a last record to each partition. */
async function readCommitted(brokers: string[], topics: readonly string[]): Promise<ReadonlyMap<string, Committed>> {
  const name = randomBytes(4).toString('hex')
  const kafka = new kafkajs.Kafka({ brokers, clientId: name, logLevel: kafkajs.logLevel.NOTHING })
  const [admin, producer, consumer] = [kafka.admin(), kafka.producer(), kafka.consumer({ groupId: name, maxWaitTimeInMs: 100 })]
  await Promise.all([admin.connect(), producer.connect(), consumer.connect()])
  const { topics: found } = await admin.fetchTopicMetadata({ topics: [...topics] })
  let left = 0
  for (const { name: topic, partitions } of found) {
    left += partitions.length
    await producer.send({ topic, messages: partitions.map(({ partitionId }) => ({ partition: partitionId, value: 'end' })) })
  }
  const seen = new Map(topics.map((topic) => [topic, { records: 0, places: new Set<string>(), doubled: [] as string[] }]))
  await consumer.subscribe({ topics: [...topics], fromBeginning: true })
  const { promise, resolve } = Promise.withResolvers<void>()
  await consumer.run({
    eachBatch: async ({ batch: { topic, partition, messages } }) => {
      const of = seen.get(topic)!
      for (const { value, headers } of messages) {
        if (headers?.pos === undefined) {
          if (value?.toString() === 'end' && --left === 0) resolve()
          continue
        }
        const place = `${partition}: ${(headers.pos as Buffer).toString('hex')}`
        if (of.places.has(place)) of.doubled.push(place)
        of.places.add(place)
        of.records++
      }
    },
  })
  await promise
  await Promise.all([admin.disconnect(), producer.disconnect(), consumer.disconnect()])
  return seen
}

// I5, I7
const title = `killed ${ROUNDS} times on Kafka, everything is equal after each, and committed readers get nothing twice (seed ${SEED})`
test.skipIf(reason !== null)(`${title}${reason === null ? '' : ` (skipped: ${reason})`}`, async () => {
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
      // every other round all tables are read, at first and then again; in those between the stream is full
      const reads = round % 2 === 0
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
  const read = await readCommitted(brokers, [...captured.keys()])
  expect(new Map([...read].map(([topic, { records, doubled }]) => [topic, { records, doubled }]))).toEqual(captured)
  expect({ inSnapshot: kills.inSnapshot > 0, inStream: kills.inStream > 0 }).toEqual({ inSnapshot: true, inStream: true })
})

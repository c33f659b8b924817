import { randomBytes } from 'node:crypto'
import { SchemaRegistryClient } from '@confluentinc/schemaregistry'
import avsc from 'avsc'
import type kafkajs from 'kafkajs'
import { afterEach, describe, expect, test } from 'vitest'
import { createShop, runWorkload } from '../../control/demo/shop.ts'
import { expectEqual, faultDir, flows, keepBusy, keepTouching, moreRows, shopYaml } from '../fault/shop-mesh.ts'
import { skipReason as registrySkipReason, testRegistry } from '../services/apicurio.ts'
import { freePorts } from '../services/free-ports.ts'
import { kafkajsClient, skipReason as kafkaSkipReason, testKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'

const reason = kafkaSkipReason() ?? registrySkipReason()
let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  folder?.remove()
})

interface OrderLine {
  readonly order_id: bigint
  readonly line_no: number
  readonly sku: string
  readonly quantity: number
  readonly unit_price: Buffer
}

/** avsc's numbers lose int64: its own hook for them. */
const longs = avsc.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(value)
    return bytes
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
})

describe.skipIf(reason !== null)(`Kafka and a schema registry${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  const registries = {
    'a Confluent registry': async () => {
      const { url } = await testRegistry()
      return { url, settings: `{ kind: confluent, url: '${url}' }` }
    },
    'its own registry, served': async () => {
      const [port] = await freePorts(1)
      return { url: `http://127.0.0.1:${port}`, settings: `{ kind: embedded, port: ${port}, readOnly: true }` }
    },
  }
  test.each(
    Object.keys(registries) as (keyof typeof registries)[],
  )('the same shop, which changes its shape meanwhile, over Kafka and %s is equal everywhere, and foreign clients read the same rows from its topic', async (name) => {
    folder = faultDir()
    db = await testDatabase()
    const { url: database, sql } = db
    const { brokers } = await testKafka()
    const { url, settings } = await registries[name]()
    const unique = randomBytes(4).toString('hex')
    await createShop(database, 3000)
    const list = brokers.map((broker) => `'${broker}'`).join(', ')
    mesh = new MeshProcess(
      folder.dir,
      shopYaml({
        name: db.database,
        source: `shop-${unique}`,
        url: database,
        more: `log: { kind: kafka, brokers: [${list}], compression: gzip, progressTopic: progress-${unique} }
registry: ${settings}
topics: { partitions: 3 }`,
      }),
    )
    mesh.start()
    await mesh.until('capturing', ({ nodes: [shop] }) => shop!.rows > 0)
    await runWorkload(database, 2, 42, 'evolve').done
    const shop = keepBusy(database)
    await mesh.until('flowing', flows)
    await moreRows(mesh, 300)
    await shop.stop()
    // while changes come, and when none do
    const touching = keepTouching(database)
    await expectEqual(mesh)
    await touching.stop()
    await expectEqual(mesh)

    const topic = `shop-${unique}.public.order_lines`
    const client = new SchemaRegistryClient({ baseURLs: [url] })
    const types = new Map<number, avsc.Type>()
    const decode = async (part: 'key' | 'value', bytes: Buffer): Promise<unknown> => {
      expect(bytes[0]).toBe(0)
      const id = bytes.readInt32BE(1)
      let type = types.get(id)
      if (type === undefined) {
        const { schema } = await client.getBySubjectAndId(`${topic}-${part}`, id)
        type = avsc.Type.forSchema(JSON.parse(schema), { registry: { long: longs }, wrapUnions: false })
        types.set(id, type)
      }
      return type.fromBuffer(bytes.subarray(5))
    }
    const kafka = kafkajsClient(brokers)
    const admin = kafka.admin()
    await admin.connect()
    const ends = new Map((await admin.fetchTopicOffsets(topic)).map(({ partition, high }) => [partition, BigInt(high)]))
    await admin.disconnect()
    expect(ends.size).toBe(3)
    const rows = new Map<string, OrderLine>()
    const consumer = kafka.consumer({ groupId: unique, maxWaitTimeInMs: 100, retry: {} })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    const waiting = new Set([...ends].filter(([, end]) => end > 0n).map(([partition]) => partition))
    /** By partition: a client that a slow machine put out of its group is given some records again. */
    const last = new Map<number, bigint>()
    const read = async (batch: kafkajs.Batch): Promise<void> => {
      for (const { offset, key, value } of batch.messages) {
        if (BigInt(offset) <= (last.get(batch.partition) ?? -1n)) continue
        last.set(batch.partition, BigInt(offset))
        const { after } = (await decode('value', value!)) as { readonly after: OrderLine | null }
        const { order_id, line_no } = (await decode('key', key!)) as Pick<OrderLine, 'order_id' | 'line_no'>
        if (after === null) rows.delete(`${order_id}/${line_no}`)
        else rows.set(`${order_id}/${line_no}`, after)
      }
      // the last offset is a transaction's marker, which no consumer sees
      if (BigInt(batch.lastOffset()) + 2n >= ends.get(batch.partition)!) waiting.delete(batch.partition)
    }
    await new Promise<void>((resolve, reject) => {
      void consumer
        .run({
          eachBatch: ({ batch }) =>
            read(batch).then(() => {
              if (waiting.size === 0) resolve()
            }, reject),
        })
        .catch(reject)
    })
    await consumer.disconnect()
    const cents = (bytes: Buffer) => BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`))
    const seen = [...rows.values()].map((row) => `${row.order_id}|${row.line_no}|${row.sku}|${row.quantity}|${cents(row.unit_price)}`).sort()
    const source = await sql('select concat_ws($1, order_id, line_no, sku, quantity, (unit_price * 100)::bigint) as row from order_lines', ['|'])
    expect(seen).toEqual(source.rows.map(({ row }) => row as string).sort())
    expect(seen.length).toBeGreaterThan(1500)
    expect(await mesh.stop()).toBe(0)
  }, 900_000)
})

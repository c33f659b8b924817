/** What is in the topics of a mesh, as a client that is none of ours reads it. */
import { randomBytes } from 'node:crypto'
import { kafkajsClient } from '../services/kafka.ts'

export interface Committed {
  readonly records: number
  /** Positions that came more than once in one partition. */
  readonly doubled: readonly string[]
}

/** What another client, which reads committed records only, finds in topics that nobody writes to any more; appends a last record to each partition. */
export async function readCommitted(brokers: string[], topics: readonly string[]): Promise<ReadonlyMap<string, Committed>> {
  const name = randomBytes(4).toString('hex')
  const kafka = kafkajsClient(brokers)
  const [admin, producer, consumer] = [kafka.admin(), kafka.producer(), kafka.consumer({ groupId: name, maxWaitTimeInMs: 100, retry: {} })]
  await Promise.all([admin.connect(), producer.connect(), consumer.connect()])
  const { topics: found } = await admin.fetchTopicMetadata({ topics: [...topics] })
  let left = 0
  for (const { name: topic, partitions } of found) {
    left += partitions.length
    await producer.send({ topic, messages: partitions.map(({ partitionId }) => ({ partition: partitionId, value: 'end' })) })
  }
  const seen = new Map(topics.map((topic) => [topic, { records: 0, places: new Set<string>(), doubled: [] as string[] }]))
  /** Offset of the last record by topic and partition: a client that a slow machine put out of its group is given some again. */
  const last = new Map<string, bigint>()
  await consumer.subscribe({ topics: [...topics], fromBeginning: true })
  const { promise, resolve } = Promise.withResolvers<void>()
  await consumer.run({
    eachBatch: async ({ batch: { topic, partition, messages } }) => {
      const of = seen.get(topic)!
      const at = `${topic} ${partition}`
      for (const { offset, value, headers } of messages) {
        if (BigInt(offset) <= (last.get(at) ?? -1n)) continue
        last.set(at, BigInt(offset))
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
  return new Map([...seen].map(([topic, { records, doubled }]) => [topic, { records, doubled }]))
}

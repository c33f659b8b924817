import { randomBytes } from 'node:crypto'
import { describe } from 'vitest'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { KafkaLogOptions } from '../../core/log/kafka/kafka-options.ts'
import type { Log } from '../../core/log/log.ts'
import { logContract } from '../../testing/log.contract.ts'
import { kafkajsClient, skipReason, testKafka } from '../services/kafka.ts'

const reason = skipReason()

describe.skipIf(reason !== null)(`Kafka log${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  for (const delivery of ['exactly-once', 'idempotent'] as const) {
    logContract(
      `Kafka, ${delivery}`,
      async () => {
        const { brokers } = await testKafka()
        const options: KafkaLogOptions = { brokers, delivery, progressTopic: `progress-${delivery}-${randomBytes(4).toString('hex')}` }
        let log = await openKafkaLog(options)
        return {
          get log() {
            return log
          },
          async reopen() {
            await log[Symbol.asyncDispose]()
            log = await openKafkaLog(options)
            return log
          },
          async dispose() {
            await log[Symbol.asyncDispose]()
          },
        }
      },
      { expire, atomic: delivery === 'exactly-once' },
    )
  }
})

/** Retention would take minutes; deleting records up to the end has the same effect. */
async function expire(log: Log, topic: string): Promise<void> {
  const admin = kafkajsClient((await testKafka()).brokers).admin()
  await admin.connect()
  const partitions = (await log.bounds(topic)).map(({ partition, end }) => ({ partition, offset: String(end) }))
  // loads the leaders that the next call needs
  await admin.fetchTopicMetadata({ topics: [topic] })
  await admin.deleteTopicRecords({ topic, partitions })
  await admin.disconnect()
}

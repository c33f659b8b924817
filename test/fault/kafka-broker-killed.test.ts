import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { Log } from '../../core/log/log.ts'
import { batchOf, idFrame, readUntil, startOf, topicSpec } from '../../testing/log.contract.ts'
import { type KafkaServer, skipReason, startKafka } from '../services/kafka.ts'

const reason = skipReason()
const PARTITIONS = 3
const KILLS = 2

describe.skipIf(reason !== null)(`a Kafka broker that dies${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  let dir: string
  let server: KafkaServer

  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-kafka-'))
    server = await startKafka({ dir })
  })
  afterAll(async () => {
    await server?.kill()
    rmSync(dir, { recursive: true, force: true })
  })

  for (const delivery of ['exactly-once', 'idempotent'] as const) {
    for (const compression of ['none', 'zstd'] as const) {
      test(`${delivery}, ${compression}: what was acknowledged is there once, in order, and the writer goes on by itself`, async () => {
        await using log = await openKafkaLog({ brokers: server.brokers, delivery, compression, transactionMs: 30 })
        const name = `${delivery}-${compression}`
        await log.ensureTopics([topicSpec(name, PARTITIONS)])
        await using writer = await log.openWriter(name)
        let acknowledged = 0
        let sent = 0
        let stop = false
        const progressed = async (count: number) => {
          const goal = acknowledged + count
          const deadline = performance.now() + 120_000
          while (acknowledged < goal) {
            if (performance.now() > deadline) throw new Error(`only ${acknowledged} of ${goal} batches were acknowledged`)
            await delay(5)
          }
        }
        const lanes = Array.from({ length: 6 }, async () => {
          while (!stop) {
            const id = sent++
            await writer.append(batchOf([idFrame(name, id % PARTITIONS, [`${id}a`, `${id}b`])], { last: id }))
            acknowledged++
          }
        })
        for (let kill = 0; kill < KILLS; kill++) {
          await progressed(40)
          await server.kill()
          await server.restart()
        }
        await progressed(40)
        stop = true
        await Promise.all(lanes)
        expect(acknowledged).toBe(sent)
        await expectOnce(log, name, sent)
        expect(Object.fromEntries(await log.progress(name))).toEqual({ last: sent - 1 })
      })
    }
  }
})

/** Every id in its partition, once, in order, and nothing else up to the end of the log. */
async function expectOnce(log: Log, topic: string, sent: number): Promise<void> {
  const from = Array.from({ length: PARTITIONS }, (_, partition) => startOf(topic, partition))
  const marker = await log.openWriter(`${topic}-marker`)
  await marker.append(batchOf(from.map(({ partition }) => idFrame(topic, partition, ['end']))))
  await marker[Symbol.asyncDispose]()
  const seen = await readUntil(log, from, (all) => all.filter(({ id }) => id === 'end').length === PARTITIONS, 120_000)
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const ids = Array.from({ length: sent }, (_, id) => id).filter((id) => id % PARTITIONS === partition)
    const found = seen.filter((record) => record.partition === partition).map(({ id }) => id)
    expect(found).toEqual([...ids.flatMap((id) => [`${id}a`, `${id}b`]), 'end'])
  }
}

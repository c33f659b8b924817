import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { records } from '../../core/event/record-batch.ts'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { Log, LogWriter } from '../../core/log/log.ts'
import { batchOf, idFrame, startOf, topicSpec } from '../../testing/log.contract.ts'
import { freePorts } from '../services/free-ports.ts'
import { kafkajsClient, skipReason } from '../services/kafka.ts'
import { type KafkaCluster, startKafkaCluster } from '../services/kafka-cluster.ts'

const reason = skipReason()
const PARTITIONS = 4
const LANES = 4
const PROGRESS_TOPIC = 'progress'
const PROBE = 'probe'
const STUCK_MS = 180_000

/** One writer under load and one reader that follows it from the start: what was acknowledged must come once and in order, whatever the brokers do. */
class Load {
  readonly topic: string
  readonly #writer: LogWriter
  readonly #lanes: Promise<void>[]
  readonly #seen: string[][] = Array.from({ length: PARTITIONS }, () => [])
  readonly #reading: Promise<void>
  #sent = 0
  #acknowledged = 0
  #stopped = false
  #ends = 0

  constructor(log: Log, writer: LogWriter, topic: string) {
    this.topic = topic
    this.#writer = writer
    this.#lanes = Array.from({ length: LANES }, () => this.#lane())
    this.#reading = this.#read(log)
  }

  get acknowledged(): number {
    return this.#acknowledged
  }

  async #lane(): Promise<void> {
    while (!this.#stopped) {
      const id = this.#sent++
      await this.#writer.append(batchOf([idFrame(this.topic, id % PARTITIONS, [`${id}a`, `${id}b`])], { last: id }))
      this.#acknowledged++
    }
  }

  async #read(log: Log): Promise<void> {
    const from = this.#seen.map((_, partition) => startOf(this.topic, partition))
    for await (const { frame, partition } of log.consume(from, new AbortController().signal)) {
      for (const record of records(frame)) {
        const id = frame.toString('utf8', record.valueFrom, record.valueTo)
        if (id !== PROBE) this.#seen[partition]!.push(id)
        if (id === 'end') this.#ends++
      }
      if (this.#ends === PARTITIONS) return
    }
  }

  /** Waits for so many more acknowledged batches. */
  async progressed(count: number): Promise<void> {
    const goal = this.#acknowledged + count
    const failed = Promise.all([...this.#lanes, this.#reading])
    for (const deadline = performance.now() + STUCK_MS; this.#acknowledged < goal; ) {
      if (performance.now() > deadline) throw new Error(`${this.topic}: only ${this.#acknowledged} of ${goal} batches were acknowledged`)
      await Promise.race([failed, delay(10)])
    }
  }

  /** Ends the load. @returns how many batches there were; nothing lost, doubled or out of order among them */
  async verify(): Promise<number> {
    this.#stopped = true
    await Promise.all(this.#lanes)
    expect(this.#acknowledged).toBe(this.#sent)
    await this.#writer.append(batchOf(this.#seen.map((_, partition) => idFrame(this.topic, partition, ['end']))))
    await this.#reading
    const ids = Array.from({ length: this.#sent }, (_, id) => id)
    for (const [partition, seen] of this.#seen.entries())
      expect(seen).toEqual([...ids.filter((id) => id % PARTITIONS === partition).flatMap((id) => [`${id}a`, `${id}b`]), 'end'])
    return this.#sent
  }
}

describe.skipIf(reason !== null)(`three Kafka brokers${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  let dir: string
  let cluster: KafkaCluster
  let admin: kafkajs.Admin
  let client: kafkajs.Kafka

  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-kafka-cluster-'))
    cluster = await startKafkaCluster(dir)
    client = kafkajsClient(cluster.brokers)
    admin = client.admin()
    await admin.connect()
  })
  afterAll(async () => {
    await admin?.disconnect()
    await cluster?.kill()
    rmSync(dir, { recursive: true, force: true })
  })

  const leaderOf = async (topic: string, partition = 0): Promise<number> => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0]!.partitions.find(({ partitionId }) => partitionId === partition)!.leader
  }

  /** Resolves when each partition of the topics has so many replicas in sync, and a leader. */
  const inSync = async (topics: readonly string[], count: number): Promise<void> => {
    for (const deadline = performance.now() + STUCK_MS; ; await delay(20)) {
      const { topics: found } = await admin.fetchTopicMetadata({ topics: [...topics] })
      if (found.flatMap(({ partitions }) => partitions).every(({ isr, leader }) => isr.length === count && leader > 0)) return
      if (performance.now() > deadline) throw new Error(`not ${count} in sync: ${JSON.stringify(found)}`)
    }
  }

  /** Gives all partitions of the topics these replicas and waits for it. */
  const reassign = async (topics: readonly string[], replicas: (partition: number) => number[]): Promise<void> => {
    const { topics: found } = await admin.fetchTopicMetadata({ topics: [...topics] })
    const wanted = found.map(({ name, partitions }) => ({
      topic: name,
      partitionAssignment: partitions.map(({ partitionId }) => ({ partition: partitionId, replicas: replicas(partitionId) })),
    }))
    await admin.alterPartitionReassignments({ topics: wanted })
    const same = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((id) => b.includes(id))
    for (const deadline = performance.now() + STUCK_MS; ; await delay(20)) {
      const { topics: now } = await admin.fetchTopicMetadata({ topics: [...topics] })
      const done = now.flatMap(({ partitions }) => partitions).every((one) => same(one.replicas, replicas(one.partitionId)) && one.isr.includes(one.leader))
      if (done) return
      if (performance.now() > deadline) throw new Error(`not reassigned: ${JSON.stringify(now)}`)
    }
  }

  /** Resolves when every partition of the topic refuses what Kafka's acks=all asks for. */
  const refusesAll = async (topic: string): Promise<void> => {
    const producer = client.producer({ retry: { retries: 0 } })
    await producer.connect()
    for (let partition = 0; partition < PARTITIONS; partition++) {
      for (const deadline = performance.now() + STUCK_MS; ; await delay(20)) {
        const refused = await producer.send({ topic, acks: -1, messages: [{ partition, value: PROBE }] }).then(
          () => '',
          (error: { readonly type?: string; readonly cause?: { readonly type?: string } }) => error.type ?? error.cause?.type ?? String(error),
        )
        if (refused.startsWith('NOT_ENOUGH_REPLICAS')) break
        if (performance.now() > deadline) throw new Error(`${topic} still takes records: ${refused}`)
      }
    }
    await producer.disconnect()
  }

  // I4
  test('deaths, shutdowns, hangs, moved leaders and coordinators, too few replicas: nothing lost, nothing doubled, nothing out of order', async () => {
    const logs = await Promise.all(
      (['exactly-once', 'idempotent'] as const).map((delivery) =>
        openKafkaLog({ brokers: cluster.brokers, delivery, progressTopic: PROGRESS_TOPIC, transactionMs: 30, requestTimeoutMs: 4_000 }),
      ),
    )
    const [exactlyOnce, idempotent] = await Promise.all(
      logs.map(async (log, index) => {
        const topic = ['exactly-once', 'idempotent'][index]!
        await log.ensureTopics([topicSpec(topic, PARTITIONS)])
        return new Load(log, await log.openWriter(topic), topic)
      }),
    )
    const both = [exactlyOnce!, idempotent!]
    const topics = [...both.map(({ topic }) => topic), PROGRESS_TOPIC, '__transaction_state']
    const wantInSync = (value: string) =>
      admin.alterConfigs({
        validateOnly: false,
        resources: both.map(({ topic }) => ({ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'min.insync.replicas', value }] })),
      })
    const progressed = (count: number) => Promise.all(both.map((load) => load.progressed(count)))
    await progressed(50)

    // the leader of the progress topic dies, and with it leaders and perhaps the coordinator
    const dead = await leaderOf(PROGRESS_TOPIC)
    await cluster.node(dead).kill()
    await progressed(50)
    // too few replicas in sync: appends wait
    await wantInSync('3')
    for (const { topic } of both) await refusesAll(topic)
    const waiting = both.map(({ acknowledged }) => acknowledged)
    for (const { topic } of both) await refusesAll(topic)
    for (const [index, load] of both.entries()) expect(load.acknowledged - waiting[index]!).toBeLessThanOrEqual(LANES)
    await cluster.node(dead).restart()
    await progressed(50)
    await inSync(topics, 3)
    await wantInSync('2')

    // an orderly shutdown hands leaders over; the broker comes back where nobody expects it
    const stopped = await leaderOf('exactly-once')
    await cluster.node(stopped).stop()
    await progressed(50)
    await cluster.node(stopped).restart((await freePorts(1))[0])
    await inSync(topics, 3)

    // leaders and the coordinator move while everything runs; the last time to the broker on its new port
    for (const left of [dead, stopped]) {
      await reassign(topics, (partition) => cluster.ids.filter((id) => id !== (partition % 2 === 0 ? left : dead)))
      await progressed(50)
    }
    await reassign(topics, () => [stopped, ...cluster.ids.filter((id) => id !== stopped)])
    await inSync(topics, 3)
    await progressed(50)

    // a broker that neither answers nor closes its connections
    const hung = await leaderOf(PROGRESS_TOPIC)
    cluster.node(hung).signal('SIGSTOP')
    await progressed(50)
    cluster.node(hung).signal('SIGCONT')
    await progressed(50)

    for (const load of both) expect(await load.verify()).toBeGreaterThan(400)
    for (const log of logs) await log[Symbol.asyncDispose]()
  })
})

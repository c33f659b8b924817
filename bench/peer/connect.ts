/** The peer: a Debezium connector on Kafka Connect standalone, fetched from Maven Central, tuned as far as was found to help, JSON, at-least-once. */
import { type ChildProcess, spawn } from 'node:child_process'
import { openSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Kafka, logLevel } from 'kafkajs'
import { freePort } from '../../control/demo/postgres-server.ts'
import { findJava, mavenArchive, mavenJars } from '../../test/services/maven.ts'
import type { Lab } from '../lab.ts'

const CONNECT = '4.3.1'
/** The settings of the fastest run that was found, but for latency, which has its own. */
const TUNED = {
  'max.batch.size': 16384,
  'max.queue.size': 65536,
  'poll.interval.ms': 5,
  'snapshot.fetch.size': 20000,
  'producer.override.compression.type': 'lz4',
  'producer.override.batch.size': 524288,
  'producer.override.linger.ms': 5,
  'producer.override.buffer.memory': 134217728,
  'producer.override.max.request.size': 8388608,
  'extended.headers.enabled': false,
  'statistics.metrics.enabled': false,
}

export type Settings = Readonly<Record<string, string | number | boolean>>

export interface PeerConnector {
  readonly artifact: string
  readonly version: string
  /** The bench table, as it is named in lists of tables and in topics. */
  readonly table: string
}

/** One connector in a Kafka Connect of its own. */
export class Connect implements AsyncDisposable {
  readonly name: string
  readonly topic: string
  readonly #lab: Lab
  readonly #dir: string
  readonly #rest: number
  readonly #kafka: Kafka
  readonly #admin: ReturnType<Kafka['admin']>
  #child: ChildProcess | null = null
  startedAt = 0

  private constructor(lab: Lab, name: string, topic: string, dir: string, rest: number, kafka: Kafka) {
    this.#lab = lab
    this.name = name
    this.topic = topic
    this.#dir = dir
    this.#rest = rest
    this.#kafka = kafka
    this.#admin = kafka.admin()
  }

  /** @param settings of the connector besides those that all have */
  static async prepare(lab: Lab, name: string, { artifact, version, table }: PeerConnector, settings: Settings): Promise<Connect> {
    const dir = lab.folder(`connect-${name}`)
    const rest = await freePort()
    const { brokers } = await lab.kafka()
    const connect = new Connect(lab, name, `${name}.${table}`, dir, rest, new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 10 } }))
    await connect.#admin.connect()
    await connect.#admin.createTopics({
      topics: [{ topic: connect.topic, numPartitions: 1, replicationFactor: 1, configEntries: [{ name: 'message.timestamp.type', value: 'LogAppendTime' }] }],
    })
    const plugins = await mavenArchive(`${artifact}-${version}`.replace('connector-', ''), { group: 'io.debezium', artifact, version }, 'plugin')
    const properties = (entries: Settings) =>
      `${Object.entries(entries)
        .map(([key, value]) => `${key}=${value}`)
        .join('\n')}\n`
    const json = { 'key.converter': 'org.apache.kafka.connect.json.JsonConverter', 'value.converter': 'org.apache.kafka.connect.json.JsonConverter' }
    writeFileSync(
      path.join(dir, 'worker.properties'),
      properties({
        'bootstrap.servers': brokers[0]!,
        ...json,
        'offset.storage.file.filename': path.join(dir, 'offsets'),
        'plugin.path': plugins,
        listeners: `http://127.0.0.1:${rest}`,
        'plugin.discovery': 'service_load',
      }),
    )
    const config = {
      name,
      'tasks.max': 1,
      'topic.prefix': name,
      'table.include.list': table,
      ...json,
      'key.converter.schemas.enable': false,
      'value.converter.schemas.enable': false,
      ...TUNED,
      ...settings,
    }
    writeFileSync(
      path.join(dir, 'connector.json'),
      JSON.stringify({ name, config: Object.fromEntries(Object.entries(config).map(([key, value]) => [key, String(value)])) }),
    )
    return connect
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** As Kafka's own start scripts run it. */
  async start(): Promise<void> {
    const jars = await mavenJars(`connect-${CONNECT}`, [
      { group: 'org.apache.kafka', artifact: 'connect-runtime', version: CONNECT },
      { group: 'org.apache.kafka', artifact: 'connect-json', version: CONNECT },
      { group: 'org.apache.kafka', artifact: 'kafka-tools', version: CONNECT },
      { group: 'org.apache.logging.log4j', artifact: 'log4j-slf4j-impl', version: '2.25.4' },
    ])
    const out = openSync(path.join(this.#dir, 'connect.log'), 'a')
    this.startedAt = performance.now()
    this.#child = spawn(
      findJava(17)!,
      [
        ...[
          '-server',
          '-Xms256M',
          '-Xmx2G',
          '-XX:+UseG1GC',
          '-XX:MaxGCPauseMillis=20',
          '-XX:InitiatingHeapOccupancyPercent=35',
          '-XX:+ExplicitGCInvokesConcurrent',
        ],
        ...['-cp', path.join(jars, '*'), 'org.apache.kafka.connect.cli.ConnectStandalone'],
        ...[path.join(this.#dir, 'worker.properties'), path.join(this.#dir, 'connector.json')],
      ],
      { stdio: ['ignore', out, out] },
    )
  }

  async records(): Promise<number> {
    return (await this.#admin.fetchTopicOffsets(this.topic)).reduce((sum, { high }) => sum + Number(high), 0)
  }

  /** Bytes of its topic on the broker's disk. */
  bytes(): number {
    return this.#lab.topicBytes(this.topic)
  }

  async command(method: string, what: string): Promise<void> {
    for (const deadline = Date.now() + 120_000; ; await delay(100)) {
      try {
        const response = await fetch(`http://127.0.0.1:${this.#rest}/connectors/${this.name}/${what}`, { method })
        if (response.ok) return
      } catch {
        // not up yet
      }
      if (Date.now() > deadline || this.#child?.exitCode != null)
        throw new Error(`Kafka Connect does not answer:\n${readFileSync(path.join(this.#dir, 'connect.log'), 'utf8').slice(-3000)}`)
    }
  }

  /** Milliseconds from commit to append of records [from, to). */
  async latencies(from: number, to: number): Promise<number[]> {
    const consumer = this.#kafka.consumer({ groupId: `latency-${Date.now()}`, maxWaitTimeInMs: 100, maxBytesPerPartition: 8 << 20 })
    await consumer.connect()
    await consumer.subscribe({ topic: this.topic, fromBeginning: true })
    const ages: number[] = []
    const { lz4 } = await codecs()
    void lz4
    await new Promise<void>((resolve, reject) => {
      consumer
        .run({
          autoCommit: false,
          eachBatch: async ({ batch }) => {
            for (const message of batch.messages) {
              const offset = Number(message.offset)
              if (offset < from || offset >= to || message.value === null) continue
              const { source } = JSON.parse(message.value.toString()) as { source: { ts_us: number } }
              ages.push(Number(message.timestamp) - source.ts_us / 1000)
            }
            if (Number(batch.lastOffset()) >= to - 1) resolve()
          },
        })
        .catch(reject)
      consumer.seek({ topic: this.topic, partition: 0, offset: String(from) })
    })
    await consumer.disconnect()
    return ages
  }

  /** A graceful end of the JVM: its offsets are written. */
  async end(): Promise<void> {
    const child = this.#child
    this.#child = null
    if (child === null || child.exitCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
    await gone
    clearTimeout(timer)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#admin.disconnect()
    await this.end()
  }
}

/** @throws when it does not hold within two minutes */
export async function until(what: string, holds: () => Promise<boolean>, pollMs = 50): Promise<void> {
  for (const deadline = Date.now() + 120_000; !(await holds()); await delay(pollMs))
    if (Date.now() > deadline) throw new Error(`not within two minutes: ${what}`)
}

/** kafkajs reads lz4 with a codec that is given to it. */
async function codecs(): Promise<{ lz4: true }> {
  const { default: kafkajs } = await import('kafkajs')
  const { uncompressFrame } = await import('lz4-napi').then((lz4) => ({
    uncompressFrame: (lz4 as unknown as { decompressFrame: (bytes: Buffer) => Promise<Buffer> }).decompressFrame,
  }))
  const { CompressionCodecs, CompressionTypes } = kafkajs as unknown as { CompressionCodecs: Record<number, unknown>; CompressionTypes: { LZ4: number } }
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: () => Promise.reject(new Error('not needed')),
    decompress: (bytes: Buffer) => uncompressFrame(bytes),
  })
  return { lz4: true }
}

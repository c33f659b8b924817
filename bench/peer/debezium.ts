/** The peer: Debezium's Postgres connector on Kafka Connect standalone, fetched from Maven Central, tuned as far as was found to help, JSON, at-least-once. */
import { type ChildProcess, spawn } from 'node:child_process'
import { openSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Kafka, logLevel } from 'kafkajs'
import { freePort } from '../../control/demo/postgres-server.ts'
import { findJava, mavenArchive, mavenJars } from '../../test/services/maven.ts'
import type { BenchCase, CaseOptions } from '../cases.ts'
import { drain, percentiles, round } from '../drain.ts'
import type { Lab } from '../lab.ts'
import { cpuSeconds, peakRssMb, resetPeakRss } from '../process-usage.ts'

const CONNECT = '4.3.1'
const DEBEZIUM = '3.7.0.Final'
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

class Connect implements AsyncDisposable {
  readonly name: string
  readonly topic: string
  readonly #dir: string
  readonly #rest: number
  readonly #kafka: Kafka
  readonly #admin: ReturnType<Kafka['admin']>
  #child: ChildProcess | null = null
  startedAt = 0

  private constructor(name: string, dir: string, rest: number, kafka: Kafka) {
    this.name = name
    this.topic = `${name}.public.bench`
    this.#dir = dir
    this.#rest = rest
    this.#kafka = kafka
    this.#admin = kafka.admin()
  }

  static async prepare(lab: Lab, name: string, extra: Readonly<Record<string, string | number | boolean>>): Promise<Connect> {
    const dir = lab.folder(`connect-${name}`)
    const rest = await freePort()
    const { brokers } = await lab.kafka()
    const connect = new Connect(name, dir, rest, new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 10 } }))
    await connect.#admin.connect()
    await connect.#admin.createTopics({
      topics: [{ topic: connect.topic, numPartitions: 1, replicationFactor: 1, configEntries: [{ name: 'message.timestamp.type', value: 'LogAppendTime' }] }],
    })
    const plugins = await mavenArchive(
      `debezium-postgres-${DEBEZIUM}`,
      { group: 'io.debezium', artifact: 'debezium-connector-postgres', version: DEBEZIUM },
      'plugin',
    )
    const { port } = await lab.postgres()
    const properties = (entries: Readonly<Record<string, string | number | boolean>>) =>
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
      'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
      'tasks.max': 1,
      'plugin.name': 'pgoutput',
      'database.hostname': '127.0.0.1',
      'database.port': port,
      'database.user': 'postgres',
      'database.password': 'postgres',
      'database.dbname': 'postgres',
      'topic.prefix': name,
      'table.include.list': 'public.bench',
      'slot.name': name,
      'publication.name': name,
      'publication.autocreate.mode': 'disabled',
      'snapshot.mode': 'no_data',
      ...json,
      'key.converter.schemas.enable': false,
      'value.converter.schemas.enable': false,
      ...TUNED,
      ...extra,
    }
    writeFileSync(
      path.join(dir, 'connector.json'),
      JSON.stringify({ name, config: Object.fromEntries(Object.entries(config).map(([key, value]) => [key, String(value)])) }),
    )
    await lab.sql(`create publication ${name} for table bench`)
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#admin.disconnect()
    const child = this.#child
    if (child !== null && child.exitCode === null) {
      const gone = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
      await gone
      clearTimeout(timer)
    }
  }
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

function slotName(prefix: string, repetition: number): string {
  return `${prefix}${repetition}_${Date.now() % 1e7}`
}

async function cold(options: CaseOptions, extra: Record<string, string>, kind: 'insert' | 'snapshot'): Promise<void> {
  const { lab, rows, repetition } = options
  await lab.freshTable()
  const name = slotName('dbz', repetition)
  if (kind === 'snapshot') {
    await lab.sql(`call load_insert(1, ${rows}, 10000)`)
    await lab.sql('vacuum analyze bench')
  }
  await using connect = await Connect.prepare(lab, name, extra)
  if (kind === 'insert') {
    await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
    await lab.sql(`call load_insert(1, ${rows}, 1000)`)
  }
  await lab.sql('checkpoint')
  await connect.start()
  options.report(
    await drain({
      label: `debezium ${kind === 'insert' ? 'stream insert, cold' : 'snapshot'} (JSON, at-least-once)`,
      rows,
      before: 0,
      expected: rows,
      records: () => connect.records(),
      pid: () => connect.pid,
      walsender: () => lab.walsender(),
      broker: (await lab.kafka()).pid,
      launchedAt: connect.startedAt,
    }),
  )
  if (kind === 'insert') await warm(options, connect)
}

/** The same JVM, stopped while the WAL gathers: the peer at its best. */
async function warm({ lab, rows, report }: CaseOptions, connect: Connect): Promise<void> {
  let before = await connect.records()
  for (const kind of ['insert', 'mixed', 'mixed-full'] as const) {
    await connect.command('PUT', 'stop')
    while ((await lab.walsender()) > 0) await delay(50)
    if (kind === 'mixed-full') await lab.sql('alter table bench replica identity full')
    const next = (await lab.sql<{ next: string }>('select max(id) + 1 as next from bench'))[0]!.next
    await lab.sql(kind === 'insert' ? `call load_insert(${next}, ${rows}, 1000)` : `call load_mixed(${next}, ${rows}, 1000)`)
    await lab.sql('checkpoint')
    resetPeakRss(connect.pid)
    // a delete is followed by a tombstone
    const expected = kind === 'insert' ? rows : rows * 1.1
    await connect.command('PUT', 'resume')
    report(
      await drain({
        label: `debezium stream ${kind}, warm (JSON, at-least-once)`,
        rows,
        before,
        expected,
        records: () => connect.records(),
        pid: () => connect.pid,
        walsender: () => lab.walsender(),
        broker: (await lab.kafka()).pid,
        launchedAt: null,
      }),
    )
    before += expected
  }
}

async function latency({ lab, repetition, report }: CaseOptions): Promise<void> {
  await lab.freshTable()
  const name = slotName('dbzlat', repetition)
  await using connect = await Connect.prepare(lab, name, {})
  await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  await connect.start()
  // a JVM warmed by 200,000 rows, as the peer is at its best
  await lab.sql('call load_insert(1, 200000, 1000)')
  while ((await connect.records()) < 200_000) await delay(50)
  const walsender = await lab.walsender()
  const cpu = cpuSeconds(connect.pid)
  const walCpu = cpuSeconds(walsender)
  const count = 60_000
  const startedAt = performance.now()
  await lab.sql(`call load_steady(1000001, ${count}, 2000)`)
  while ((await connect.records()) < 200_000 + count) await delay(50)
  const seconds = (performance.now() - startedAt) / 1000
  const used = cpuSeconds(connect.pid) - cpu
  const ages = await connect.latencies(200_000, 200_000 + count)
  report({
    label: 'debezium latency, warm (JSON, at-least-once)',
    rows: count,
    rowsPerSecond: Math.round(count / seconds),
    firstRecordS: null,
    cpuPerMillion: round((used * 1e6) / count),
    cpuFromLaunchPerMillion: Number.NaN,
    walsenderCpuPerMillion: round(((cpuSeconds(walsender) - walCpu) * 1e6) / count),
    brokerCpuPerMillion: null,
    peakRssMb: Math.round(peakRssMb(connect.pid)),
    ...percentiles(ages),
  })
}

async function bigTransaction({ lab, rows, repetition, report }: CaseOptions): Promise<void> {
  await lab.freshTable()
  const name = slotName('dbzbig', repetition)
  await using connect = await Connect.prepare(lab, name, {})
  await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  await connect.start()
  await lab.sql('call load_insert(1, 100000, 1000)')
  while ((await connect.records()) < 100_000) await delay(50)
  const loading = lab.sql(`call load_one_transaction(1000001, ${rows})`).then(() => performance.now())
  const measured = await drain({
    label: 'debezium big-transaction, warm (JSON, at-least-once)',
    rows,
    before: 100_000,
    expected: rows,
    records: () => connect.records(),
    pid: () => connect.pid,
    walsender: () => lab.walsender(),
    broker: (await lab.kafka()).pid,
    launchedAt: null,
  })
  report({ ...measured, commitToLastS: round((performance.now() - (await loading)) / 1000) })
}

/** The peer's side of each benchmark that it has one for. */
export const PEER: Readonly<Record<string, BenchCase>> = {
  stream: (options) => cold(options, {}, 'insert'),
  snapshot: (options) => cold(options, { 'snapshot.mode': 'initial' }, 'snapshot'),
  latency,
  'big-transaction': bigTransaction,
}

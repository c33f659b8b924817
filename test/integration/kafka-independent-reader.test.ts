import { randomBytes } from 'node:crypto'
import { gunzipSync, gzipSync, zstdDecompressSync } from 'node:zlib'
import { snappyUncompress } from 'hyparquet'
import kafkajs from 'kafkajs'
import { compressFrameSync, decompressFrameSync } from 'lz4-napi'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { partitionOf } from '../../core/event/murmur2.ts'
import { records } from '../../core/event/record-batch.ts'
import { BrokerConnection } from '../../core/log/kafka/broker-connection.ts'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { KafkaLogOptions } from '../../core/log/kafka/kafka-options.ts'
import { kafkaSettings } from '../../core/log/kafka/kafka-settings.ts'
import { initProducerId } from '../../core/log/kafka/transaction-requests.ts'
import type { Log } from '../../core/log/log.ts'
import { batchOf, frameFor, idFrame, readCount, startOf, topicSpec } from '../../testing/log.contract.ts'
import { until } from '../../testing/source/source-run.ts'
import { kafkajsClient, skipReason, testKafka } from '../services/kafka.ts'

const { CompressionCodecs, CompressionTypes, Partitioners } = kafkajs
const reason = skipReason()
const WEEK = String(7 * 24 * 3600 * 1000)
const fresh = (what: string): string => `${what}-${randomBytes(4).toString('hex')}`

// kafkajs brings gzip; the others are plugged in, with other code than ours where there is some
const asCodec = (compress: (bytes: Buffer) => Buffer, decompress: (bytes: Buffer) => Buffer) => () => ({
  compress: async (encoder: { buffer: Buffer }) => compress(encoder.buffer),
  decompress: async (bytes: Buffer) => decompress(bytes),
})
CompressionCodecs[CompressionTypes.GZIP] = asCodec(gzipSync, gunzipSync)
CompressionCodecs[CompressionTypes.LZ4] = asCodec(
  (bytes) => compressFrameSync(bytes),
  (bytes) => decompressFrameSync(bytes),
)
CompressionCodecs[CompressionTypes.ZSTD] = asCodec((bytes) => bytes, zstdDecompressSync)
CompressionCodecs[CompressionTypes.Snappy] = asCodec(
  (bytes) => bytes,
  (bytes) => {
    const output = Buffer.alloc(rawSnappyLength(bytes))
    snappyUncompress(bytes, output)
    return output
  },
)

/** A raw block begins with the length of what it holds, as a varint. */
function rawSnappyLength(bytes: Buffer): number {
  const last = bytes.findIndex((byte) => byte < 0x80)
  return bytes.subarray(0, last + 1).reduceRight((sum, byte) => sum * 128 + (byte & 0x7f), 0)
}

interface Read {
  readonly partition: number
  readonly key: string | undefined
  readonly value: string | undefined
  readonly pos: string | undefined
  readonly timestamp: string
}

describe.skipIf(reason !== null)(`kafkajs and Millrace on one broker${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  let brokers: string[]
  let client: kafkajs.Kafka
  const progressTopic = fresh('progress')
  const openLogs: Log[] = []

  const open = async (facts: Pick<KafkaLogOptions, 'compression' | 'delivery' | 'onWarning'> = {}) => {
    const log = await openKafkaLog({ brokers, progressTopic, ...facts })
    openLogs.push(log)
    return log
  }

  /** Everything that kafkajs sees in the topic until a record with the value `end` has come from each partition. */
  async function readToEnd(topic: string, partitions: number, readUncommitted = false): Promise<Read[]> {
    const consumer = client.consumer({ groupId: fresh('group'), readUncommitted, maxWaitTimeInMs: 100, retry: {} })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    const seen: Read[] = []
    let ends = 0
    const { promise, resolve } = Promise.withResolvers<void>()
    await consumer.run({
      eachMessage: async ({ partition, message }) => {
        const value = message.value?.toString()
        seen.push({ partition, key: message.key?.toString(), value, pos: message.headers?.pos?.toString(), timestamp: message.timestamp })
        if (value === 'end' && ++ends === partitions) resolve()
      },
    })
    await promise
    await consumer.disconnect()
    return seen
  }

  beforeAll(async () => {
    brokers = (await testKafka()).brokers
    client = kafkajsClient(brokers)
  })
  afterAll(async () => {
    for (const log of openLogs) await log[Symbol.asyncDispose]()
  })

  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const) {
    test(`kafkajs reads what is written with ${compression}, and so do we`, async () => {
      const log = await open({ compression })
      const topic = fresh(compression)
      await log.ensureTopics([topicSpec(topic)])
      await using writer = await log.openWriter(fresh('node'))
      const ids = Array.from({ length: 3000 }, (_, id) => `${id} ${'some text that compresses '.repeat(10)}`)
      const timestampMs = Date.now() - 10_000
      await writer.append(
        batchOf([
          frameFor(
            topic,
            0,
            ids.map((id) => ({ key: Buffer.from(`k${id.split(' ')[0]}`), value: Buffer.from(id), headers: [['pos', Buffer.from('p')]] as const })),
            timestampMs,
          ),
          frameFor(topic, 0, [
            { key: Buffer.from('gone'), value: null },
            { key: null, value: Buffer.from('end') },
          ]),
        ]),
      )
      const seen = await readToEnd(topic, 1)
      expect(seen.map(({ value }) => value)).toEqual([...ids, undefined, 'end'])
      expect(seen[7]).toEqual({ partition: 0, key: 'k7', value: ids[7], pos: 'p', timestamp: String(timestampMs) })
      expect((await readCount(log, [startOf(topic)], ids.length + 2)).map(({ id }) => id)).toEqual([...ids, null, 'end'])
      // from the middle of a compressed frame
      expect((await readCount(log, [{ topic, partition: 0, offset: 2990n }], 12)).map(({ id }) => id)).toEqual([...ids.slice(2990), null, 'end'])
    })
  }

  test('we read what kafkajs wrote, compressed, and skip what it aborted', async () => {
    const log = await open()
    const topic = fresh('theirs')
    await log.ensureTopics([topicSpec(topic)])
    const producer = client.producer({ transactionalId: fresh('tx'), idempotent: true, maxInFlightRequests: 1 })
    await producer.connect()
    for (const [text, commit, compression] of [
      ['a', true, CompressionTypes.GZIP],
      ['b', false, CompressionTypes.None],
      ['c', true, CompressionTypes.LZ4],
      ['d', false, CompressionTypes.GZIP],
      ['end', true, CompressionTypes.None],
    ] as const) {
      const transaction = await producer.transaction()
      await transaction.send({ topic, compression, messages: [1, 2, 3].map((n) => ({ key: `${n}`, value: `${text}${n}` })) })
      await (commit ? transaction.commit() : transaction.abort())
    }
    await producer.disconnect()
    expect((await readCount(log, [startOf(topic)], 9)).map(({ id }) => id)).toEqual(['a1', 'a2', 'a3', 'c1', 'c2', 'c3', 'end1', 'end2', 'end3'])
  })

  test('a committed reader sees nothing of a transaction whose writer was fenced half way', async () => {
    const log = await open()
    const topic = fresh('aborted')
    await log.ensureTopics([topicSpec(topic)])
    const node = fresh('node')
    await using old = await log.openWriter(node)
    const outcomes = Array.from({ length: 50 }, (_, n) =>
      old.append(batchOf([idFrame(topic, 0, [`${n}`])], { last: n })).then(
        () => true,
        () => false,
      ),
    )
    await using young = await log.openWriter(node)
    await Promise.all(outcomes)
    const landed = young.progress.has('last') ? (young.progress.get('last') as number) + 1 : 0
    await young.append(batchOf([idFrame(topic, 0, ['end'])]))
    const committed = await readToEnd(topic, 1)
    expect(committed.map(({ value }) => value)).toEqual([...Array.from({ length: landed }, (_, n) => `${n}`), 'end'])
  })

  test('a reader arrives at the end that bounds tells, also when only markers and aborted data come last', async () => {
    const log = await open()
    const topic = fresh('end')
    await log.ensureTopics([topicSpec(topic)])
    const producer = client.producer({ transactionalId: fresh('tx'), idempotent: true, maxInFlightRequests: 1 })
    await producer.connect()
    for (const commit of [true, false, false]) {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: [{ value: 'x' }, { value: 'y' }] })
      await (commit ? transaction.commit() : transaction.abort())
    }
    await producer.disconnect()
    // markers are written after the answer: three transactions of two records, each with its marker
    await until('the last marker is written', async () => (await log.bounds(topic))[0]!.end === 9n)
    const [bounds] = await log.bounds(topic)
    for (const offset of [0n, 2n, 3n, 5n]) {
      let at = offset
      let count = 0
      for await (const batch of log.consume([{ topic, partition: 0, offset }], AbortSignal.timeout(60_000))) {
        expect([...records(batch.frame)].length).toBe(batch.count)
        expect(batch.nextOffset).toBeGreaterThan(at)
        at = batch.nextOffset
        count += batch.count
        if (at >= bounds!.end) break
      }
      expect(at).toBe(bounds!.end)
      expect(count).toBe(offset === 0n ? 2 : 0)
    }
  })

  test('a writer whose epoch was bumped without a takeover goes on, nothing lost or doubled', async () => {
    const log = await open()
    const topic = fresh('bumped')
    await log.ensureTopics([topicSpec(topic)])
    const node = fresh('node')
    await using writer = await log.openWriter(node)
    await writer.append(batchOf([idFrame(topic, 0, ['0'])], { last: 0 }))
    // what the coordinator does when a transaction times out: a new epoch, and no new owner
    await bumpEpoch(brokers[0]!, `millrace.${node}`)
    const appends = Array.from({ length: 20 }, (_, n) => writer.append(batchOf([idFrame(topic, 0, [`${n + 1}`])], { last: n + 1 })))
    await Promise.all(appends)
    await writer.append(batchOf([idFrame(topic, 0, ['end'])]))
    expect((await readToEnd(topic, 1)).map(({ value }) => value)).toEqual([...Array.from({ length: 21 }, (_, n) => `${n}`), 'end'])
    expect(Object.fromEntries(await log.progress(node))).toEqual({ last: 20 })
  })

  test('keys go to the partitions that a Java producer and kafkajs choose', async () => {
    const log = await open()
    const topic = fresh('keys')
    const partitions = 7
    await log.ensureTopics([topicSpec(topic, partitions)])
    const keys = Array.from({ length: 200 }, () => randomBytes(1 + Math.floor(Math.random() * 24)).toString('base64'))
    const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    await producer.connect()
    await producer.send({ topic, messages: keys.map((key) => ({ key, value: key })) })
    await producer.disconnect()
    const from = Array.from({ length: partitions }, (_, partition) => startOf(topic, partition))
    for (const { id, partition } of await readCount(log, from, keys.length)) {
      const bytes = Buffer.from(id!)
      expect(partitionOf(bytes, 0, bytes.length, partitions)).toBe(partition)
    }
  })

  test('a record that is too large names the topic and the setting, and readers are not held up by it', async () => {
    const log = await open()
    const [topic, other] = [fresh('small'), fresh('other')]
    await log.ensureTopics([topicSpec(topic), topicSpec(other)])
    const node = fresh('node')
    {
      await using writer = await log.openWriter(node)
      const huge = frameFor(topic, 0, [{ key: null, value: Buffer.alloc(2 * 1024 * 1024) }])
      await expect(writer.append(batchOf([idFrame(other, 0, ['lost']), huge], { last: 'lost' }))).rejects.toMatchObject({
        code: 'record.too_large',
        message: expect.stringContaining(topic),
        topic,
        fix: expect.stringContaining('max.message.bytes'),
      })
      await expect(writer.append(batchOf([idFrame(other, 0, ['later'])]))).rejects.toMatchObject({ code: 'record.too_large' })
    }
    await using writer = await log.openWriter(node)
    expect(writer.progress.size).toBe(0)
    await writer.append(batchOf([idFrame(other, 0, ['kept'])]))
    expect((await readCount(log, [startOf(other)], 1)).map(({ id }) => id)).toEqual(['kept'])
  })

  test('topics get the settings of their spec, and a topic of another kind is refused', async () => {
    const log = await open()
    const [compacted, aged] = [fresh('compacted'), fresh('aged')]
    await log.ensureTopics([topicSpec(compacted, 2, { compacted: true }), topicSpec(aged, 1, { retentionMs: 3_600_000 })])
    const admin = client.admin()
    await admin.connect()
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [compacted, aged].map((name) => ({ type: kafkajs.ConfigResourceTypes.TOPIC, name, configNames: ['cleanup.policy', 'retention.ms'] })),
    })
    await admin.disconnect()
    const settings = resources.map(({ configEntries }) => Object.fromEntries(configEntries.map(({ configName, configValue }) => [configName, configValue])))
    expect(settings).toEqual([
      { 'cleanup.policy': 'compact', 'retention.ms': '-1' },
      { 'cleanup.policy': 'delete', 'retention.ms': '3600000' },
    ])
    await expect(log.ensureTopics([topicSpec(aged, 1, { compacted: true })])).rejects.toMatchObject({
      code: 'log.refused',
      message: expect.stringContaining(aged),
    })
  })

  test('a topic that exists and would lose what its stream keeps is refused, one that keeps more is told, both with the command that repairs it', async () => {
    const warnings: string[] = []
    const log = await open({ onWarning: (message) => warnings.push(message) })
    const [table, aged] = [fresh('table'), fresh('aged')]
    const admin = client.admin()
    await admin.connect()
    const entries = (settings: Readonly<Record<string, string>>) => Object.entries(settings).map(([name, value]) => ({ name, value }))
    await admin.createTopics({
      topics: [
        { topic: table, numPartitions: 1, configEntries: entries({ 'cleanup.policy': 'compact,delete', 'retention.ms': '3600000' }) },
        { topic: aged, numPartitions: 1, configEntries: entries({ 'cleanup.policy': 'delete', 'retention.ms': '3600000' }) },
      ],
    })
    const command = (topic: string, settings: string) => `--entity-type topics --entity-name ${topic} --add-config ${settings}`
    const refused = async (spec: ReturnType<typeof topicSpec>, settings: string) =>
      expect(log.ensureTopics([spec])).rejects.toMatchObject({ code: 'log.refused', fix: expect.stringContaining(command(spec.topic, settings)) })
    await refused(topicSpec(table, 1, { compacted: true }), 'cleanup.policy=compact')
    await refused(topicSpec(aged, 1), 'retention.ms=-1')
    await refused(topicSpec(aged, 1, { retentionMs: 7_200_000 }), 'retention.ms=7200000')
    expect(warnings).toEqual([])
    await log.ensureTopics([topicSpec(aged, 1, { retentionMs: 3_600_000 })])
    expect(warnings).toEqual([])
    await log.ensureTopics([topicSpec(aged, 1, { retentionMs: 60_000 })])
    expect(warnings).toEqual([expect.stringContaining(command(aged, 'retention.ms=60000'))])
    // repaired as the message says
    await admin.alterConfigs({
      validateOnly: false,
      resources: [
        { type: kafkajs.ConfigResourceTypes.TOPIC, name: table, configEntries: entries({ 'cleanup.policy': 'compact', 'delete.retention.ms': WEEK }) },
      ],
    })
    await admin.disconnect()
    // the controller answers before the broker has it
    await until('the repaired topic is taken', () => log.ensureTopics([topicSpec(table, 1, { compacted: true })]).then(() => true, () => false)) // biome-ignore format: one line
    expect(warnings.length).toBe(1)
  })

  test('an unreachable cluster gives log.unreachable, a missing topic log.refused', async () => {
    await expect(openKafkaLog({ brokers: ['127.0.0.1:1'], unreachableMs: 200 })).rejects.toMatchObject({ code: 'log.unreachable', category: 'unavailable' })
    const log = await open()
    await expect(log.bounds(fresh('missing'))).rejects.toMatchObject({ code: 'log.refused' })
  })
})

async function bumpEpoch(broker: string, transactionalId: string): Promise<void> {
  const settings = kafkaSettings({ brokers: [broker], clientId: 'another' })
  const connection = await BrokerConnection.open(settings.brokers[0]!, settings, false)
  // the coordinator may still write the markers of the transaction before
  await until('the epoch is bumped', async () => (await initProducerId(connection, { transactionalId, id: -1n, epoch: -1 }, 60_000)).errorCode === 0)
  connection.close()
}

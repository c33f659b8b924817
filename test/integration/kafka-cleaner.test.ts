import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PlainRecord, records } from '../../core/event/record-batch.ts'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { Log, LogWriter } from '../../core/log/log.ts'
import { materialize } from '../../core/materialize/materialize.ts'
import { MemoryBudget } from '../../core/materialize/memory-budget.ts'
import { batchOf, frameFor, topicSpec } from '../../testing/log.contract.ts'
import { until } from '../../testing/source/source-run.ts'
import { type KafkaServer, kafkajsClient, skipReason, startKafka } from '../services/kafka.ts'
import { MemorySink, MemoryTarget } from '../unit/core/materialize/memory-sink.ts'
import { SHAPES, StreamRecords, TOPIC } from '../unit/core/materialize/stream-records.ts'

const reason = skipReason()
const WEEK = String(7 * 24 * 3600 * 1000)
/** Small segments, all of them dirty enough: the cleaner takes whatever it may. */
const EAGER = { 'segment.ms': '100', 'min.cleanable.dirty.ratio': '0.01' }
const table = SHAPES[0]!

describe.skipIf(reason !== null)(`a sink behind Kafka's cleaner${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-cleaner-'))
  const encoder = new StreamRecords()
  let kafka: KafkaServer
  let log: Log
  let writer: LogWriter
  let commit = 1n

  beforeAll(async () => {
    kafka = await startKafka({ dir, properties: { 'log.cleaner.backoff.ms': '100' } })
    log = await openKafkaLog({ brokers: kafka.brokers, topicConfig: EAGER })
    await log.ensureTopics([topicSpec(TOPIC, 1, { compacted: true })])
    writer = await log.openWriter('shop')
  })
  afterAll(async () => {
    await writer[Symbol.asyncDispose]()
    await log[Symbol.asyncDispose]()
    await kafka.kill()
    rmSync(dir, { recursive: true, force: true })
  })

  const next = () => ({ commit: commit++, ordinal: 1 })
  const append = (plain: readonly PlainRecord[]) => writer.append(batchOf([frameFor(TOPIC, 0, plain)]))
  const put = (id: bigint, name: string) => append([encoder.record(table, { op: 'u', row: [id, name, 'body'] }, next())])
  const remove = (id: bigint) => append(encoder.deletion(table, [id, null, null], next()))

  /** Keeps a target equal to the stream until it has all of it; ends as the driver does. */
  async function visit(target: MemoryTarget): Promise<void> {
    const stop = new AbortController()
    const checks: Promise<void>[] = []
    const check = async () => {
      const [bounds] = await log.bounds(TOPIC)
      if ((target.positions.get('0')?.offset ?? 0n) >= bounds!.end) stop.abort()
    }
    await materialize({
      node: 'lake',
      topic: TOPIC,
      log,
      registry: encoder.registry,
      sink: new MemorySink(target, { rows: 100, bytes: 100_000, ageMs: 5 }),
      deadLetters: null,
      redact: (text) => text,
      retry: { firstMs: 1, maxMs: 10, pause: () => delay(5) },
      memory: new MemoryBudget(6_000_000),
      onStatus: () => void checks.push(check()),
      signal: stop.signal,
    }).finally(() => Promise.all(checks))
  }

  /** Records of a row, and tombstones of it, that the topic still has. */
  async function left(id: bigint): Promise<{ readonly records: number; readonly tombstones: number }> {
    const { key } = encoder.record(table, { op: 'd', row: [id, null, null] }, { commit: 0n, ordinal: 1 })
    const found = { records: 0, tombstones: 0 }
    const [bounds] = await log.bounds(TOPIC)
    for await (const { frame, nextOffset } of log.consume([{ topic: TOPIC, partition: 0, offset: 0n }], AbortSignal.timeout(60_000))) {
      for (const { keyFrom, keyTo, valueFrom } of records(frame)) {
        if (key!.equals(frame.subarray(keyFrom, keyTo))) found[valueFrom < 0 ? 'tombstones' : 'records']++
      }
      if (nextOffset >= bounds!.end) break
    }
    return found
  }

  /** Writes on, which closes segments, until the cleaner has left so much of a row. */
  async function cleaned(id: bigint, tombstones: number): Promise<void> {
    let turn = 0
    await until(`of row ${id} are left ${tombstones} tombstones`, async () => {
      await put(0n, `turn ${turn++}`)
      const found = await left(id)
      if (found.records === 0 && found.tombstones === tombstones) return true
      await delay(50)
      return false
    })
  }

  async function keepTombstones(ms: string): Promise<void> {
    const admin = kafkajsClient(kafka.brokers).admin()
    await admin.connect()
    const settings = { ...EAGER, 'cleanup.policy': 'compact', 'retention.ms': '-1', 'delete.retention.ms': ms }
    const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }))
    const topic = { type: kafkajs.ConfigResourceTypes.TOPIC, name: TOPIC }
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...topic, configEntries }] })
    // the controller answers before the broker has it
    await until('the setting is in force', async () => {
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ ...topic, configNames: ['delete.retention.ms'] }] })
      return resources[0]!.configEntries[0]!.configValue === ms
    })
    await admin.disconnect()
  }

  test('is equal while tombstones are there, stops with log.position_lost once one went unread, and a new target is equal', async () => {
    const [patient, late] = [new MemoryTarget(), new MemoryTarget()]
    for (let id = 0n; id < 10n; id++) await put(id, 'first')
    for (const target of [patient, late]) await visit(target)
    await put(1n, 'second')
    for (const target of [patient, late]) await visit(target)
    expect(late.rows.size).toBe(10)

    await remove(3n)
    await cleaned(3n, 1)
    await visit(patient)
    expect([...patient.rows.keys()].sort()).toEqual(['0n', '1n', '2n', '4n', '5n', '6n', '7n', '8n', '9n'])

    await keepTombstones('100')
    await remove(5n)
    await cleaned(5n, 0)
    for (const target of [late, patient]) {
      await expect(visit(target)).rejects.toMatchObject({ code: 'log.position_lost', message: expect.stringContaining('deletes may be missed') })
      expect(target.rows.has('5n')).toBe(true)
    }

    await keepTombstones(WEEK)
    const fresh = new MemoryTarget()
    await visit(fresh)
    expect([...fresh.rows.keys()].sort()).toEqual(['0n', '1n', '2n', '4n', '6n', '7n', '8n', '9n'])
  })
})

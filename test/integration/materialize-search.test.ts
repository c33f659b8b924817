import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { searchIndex } from '../../connectors/search/search-index.ts'
import { SearchSink } from '../../connectors/search/search-sink.ts'
import { frameOf, type PlainRecord, records } from '../../core/event/record-batch.ts'
import { UNCHANGED } from '../../core/event/table-schema.ts'
import { openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { Log } from '../../core/log/log.ts'
import { deadLetterTopic, decodeDeadLetter } from '../../core/materialize/dead-letter.ts'
import { type MaterializeStatus, materialize } from '../../core/materialize/materialize.ts'
import { MemoryBudget } from '../../core/materialize/memory-budget.ts'
import { targetRows } from '../../testing/sink-history.ts'
import { until } from '../../testing/source/source-run.ts'
import { skipReason, testKafka } from '../services/kafka.ts'
import { SHAPES, type StreamChange, StreamRecords } from '../unit/core/materialize/stream-records.ts'

const PARTITIONS = 3
const opened: (() => PromiseLike<unknown> | unknown)[] = []
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close()
})

const LOGS: readonly { name: string; skip: boolean; open: (dir: string) => Promise<Log> }[] = [
  { name: 'embedded', skip: false, open: (dir) => openEmbeddedLog({ dir: path.join(dir, 'log') }) },
  { name: 'kafka', skip: skipReason() !== null, open: async () => openKafkaLog({ brokers: (await testKafka()).brokers, delivery: 'exactly-once', progressTopic: 'materialize.progress' }) }, // biome-ignore format: one line
]

describe.each(LOGS)('a stream of three partitions on the $name log into a search index', ({ skip, open }) => {
  test.skipIf(skip)('follows a new shape and a truncation at their place in the source, resumes, and keeps rejections', async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-materialize-'))
    opened.push(() => rmSync(dir, { recursive: true, force: true }))
    const log = await open(dir)
    opened.push(() => log[Symbol.asyncDispose]())
    const topic = `shop.public.items-${path.basename(dir)}`
    const node = `search-${path.basename(dir)}`
    await log.ensureTopics([{ topic, partitions: PARTITIONS, retentionMs: null, compacted: false, replicationFactor: 1 }])
    const writer = await log.openWriter(`shop-${path.basename(dir)}`)
    opened.push(() => writer[Symbol.asyncDispose]())
    const encoder = new StreamRecords()
    let commit = 1n
    const append = async (shape: number, changes: readonly StreamChange[]) => {
      const lanes = Array.from({ length: PARTITIONS }, (): PlainRecord[] => [])
      for (const change of changes) {
        const record = encoder.record(SHAPES[shape]!, change, { commit: commit++, ordinal: 1 })
        for (const [partition, lane] of lanes.entries()) if (change.op === 't' || Number(change.row[0]) % PARTITIONS === partition) lane.push(record)
      }
      const frames = lanes.map((lane, partition) => ({ topic, partition, ...frameOf(lane, Date.now()) })).filter(({ count }) => count > 0)
      await writer.append({ frames, count: changes.length, progress: new Map() })
    }
    const file = path.join(dir, 'search.db')
    const openSink = () => SearchSink.open({ file, index: 'items', topic, limits: { rows: 50, bytes: 1 << 20, ageMs: 10 } })
    const run = async (whole: () => Promise<void>) => {
      const sink = await openSink()
      const stop = new AbortController()
      let status: MaterializeStatus | null = null
      const done = materialize({
        node,
        topic,
        log,
        registry: encoder.registry,
        sink,
        deadLetters: () => log.openWriter(node),
        redact: (text) => text,
        retry: { firstMs: 10, maxMs: 100 },
        memory: new MemoryBudget(6_000_000),
        onStatus: (now) => {
          status = now
        },
        signal: stop.signal,
      })
      await whole()
      const ended = done.then(() => true)
      const bounds = await log.bounds(topic)
      const isThrough = () =>
        status?.behindRecords === 0 && bounds.every(({ partition, end }) => status?.positions.some((at) => at.partition === partition && at.offset >= end))
      await Promise.race([ended, until('the stream is through', isThrough)])
      expect(status).toMatchObject({ behindRecords: 0 })
      const rows = await targetRows(sink)
      stop.abort()
      await done
      await sink[Symbol.asyncDispose]()
      return rows
    }
    const put = (id: number, ...rest: StreamChange['row']): StreamChange => ({ op: 'c', row: [BigInt(id), ...rest] })
    const many = Array.from({ length: 200 }, (_, id) => put(id, `item ${id}`, 'first'))
    await append(0, many)
    expect(await run(async () => {})).toHaveLength(200)

    const rows = await run(async () => {
      await append(0, [put(1, 'gone', 'x'), { op: 't', row: [] }, put(2, 'two', 'kept'), put(4, 'four', 'kept')])
      await append(1, [put(3, 'three', 'kept', 33), put(2, 'zwei', 'kept', 22)])
    })
    expect(rows).toEqual(['2n | "zwei" | "kept" | 22', '3n | "three" | "kept" | 33', '4n | "four" | "kept" | null'])
    expect(searchIndex(file, 'items', 'zwei').map((hit) => hit.key)).toEqual([{ id: '2' }])

    await run(() => append(1, [{ op: 'u', row: [9n, 'no base', UNCHANGED, 1] }, put(6, 'six', null, 1)]))
    const letters: string[] = []
    const stop = new AbortController()
    for await (const { frame } of log.consume([{ topic: deadLetterTopic(node), partition: 0, offset: 0n }], stop.signal)) {
      for (const record of records(frame)) letters.push(decodeDeadLetter(frame, record).code)
      stop.abort()
    }
    expect(letters).toEqual(['record.rejected'])
  })
})

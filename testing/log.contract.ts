/**
 * What every log does, whichever it is. Offsets are only assumed to rise: a log may use some for itself (Kafka's commit markers).
 *
 * Call it at the top of a test file: `logContract('embedded log', provision)`. All tests share one log; each uses topics and nodes of its own.
 */
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Json } from '../core/event/offset.ts'
import { frameOf, type PlainRecord, recordHeader, records } from '../core/event/record-batch.ts'
import type { EncodedBatch, Frame, Log, LogPosition, TopicSpec } from '../core/log/log.ts'

/** Far above what an end takes on a machine that stands still for a while, and below what a request that hangs takes. */
const PROMPT_MS = 20_000

export interface ProvisionedLog {
  readonly log: Log
  /** Closes the open log and opens the same data again. */
  reopen(): Promise<Log>
  dispose(): Promise<void>
}

export interface LogCapabilities {
  /** Lets every record of the topic that is there now expire, so that `bounds().start` passes them. Without it that test is left out. */
  readonly expire?: (log: Log, topic: string) => Promise<void>
  /** False for a log whose records may land without their progress when the writer is taken over or dies. */
  readonly atomic?: boolean
  /** A reader that waits at the end has most batches within so many milliseconds of `append` being called. */
  readonly wakeMs?: number
}

/** A record as a test sees it; `id` is the text of its value, null for a tombstone. */
export interface SeenRecord {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly key: string | null
  readonly id: string | null
  readonly pos: string | null
}

export function topicSpec(topic: string, partitions = 1, facts: Partial<TopicSpec> = {}): TopicSpec {
  return { topic, partitions, retentionMs: null, compacted: false, replicationFactor: null, ...facts }
}

export function frameFor(topic: string, partition: number, plain: readonly PlainRecord[], timestampMs = Date.now()): Frame {
  return { topic, partition, ...frameOf(plain, timestampMs) }
}

/** A frame of records whose values are `ids` and whose keys are `k-<id>`. */
export function idFrame(topic: string, partition: number, ids: readonly string[]): Frame {
  return frameFor(
    topic,
    partition,
    ids.map((id) => ({ key: Buffer.from(`k-${id}`), value: Buffer.from(id), headers: [['pos', Buffer.from(id)]] as const })),
  )
}

export function batchOf(frames: readonly Frame[], progress: Readonly<Record<string, Json | null>> = {}): EncodedBatch {
  return { frames, count: frames.reduce((n, frame) => n + frame.count, 0), progress: new Map(Object.entries(progress)) }
}

/** Records from `from` on until `isEnough`; throws when that takes longer than `deadlineMs`. */
export async function readUntil(
  log: Log,
  from: readonly LogPosition[],
  isEnough: (seen: readonly SeenRecord[]) => boolean,
  deadlineMs = 120_000,
): Promise<SeenRecord[]> {
  const seen: SeenRecord[] = []
  if (isEnough(seen)) return seen
  const offsets = new Map(from.map((position) => [`${position.topic}/${position.partition}`, position.offset]))
  const stop = new AbortController()
  const deadline = setTimeout(() => stop.abort(), deadlineMs)
  try {
    for await (const batch of log.consume(from, stop.signal)) {
      const first = offsets.get(`${batch.topic}/${batch.partition}`)
      if (first === undefined) throw new Error(`a batch of ${batch.topic}/${batch.partition}, which nobody asked for`)
      for (const record of records(batch.frame)) {
        if (record.offset < first) continue
        seen.push({
          topic: batch.topic,
          partition: batch.partition,
          offset: record.offset,
          key: record.keyFrom < 0 ? null : batch.frame.toString('utf8', record.keyFrom, record.keyTo),
          id: record.valueFrom < 0 ? null : batch.frame.toString('utf8', record.valueFrom, record.valueTo),
          pos: recordHeader(batch.frame, record, 'pos')?.toString('utf8') ?? null,
        })
      }
      if (isEnough(seen)) return seen
    }
  } finally {
    clearTimeout(deadline)
  }
  throw new Error(`only ${seen.length} records came within ${deadlineMs} ms`)
}

export async function readCount(log: Log, from: readonly LogPosition[], count: number): Promise<SeenRecord[]> {
  return readUntil(log, from, (seen) => seen.length >= count)
}

export const startOf = (topic: string, partition = 0): LogPosition => ({ topic, partition, offset: 0n })
const numbers = (count: number, prefix = ''): string[] => Array.from({ length: count }, (_, i) => `${prefix}${i}`)
const idsOf = (seen: readonly SeenRecord[], partition?: number): (string | null)[] =>
  seen.filter((record) => partition === undefined || record.partition === partition).map((record) => record.id)

export function logContract(name: string, provision: () => Promise<ProvisionedLog>, capabilities: LogCapabilities = {}): void {
  describe(`${name} keeps the log contract`, () => {
    const run = Math.random().toString(36).slice(2, 8)
    let counter = 0
    const fresh = (what: string): string => `${what}-${run}-${counter++}`
    let provisioned: ProvisionedLog
    let log: Log

    /** A topic of its own, made. */
    async function freshTopic(partitions = 1, facts: Partial<TopicSpec> = {}): Promise<string> {
      const topic = fresh('topic')
      await log.ensureTopics([topicSpec(topic, partitions, facts)])
      return topic
    }

    beforeAll(async () => {
      provisioned = await provision()
      log = provisioned.log
    })
    afterAll(async () => {
      await provisioned?.dispose()
    })

    test('ensureTopics creates what is missing, may be called again, and refuses another number of partitions', async () => {
      const [one, two] = [fresh('Topic_with.dots'), fresh('topic')]
      await log.ensureTopics([topicSpec(one, 3)])
      await log.ensureTopics([topicSpec(one, 3), topicSpec(two, 1)])
      expect(await log.topics()).toEqual(
        expect.arrayContaining([
          { topic: one, partitions: 3 },
          { topic: two, partitions: 1 },
        ]),
      )
      await expect(log.ensureTopics([topicSpec(one, 4)])).rejects.toMatchObject({ name: 'MillraceError', code: 'log.refused', fix: expect.any(String) })
      expect(await log.topics()).toEqual(expect.arrayContaining([{ topic: one, partitions: 3 }]))
    })

    test('records come back as they were appended: keys, tombstones, headers, timestamps', async () => {
      const topic = await freshTopic()
      await using writer = await log.openWriter(fresh('node'))
      const bytes = fc.option(
        fc.uint8Array({ maxLength: 200 }).map((a) => Buffer.from(a)),
        { nil: null },
      )
      const plain = fc.sample(fc.record({ key: bytes, value: bytes, header: fc.uint8Array({ maxLength: 12 }).map((a) => Buffer.from(a)) }), {
        numRuns: 60,
        seed: 7,
      })
      const written = plain.map(({ key, value, header }) => ({ key, value, headers: [['pos', header]] as const }))
      const timestampMs = Date.now() - 5000
      const before = Date.now()
      await writer.append(
        batchOf([
          frameFor(topic, 0, written.slice(0, 20), timestampMs),
          frameFor(topic, 0, written.slice(20, 21), timestampMs),
          frameFor(topic, 0, written.slice(21), timestampMs),
        ]),
      )
      const read: unknown[] = []
      const stop = new AbortController()
      for await (const batch of log.consume([startOf(topic)], stop.signal)) {
        expect(batch.appendedAt).toBeGreaterThanOrEqual(timestampMs)
        expect(batch.appendedAt).toBeLessThanOrEqual(Math.max(Date.now(), before) + 1000)
        expect(batch.frame.readBigInt64BE(0)).toBe(batch.baseOffset)
        let count = 0
        for (const record of records(batch.frame)) {
          count++
          expect(record.timestampMs).toBe(timestampMs)
          expect(record.offset).toBeGreaterThanOrEqual(batch.baseOffset)
          expect(record.offset).toBeLessThan(batch.nextOffset)
          read.push({
            key: record.keyFrom < 0 ? null : Buffer.from(batch.frame.subarray(record.keyFrom, record.keyTo)),
            value: record.valueFrom < 0 ? null : Buffer.from(batch.frame.subarray(record.valueFrom, record.valueTo)),
            headers: [['pos', Buffer.from(recordHeader(batch.frame, record, 'pos')!)]],
          })
        }
        expect(batch.count).toBe(count)
        if (read.length >= written.length) break
      }
      expect(read).toEqual(written)
    })

    test('appends that overlap land in the order of the calls', async () => {
      const topic = await freshTopic()
      await using writer = await log.openWriter(fresh('node'))
      const ids = numbers(200)
      let outstanding: Promise<void>[] = []
      for (const id of ids) {
        outstanding.push(writer.append(batchOf([idFrame(topic, 0, [id])], { last: id })))
        if (outstanding.length === 5) {
          await Promise.all(outstanding)
          outstanding = []
        }
      }
      await Promise.all(outstanding)
      const seen = await readCount(log, [startOf(topic)], ids.length)
      expect(idsOf(seen)).toEqual(ids)
      for (let i = 1; i < seen.length; i++) expect(seen[i]!.offset).toBeGreaterThan(seen[i - 1]!.offset)
    })

    test('a batch lands in all its partitions and topics, with its progress, once append resolves', async () => {
      const [one, two] = [await freshTopic(3), await freshTopic(1)]
      const node = fresh('node')
      await using writer = await log.openWriter(node)
      for (let n = 0; n < 10; n++) {
        await writer.append(
          batchOf([idFrame(one, 0, [`a${n}`]), idFrame(one, 2, [`b${n}`, `c${n}`]), idFrame(two, 0, [`d${n}`])], { n, at: { lsn: `0/${n}`, list: [n, null] } }),
        )
        expect(Object.fromEntries(await log.progress(node))).toEqual({ n, at: { lsn: `0/${n}`, list: [n, null] } })
      }
      const seen = await readCount(log, [startOf(one, 0), startOf(one, 1), startOf(one, 2), startOf(two, 0)], 40)
      expect(
        idsOf(
          seen.filter((record) => record.topic === one),
          0,
        ),
      ).toEqual(numbers(10, 'a'))
      expect(
        idsOf(
          seen.filter((record) => record.topic === one),
          1,
        ),
      ).toEqual([])
      expect(
        idsOf(
          seen.filter((record) => record.topic === one),
          2,
        ),
      ).toEqual(numbers(10).flatMap((n) => [`b${n}`, `c${n}`]))
      expect(idsOf(seen.filter((record) => record.topic === two))).toEqual(numbers(10, 'd'))
    })

    test('a reader that waits at the end is woken by an append', async () => {
      const topic = await freshTopic()
      await using writer = await log.openWriter(fresh('node'))
      await writer.append(batchOf([idFrame(topic, 0, ['first'])]))
      const stop = new AbortController()
      const reader = log.consume([startOf(topic)], stop.signal)[Symbol.asyncIterator]()
      expect((await reader.next()).value?.count).toBe(1)
      const waits: number[] = []
      for (let n = 0; n < 5; n++) {
        const next = reader.next()
        const startedAt = performance.now()
        await writer.append(batchOf([idFrame(topic, 0, [`${n}`])]))
        const { value } = await next
        waits.push(performance.now() - startedAt)
        const [record] = records(value!.frame)
        expect(value!.frame.toString('utf8', record!.valueFrom, record!.valueTo)).toBe(`${n}`)
      }
      stop.abort()
      await reader.return?.()
      // whatever else the machine was busy with
      expect(waits.sort((a, b) => a - b)[2]).toBeLessThan(capabilities.wakeMs ?? 2000)
    })

    test('reading resumes at any position', async () => {
      const topic = await freshTopic()
      await using writer = await log.openWriter(fresh('node'))
      const ids = numbers(23)
      for (const [from, to] of [
        [0, 1],
        [1, 8],
        [8, 9],
        [9, 23],
      ] as const) {
        await writer.append(batchOf([idFrame(topic, 0, ids.slice(from, to))]))
      }
      const all = await readCount(log, [startOf(topic)], ids.length)
      for (const [index, record] of all.entries()) {
        const rest = await readCount(log, [{ topic, partition: 0, offset: record.offset }], ids.length - index)
        expect(idsOf(rest)).toEqual(ids.slice(index))
      }
    })

    test('nextOffset of a batch is where a later reader goes on, also at the very end', async () => {
      const topic = await freshTopic()
      await using writer = await log.openWriter(fresh('node'))
      let next = 0n
      for (let n = 0; n < 5; n++) {
        await writer.append(batchOf([idFrame(topic, 0, [`${n}`, `${n}b`])]))
        const seen: string[] = []
        for await (const batch of log.consume([{ topic, partition: 0, offset: next }], new AbortController().signal)) {
          for (const record of records(batch.frame)) seen.push(batch.frame.toString('utf8', record.valueFrom, record.valueTo))
          next = batch.nextOffset
          break
        }
        expect(seen).toEqual([`${n}`, `${n}b`])
      }
    })

    test('many readers of one topic each get everything, however slow one of them is', async () => {
      const topic = await freshTopic(2)
      await using writer = await log.openWriter(fresh('node'))
      const slow = log.consume([startOf(topic, 0), startOf(topic, 1)], new AbortController().signal)[Symbol.asyncIterator]()
      const fast = Array.from({ length: 5 }, () => readCount(log, [startOf(topic, 0), startOf(topic, 1)], 400))
      const slowFirst = slow.next()
      for (let n = 0; n < 200; n++) await writer.append(batchOf([idFrame(topic, 0, [`a${n}`]), idFrame(topic, 1, [`b${n}`])]))
      for (const seen of await Promise.all(fast)) {
        expect(idsOf(seen, 0)).toEqual(numbers(200, 'a'))
        expect(idsOf(seen, 1)).toEqual(numbers(200, 'b'))
      }
      let count = 0
      for (let step = await slowFirst; !step.done; step = await slow.next()) {
        count += step.value.count
        if (count >= 400) break
      }
      expect(count).toBe(400)
      await slow.return?.()
    })

    test('aborting ends a reader that waits, and one that has more to read, promptly', async () => {
      const [empty, full] = [await freshTopic(), await freshTopic()]
      await using writer = await log.openWriter(fresh('node'))
      for (let n = 0; n < 20; n++) await writer.append(batchOf([idFrame(full, 0, [`${n}`])]))
      const waiting = new AbortController()
      const idle = log.consume([startOf(empty)], waiting.signal)[Symbol.asyncIterator]()
      const next = idle.next()
      const race = await Promise.race([next.then(() => 'ended'), delay(50).then(() => 'waits')])
      expect(race).toBe('waits')
      const abortedAt = performance.now()
      waiting.abort()
      expect(await next).toMatchObject({ done: true })
      expect(performance.now() - abortedAt).toBeLessThan(PROMPT_MS)

      const reading = new AbortController()
      let batches = 0
      let stoppedAt = 0
      for await (const _ of log.consume([startOf(full)], reading.signal)) {
        batches++
        if (stoppedAt === 0) {
          stoppedAt = performance.now()
          reading.abort()
        }
      }
      expect(batches).toBeGreaterThan(0)
      expect(performance.now() - stoppedAt).toBeLessThan(PROMPT_MS)

      const already = new AbortController()
      already.abort()
      for await (const _ of log.consume([startOf(full)], already.signal)) expect.unreachable('an aborted reader gives nothing')
    })

    test('bounds tell the first and the next offset of each partition', async () => {
      const topic = await freshTopic(3)
      expect(await log.bounds(topic)).toEqual([0, 1, 2].map((partition) => ({ partition, start: 0n, end: 0n })))
      await using writer = await log.openWriter(fresh('node'))
      await writer.append(batchOf([idFrame(topic, 0, numbers(5)), idFrame(topic, 2, numbers(2))]))
      const [first, second, third] = await log.bounds(topic)
      expect(first).toMatchObject({ partition: 0, start: 0n })
      expect(first!.end).toBeGreaterThanOrEqual(5n)
      expect(second).toEqual({ partition: 1, start: 0n, end: 0n })
      expect(third!.end).toBeGreaterThanOrEqual(2n)
      const seen = await readCount(log, [startOf(topic, 0)], 5)
      expect(seen.at(-1)!.offset).toBeLessThan(first!.end)
    })

    test('a writer that was taken over is refused with log.fenced, and nothing of it lands', async () => {
      const topic = await freshTopic()
      const [node, other] = [fresh('node'), fresh('node')]
      await using bystander = await log.openWriter(other)
      await using old = await log.openWriter(node)
      await old.append(batchOf([idFrame(topic, 0, ['old'])], { by: 'old' }))
      await using young = await log.openWriter(node)
      expect(Object.fromEntries(young.progress)).toEqual({ by: 'old' })
      await expect(old.append(batchOf([idFrame(topic, 0, ['lost'])], { by: 'lost' }))).rejects.toMatchObject({ code: 'log.fenced' })
      await young.append(batchOf([idFrame(topic, 0, ['young'])], { by: 'young' }))
      await expect(old.append(batchOf([idFrame(topic, 0, ['lost'])], { by: 'lost' }))).rejects.toMatchObject({ code: 'log.fenced' })
      await bystander.append(batchOf([idFrame(topic, 0, ['bystander'])]))
      expect(idsOf(await readCount(log, [startOf(topic)], 3))).toEqual(['old', 'young', 'bystander'])
      expect(Object.fromEntries(await log.progress(node))).toEqual({ by: 'young' })
    })

    if (capabilities.atomic !== false)
      test('a takeover while appends are in flight: what landed is in the progress that the new writer gets', async () => {
        const topic = await freshTopic()
        const node = fresh('node')
        await using old = await log.openWriter(node)
        const append = (id: string): Promise<boolean> =>
          old.append(batchOf([idFrame(topic, 0, [id])], { last: Number(id) })).then(
            () => true,
            (error: unknown) => {
              expect(error).toMatchObject({ name: 'MillraceError' })
              return false
            },
          )
        const outcomes: Promise<boolean>[] = []
        for (const id of numbers(30)) {
          outcomes.push(append(id))
          // so that some are on their way when the others are still waiting
          if (outcomes.length === 1 || outcomes.length === 10) await new Promise(setImmediate)
        }
        await using young = await log.openWriter(node)
        const landed = (await Promise.all(outcomes)).filter(Boolean).length
        const last = young.progress.get('last')
        const count = last === undefined ? 0 : (last as number) + 1
        expect(count).toBeGreaterThanOrEqual(landed)
        await young.append(batchOf([idFrame(topic, 0, ['young'])], { last: 'young' }))
        const seen = await readUntil(log, [startOf(topic)], (all) => all.some((record) => record.id === 'young'))
        expect(idsOf(seen)).toEqual([...numbers(count), 'young'])
      })

    test('progress entries are set, replaced and removed, also without records', async () => {
      const node = fresh('node')
      expect((await log.progress(node)).size).toBe(0)
      await using writer = await log.openWriter(node)
      expect(writer.progress.size).toBe(0)
      await writer.append(batchOf([], { a: 1, b: { deep: ['x', { y: null }] }, 'table public."Ünï"': 'text' }))
      await writer.append(batchOf([], { a: 2, b: null }))
      await writer.append(batchOf([], { c: false, missing: null }))
      const expected = { a: 2, 'table public."Ünï"': 'text', c: false }
      expect(Object.fromEntries(await log.progress(node))).toEqual(expected)
      await using next = await log.openWriter(node)
      expect(Object.fromEntries(next.progress)).toEqual(expected)
    })

    test('everything is there after the log is opened again', async () => {
      const topic = await freshTopic(2)
      const node = fresh('node')
      {
        await using writer = await log.openWriter(node)
        for (let n = 0; n < 20; n++) await writer.append(batchOf([idFrame(topic, n % 2, [`${n}`])], { n, [`key ${n}`]: n, [`key ${n - 3}`]: null }))
      }
      const bounds = await log.bounds(topic)
      const { identity } = log
      const before = await readCount(log, [startOf(topic, 0), startOf(topic, 1)], 20)
      log = await provisioned.reopen()
      expect([typeof identity, log.identity]).toEqual(['string', identity])
      expect(await log.bounds(topic)).toEqual(bounds)
      const after = await readCount(log, [startOf(topic, 0), startOf(topic, 1)], 20)
      const sorted = (seen: SeenRecord[]) => seen.sort((a, b) => a.partition - b.partition || Number(a.offset - b.offset))
      expect(sorted(after)).toEqual(sorted(before))
      await using writer = await log.openWriter(node)
      expect(Object.fromEntries(writer.progress)).toEqual({ n: 19, 'key 17': 17, 'key 18': 18, 'key 19': 19 })
      await writer.append(batchOf([idFrame(topic, 0, ['more'])]))
      expect(idsOf(await readCount(log, [startOf(topic, 0)], 11)).at(-1)).toBe('more')
    })

    test('a batch of large frames lands whole', async () => {
      const topic = await freshTopic(2)
      await using writer = await log.openWriter(fresh('node'))
      const value = (n: number) => Buffer.alloc(512 * 1024, n + 1)
      const frames = Array.from({ length: 16 }, (_, n) => frameFor(topic, n % 2, [{ key: Buffer.from(`${n}`), value: value(n) }]))
      await writer.append(batchOf(frames, { large: true }))
      const found = new Set<string>()
      for await (const batch of log.consume([startOf(topic, 0), startOf(topic, 1)], new AbortController().signal)) {
        for (const record of records(batch.frame)) {
          const key = batch.frame.toString('utf8', record.keyFrom, record.keyTo)
          expect(batch.partition).toBe(Number(key) % 2)
          expect(batch.frame.subarray(record.valueFrom, record.valueTo).equals(value(Number(key)))).toBe(true)
          found.add(key)
        }
        if (found.size === 16) break
      }
    })

    test('200 topics are written in one batch and read by one reader', async () => {
      const topics = Array.from({ length: 200 }, () => fresh('many'))
      await log.ensureTopics(topics.map((topic) => topicSpec(topic)))
      await using writer = await log.openWriter(fresh('node'))
      for (let n = 0; n < 3; n++) await writer.append(batchOf(topics.map((topic) => idFrame(topic, 0, [`${topic} ${n}`]))))
      const seen = await readCount(
        log,
        topics.map((topic) => startOf(topic)),
        600,
      )
      for (const topic of topics) expect(idsOf(seen.filter((record) => record.topic === topic))).toEqual([0, 1, 2].map((n) => `${topic} ${n}`))
    })

    if (capabilities.expire !== undefined)
      test('a position whose records expired gives log.position_lost, never a silent gap', async () => {
        const topic = await freshTopic(1, { retentionMs: 30_000 })
        await using writer = await log.openWriter(fresh('node'))
        await writer.append(batchOf([idFrame(topic, 0, numbers(5))]))
        await capabilities.expire!(log, topic)
        await writer.append(batchOf([idFrame(topic, 0, ['kept'])]))
        const [bounds] = await log.bounds(topic)
        expect(bounds!.start).toBeGreaterThanOrEqual(5n)
        await expect(readCount(log, [startOf(topic)], 1)).rejects.toMatchObject({ code: 'log.position_lost' })
        expect(idsOf(await readCount(log, [{ topic, partition: 0, offset: bounds!.start }], 1))).toEqual(['kept'])
      })
  })
}

import { randomUUID } from 'node:crypto'
import { MillraceError } from '../../errors.ts'
import { FRAME_HEADER_BYTES, frameLength, frameOf, readFrameHeader, records, stampChecksum, stampOffset } from '../../event/record-batch.ts'
import type { LogBatch, ReadFrom } from '../log.ts'
import { backOff, type Cluster } from './cluster.ts'
import { type FetchedPartition, fetchFrames } from './fetch-request.ts'
import { decodeFrame } from './frame-codec.ts'
import { asLogError, isFinal, KafkaFault } from './kafka-fault.ts'
import { topicSettings } from './kafka-topics.ts'
import { isCommitMarker } from './progress-topic.ts'

/** Bytes asked for at once; one answer is worked on while the next is under way, so twice this is held at most. */
const FETCH_BYTES = 2 * 1024 * 1024
const PARTITION_BYTES = 1024 * 1024
const POLL_MS = 500
/** A topic that was just made, or a leader that moves, may be unknown for so long. */
const UNKNOWN_TOPIC_MS = 15_000
/** A transaction may be open, and clocks may differ, for so long; but never by more than this part of the time that tombstones stay. */
const SLACK_MS = 60_000
const SLACK = 0.1

interface Cursor {
  readonly topic: string
  readonly partition: number
  readonly asOfMs: ReadFrom['asOfMs']
  offset: bigint
  busy: boolean
}

interface Answer {
  readonly leader: number
  readonly cursors: readonly Cursor[]
  readonly outcome: { readonly partitions: readonly FetchedPartition[] } | { readonly error: unknown }
}

/** See `Log.consume`. A frame that begins before the asked offset is cut, so that no batch holds an earlier record; its base offset stays. */
export async function* readBatches(cluster: Cluster, from: readonly ReadFrom[], signal: AbortSignal): AsyncGenerator<LogBatch, void, void> {
  if (signal.aborted) return
  const purpose = `reader:${randomUUID()}`
  const cursors: Cursor[] = from.map((position) => ({ ...position, asOfMs: position.asOfMs, busy: false }))
  const topics = [...new Set(from.map(({ topic }) => topic))]
  const pending = new Map<number, Promise<Answer>>()
  let wake: ((nothing: null) => void) | null = null
  const stopped = () => wake?.(null)
  signal.addEventListener('abort', stopped, { once: true })
  let failures = 0
  let failingSince: number | null = null
  const failed = async (error: unknown) => {
    failingSince ??= performance.now()
    const unknown = error instanceof KafkaFault && error.id === 'UNKNOWN_TOPIC_OR_PARTITION'
    const patienceMs = unknown ? UNKNOWN_TOPIC_MS : cluster.settings.unreachableMs
    if (unknown && performance.now() - failingSince > patienceMs)
      throw new MillraceError('log.refused', `Kafka has no ${error.message}`, { fix: 'create the topic', cause: error })
    if (isFinal(error) || performance.now() - failingSince > patienceMs) throw asLogError(error, `reading ${topics.join(', ')}`, cluster.name)
    cluster.forget(topics)
    await backOff(Math.min(failures++, 8), signal)
  }

  try {
    while (!signal.aborted) {
      try {
        await cluster.know(topics)
        startFetches(cluster, purpose, cursors, pending)
      } catch (error) {
        await failed(error)
        continue
      }
      if (signal.aborted) return
      // a promise that lived as long as the reader would keep a reaction of every race
      const stop = Promise.withResolvers<null>()
      wake = stop.resolve
      const answer: Answer | null = await Promise.race([stop.promise, ...pending.values()])
      if (answer === null) return
      pending.delete(answer.leader)
      for (const cursor of answer.cursors) cursor.busy = false
      if ('error' in answer.outcome) {
        if (signal.aborted) return
        await failed(answer.outcome.error)
        continue
      }
      const batches: LogBatch[] = []
      let fault: unknown = null
      for (const found of answer.outcome.partitions) {
        const cursor = answer.cursors.find(({ topic, partition }) => topic === found.topic && partition === found.partition)
        if (cursor === undefined) continue
        if (found.fault === 'OFFSET_OUT_OF_RANGE') throw await positionLost(cluster, cursor, found)
        if (found.fault === null) {
          const missing = takeFrames(cursor, found, batches)
          if (missing !== null && cursor.asOfMs !== undefined) await checkCleaned(cluster, cursor, missing, cursor.asOfMs())
        } else fault ??= new KafkaFault(found.fault, `topic ${found.topic} partition ${found.partition}`)
      }
      if (fault === null) {
        failures = 0
        failingSince = null
        // fairness: brokers fill their answer in the order of the question
        cursors.push(...cursors.splice(0, 1))
        try {
          startFetches(cluster, purpose, cursors, pending)
        } catch (error) {
          fault = error
        }
      }
      for (const batch of batches) {
        if (signal.aborted) return
        yield batch
      }
      if (fault !== null) await failed(fault)
    }
  } finally {
    signal.removeEventListener('abort', stopped)
    cluster.disconnect(purpose)
  }
}

/** Asks every leader that is not being asked for all its idle partitions. @throws KafkaFault when a partition has no leader */
function startFetches(cluster: Cluster, purpose: string, cursors: readonly Cursor[], pending: Map<number, Promise<Answer>>): void {
  const idle = cursors.filter((cursor) => !cursor.busy)
  for (const [leader, list] of Map.groupBy(idle, ({ topic, partition }) => cluster.leader(topic, partition))) {
    if (pending.has(leader)) continue
    for (const cursor of list) cursor.busy = true
    pending.set(leader, fetchFrom(cluster, purpose, leader, list))
  }
}

async function fetchFrom(cluster: Cluster, purpose: string, leader: number, cursors: readonly Cursor[]): Promise<Answer> {
  try {
    const connection = await cluster.connection(purpose, leader, true)
    const limits = { committedOnly: true, waitMs: POLL_MS, maxBytes: FETCH_BYTES, partitionMaxBytes: PARTITION_BYTES }
    return { leader, cursors, outcome: { partitions: await fetchFrames(connection, cursors, limits) } }
  } catch (error) {
    return { leader, cursors, outcome: { error } }
  }
}

async function positionLost(cluster: Cluster, cursor: Cursor, found: FetchedPartition): Promise<MillraceError> {
  const range = found.startOffset >= 0n ? `it starts at ${found.startOffset}` : 'the offset is out of its range'
  return new MillraceError(
    'log.position_lost',
    `${cursor.topic} partition ${cursor.partition} of Kafka at ${cluster.name} no longer has offset ${cursor.offset}: ${range}`,
    {
      fix: 'read the stream again from a snapshot, and raise the retention of the topic',
    },
  )
}

/** What compaction took before the reader came to it may have been a tombstone, once those may go. @throws log.position_lost */
async function checkCleaned(cluster: Cluster, { topic, partition }: Cursor, missing: bigint, asOfMs: number | null): Promise<void> {
  const doing = `looking at how long ${topic} keeps tombstones`
  const settings = await cluster.retry(doing, () => topicSettings(cluster, [topic], ['cleanup.policy', 'delete.retention.ms']))
  const { 'cleanup.policy': policy = '', 'delete.retention.ms': kept = '0' } = settings.get(topic) ?? {}
  const patienceMs = Number(kept) - Math.min(SLACK_MS, SLACK * Number(kept))
  if (!policy.includes('compact') || (asOfMs !== null && Date.now() - asOfMs < patienceMs)) return
  const place = `${topic} partition ${partition} of Kafka at ${cluster.name}`
  const when = asOfMs === null ? 'at a time that is not known' : `at ${new Date(asOfMs).toISOString()}`
  throw new MillraceError(
    'log.position_lost',
    `${place} was compacted from offset ${missing} on, keeps tombstones for ${kept} ms, and this reader last had all of it ${when}: deletes may be missed`,
    { fix: 'give the sink a new target, and raise delete.retention.ms of the topic for sinks that are away for long' },
  )
}

/**
 * Committed data of one partition's answer, in order; moves the cursor past all of it. Commit markers and aborted data count for the end of the log, so
 * a reader must be able to pass them: the last batch's `nextOffset` does, and where an answer has nothing else a batch without records does.
 * @returns the first offset from which compaction took records, or null
 */
function takeFrames(cursor: Cursor, found: FetchedPartition, batches: LogBatch[]): bigint | null {
  const { topic, partition, offset: from } = cursor
  const aborted = [...found.aborted].sort((a, b) => (a.firstOffset < b.firstOffset ? -1 : 1))
  const aborting = new Set<bigint>()
  const own: LogBatch[] = []
  let missing: bigint | null = null
  for (let at = 0; ; ) {
    const length = frameLength(found.frames, at)
    if (length < 0) break
    const stored = found.frames.subarray(at, at + length)
    at += length
    const header = readFrameHeader(stored)
    const nextOffset = header.baseOffset + BigInt(header.lastOffsetDelta) + 1n
    while (aborted.length > 0 && aborted[0]!.firstOffset < nextOffset) aborting.add(aborted.shift()!.producerId)
    if (header.control && !isCommitMarker(stored)) aborting.delete(header.producerId)
    if (nextOffset <= cursor.offset) continue
    if (header.baseOffset > cursor.offset) missing ??= cursor.offset
    const first = header.baseOffset < from ? from : header.baseOffset
    if (!header.control && header.count === 0) missing ??= first
    if (!header.control && header.count > 0 && !(header.transactional && aborting.has(header.producerId))) {
      const plain = decodeFrame(stored, header.codec)
      const frame = header.baseOffset < from ? withoutEarlier(plain, from) : plain
      const count = frame.readInt32BE(57)
      if (BigInt(count) < nextOffset - first) missing ??= first
      if (count > 0) own.push({ topic, partition, frame, baseOffset: header.baseOffset, nextOffset, count, appendedAt: header.maxTimestamp })
    }
    cursor.offset = nextOffset
  }
  const last = own.pop()
  if (last !== undefined) own.push({ ...last, nextOffset: cursor.offset })
  else if (cursor.offset > from) own.push(passing(topic, partition, from, cursor.offset))
  for (const batch of own) batches.push(batch)
  return missing
}

/** A batch without records that only moves a reader on. */
function passing(topic: string, partition: number, from: bigint, nextOffset: bigint): LogBatch {
  const appendedAt = Date.now()
  const { buffer: frame } = frameOf([], appendedAt)
  stampOffset(frame, from)
  stampChecksum(frame, frame.length)
  return { topic, partition, frame, baseOffset: from, nextOffset, count: 0, appendedAt }
}

/** The frame with only its records from `offset` on. */
function withoutEarlier(frame: Buffer, offset: bigint): Buffer {
  let keepFrom = frame.length
  let dropped = 0
  let end = FRAME_HEADER_BYTES
  for (const record of records(frame)) {
    if (record.offset >= offset) {
      keepFrom = end
      break
    }
    end = record.end
    dropped++
  }
  if (dropped === 0) return frame
  const cut = Buffer.concat([frame.subarray(0, FRAME_HEADER_BYTES), frame.subarray(keepFrom)])
  cut.writeInt32BE(cut.length - 12, 8)
  cut.writeInt32BE(frame.readInt32BE(57) - dropped, 57)
  stampChecksum(cut, cut.length)
  return cut
}

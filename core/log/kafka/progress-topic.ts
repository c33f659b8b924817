import { randomUUID } from 'node:crypto'
import { MillraceError } from '../../errors.ts'
import { partitionOf } from '../../event/murmur2.ts'
import type { Json } from '../../event/offset.ts'
import { frameLength, frameOf, type PlainRecord, readFrameHeader, records } from '../../event/record-batch.ts'
import type { Frame, Progress } from '../log.ts'
import type { Cluster } from './cluster.ts'
import { fetchFrames } from './fetch-request.ts'
import { decodeFrame } from './frame-codec.ts'
import { KafkaFault } from './kafka-fault.ts'
import { partitionBounds } from './partition-bounds.ts'

/*
 * The compacted topic of progress: records `<node>/<entry>` with the entry as JSON, a tombstone when it is removed, and one record `<node>` that says
 * which writer owns the node and how many transactions it committed. All records of a node are in one partition.
 */

/** Who wrote last, and the number of its last transaction: tells a takeover from a timeout, and whether a commit without an answer happened. */
export interface Ownership {
  readonly writer: string
  readonly transaction: number
}

export interface NodeState {
  readonly owner: Ownership | null
  readonly progress: Progress
}

export const newWriterId = (): string => randomUUID()

export const PROGRESS_TOPIC_CONFIG: Readonly<Record<string, string>> = {
  'cleanup.policy': 'compact',
  'segment.bytes': String(16 * 1024 * 1024),
  'segment.ms': '600000',
  'min.cleanable.dirty.ratio': '0.1',
}

/** The partition of a node's records. */
export function progressPartition(node: string, partitions: number): number {
  const key = Buffer.from(node)
  return partitionOf(key, 0, key.length, partitions)
}

export function progressFrame(topic: string, partition: number, node: string, owner: Ownership, entries: ReadonlyMap<string, Json | null>): Frame {
  const plain: PlainRecord[] = [{ key: Buffer.from(node), value: Buffer.from(JSON.stringify(owner)) }]
  for (const [entry, value] of entries) plain.push({ key: Buffer.from(`${node}/${entry}`), value: value === null ? null : Buffer.from(JSON.stringify(value)) })
  return { topic, partition, ...frameOf(plain, Date.now()) }
}

/**
 * Owner and progress of a node, as of the end of the partition when called. Reads uncommitted and follows the commit markers itself: the last stable
 * offset may lag far behind while another node's transaction hangs, and a stale answer would double records.
 * @throws log.corrupt, and KafkaFaults of a broker or a topic that is not there
 */
export async function readNodeState(cluster: Cluster, topic: string, node: string): Promise<NodeState> {
  await cluster.know([topic])
  const partition = progressPartition(node, cluster.partitions(topic))
  const [bounds] = await partitionBounds(cluster, [{ topic, partition }], 'high-watermark')
  const state = new NodeStateReader(node)
  let offset = bounds!.start
  while (offset < bounds!.end) {
    const connection = await cluster.connection('progress', cluster.leader(topic, partition))
    const limits = { committedOnly: false, waitMs: 500, maxBytes: 4 << 20, partitionMaxBytes: 4 << 20 }
    const [found] = await fetchFrames(connection, [{ topic, partition, offset }], limits)
    if (found === undefined || found.fault !== null) throw new KafkaFault(found?.fault ?? 'NETWORK_EXCEPTION', `${topic} partition ${partition}`)
    const before = offset
    for (let at = 0; ; ) {
      const length = frameLength(found.frames, at)
      if (length < 0) break
      const next = state.take(found.frames.subarray(at, at + length))
      if (next > offset) offset = next
      at += length
    }
    if (offset === before) throw new KafkaFault('NETWORK_EXCEPTION', `nothing came from ${topic} partition ${partition} at offset ${offset}`)
  }
  return state.result()
}

type Entry = readonly [key: string, value: Buffer | null]

/** Applies records as their transactions commit. Frames come in offset order. */
class NodeStateReader {
  readonly #node: string
  readonly #open = new Map<bigint, Entry[]>()
  readonly #progress = new Map<string, Json>()
  #owner: Ownership | null = null

  constructor(node: string) {
    this.#node = node
  }

  /** @returns the offset after the frame */
  take(frame: Buffer): bigint {
    const header = readFrameHeader(frame)
    const next = header.baseOffset + BigInt(header.lastOffsetDelta) + 1n
    if (header.control) {
      const committed = isCommitMarker(frame)
      const entries = this.#open.get(header.producerId)
      this.#open.delete(header.producerId)
      if (committed) for (const entry of entries ?? []) this.#apply(entry)
      return next
    }
    const plain = decodeFrame(frame, header.codec)
    const entries: Entry[] = []
    for (const record of records(plain)) {
      if (record.keyFrom < 0) continue
      const key = plain.toString('utf8', record.keyFrom, record.keyTo)
      if (key !== this.#node && !key.startsWith(`${this.#node}/`)) continue
      entries.push([key, record.valueFrom < 0 ? null : Buffer.from(plain.subarray(record.valueFrom, record.valueTo))])
    }
    if (!header.transactional) for (const entry of entries) this.#apply(entry)
    else this.#open.set(header.producerId, [...(this.#open.get(header.producerId) ?? []), ...entries])
    return next
  }

  #apply([key, value]: Entry): void {
    if (key === this.#node) this.#owner = value === null ? null : (parse(key, value) as unknown as Ownership)
    else if (value === null) this.#progress.delete(key.slice(this.#node.length + 1))
    else this.#progress.set(key.slice(this.#node.length + 1), parse(key, value))
  }

  result(): NodeState {
    return { owner: this.#owner, progress: this.#progress }
  }
}

/** A control record's key is `version int16, type int16`; type 1 commits, 0 aborts. */
export function isCommitMarker(frame: Buffer): boolean {
  for (const record of records(frame)) return record.keyFrom >= 0 && frame.readInt16BE(record.keyFrom + 2) === 1
  return false
}

function parse(key: string, value: Buffer): Json {
  try {
    return JSON.parse(value.toString('utf8')) as Json
  } catch (cause) {
    throw new MillraceError('log.corrupt', `the progress record "${key}" is not JSON`, { cause })
  }
}

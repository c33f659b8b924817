import fs from 'node:fs'
import { MillraceError } from '../../errors.ts'
import type { Log, LogBatch, LogPosition, LogWriter, Progress, TopicSpec } from '../log.ts'
import { Cleaner, type CleanerSettings, type CleanOptions } from './cleaner.ts'
import type { CommitQueue, Logging } from './commit-queue.ts'
import { EmbeddedWriter } from './embedded-writer.ts'
import { asLogError } from './file-io.ts'
import { FolderLock } from './folder-lock.ts'
import { Follower } from './follower.ts'
import { readFrames } from './frame-reader.ts'
import { partitionKey, type TopicState } from './log-state.ts'
import { openForWriting } from './open-folder.ts'
import type { SegmentList } from './segment-list.ts'

export interface EmbeddedLogOptions extends Partial<CleanerSettings> {
  /** The data folder, made when it is missing. One process writes to it at a time; any number may read it. */
  readonly dir: string
  readonly logger?: Logging
  /** Only reads, and follows what the writing process commits. */
  readonly readOnly?: boolean
  /** A segment is sealed at about this size; 64 MB unless told. */
  readonly segmentBytes?: number
  /** Retention and compaction run this often; 30 s unless told. */
  readonly cleanEveryMs?: number
}

/** The log in a local folder: segment files of commit groups, see docs/decisions/0002-embedded-log.md. */
export interface EmbeddedLog extends Log {
  readonly kind: 'embedded'
  /** Runs retention and compaction now. A no-op when read only. @throws log.full, log.corrupt, log.unreachable */
  clean(options?: CleanOptions): Promise<void>
}

const MB = 1024 * 1024
const DEFAULTS: CleanerSettings = {
  retentionBytes: null,
  tombstoneMs: 7 * 24 * 3600 * 1000,
  keysInMemory: 150_000,
  runBytes: 256 * MB,
  segmentMs: 3600 * 1000,
}
const MAX_PARTITIONS = 10_000
const TOPIC_NAME = /^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$/

/**
 * Opens the log in `dir`; recovers it when its last process was killed.
 * @throws log.locked when another process writes to it, log.corrupt, log.full, log.unreachable
 */
export async function openEmbeddedLog(options: EmbeddedLogOptions): Promise<EmbeddedLog> {
  const { dir, logger, readOnly = false, segmentBytes = 64 * MB, cleanEveryMs = 30_000, ...settings } = options
  if (readOnly) {
    const follower = await Follower.open(dir)
    return new SegmentedLog(follower.list, null, () => follower.close())
  }
  let lock: FolderLock
  try {
    fs.mkdirSync(dir, { recursive: true })
    lock = FolderLock.acquire(dir)
  } catch (error) {
    throw asLogError(error, 'opening', dir)
  }
  try {
    const { list, queue } = await openForWriting(dir, segmentBytes, logger)
    const cleaner = new Cleaner(list, queue, { ...DEFAULTS, ...settings }, logger)
    const timer = setInterval(() => cleaner.cleanQuietly(), cleanEveryMs)
    timer.unref()
    return new SegmentedLog(list, { queue, cleaner }, async () => {
      clearInterval(timer)
      await cleaner.close()
      await queue.close()
      lock[Symbol.dispose]()
    })
  } catch (error) {
    lock[Symbol.dispose]()
    throw asLogError(error, 'opening', dir)
  }
}

class SegmentedLog implements EmbeddedLog {
  readonly kind = 'embedded'
  readonly #list: SegmentList
  readonly #writing: { readonly queue: CommitQueue; readonly cleaner: Cleaner } | null
  readonly #close: () => Promise<void>
  readonly #writers = new Map<string, EmbeddedWriter>()
  #topicsTurn: Promise<void> = Promise.resolve()
  #closed: Promise<void> | null = null

  constructor(list: SegmentList, writing: { readonly queue: CommitQueue; readonly cleaner: Cleaner } | null, close: () => Promise<void>) {
    this.#list = list
    this.#writing = writing
    this.#close = close
  }

  get identity(): string | null {
    return this.#list.state.identity
  }

  ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    // in turns, since each looks at what the one before has made
    const turn = this.#topicsTurn.then(() => this.#ensureTopics(specs))
    this.#topicsTurn = turn.catch(() => {})
    return turn
  }

  async #ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    const { state } = this.#list
    const topics: TopicState[] = []
    let nextId = state.nextTopicId()
    for (const { topic, partitions, retentionMs, compacted } of specs) {
      if (!TOPIC_NAME.test(topic)) throw new MillraceError('log.refused', `${JSON.stringify(topic)} is no topic name: 1 to 249 of a-z A-Z 0-9 . _ -`)
      if (!Number.isInteger(partitions) || partitions < 1 || partitions > MAX_PARTITIONS) {
        throw new MillraceError('log.refused', `topic ${topic}: ${partitions} partitions; the embedded log takes 1 to ${MAX_PARTITIONS}`)
      }
      const present = topics.find((other) => other.topic === topic) ?? state.topic(topic)
      if (present !== undefined && present.partitions !== partitions) {
        throw new MillraceError('log.refused', `topic ${topic} has ${present.partitions} partitions, not ${partitions}, and keeps them`, {
          fix: `Set partitions: ${present.partitions}, or capture into a topic of another name.`,
        })
      }
      if (present?.retentionMs === retentionMs && present.compacted === compacted) continue
      topics.push({ id: present?.id ?? nextId++, topic, partitions, retentionMs, compacted })
    }
    if (topics.length > 0) await this.#forWriting('create topics').queue.submit(null, null, [], { topics })
  }

  async topics(): Promise<readonly { readonly topic: string; readonly partitions: number }[]> {
    return Array.from(this.#list.current.topics, ({ topic, partitions }) => ({ topic, partitions }))
  }

  async openWriter(node: string): Promise<LogWriter> {
    const { queue } = this.#forWriting(`write as node ${node}`)
    this.#writers.get(node)?.fence('was taken over by a newer one')
    // what is in flight lands or fails before the new writer learns its progress
    await queue.settled()
    const writer = new EmbeddedWriter(node, this.#list.state, queue)
    this.#writers.get(node)?.fence('was taken over by a newer one')
    this.#writers.set(node, writer)
    return writer
  }

  consume(from: readonly LogPosition[], signal: AbortSignal): AsyncIterable<LogBatch> {
    return readFrames(this.#list, from, signal)
  }

  async bounds(topic: string): Promise<readonly { readonly partition: number; readonly start: bigint; readonly end: bigint }[]> {
    const state = this.#list.current
    const { topicId } = state.partitionOf(topic, 0)
    return Array.from({ length: state.topic(topic)!.partitions }, (_, partition) => {
      const { start, end } = state.partition(partitionKey(topicId, partition))!
      return { partition, start, end }
    })
  }

  async progress(node: string): Promise<Progress> {
    return this.#list.current.progress(node)
  }

  async clean(options?: CleanOptions): Promise<void> {
    await this.#writing?.cleaner.clean(options)
  }

  /** Waits for what was appended, ends readers, frees the folder. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#end()
    return this.#closed
  }

  async #end(): Promise<void> {
    await this.#topicsTurn
    await Promise.all(Array.from(this.#writers.values(), (writer) => writer[Symbol.asyncDispose]()))
    this.#list.end(null)
    await this.#close()
  }

  #forWriting(what: string): { readonly queue: CommitQueue; readonly cleaner: Cleaner } {
    if (this.#closed !== null) throw new MillraceError('log.unreachable', `the log was closed: it cannot ${what}`)
    if (this.#writing === null) {
      throw new MillraceError('log.refused', `the log was opened read only: it cannot ${what}`, { fix: 'Do this in the process that runs the mesh.' })
    }
    return this.#writing
  }
}

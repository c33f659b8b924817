import { MillraceError } from '../../errors.ts'
import type { Json } from '../../event/offset.ts'
import type { Progress } from '../log.ts'

/** What a group says beside its frames. Applied in order of groups they give the {@link LogState}. Offsets are decimal text. */
export interface Facts {
  /** The facts are all there is: forget what came before. Every segment begins so. */
  readonly whole?: true
  /** Of the log, given once. */
  readonly identity?: string
  readonly topics?: readonly TopicState[]
  readonly partitions?: readonly PartitionFacts[]
  /** In the order of the batches; null removes an entry. */
  readonly progress?: readonly (readonly [node: string, entries: { readonly [key: string]: Json | null }])[]
}

export interface TopicState {
  readonly id: number
  readonly topic: string
  readonly partitions: number
  readonly retentionMs: number | null
  readonly compacted: boolean
}

export interface PartitionFacts {
  readonly id: number
  readonly partition: number
  readonly start?: string
  readonly end?: string
  readonly compactedTo?: string
  readonly cleanTo?: string
  readonly tombstonesGoneTo?: string
}

export interface PartitionState {
  readonly key: number
  readonly topicId: number
  readonly partition: number
  /** First retained offset. */
  start: bigint
  /** Next offset. */
  end: bigint
  /** Below it each key's older records may be gone: gaps are no loss. */
  compactedTo: bigint
  /** Below it compaction is done. */
  cleanTo: bigint
  /** A tombstone below it was removed: a reader that resumes below it, but not at the start, may have missed a delete. */
  tombstonesGoneTo: bigint
}

const PARTITIONS_PER_TOPIC = 2 ** 20

/** One number for a partition of a topic, rising with topic, then partition. */
export function partitionKey(topicId: number, partition: number): number {
  return topicId * PARTITIONS_PER_TOPIC + partition
}

/** Topics, bounds and progress as of the last committed group. */
export class LogState {
  /** Null in a log of before there was one, until its next segment. */
  identity: string | null = null
  readonly #topics = new Map<string, TopicState>()
  readonly #topicsById = new Map<number, TopicState>()
  readonly #partitions = new Map<number, PartitionState>()
  readonly #progress = new Map<string, Map<string, Json>>()

  get topics(): IterableIterator<TopicState> {
    return this.#topics.values()
  }

  get partitions(): IterableIterator<PartitionState> {
    return this.#partitions.values()
  }

  topic(name: string): TopicState | undefined {
    return this.#topics.get(name)
  }

  topicOf(partition: PartitionState): TopicState {
    return this.#topicsById.get(partition.topicId)!
  }

  partition(key: number): PartitionState | undefined {
    return this.#partitions.get(key)
  }

  /** @throws log.unreachable when there is no such topic or partition (yet) */
  partitionOf(name: string, partition: number): PartitionState {
    const topic = this.#topics.get(name)
    const state = topic === undefined ? undefined : this.#partitions.get(partitionKey(topic.id, partition))
    if (state === undefined) {
      const what = topic === undefined ? `topic ${name}` : `partition ${partition} of topic ${name}, which has ${topic.partitions},`
      throw new MillraceError('log.unreachable', `the log has no ${what} yet`, { fix: 'Start the source that writes it.', retryAfterMs: 1000 })
    }
    return state
  }

  progress(node: string): Progress {
    return new Map(this.#progress.get(node))
  }

  nextTopicId(): number {
    return this.#topicsById.size
  }

  apply(facts: Facts): void {
    if (facts.whole) {
      this.#topics.clear()
      this.#topicsById.clear()
      this.#progress.clear()
    }
    this.identity = facts.identity ?? this.identity
    for (const topic of facts.topics ?? []) {
      this.#topics.set(topic.topic, topic)
      this.#topicsById.set(topic.id, topic)
      for (let partition = 0; partition < topic.partitions; partition++) {
        const key = partitionKey(topic.id, partition)
        // the objects stay, since readers hold them
        if (!this.#partitions.has(key))
          this.#partitions.set(key, { key, topicId: topic.id, partition, start: 0n, end: 0n, compactedTo: 0n, cleanTo: 0n, tombstonesGoneTo: 0n })
      }
    }
    for (const bounds of facts.partitions ?? []) {
      const state = this.#partitions.get(partitionKey(bounds.id, bounds.partition))!
      if (bounds.start !== undefined) state.start = BigInt(bounds.start)
      if (bounds.end !== undefined) state.end = BigInt(bounds.end)
      if (bounds.compactedTo !== undefined) state.compactedTo = BigInt(bounds.compactedTo)
      if (bounds.cleanTo !== undefined) state.cleanTo = BigInt(bounds.cleanTo)
      if (bounds.tombstonesGoneTo !== undefined) state.tombstonesGoneTo = BigInt(bounds.tombstonesGoneTo)
    }
    for (const [node, entries] of facts.progress ?? []) {
      let progress = this.#progress.get(node)
      if (progress === undefined) this.#progress.set(node, (progress = new Map()))
      for (const [key, value] of Object.entries(entries)) {
        if (value === null) progress.delete(key)
        else progress.set(key, value)
      }
    }
  }

  /** All of it as facts: what the next segment begins with. */
  whole(): Facts {
    return {
      whole: true,
      ...(this.identity === null ? {} : { identity: this.identity }),
      topics: [...this.#topics.values()],
      partitions: [...this.#partitions.values()].map((state) => ({
        id: state.topicId,
        partition: state.partition,
        start: String(state.start),
        end: String(state.end),
        compactedTo: String(state.compactedTo),
        cleanTo: String(state.cleanTo),
        tombstonesGoneTo: String(state.tombstonesGoneTo),
      })),
      progress: [...this.#progress].map(([node, entries]) => [node, Object.fromEntries(entries)] as const),
    }
  }
}

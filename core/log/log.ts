import type { Json } from '../event/offset.ts'

/**
 * The durable, partitioned log between every stage: the embedded one or Kafka. Both take and give the same bytes: Kafka RecordBatch v2 frames
 * (see `core/event/record-batch.ts`).
 */
export interface Log extends AsyncDisposable {
  readonly kind: 'embedded' | 'kafka'
  /** Which log it is: one that was made anew has another, though its topics are called the same. Null: it cannot tell. */
  readonly identity: string | null
  /**
   * Creates what is missing. A topic that exists keeps its partitions and records. Of retention and compaction the embedded log, which nobody else can set,
   * takes over what the spec says; on Kafka they stay as they are.
   * @throws log.refused when its partitions differ from the spec, when no topic can be as the spec says, or when one on Kafka would lose what the spec keeps
   */
  ensureTopics(specs: readonly TopicSpec[]): Promise<void>
  topics(): Promise<readonly { readonly topic: string; readonly partitions: number }[]>
  /**
   * Takes over the node: fences every earlier writer of the same name (they get `log.fenced`) and returns its durable progress.
   * @throws log.unreachable, log.locked
   */
  openWriter(node: string): Promise<LogWriter>
  /**
   * Batches from the given positions on, committed data only, in offset order per partition, forever: waits at the end of the log. Ends when
   * `signal` aborts. A slow reader is not buffered for beyond a few MB. A reader gets to `bounds().end`: offsets there that hold no record (Kafka's
   * control records, aborted or compacted ones) come as a batch of count 0 whose `nextOffset` is past them.
   * @throws log.position_lost when a position is before the first retained offset, or deletes may have been taken away before the reader came to them
   */
  consume(from: readonly ReadFrom[], signal: AbortSignal): AsyncIterable<LogBatch>
  /**
   * First retained and next offset of every partition. The end counts committed records only, or, asked for what is `written`, all: whatever a writer
   * appended before or together with a record that can be read lies before it, in every partition.
   */
  bounds(topic: string, end?: 'committed' | 'written'): Promise<readonly { readonly partition: number; readonly start: bigint; readonly end: bigint }[]>
  /** Durable progress of a node as a reader sees it, without taking the node over. */
  progress(node: string): Promise<Progress>
}

export interface TopicSpec {
  readonly topic: string
  readonly partitions: number
  /** Milliseconds; null keeps for ever. */
  readonly retentionMs: number | null
  /** Keep the last record of each key for ever. */
  readonly compacted: boolean
  /** Kafka only; null takes the cluster's default. */
  readonly replicationFactor: number | null
}

/** The next offset to read, or the next offset after what is done: positions always point at what comes. */
export interface LogPosition {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
}

/** Where a reader begins. */
export interface ReadFrom extends LogPosition {
  /**
   * A moment, epoch milliseconds, at which the reader had everything that was in the log, or had nothing and began at the start; null: it does not know.
   * A log that keeps tombstones for a time, and does not remember which it took, holds it against that time where something is missing. Absent: a
   * reader to whom deletes are no matter.
   */
  readonly asOfMs?: () => number | null
}

/** Small facts of a node that land together with its records: its offset, the state of its snapshots. */
export type Progress = ReadonlyMap<string, Json>

/** The only unit of capture. Frames are sealed RecordBatch v2 frames without offset, producer, compression and checksum: the log fills those. */
export interface EncodedBatch {
  readonly frames: readonly Frame[]
  /** Records in all frames. */
  readonly count: number
  /** Entries to set; null removes an entry. Lands together with the frames or not at all. */
  readonly progress: ReadonlyMap<string, Json | null>
}

export interface Frame {
  readonly topic: string
  readonly partition: number
  /** Holds the frame at [0, end). The log may write into the header and may keep the buffer until `append` resolves, no longer. */
  readonly buffer: Buffer
  readonly end: number
  readonly count: number
}

export interface LogWriter extends AsyncDisposable {
  /** As it was when the writer opened. */
  readonly progress: Progress
  /**
   * Appends frames and progress, in the order of calls, durable and visible to committed readers when it resolves. May be called again before
   * it resolves; batches land in order, and after one fails all later ones fail.
   * @throws log.fenced, log.full (may be retried with the same batch), log.unreachable, record.too_large, which names the topic
   */
  append(batch: EncodedBatch): Promise<void>
}

/** A frame as it is in the log: uncompressed RecordBatch v2 with its base offset. */
export interface LogBatch {
  readonly topic: string
  readonly partition: number
  /** One whole uncompressed frame; read it with `records()` of `core/event/record-batch.ts`. Valid until the next batch is asked for. */
  readonly frame: Buffer
  readonly baseOffset: bigint
  /** Where a reader goes on: after the last record, and after offsets that follow it and hold no record (Kafka's commit markers). */
  readonly nextOffset: bigint
  /** Records in the frame; 0 in a batch that only passes such offsets. */
  readonly count: number
  /** Milliseconds since epoch at which the log took it. */
  readonly appendedAt: number
}

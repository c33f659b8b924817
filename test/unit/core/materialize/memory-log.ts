import { MillraceError } from '../../../../core/errors.ts'
import type { Json } from '../../../../core/event/offset.ts'
import { frameOf, type PlainRecord, records, stampChecksum, stampOffset } from '../../../../core/event/record-batch.ts'
import { compactFrame } from '../../../../core/log/embedded/compact-frame.ts'
import type { EncodedBatch, Log, LogBatch, LogWriter, Progress, ReadFrom, TopicSpec } from '../../../../core/log/log.ts'

interface Stored {
  readonly frame: Buffer
  readonly baseOffset: bigint
  readonly nextOffset: bigint
  readonly count: number
  /** Written but not to be read yet: Kafka shows a transaction partition by partition. */
  hidden: boolean
}

/** The log's contract in memory, as mean as the contract allows: a frame is overwritten as soon as the next one is asked for. */
export class MemoryLog implements Log {
  readonly kind = 'embedded'
  identity: string | null = 'one'
  readonly #topics = new Map<string, Stored[][]>()
  readonly #waiting = new Set<() => void>()
  /** Called at every await of the log; may throw. */
  fault: (point: string) => void = () => {}

  create(topic: string, partitions: number): void {
    this.#topics.set(
      topic,
      Array.from({ length: partitions }, () => []),
    )
  }

  /** One partition more. */
  grow(topic: string): void {
    this.#topics.get(topic)!.push([])
  }

  /** One batch: records by partition, in frames of at most `frameRecords`. `hidden`: they appear with {@link show}. */
  append(topic: string, byPartition: ReadonlyMap<number, readonly PlainRecord[]>, frameRecords = 1000, hidden = false): void {
    for (const [partition, records] of byPartition) {
      for (let from = 0; from < records.length; from += frameRecords) {
        const { buffer, end, count } = frameOf(records.slice(from, from + frameRecords), 1)
        this.#store(topic, partition, buffer.subarray(0, end), count, hidden)
      }
    }
    this.#wake()
  }

  /** The last frame of a partition cannot be read until {@link show}. */
  hide(topic: string, partition: number): void {
    this.#topics.get(topic)![partition]!.at(-1)!.hidden = true
  }

  show(topic: string, partition: number): void {
    for (const stored of this.#topics.get(topic)![partition]!) stored.hidden = false
    this.#wake()
  }

  #store(topic: string, partition: number, frame: Buffer, count: number, hidden = false): void {
    const stored = this.#topics.get(topic)![partition]!
    const baseOffset = stored.at(-1)?.nextOffset ?? 0n
    stampOffset(frame, baseOffset)
    stampChecksum(frame, frame.length)
    stored.push({ frame, baseOffset, nextOffset: baseOffset + BigInt(count), count, hidden })
  }

  /** Takes out of a partition what later records of the same key below `to` supersede, and the tombstones of keys for which `forget` says so. */
  compact(topic: string, partition: number, to: bigint, forget: (key: string) => boolean = () => false): void {
    const stored = this.#topics.get(topic)![partition]!
    const last = new Map<string, bigint>()
    const keyOf = (frame: Buffer, { keyFrom, keyTo }: { keyFrom: number; keyTo: number }) => frame.toString('hex', keyFrom, keyTo)
    for (const { frame } of stored) for (const record of records(frame)) if (record.offset < to) last.set(keyOf(frame, record), record.offset)
    const end = stored.at(-1)?.nextOffset
    const kept = stored.flatMap((one) => {
      const compacted = compactFrame(one.frame, (record) => {
        if (record.keyFrom < 0 || record.offset >= to || record.offset + 1n === end) return true
        const key = keyOf(one.frame, record)
        return last.get(key) === record.offset && !(record.valueFrom < 0 && forget(key))
      })
      return compacted === null ? [] : [{ ...one, ...compacted }]
    })
    this.#topics.get(topic)![partition] = kept
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  async *consume(from: readonly ReadFrom[], signal: AbortSignal): AsyncGenerator<LogBatch> {
    const next = from.map((position) => ({ ...position }))
    while (!signal.aborted) {
      let idle = true
      for (const position of next) {
        const stored = this.#topics.get(position.topic)![position.partition]!.find((frame) => frame.nextOffset > position.offset)
        if (stored === undefined || stored.hidden) continue
        idle = false
        this.fault('consume')
        position.offset = stored.nextOffset
        const frame = Buffer.from(stored.frame)
        yield { ...stored, frame, topic: position.topic, partition: position.partition, appendedAt: 1 }
        frame.fill(0xee)
        if (signal.aborted) return
      }
      if (!idle) continue
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve)
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  async bounds(topic: string, end: 'committed' | 'written' = 'committed') {
    this.fault('bounds')
    return this.#topics.get(topic)!.map((all, partition) => {
      const last = all.findLast(({ hidden }) => end === 'written' || !hidden)
      return { partition, start: 0n, end: last?.nextOffset ?? 0n }
    })
  }

  async ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    this.fault('ensureTopics')
    for (const { topic, partitions } of specs) if (!this.#topics.has(topic)) this.create(topic, partitions)
  }

  async topics() {
    return [...this.#topics].map(([topic, partitions]) => ({ topic, partitions: partitions.length }))
  }

  async openWriter(_node: string): Promise<LogWriter> {
    this.fault('openWriter')
    let failed: unknown = null
    return {
      progress: new Map(),
      append: async (batch: EncodedBatch) => {
        if (failed !== null) throw failed
        try {
          this.fault('append')
        } catch (error) {
          failed = error
          throw error
        }
        for (const frame of batch.frames) this.#store(frame.topic, frame.partition, Buffer.from(frame.buffer.subarray(0, frame.end)), frame.count)
        this.#wake()
      },
      [Symbol.asyncDispose]: async () => {
        failed = new MillraceError('invariant.broken', 'the writer is closed')
      },
    }
  }

  /** What `progress` answers for every node. */
  entries = new Map<string, Json>()

  async progress(): Promise<Progress> {
    return this.entries
  }

  /** Every frame of a topic, partition by partition. */
  frames(topic: string): readonly Buffer[] {
    return (this.#topics.get(topic) ?? []).flat().map(({ frame }) => frame)
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

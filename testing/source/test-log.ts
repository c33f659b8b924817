import { MillraceError } from '../../core/errors.ts'
import type { ChangeEvent } from '../../core/event/change-event.ts'
import type { Json } from '../../core/event/offset.ts'
import { records } from '../../core/event/record-batch.ts'
import type { EncodedBatch, Log, LogBatch, LogWriter, Progress, TopicSpec } from '../../core/log/log.ts'
import { RecordDecoders } from '../../core/schema/record-decoder.ts'
import type { SchemaRegistry } from '../../core/schema/registry.ts'

/** What a test does to the log; each is told the number of the append, from 0, since the writer was opened. */
export interface LogFaults {
  /** Before the batch lands. Awaited: a promise that is pending is a slow log. What it throws fails the append, and nothing landed. */
  beforeLanding?(append: number, batch: EncodedBatch): Promise<void> | void
  /** After the batch landed and before its writer is told: a throw is a kill between append and acknowledge. */
  afterLanding?(append: number, batch: EncodedBatch): Promise<void> | void
}

/** A log in memory that decodes what it is given, as the changes and the progress that a reader would see; outlives its writers, like a disk. */
export class TestLog implements Log {
  readonly kind = 'embedded'
  readonly identity = null
  /** Every change in the order of the appends; tombstones left out. */
  readonly changes: ChangeEvent[] = []
  readonly stored = new Map<string, Json>()
  faults: LogFaults = {}
  readonly #decoders: RecordDecoders
  readonly #topics = new Map<string, number>()
  #writer = 0

  constructor(registry: SchemaRegistry) {
    this.#decoders = new RecordDecoders(registry)
  }

  async ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    for (const { topic, partitions } of specs) this.#topics.set(topic, partitions)
  }

  async topics() {
    return [...this.#topics].map(([topic, partitions]) => ({ topic, partitions }))
  }

  async openWriter(_node: string): Promise<LogWriter> {
    const mine = ++this.#writer
    const { faults } = this
    let last: Promise<void> = Promise.resolve()
    let appends = 0
    const land = async (batch: EncodedBatch) => {
      const append = appends++
      await faults.beforeLanding?.(append, batch)
      if (mine !== this.#writer) throw new MillraceError('log.fenced', 'a newer writer took over', { fix: 'stop one of them' })
      await this.#land(batch)
      await faults.afterLanding?.(append, batch)
    }
    return {
      progress: new Map(structuredClone([...this.stored])),
      // after one fails all later ones fail
      append: (batch) => (last = last.then(() => land(batch))),
      [Symbol.asyncDispose]: async () => {},
    }
  }

  async #land(batch: EncodedBatch): Promise<void> {
    const landed: ChangeEvent[] = []
    for (const frame of batch.frames) {
      const bytes = Buffer.from(frame.buffer.subarray(0, frame.end))
      await this.#decoders.prepare(bytes)
      for (const record of records(bytes)) {
        const change = this.#decoders.decode(bytes, record)
        if (change !== null && !(change.kind === 'row' && change.isTombstone === true)) landed.push(change)
      }
    }
    this.changes.push(...landed)
    for (const [name, entry] of batch.progress) {
      if (entry === null) this.stored.delete(name)
      else this.stored.set(name, structuredClone(entry))
    }
  }

  async progress(): Promise<Progress> {
    return this.stored
  }

  consume(): AsyncIterable<LogBatch> {
    throw new MillraceError('config.unsupported', 'the test log is read through its `changes`')
  }

  async bounds(topic: string) {
    return Array.from({ length: this.#topics.get(topic) ?? 0 }, (_, partition) => ({ partition, start: 0n, end: 0n }))
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

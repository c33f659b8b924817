import { invariant, MillraceError } from '../../errors.ts'
import type { EncodedBatch, Frame, LogWriter, Progress } from '../log.ts'
import type { BatchOwner, CommitQueue } from './commit-queue.ts'
import type { LogState } from './log-state.ts'

const MAX_FRAME_BYTES = 256 * 1024 * 1024
const MAX_BATCH_BYTES = 1024 * 1024 * 1024

/**
 * One node's writer. After a batch has failed, only that same batch object is taken next, then those that failed behind it, in their order; any
 * other is refused with the same code, so that no later batch can land before an earlier one.
 */
export class EmbeddedWriter implements LogWriter, BatchOwner {
  readonly progress: Progress
  readonly #node: string
  readonly #state: LogState
  readonly #queue: CommitQueue
  /** Resolves when all that was submitted has landed or failed. */
  #settled: Promise<void> = Promise.resolve()
  #fenced: MillraceError | null = null
  #failed: EncodedBatch[] = []
  #failure: MillraceError | null = null

  constructor(node: string, state: LogState, queue: CommitQueue) {
    this.#node = node
    this.#state = state
    this.#queue = queue
    this.progress = state.progress(node)
  }

  append(batch: EncodedBatch): Promise<void> {
    if (this.#fenced !== null) return Promise.reject(this.#fenced)
    if (this.#failed.length > 0) {
      if (this.#failed[0] !== batch) return Promise.reject(this.#behindFailure())
      this.#failed.shift()
    }
    let submitted: Promise<void>
    try {
      const frames = this.#place(batch)
      const progress = batch.progress.size === 0 ? null : { progress: [[this.#node, Object.fromEntries(batch.progress)] as const] }
      submitted = this.#queue.submit(this, batch, frames, progress)
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error
      this.failed([batch], error)
      return Promise.reject(error)
    }
    const before = this.#settled
    const then = () => before
    this.#settled = submitted.then(then, then)
    return submitted
  }

  /** Refuses all that is not in flight yet, and all that comes. */
  fence(why: string): void {
    this.#fenced ??= new MillraceError('log.fenced', `the writer of node ${this.#node} ${why}`, { fix: 'Open a new writer and go on from its progress.' })
    this.#queue.refuse(this, this.#fenced)
  }

  failed(batches: readonly EncodedBatch[], error: MillraceError): void {
    this.#failed = [...batches, ...this.#failed]
    this.#failure = error
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (let settled: Promise<void> | null = null; settled !== this.#settled; await settled) settled = this.#settled
    this.fence('was closed')
  }

  #behindFailure(): MillraceError {
    const { code, message, fix } = this.#failure!
    return new MillraceError(code, `an earlier batch of node ${this.#node} failed and was not retried: ${message}`, {
      cause: this.#failure,
      ...(fix === undefined ? {} : { fix }),
    })
  }

  #place(batch: EncodedBatch): { frame: Frame; topicId: number }[] {
    let sizeBytes = 0
    const frames = batch.frames.map((frame) => {
      const topic = this.#state.topic(frame.topic)
      if (topic === undefined || frame.partition < 0 || frame.partition >= topic.partitions) {
        const what = topic === undefined ? 'is no such topic' : `are only ${topic.partitions} partitions`
        throw new MillraceError('log.refused', `no partition ${frame.topic}/${frame.partition}: there ${what}`, { fix: 'Call ensureTopics before append.' })
      }
      invariant(isSealed(frame), `the frame for ${frame.topic}/${frame.partition} is not a sealed RecordBatch v2 of ${frame.count} records`)
      if (frame.end > MAX_FRAME_BYTES) {
        throw new MillraceError('record.too_large', `a frame of ${frame.end} bytes for ${frame.topic}/${frame.partition}; the log takes ${MAX_FRAME_BYTES}`, {
          topic: frame.topic,
        })
      }
      sizeBytes += frame.end
      return { frame, topicId: topic.id }
    })
    if (sizeBytes > MAX_BATCH_BYTES) throw new MillraceError('record.too_large', `a batch of ${sizeBytes} bytes; the log takes ${MAX_BATCH_BYTES} at once`)
    return frames
  }
}

function isSealed({ buffer, end, count }: Frame): boolean {
  return end > 61 && end <= buffer.length && buffer[16] === 2 && buffer.readInt32BE(8) === end - 12 && count > 0 && buffer.readInt32BE(57) === count
}

import { FRAME_HEADER_BYTES, sealFrame } from '../event/record-batch.ts'
import { viewOf } from '../event/view-of.ts'
import type { Frame } from '../log/log.ts'
import { BufferPool, MOST_POOLED_BYTES } from './buffer-pool.ts'

/** A frame is closed and another opened beyond this many bytes; Kafka's default limit for one is 1 MiB. */
const ROLL_BYTES = MOST_POOLED_BYTES
const NO_BUFFER = Buffer.from(new ArrayBuffer(0))
const NO_VIEW = viewOf(NO_BUFFER)

/** A frame being written: records go to `buffer` from `at` on, once `reserve` has made room for one. */
export class OpenFrame {
  readonly topic: string
  readonly partition: number
  buffer: Buffer = NO_BUFFER
  view: DataView = NO_VIEW
  at = FRAME_HEADER_BYTES
  count = 0
  /** Since the last `take` something was written. */
  isOpen = false
  /** What the frame before took, and this one will about take. */
  lastBytes = 0

  constructor(topic: string, partition: number) {
    this.topic = topic
    this.partition = partition
  }
}

/** Gathers the frames of all tables and partitions; seals them together, so that a batch has one resume point. */
export class FrameAssembler {
  /** Frames with at least one record, in the order of their first. */
  #open: OpenFrame[] = []
  readonly #topics = new Map<string, readonly OpenFrame[]>()
  #sealed: Frame[] = []
  readonly #pool = new BufferPool()
  /** Records and bytes since the last `take`. */
  count = 0
  #sealedBytes = 0

  get bytes(): number {
    let bytes = this.#sealedBytes
    for (const frame of this.#open) bytes += frame.at
    return bytes
  }

  /** The open frames of a topic's partitions: the same ones for every version of its table, so that order in a partition holds. */
  // I4: one open frame per partition
  open(topic: string, partitions: number): readonly OpenFrame[] {
    let frames = this.#topics.get(topic)
    if (frames === undefined) {
      frames = Array.from({ length: partitions }, (_, partition) => new OpenFrame(topic, partition))
      this.#topics.set(topic, frames)
    }
    return frames
  }

  /** Makes room for a record of `bytes`; rolls to a new frame when this one is full. Call before writing it, and `wrote` after. */
  reserve(frame: OpenFrame, bytes: number): void {
    let needed = frame.at + bytes + 8
    if (needed <= frame.buffer.length) return
    if (frame.count > 0 && needed > ROLL_BYTES) {
      this.#seal(frame)
      needed = frame.at + bytes + 8
    }
    const wanted = frame.count === 0 ? frame.lastBytes : frame.buffer.length * 2
    const buffer = this.#pool.take(Math.max(needed, Math.min(wanted, ROLL_BYTES)))
    if (frame.count > 0) frame.buffer.copy(buffer, 0, 0, frame.at)
    if (frame.buffer.length > 0) this.#pool.give(frame.buffer)
    frame.buffer = buffer
    frame.view = viewOf(buffer)
  }

  wrote(frame: OpenFrame): void {
    if (!frame.isOpen) {
      frame.isOpen = true
      this.#open.push(frame)
    }
    frame.count++
    this.count++
  }

  /** Everything written since the last call, sealed. The buffers come back through `give`. */
  take(): readonly Frame[] {
    for (const frame of this.#open) {
      frame.isOpen = false
      this.#seal(frame)
    }
    this.#open = []
    const frames = this.#sealed
    this.#sealed = []
    this.#sealedBytes = 0
    this.count = 0
    return frames
  }

  /** A buffer that the log is done with. */
  give(buffer: Buffer): void {
    this.#pool.give(buffer)
  }

  /** A frame that nothing is written to has no buffer: a thousand idle tables hold nothing. */
  #seal(frame: OpenFrame): void {
    sealFrame(frame.buffer, frame.at, frame.count, Date.now())
    this.#sealed.push({ topic: frame.topic, partition: frame.partition, buffer: frame.buffer, end: frame.at, count: frame.count })
    this.#sealedBytes += frame.at
    frame.lastBytes = frame.at
    frame.buffer = NO_BUFFER
    frame.view = NO_VIEW
    frame.at = FRAME_HEADER_BYTES
    frame.count = 0
  }
}

import { FRAME_HEADER_BYTES, sealFrame } from '../event/record-batch.ts'
import { viewOf } from '../event/view-of.ts'
import type { Frame } from '../log/log.ts'

/** A frame is closed and another opened beyond this many bytes; Kafka's default limit for one is 1 MiB. */
const ROLL_BYTES = 256 * 1024
const FIRST_BYTES = 16 * 1024
/** Buffers of the full size kept for reuse, and of the first. */
const POOL_SIZE = 16
const FIRST_POOL_SIZE = 32

/** A frame being written: records go to `buffer` from `at` on. */
export class OpenFrame {
  readonly topic: string
  readonly partition: number
  buffer: Buffer
  view: DataView
  at = FRAME_HEADER_BYTES
  count = 0
  /** Since the last `take` something was written. */
  isOpen = false

  constructor(topic: string, partition: number, buffer: Buffer) {
    this.topic = topic
    this.partition = partition
    this.buffer = buffer
    this.view = viewOf(buffer)
  }
}

/** Gathers the frames of all tables and partitions; seals them together, so that a batch has one resume point. */
export class FrameAssembler {
  /** Frames with at least one record, in the order of their first. */
  #open: OpenFrame[] = []
  readonly #topics = new Map<string, readonly OpenFrame[]>()
  #sealed: Frame[] = []
  readonly #pool: Buffer[] = []
  readonly #firstPool: Buffer[] = []
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
      frames = Array.from({ length: partitions }, (_, partition) => new OpenFrame(topic, partition, Buffer.from(new ArrayBuffer(FIRST_BYTES))))
      this.#topics.set(topic, frames)
    }
    return frames
  }

  /** Makes room for a record of `bytes`; rolls to a new frame when this one is full. Call before writing it, and `wrote` after. */
  reserve(frame: OpenFrame, bytes: number): void {
    const needed = frame.at + bytes + 8
    if (needed <= frame.buffer.length) return
    if (frame.count > 0 && needed > ROLL_BYTES) {
      this.#seal(frame)
      this.#replace(frame, bytes)
      return
    }
    const grown = this.#take(Math.max(needed, Math.min(ROLL_BYTES, frame.buffer.length * 4)))
    frame.buffer.copy(grown, 0, 0, frame.at)
    this.give(frame.buffer)
    frame.buffer = grown
    frame.view = viewOf(grown)
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
      this.#replace(frame, 0)
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
    if (buffer.length === ROLL_BYTES && this.#pool.length < POOL_SIZE) this.#pool.push(buffer)
    else if (buffer.length === FIRST_BYTES && this.#firstPool.length < FIRST_POOL_SIZE) this.#firstPool.push(buffer)
  }

  #seal(frame: OpenFrame): void {
    sealFrame(frame.buffer, frame.at, frame.count, Date.now())
    this.#sealed.push({ topic: frame.topic, partition: frame.partition, buffer: frame.buffer, end: frame.at, count: frame.count })
    this.#sealedBytes += frame.at
  }

  /** A busy frame starts full-sized again, a quiet one small and lets a pooled buffer go: a thousand idle tables hold little. */
  #replace(frame: OpenFrame, bytes: number): void {
    const isBusy = frame.at > ROLL_BYTES / 4
    if (!isBusy) this.#pool.pop()
    const wanted = isBusy ? ROLL_BYTES : FIRST_BYTES
    frame.buffer = this.#take(Math.max(wanted, FRAME_HEADER_BYTES + bytes + 8))
    frame.view = viewOf(frame.buffer)
    frame.at = FRAME_HEADER_BYTES
    frame.count = 0
  }

  #take(bytes: number): Buffer {
    if (bytes > FIRST_BYTES && bytes <= ROLL_BYTES) return this.#pool.pop() ?? Buffer.from(new ArrayBuffer(ROLL_BYTES))
    if (bytes <= FIRST_BYTES) return this.#firstPool.pop() ?? Buffer.from(new ArrayBuffer(FIRST_BYTES))
    return Buffer.from(new ArrayBuffer(bytes))
  }
}

import { viewOf } from '../../core/plugin.ts'
import { HEADER_BYTES } from './binlog-event.ts'
import { protocolError } from './mysql-error.ts'

/** Room beyond an event that came in part. */
const ROOM_BYTES = 256 * 1024

/** Cuts bytes that come in chunks into whole events. */
export class EventCutter {
  /** The event that `next` found lies at [from, to) of these, until the next `push`. */
  bytes: Buffer = Buffer.alloc(0)
  view: DataView = viewOf(this.bytes)
  from = 0
  to = 0
  readonly #most: number
  readonly #place: string
  #end = 0
  /** Whether `bytes` is of our own making, and may be written to. */
  #own = false

  /** @param most bytes of the longest event that there may be */
  constructor(most: number, place: string) {
    this.#most = most
    this.#place = place
  }

  /** The chunk must stay as it is until the next. */
  push(chunk: Buffer): void {
    const held = this.#end - this.to
    if (held === 0) {
      this.#replace(chunk, false)
      this.#end = chunk.length
      return
    }
    if (!this.#own || this.#end + chunk.length > this.bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(held + chunk.length, this.#size()) + ROOM_BYTES)
      this.bytes.copy(larger, 0, this.to, this.#end)
      this.#replace(larger, true)
      this.#end = held
    }
    chunk.copy(this.bytes, this.#end)
    this.#end += chunk.length
  }

  #replace(bytes: Buffer, own: boolean): void {
    this.bytes = bytes
    this.view = viewOf(bytes)
    this.#own = own
    this.from = 0
    this.to = 0
  }

  /** Bytes of the event that begins at `to`; 0: not known yet. @throws source.protocol */
  #size(): number {
    if (this.#end - this.to < HEADER_BYTES) return 0
    const size = this.view.getUint32(this.to + 9, true)
    if (size < HEADER_BYTES || size > this.#most) throw protocolError(`an event of ${size} bytes within another`, this.#place)
    return size
  }

  /** Walks to the next whole event; false when more must be pushed. */
  next(): boolean {
    const size = this.#size()
    if (size === 0 || size > this.#end - this.to) return false
    this.from = this.to
    this.to += size
    return true
  }

  /** @throws source.protocol when an event is cut off */
  finish(): void {
    if (this.to !== this.#end) throw protocolError('an event within another that is cut off', this.#place)
  }
}

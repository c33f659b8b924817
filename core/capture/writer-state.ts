import { windowOf } from '../event/window-ledger.ts'
import { AvroWriter } from '../schema/avro-writer.ts'

const TWO_32 = 4_294_967_296n

/** What all writers of a capture share: the transaction that changes belong to, the clock, and scratch room, since one change is written at a time. */
export class WriterState {
  commitHigh = 0
  commitLow = 0
  /** Microseconds since epoch. */
  committedAt = 0n
  /** The audit's window of `committedAt`. */
  window = 0
  /** Ordinals up to this one are in the log already; -1: none are. */
  skipThrough = -1
  /** The last ordinal written. */
  lastOrdinal = 0
  /** `ts_ms`, `ts_us` and the plugin's source fields of the transaction, in [0, at). */
  readonly source = new AvroWriter(256)
  /** `ts_ms` and `ts_us` of now, in [0, at). */
  readonly clock = new AvroWriter(64)
  readonly images = new AvroWriter()
  readonly keys = new AvroWriter(512)
  #now = 0

  get commit(): bigint {
    return BigInt(this.commitHigh) * TWO_32 + BigInt(this.commitLow)
  }

  set commit(commit: bigint) {
    this.commitHigh = Number(commit >> 32n)
    this.commitLow = Number(commit & 0xffff_ffffn)
  }

  /** Encodes the source block that the records which follow have in common. */
  describe(committedAt: bigint, values: readonly (bigint | string | null)[]): void {
    this.committedAt = committedAt
    this.window = windowOf(committedAt)
    const { source } = this
    source.at = 0
    const micros = Number(committedAt)
    if (Number.isSafeInteger(micros)) {
      source.long(Math.trunc(micros / 1000))
      source.long(micros)
    } else {
      source.bigint(committedAt / 1000n)
      source.bigint(committedAt)
    }
    for (const value of values) {
      if (value === null) source.byte(0)
      else {
        source.byte(2)
        if (typeof value === 'bigint') source.bigint(value)
        else source.string(value)
      }
    }
    if (this.#now === 0) this.tick()
  }

  /** Sets the clock; cheap, called once per piece of input. */
  tick(): void {
    const now = Date.now()
    if (now === this.#now) return
    this.#now = now
    this.clock.at = 0
    this.clock.long(now)
    this.clock.long(now * 1000)
  }
}

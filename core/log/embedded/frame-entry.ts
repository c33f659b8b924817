/**
 * Where a frame lies in its segment: 32 bytes, the same in memory and in a segment's footer.
 * `0 i64 baseOffset | 8 f64 appendedAt | 16 u32 at | 20 u32 length | 24 u32 count | 28 u32 offsets`
 */
export interface FrameEntry {
  readonly baseOffset: bigint
  /** Milliseconds since epoch. */
  readonly appendedAt: number
  /** Byte of the file at which the frame begins. */
  readonly at: number
  readonly sizeBytes: number
  /** Records; after compaction fewer than `offsets`. */
  readonly count: number
  /** Offsets that the frame covers: the next frame's base is `baseOffset + offsets` or more. */
  readonly offsets: number
}

export const ENTRY_BYTES = 32

export function readEntry(from: Buffer, index: number): FrameEntry {
  const at = index * ENTRY_BYTES
  return {
    baseOffset: from.readBigInt64BE(at),
    appendedAt: from.readDoubleBE(at + 8),
    at: from.readUInt32BE(at + 16),
    sizeBytes: from.readUInt32BE(at + 20),
    count: from.readUInt32BE(at + 24),
    offsets: from.readUInt32BE(at + 28),
  }
}

export function nextOffsetOf(entry: FrameEntry): bigint {
  return entry.baseOffset + BigInt(entry.offsets)
}

/** Entries of one partition in one segment, in offset order; grows by doubling. */
export class EntryList {
  #bytes = Buffer.alloc(4 * ENTRY_BYTES)
  #count = 0
  #sizeBytes = 0
  #newestAt = 0

  get count(): number {
    return this.#count
  }

  /** Bytes of all frames. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** The latest `appendedAt`. */
  get newestAt(): number {
    return this.#newestAt
  }

  get first(): bigint {
    return readEntry(this.#bytes, 0).baseOffset
  }

  get next(): bigint {
    return nextOffsetOf(readEntry(this.#bytes, this.#count - 1))
  }

  push(entry: FrameEntry): void {
    const at = this.#count * ENTRY_BYTES
    if (at === this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(this.#bytes.length)])
    this.#bytes.writeBigInt64BE(entry.baseOffset, at)
    this.#bytes.writeDoubleBE(entry.appendedAt, at + 8)
    this.#bytes.writeUInt32BE(entry.at, at + 16)
    this.#bytes.writeUInt32BE(entry.sizeBytes, at + 20)
    this.#bytes.writeUInt32BE(entry.count, at + 24)
    this.#bytes.writeUInt32BE(entry.offsets, at + 28)
    this.#count++
    this.#sizeBytes += entry.sizeBytes
    this.#newestAt = Math.max(this.#newestAt, entry.appendedAt)
  }

  /** Entries [from, to) as a view that later pushes do not change. */
  slice(from: number, to: number): Buffer {
    return this.#bytes.subarray(from * ENTRY_BYTES, to * ENTRY_BYTES)
  }
}

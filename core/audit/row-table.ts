import type { Position } from '../event/position.ts'

/** Words of an entry before its sums: the key's hash (2), the position (commit 2, ordinal 1). */
const SUMS_AT = 5
/** Fuller than this an open-addressing table gets slow. */
const MOST_LOAD = 0.75
const LEAST_ENTRIES = 1024

/** The table needs more memory than it may take. */
export const TOO_LARGE = Symbol('too large')

/**
 * Rows by the 64-bit hash of their key in one typed array: a fixed number of bytes for each, whatever the row. An entry has a position and some sums of 64
 * bits. Two keys with one hash would be taken for one: of 100 million keys that is expected once in some 3,700 tables.
 */
export class RowTable {
  readonly #words: number
  readonly #maxBytes: number
  #entries: Uint32Array<ArrayBuffer>
  #capacity: number
  size = 0

  /** @param sums how many of each entry @param expected entries */
  constructor(sums: number, maxBytes: number, expected: number) {
    this.#words = SUMS_AT + 2 * sums
    this.#maxBytes = maxBytes
    const most = Math.max(LEAST_ENTRIES, Math.floor(maxBytes / (4 * this.#words)))
    this.#capacity = Math.min(most, Math.max(LEAST_ENTRIES, Math.ceil(expected / MOST_LOAD) + 1))
    this.#entries = new Uint32Array(this.#capacity * this.#words)
  }

  /** Bytes for so many entries. */
  static bytes(sums: number, entries: number): number {
    return Math.ceil(entries / MOST_LOAD) * 4 * (SUMS_AT + 2 * sums)
  }

  /** The place of a key's entry, valid until the next call that changes the table; -1: it has none. */
  find(high: number, low: number): number {
    const at = this.#slot(high, low === 0 && high === 0 ? 1 : low) * this.#words
    return this.#isEmpty(at) ? -1 : at
  }

  /** The place of a key's entry, made when it is missing. @throws TOO_LARGE */
  put(high: number, low: number, position: Position): number {
    if (low === 0 && high === 0) low = 1
    let at = this.#slot(high, low) * this.#words
    if (this.#isEmpty(at)) {
      if (this.size >= this.#capacity * MOST_LOAD) {
        this.#grow()
        at = this.#slot(high, low) * this.#words
      }
      this.size++
      this.#entries[at] = high
      this.#entries[at + 1] = low
    }
    this.#entries[at + 2] = Number(position.commit >> 32n)
    this.#entries[at + 3] = Number(position.commit & 0xffff_ffffn)
    this.#entries[at + 4] = position.ordinal
    return at
  }

  sumHigh(at: number, index: number): number {
    return this.#entries[at + SUMS_AT + 2 * index]!
  }

  sumLow(at: number, index: number): number {
    return this.#entries[at + SUMS_AT + 2 * index + 1]!
  }

  setSum(at: number, index: number, high: number, low: number): void {
    this.#entries[at + SUMS_AT + 2 * index] = high
    this.#entries[at + SUMS_AT + 2 * index + 1] = low
  }

  delete(high: number, low: number): void {
    const slot = this.#slot(high, low === 0 && high === 0 ? 1 : low)
    if (!this.#isEmpty(slot * this.#words)) this.#remove(slot)
  }

  /** Rows that were there before a truncation. */
  deleteBefore({ commit, ordinal }: Position): void {
    const [high, low] = [Number(commit >> 32n), Number(commit & 0xffff_ffffn)]
    for (let slot = 0; slot < this.#capacity; slot++) {
      // what moves into the slot is looked at, too
      for (let at = slot * this.#words; !this.#isEmpty(at) && this.#isBefore(at, high, low, ordinal); ) this.#remove(slot)
    }
  }

  /** Calls `visit` with the place of each entry. */
  each(visit: (at: number, high: number, low: number) => void): void {
    for (let at = 0; at < this.#entries.length; at += this.#words) if (!this.#isEmpty(at)) visit(at, this.#entries[at]!, this.#entries[at + 1]!)
  }

  #isBefore(at: number, high: number, low: number, ordinal: number): boolean {
    const of = this.#entries
    if (of[at + 2] !== high) return of[at + 2]! < high
    return of[at + 3] === low ? of[at + 4]! < ordinal : of[at + 3]! < low
  }

  #isEmpty(at: number): boolean {
    return this.#entries[at] === 0 && this.#entries[at + 1] === 0
  }

  #home(high: number): number {
    return Math.floor((high / 0x1_0000_0000) * this.#capacity)
  }

  /** Where the key is, or would be put. */
  #slot(high: number, low: number): number {
    const entries = this.#entries
    for (let slot = this.#home(high); ; slot = slot + 1 === this.#capacity ? 0 : slot + 1) {
      const at = slot * this.#words
      if ((entries[at] === high && entries[at + 1] === low) || this.#isEmpty(at)) return slot
    }
  }

  /** Entries behind it that belong before the gap move up, so that none is cut off from its home. */
  #remove(slot: number): void {
    const words = this.#words
    let gap = slot
    for (let next = slot; ; ) {
      next = next + 1 === this.#capacity ? 0 : next + 1
      if (this.#isEmpty(next * words)) break
      const home = this.#home(this.#entries[next * words]!)
      const staysThere = gap <= next ? gap < home && home <= next : gap < home || home <= next
      if (staysThere) continue
      this.#entries.copyWithin(gap * words, next * words, (next + 1) * words)
      gap = next
    }
    this.#entries.fill(0, gap * words, (gap + 1) * words)
    this.size--
  }

  #grow(): void {
    const old = this.#entries
    const words = this.#words
    const capacity = this.#capacity * 2
    // both are there while the entries move
    if ((this.#capacity + capacity) * words * 4 > this.#maxBytes) throw TOO_LARGE
    this.#capacity = capacity
    this.#entries = new Uint32Array(capacity * words)
    for (let at = 0; at < old.length; at += words) {
      if (old[at] === 0 && old[at + 1] === 0) continue
      this.#entries.set(old.subarray(at, at + words), this.#slot(old[at]!, old[at + 1]!) * words)
    }
  }
}

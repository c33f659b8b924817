/** The hash of the bytes that {@link hashBytes} looked at last: two unsigned lanes of 32 bits. */
export let hashHigh = 0
export let hashLow = 0

const A = 0x9e37_79b1
const B = 0x85eb_ca77
const C = 0xc2b2_ae3d

/**
 * A 64-bit hash of the bytes [from, to), into `hashHigh` and `hashLow`: four lanes of a word each, so that a long record costs a fraction of a nanosecond a
 * byte. Not cryptographic: it finds mistakes, not forgeries.
 */
export function hashBytes(view: DataView, from: number, to: number): void {
  let a = 0x9747_b28c
  let b = 0x3c6e_f372
  let c = 0x1b87_3593
  let d = 0x27d4_eb2f
  let at = from
  for (const last = to - 16; at <= last; at += 16) {
    a = Math.imul(a ^ view.getInt32(at, true), A)
    b = Math.imul(b ^ view.getInt32(at + 4, true), A)
    c = Math.imul(c ^ view.getInt32(at + 8, true), A)
    d = Math.imul(d ^ view.getInt32(at + 12, true), A)
    a = (a << 15) | (a >>> 17)
    b = (b << 15) | (b >>> 17)
    c = (c << 15) | (c >>> 17)
    d = (d << 15) | (d >>> 17)
  }
  for (const last = to - 4; at <= last; at += 4) {
    a = Math.imul(a ^ view.getInt32(at, true), B)
    a = (a << 13) | (a >>> 19)
  }
  let tail = 0
  for (let shift = 0; at < to; at++, shift += 8) tail |= view.getUint8(at) << shift
  d = Math.imul(d ^ tail, B)
  const length = to - from
  hashHigh = mix(mix(mix(a, b) ^ c, d), length) >>> 0
  hashLow = mix(mix(mix(d ^ A, a) + c, b ^ length), length) >>> 0
}

/**
 * As {@link hashBytes}, but slower and with all 64 bits from every byte, also of few: for hashes that stand for what they were made of.
 */
export function hashKey(view: DataView, from: number, to: number): void {
  let a = 0x9747_b28c
  let b = 0x3c6e_f372
  let at = from
  for (const last = to - 4; at <= last; at += 4) {
    const word = view.getInt32(at, true)
    a = Math.imul(a ^ word, A)
    b = Math.imul(b ^ word, B)
    a = (a << 15) | (a >>> 17)
    b = (b << 13) | (b >>> 19)
  }
  let tail = 0
  for (let shift = 0; at < to; at++, shift += 8) tail |= view.getUint8(at) << shift
  a = Math.imul(a ^ tail, A) ^ (to - from)
  b = Math.imul(b ^ tail, B) ^ (to - from)
  hashHigh = mix(a ^ (a >>> 15), C) >>> 0
  hashLow = mix(b ^ (b >>> 16), a) >>> 0
}

/** The hash of two numbers of 32 bits, as of bytes. */
export function hashPair(high: number, low: number): void {
  const a = mix(mix(high ^ A, low), C)
  hashLow = mix(mix(low ^ B, high), a) >>> 0
  hashHigh = a >>> 0
}

function mix(a: number, b: number): number {
  let h = Math.imul(a ^ b, 0x85eb_ca6b)
  h ^= h >>> 13
  h = Math.imul(h + b, 0xc2b2_ae35)
  return h ^ (h >>> 16)
}

/**
 * Order-independent checksums: the sum, modulo 2^64, of a 64-bit hash per row. Equal multisets of rows have equal sums, and one row more, less or
 * different changes it.
 */
export class RowChecksum {
  rows = 0
  #high = 0
  #low = 0

  /** Adds the row whose bytes are [from, to). */
  add(view: DataView, from: number, to: number): void {
    hashBytes(view, from, to)
    this.addHash(hashHigh, hashLow)
  }

  addHash(high: number, low: number): void {
    this.rows++
    this.#carry(high, low)
  }

  /** Takes a row out again: the sum is as if it had never been added. */
  removeHash(high: number, low: number): void {
    this.rows--
    this.#borrow(high, low)
  }

  /** Adds all rows of another sum. */
  addAll(other: RowChecksum): void {
    this.rows += other.rows
    this.#carry(other.#high, other.#low)
  }

  removeAll(other: RowChecksum): void {
    this.rows -= other.rows
    this.#borrow(other.#high, other.#low)
  }

  /** 16 hexadecimal digits. */
  toString(): string {
    return this.#high.toString(16).padStart(8, '0') + this.#low.toString(16).padStart(8, '0')
  }

  /** @param text what `toString` gave */
  static of(rows: number, text: string): RowChecksum {
    const checksum = new RowChecksum()
    checksum.rows = rows
    checksum.#high = Number.parseInt(text.slice(0, 8), 16)
    checksum.#low = Number.parseInt(text.slice(8), 16)
    return checksum
  }

  /** Adds the two's complement. */
  #borrow(high: number, low: number): void {
    this.#carry(~high >>> 0, ~low >>> 0)
    this.#carry(0, 1)
  }

  #carry(high: number, low: number): void {
    const sum = this.#low + low
    this.#low = sum >>> 0
    this.#high = (this.#high + high + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
  }
}

/**
 * Order-independent checksums: the sum, modulo 2^64, of a 64-bit hash per row. Equal multisets of rows have equal sums, and one row more, less or
 * different changes it. Not cryptographic: it finds mistakes, not forgeries.
 */
export class RowChecksum {
  rows = 0
  #high = 0
  #low = 0

  /** Adds the row whose bytes are [from, to). */
  add(bytes: Uint8Array, from: number, to: number): void {
    hash(bytes, from, to)
    this.#sum(hashHigh, hashLow, 1)
  }

  /** Takes a row out again: the sum is as if it had never been added. */
  remove(bytes: Uint8Array, from: number, to: number): void {
    hash(bytes, from, to)
    this.#sum(~hashHigh, ~hashLow, -1)
    this.#carry(0, 1)
  }

  /** Adds the identity of a change: its position. Cheap enough for every record that passes. */
  addPosition(commitHigh: number, commitLow: number, ordinal: number): void {
    const a = mix(mix(commitHigh ^ 0x9e37_79b9, commitLow), ordinal)
    const b = mix(mix(ordinal ^ 0x7f4a_7c15, commitHigh), commitLow)
    this.#sum(a, b, 1)
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

  #sum(high: number, low: number, rows: number): void {
    this.rows += rows
    this.#carry(high >>> 0, low >>> 0)
  }

  #carry(high: number, low: number): void {
    const sum = this.#low + low
    this.#low = sum >>> 0
    this.#high = (this.#high + high + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
  }
}

let hashHigh = 0
let hashLow = 0

function mix(a: number, b: number): number {
  let h = Math.imul(a ^ b, 0x85eb_ca6b)
  h ^= h >>> 13
  h = Math.imul(h, 0xc2b2_ae35)
  return h ^ (h >>> 16)
}

/** Two 32-bit lanes over the bytes, murmur3-like, into `hashHigh` and `hashLow`. */
function hash(bytes: Uint8Array, from: number, to: number): void {
  let a = 0x9747_b28c
  let b = 0x3c6e_f372
  let at = from
  for (const last = to - 4; at <= last; at += 4) {
    const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    let k = Math.imul(word, 0xcc9e_2d51)
    k = (k << 15) | (k >>> 17)
    a ^= Math.imul(k, 0x1b87_3593)
    a = Math.imul((a << 13) | (a >>> 19), 5) + 0xe654_6b64
    b = Math.imul(b ^ word, 0x9e37_79b1)
    b = (b << 11) | (b >>> 21)
  }
  let tail = 0
  for (let shift = 0; at < to; at++, shift += 8) tail |= bytes[at]! << shift
  const length = to - from
  hashHigh = mix(a ^ tail, length)
  hashLow = mix(b + tail, length ^ a)
}

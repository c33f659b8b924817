import { hash } from 'node:crypto'

/**
 * The last offset of each key of each partition, in 24 bytes per slot: a 128-bit digest of the key (two keys with one digest would cost a record; at 10^9 keys the
 * chance is 10^-21) and the offset. Open addressing, at most three quarters full.
 */
export class KeyTable {
  readonly #slots: number
  readonly #digests: Uint32Array
  readonly #offsets: BigInt64Array
  #count = 0

  /** `keys` is the most it takes; memory is about 32 bytes for each. */
  constructor(keys: number) {
    this.#slots = 2 ** Math.ceil(Math.log2((keys * 4) / 3 + 2))
    this.#digests = new Uint32Array(this.#slots * 4)
    this.#offsets = new BigInt64Array(this.#slots).fill(-1n)
  }

  get count(): number {
    return this.#count
  }

  get isFull(): boolean {
    return this.#count >= (this.#slots * 3) / 4
  }

  /** Offsets must rise from call to call for one partition. The table must not be full. */
  set(partition: number, key: Buffer, offset: bigint): void {
    const digest = digestOf(partition, key)
    const slot = this.#find(digest)
    if (this.#offsets[slot]! < 0n) {
      this.#digests.set(digest, slot * 4)
      this.#count++
    }
    this.#offsets[slot] = offset
  }

  /** The last offset of the key, or -1. */
  last(partition: number, key: Buffer): bigint {
    return this.#offsets[this.#find(digestOf(partition, key))]!
  }

  #find(digest: Uint32Array): number {
    const mask = this.#slots - 1
    for (let slot = digest[0]! & mask; ; slot = (slot + 1) & mask) {
      if (this.#offsets[slot]! < 0n) return slot
      const at = slot * 4
      const digests = this.#digests
      if (digests[at] === digest[0] && digests[at + 1] === digest[1] && digests[at + 2] === digest[2] && digests[at + 3] === digest[3]) return slot
    }
  }
}

function digestOf(partition: number, key: Buffer): Uint32Array {
  const bytes = hash('sha1', key, 'buffer')
  const [low, high] = [partition % 2 ** 32, Math.floor(partition / 2 ** 32)]
  return Uint32Array.of(bytes.readUInt32LE(0), bytes.readUInt32LE(4), bytes.readUInt32LE(8) ^ high, bytes.readUInt32LE(12) ^ low)
}

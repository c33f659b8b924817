import { inflateRawSync, inflateSync } from 'node:zlib'

/** Beyond it zlib is cheaper, which makes a context for each call (docs/decisions/0015). At most 3800: the sums of Adler-32 stay below 2^31. */
const OURS_BYTES = 2048
/** Codes of up to so many bits are found in one look; the few that are longer, bit by bit. */
const QUICK_BITS = 9
const MOST_BITS = 15
const END_OF_BLOCK = 256
const LITERALS = 286
const DISTANCES = 30
const ADLER_BASE = 65521

const LENGTH_BASE = Uint16Array.of(3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258)
const LENGTH_BITS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0)
const DISTANCE_BITS = Uint8Array.from({ length: DISTANCES }, (_, n) => Math.max(0, (n >> 1) - 1))
const DISTANCE_BASE = Uint16Array.from({ length: DISTANCES }, (_, n) => (n < 2 ? n + 1 : ((2 + (n & 1)) << DISTANCE_BITS[n]!) + 1))
/** The lengths of the codes in which the lengths of the other codes are written, in this order. */
const LENGTH_ORDER = Uint8Array.of(16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)

const REVERSED = Uint16Array.from({ length: 1 << QUICK_BITS }, (_, code) => {
  let reversed = 0
  for (let bit = 0; bit < QUICK_BITS; bit++) reversed |= ((code >> bit) & 1) << (QUICK_BITS - 1 - bit)
  return reversed
})

/** The Huffman code of one alphabet; is used again for each block. */
class HuffmanCode {
  /** By the next `quickBits` bits: symbol << 4 | bits of its code; 0: longer, or none. */
  readonly quick = new Uint16Array(1 << QUICK_BITS)
  quickBits = 0
  readonly #counts = new Uint16Array(MOST_BITS + 1)
  readonly #starts = new Uint16Array(MOST_BITS + 1)
  readonly #symbols = new Uint16Array(LITERALS + 2)

  /** By the bits of the codes of `size` symbols. `mayBeOne`: a code of one symbol is complete, though half of it is missing. @throws RangeError */
  build(bits: Uint8Array, from: number, size: number, mayBeOne: boolean): void {
    const counts = this.#counts.fill(0)
    for (let n = 0; n < size; n++) counts[bits[from + n]!]!++
    counts[0] = 0
    let most = MOST_BITS
    while (most > 0 && counts[most] === 0) most--
    let left = 1
    let start = 0
    for (let length = 1; length <= most; length++) {
      left = 2 * left - counts[length]!
      if (left < 0) throw new RangeError('a code with too many symbols')
      this.#starts[length] = start
      start += counts[length]!
    }
    // one without symbols is refused by what is read with it
    if (left > 0 && most > 0 && !(mayBeOne && most === 1)) throw new RangeError('a code that lacks symbols')
    for (let n = 0; n < size; n++) {
      const length = bits[from + n]!
      if (length > 0) this.#symbols[this.#starts[length]!++] = n
    }
    this.#fillQuick(Math.min(QUICK_BITS, most), left > 0)
  }

  #fillQuick(quickBits: number, hasHoles: boolean): void {
    const { quick } = this
    this.quickBits = quickBits
    const size = 1 << quickBits
    if (hasHoles || quickBits === QUICK_BITS) quick.fill(0, 0, size)
    let code = 0
    let index = 0
    for (let length = 1; length <= quickBits; length++) {
      const step = 1 << length
      for (let n = this.#counts[length]!; n > 0; n--) {
        const entry = (this.#symbols[index++]! << 4) | length
        for (let at = REVERSED[code << (QUICK_BITS - length)]!; at < size; at += step) quick[at] = entry
        code++
      }
      code <<= 1
    }
  }

  /** For a code that `quick` lacks: what it would have there. @throws RangeError */
  slow(bits: number): number {
    let code = 0
    let first = 0
    let index = 0
    for (let length = 1; length <= MOST_BITS; length++) {
      code |= (bits >>> (length - 1)) & 1
      const count = this.#counts[length]!
      if (code - first < count) return (this.#symbols[index + code - first]! << 4) | length
      index += count
      first = (first + count) << 1
      code <<= 1
    }
    throw new RangeError('a code that no symbol has')
  }
}

const FIXED_LITERALS = new HuffmanCode()
const FIXED_DISTANCES = new HuffmanCode()
FIXED_LITERALS.build(
  Uint8Array.from({ length: LITERALS + 2 }, (_, n) => (n < 144 ? 8 : n < 256 ? 9 : n < 280 ? 7 : 8)),
  0,
  LITERALS + 2,
  false,
)
FIXED_DISTANCES.build(new Uint8Array(DISTANCES + 2).fill(5), 0, DISTANCES + 2, false)

const NONE = new Uint8Array()

/** One piece of data at a time, from its first byte to its last. */
class Inflater {
  readonly #lengthCode = new HuffmanCode()
  readonly #literals = new HuffmanCode()
  readonly #distances = new HuffmanCode()
  readonly #lengths = new Uint8Array(LITERALS + DISTANCES)
  #bytes: Uint8Array = NONE
  #at = 0
  #end = 0
  /** Up to 31 bits, the next one lowest; zeros once the bytes are at their end. */
  #bits = 0
  #count = 0

  /** All blocks, into exactly target[from..to). Returns where the data ends. @throws RangeError */
  blocks(bytes: Uint8Array, at: number, end: number, target: Uint8Array, from: number, to: number): number {
    this.#bytes = bytes
    this.#at = at
    this.#end = end
    this.#bits = 0
    this.#count = 0
    let filled = from
    for (let isLast = false; !isLast; ) {
      isLast = this.#take(1) === 1
      const method = this.#take(2)
      if (method === 0) filled = this.#stored(target, filled, to)
      else if (method === 1) filled = this.#coded(FIXED_LITERALS, FIXED_DISTANCES, target, from, filled, to)
      else if (method === 2) {
        this.#readCodes()
        filled = this.#coded(this.#literals, this.#distances, target, from, filled, to)
      } else throw new RangeError('a block of unknown kind')
      if (this.#at - (this.#count >> 3) > end) throw new RangeError('compressed data that is cut off')
    }
    if (filled !== to) throw new RangeError(`${filled - from} of ${to - from} bytes uncompressed`)
    this.#bytes = NONE
    return this.#at - (this.#count >> 3)
  }

  /** At least 16 bits. */
  #refill(): void {
    if (this.#count >= 16) return
    const at = this.#at
    const low = at < this.#end ? this.#bytes[at]! : 0
    const high = at + 1 < this.#end ? this.#bytes[at + 1]! : 0
    this.#bits |= (low | (high << 8)) << this.#count
    this.#at = at + 2
    this.#count += 16
  }

  #take(count: number): number {
    this.#refill()
    const taken = this.#bits & ((1 << count) - 1)
    this.#bits >>>= count
    this.#count -= count
    return taken
  }

  #stored(target: Uint8Array, to: number, targetEnd: number): number {
    const at = this.#at - (this.#count >> 3)
    this.#bits = 0
    this.#count = 0
    if (at + 4 > this.#end) throw new RangeError('compressed data that is cut off')
    const bytes = this.#bytes
    const length = bytes[at]! | (bytes[at + 1]! << 8)
    if ((length ^ 0xffff) !== (bytes[at + 2]! | (bytes[at + 3]! << 8))) throw new RangeError('a block whose length does not fit its check')
    this.#at = at + 4 + length
    if (this.#at > this.#end) throw new RangeError('compressed data that is cut off')
    if (length > targetEnd - to) throw new RangeError('more bytes uncompressed than it says')
    target.set(bytes.subarray(at + 4, this.#at), to)
    return to + length
  }

  /** The codes of a block that has its own. */
  #readCodes(): void {
    const literals = this.#take(5) + 257
    const distances = this.#take(5) + 1
    const written = this.#take(4) + 4
    if (literals > LITERALS || distances > DISTANCES) throw new RangeError('a code with too many symbols')
    const lengths = this.#lengths.fill(0)
    for (let n = 0; n < written; n++) lengths[LENGTH_ORDER[n]!] = this.#take(3)
    this.#lengthCode.build(lengths, 0, LENGTH_ORDER.length, false)
    const all = literals + distances
    for (let n = 0; n < all; ) {
      const symbol = this.#lengthSymbol()
      if (symbol < 16) {
        lengths[n++] = symbol
        continue
      }
      if (symbol === 16 && n === 0) throw new RangeError('a length that repeats none')
      const length = symbol === 16 ? lengths[n - 1]! : 0
      const stop = n + (symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7))
      if (stop > all) throw new RangeError('more lengths of codes than it says')
      while (n < stop) lengths[n++] = length
    }
    if (lengths[END_OF_BLOCK] === 0) throw new RangeError('a block without an end')
    this.#literals.build(lengths, 0, literals, true)
    this.#distances.build(lengths, literals, distances, true)
  }

  #lengthSymbol(): number {
    this.#refill()
    const { quick, quickBits } = this.#lengthCode
    const entry = quick[this.#bits & ((1 << quickBits) - 1)]! || this.#lengthCode.slow(this.#bits)
    this.#bits >>>= entry & 15
    this.#count -= entry & 15
    return entry >> 4
  }

  /** A block's symbols, into target from `to` on; they repeat nothing from before `from`. Returns up to where. */
  #coded(literals: HuffmanCode, distances: HuffmanCode, target: Uint8Array, from: number, filled: number, targetEnd: number): number {
    const bytes = this.#bytes
    const end = this.#end
    const literalQuick = literals.quick
    const literalMask = (1 << literals.quickBits) - 1
    const distanceQuick = distances.quick
    const distanceMask = (1 << distances.quickBits) - 1
    let at = this.#at
    let bits = this.#bits
    let count = this.#count
    let to = filled
    for (;;) {
      if (count < 16) {
        if (at + 1 < end) bits |= (bytes[at]! | (bytes[at + 1]! << 8)) << count
        else if (at < end) bits |= bytes[at]! << count
        at += 2
        count += 16
      }
      let entry = literalQuick[bits & literalMask]!
      if (entry === 0) entry = literals.slow(bits)
      bits >>>= entry & 15
      count -= entry & 15
      const symbol = entry >> 4
      if (symbol < END_OF_BLOCK) {
        if (to === targetEnd) throw new RangeError('more bytes uncompressed than it says')
        target[to++] = symbol
        continue
      }
      if (symbol === END_OF_BLOCK) break
      if (symbol >= LITERALS) throw new RangeError('a symbol without a meaning')
      if (count < 16) {
        if (at + 1 < end) bits |= (bytes[at]! | (bytes[at + 1]! << 8)) << count
        else if (at < end) bits |= bytes[at]! << count
        at += 2
        count += 16
      }
      const lengthBits = LENGTH_BITS[symbol - 257]!
      const length = LENGTH_BASE[symbol - 257]! + (bits & ((1 << lengthBits) - 1))
      bits >>>= lengthBits
      count -= lengthBits
      if (count < 16) {
        if (at + 1 < end) bits |= (bytes[at]! | (bytes[at + 1]! << 8)) << count
        else if (at < end) bits |= bytes[at]! << count
        at += 2
        count += 16
      }
      entry = distanceQuick[bits & distanceMask]!
      if (entry === 0) entry = distances.slow(bits)
      bits >>>= entry & 15
      count -= entry & 15
      const far = entry >> 4
      if (far >= DISTANCES) throw new RangeError('a symbol without a meaning')
      if (count < 16) {
        if (at + 1 < end) bits |= (bytes[at]! | (bytes[at + 1]! << 8)) << count
        else if (at < end) bits |= bytes[at]! << count
        at += 2
        count += 16
      }
      const distanceBits = DISTANCE_BITS[far]!
      const distance = DISTANCE_BASE[far]! + (bits & ((1 << distanceBits) - 1))
      bits >>>= distanceBits
      count -= distanceBits
      if (distance > to - from) throw new RangeError('a repetition of what was never there')
      if (length > targetEnd - to) throw new RangeError('more bytes uncompressed than it says')
      for (const stop = to + length; to < stop; to++) target[to] = target[to - distance]!
    }
    this.#at = at
    this.#bits = bits
    this.#count = count
    return to
  }
}

const inflater = new Inflater()

/**
 * Uncompresses bytes[at..end), all of it, into exactly target[from..to): zlib's format (RFC 1950, 1951), whose checksum is compared, or `bare` deflate.
 * Synchronous; what is small needs no memory. @throws Error for whatever is not exactly that; the target is then undefined
 */
export function inflateInto(bytes: Uint8Array, at: number, end: number, isBare: boolean, target: Uint8Array, from: number, to: number): void {
  if (to - from > OURS_BYTES) inflateLarge(bytes.subarray(at, end), isBare, target.subarray(from, to))
  else if (isBare) blocks(bytes, at, end, target, from, to)
  else {
    const head = at + 2 < end ? (bytes[at]! << 8) | bytes[at + 1]! : 0
    // method deflate, a window of up to 32 KB, no preset dictionary
    if ((head & 0x0f00) !== 0x0800 || head >> 12 > 7 || (head & 0x20) !== 0 || head % 31 !== 0) throw new RangeError('no head of zlib')
    const sumAt = end - 4
    blocks(bytes, at + 2, sumAt, target, from, to)
    const sum = ((bytes[sumAt]! << 24) | (bytes[sumAt + 1]! << 16) | (bytes[sumAt + 2]! << 8) | bytes[sumAt + 3]!) >>> 0
    if (adler32(target, from, to) !== sum) throw new RangeError('the checksum of the uncompressed bytes is another')
  }
}

function blocks(bytes: Uint8Array, at: number, end: number, target: Uint8Array, from: number, to: number): void {
  if (inflater.blocks(bytes, at, end, target, from, to) !== end) throw new RangeError('bytes behind the end of compressed data')
}

function inflateLarge(data: Uint8Array, isBare: boolean, target: Uint8Array): void {
  // one byte more than there is: zlib ends without asking for a second chunk
  const options = { maxOutputLength: target.length, chunkSize: target.length + 1, info: true }
  const { buffer, engine } = (isBare ? inflateRawSync : inflateSync)(data, options) as unknown as Informed
  if (buffer.length !== target.length) throw new RangeError(`${buffer.length} of ${target.length} bytes uncompressed`)
  if (engine.bytesWritten !== data.length) throw new RangeError('bytes behind the end of compressed data')
  target.set(buffer)
}

/** What zlib gives with `info`, which its types do not know. */
interface Informed {
  readonly buffer: Buffer
  readonly engine: { readonly bytesWritten: number }
}

function adler32(bytes: Uint8Array, from: number, to: number): number {
  let sum = 1
  let sums = 0
  for (let at = from; at < to; at++) {
    sum += bytes[at]!
    sums += sum
  }
  return (((sums % ADLER_BASE) << 16) | (sum % ADLER_BASE)) >>> 0
}

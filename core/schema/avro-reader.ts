/** Avro binary decoding of bytes in place, bounds-checked. Source: Apache Avro specification, "Binary Encoding". */
import { isUtf8 } from 'node:buffer'
import { MillraceError } from '../errors.ts'
import { viewOf } from '../event/view-of.ts'

const P28 = 2 ** 28
const P63 = 2 ** 63
/** Zigzag numbers below this are exact as JavaScript numbers. */
const EXACT = 2 ** 53

/**
 * Reads [at, end) of `buffer`. Every method throws `record.malformed` for bytes that are not what it reads: cut short, out of range, a boolean that is
 * neither 0 nor 1, text that is not UTF-8. Returned values are copies; the buffer may be reused.
 */
export class AvroReader {
  buffer: Buffer = Buffer.alloc(0)
  view: DataView = new DataView(new ArrayBuffer(0))
  at = 0
  end = 0

  /** Turns to [from, to) of `buffer`; cheap when the buffer is the one of the last call. */
  open(buffer: Buffer, from: number, to: number): void {
    if (buffer !== this.buffer) {
      this.buffer = buffer
      this.view = viewOf(buffer)
    }
    this.at = from
    this.end = to
  }

  boolean(): boolean {
    if (this.at >= this.end) cutShort()
    const byte = this.buffer[this.at++]!
    if (byte > 1) malformed('a boolean is neither 0 nor 1')
    return byte === 1
  }

  int(): number {
    const { buffer, end } = this
    let { at } = this
    let zigzag = 0
    for (let shift = 0; ; shift += 7) {
      if (at >= end) cutShort()
      const byte = buffer[at++]!
      if (shift === 28 && byte > 15) malformed('an int has more than 32 bits')
      zigzag |= (byte & 127) << shift
      if (byte < 128) break
    }
    this.at = at
    return (zigzag >>> 1) ^ -(zigzag & 1)
  }

  long(): bigint {
    const { buffer, end } = this
    let { at } = this
    let low = 0
    let middle = 0
    let high = 0
    let byte = 0
    for (let shift = 0; shift < 28; shift += 7) {
      if (at >= end) cutShort()
      byte = buffer[at++]!
      low |= (byte & 127) << shift
      if (byte < 128) {
        this.at = at
        return BigInt((low >>> 1) ^ -(low & 1))
      }
    }
    for (let shift = 0; shift < 28 && byte > 127; shift += 7) {
      if (at >= end) cutShort()
      byte = buffer[at++]!
      middle |= (byte & 127) << shift
    }
    if (byte > 127) {
      if (at >= end) cutShort()
      byte = buffer[at++]!
      high = byte & 127
      if (byte > 127) {
        if (at >= end) cutShort()
        byte = buffer[at++]!
        if (byte > 1) malformed('a long has more than 64 bits')
        high |= byte << 7
      }
    }
    this.at = at
    const zigzag = middle * P28 + low
    if (high === 0 && zigzag < EXACT) return BigInt((zigzag & 1) === 0 ? zigzag / 2 : -(zigzag + 1) / 2)
    const bits = (BigInt(high) << 56n) | (BigInt(middle) << 28n) | BigInt(low)
    return (bits >> 1n) ^ -(bits & 1n)
  }

  /** A long as a number: exact to 2^53, and beyond that still too large for whatever a count or a length may be. */
  count(): number {
    const { buffer, end } = this
    let { at } = this
    if (at >= end) cutShort()
    let byte = buffer[at++]!
    if (byte < 128) {
      this.at = at
      return (byte >>> 1) ^ -(byte & 1)
    }
    let zigzag = byte & 127
    for (let unit = 128; byte > 127; unit *= 128) {
      if (at >= end) cutShort()
      byte = buffer[at++]!
      if (unit === P63 && byte > 1) malformed('a long has more than 64 bits')
      zigzag += (byte & 127) * unit
    }
    this.at = at
    return zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2
  }

  float(): number {
    return this.view.getFloat32(this.#take(4), true)
  }

  double(): number {
    return this.view.getFloat64(this.#take(8), true)
  }

  bytes(): Buffer {
    const length = this.count()
    const from = this.#take(length)
    return Buffer.from(this.buffer.subarray(from, from + length))
  }

  string(): string {
    const length = this.count()
    const from = this.#take(length)
    const text = this.buffer.toString('utf8', from, from + length)
    if (text.includes('\ufffd') && !isUtf8(this.buffer.subarray(from, from + length))) malformed('a string is not UTF-8')
    return text
  }

  /** The unscaled value of a decimal on bytes: two's complement, big-endian. */
  decimal(): bigint {
    const length = this.count()
    const from = this.#take(length)
    if (length === 0) malformed('a decimal has no bytes')
    const { buffer } = this
    if (length > 6) return BigInt.asIntN(length * 8, BigInt(`0x${buffer.toString('hex', from, from + length)}`))
    let value = buffer[from]!
    if (value > 127) value -= 256
    for (let i = 1; i < length; i++) value = value * 256 + buffer[from + i]!
    return BigInt(value)
  }

  /** The branch of a union of `branches`. */
  branch(branches: number): number {
    const index = this.int()
    if (index < 0 || index >= branches) malformed(`a union has no branch ${index}`)
    return index
  }

  /**
   * The items of the next block of an array or a map; 0 ends it. Every item takes at least `itemBytes`, which bounds what a damaged count
   * can make a reader allocate.
   */
  block(itemBytes: number): number {
    let items = this.count()
    if (items < 0) {
      items = -items
      if (this.count() < 0) malformed('a block has a negative size')
    }
    if (items * itemBytes > this.end - this.at) cutShort()
    return items
  }

  array<T>(item: (reader: AvroReader) => T): T[] {
    const items: T[] = []
    for (let left = this.block(1); left > 0; left = this.block(1)) for (; left > 0; left--) items.push(item(this))
    return items
  }

  map<T>(item: (reader: AvroReader) => T): Map<string, T> {
    const map = new Map<string, T>()
    for (let left = this.block(2); left > 0; left = this.block(2)) for (; left > 0; left--) map.set(this.string(), item(this))
    return map
  }

  record<T>(fields: (reader: AvroReader) => T): T {
    return fields(this)
  }

  skipBytes(): void {
    this.#take(this.count())
  }

  skip(lengthBytes: number): void {
    this.#take(lengthBytes)
  }

  /** @throws record.malformed unless all bytes are read */
  close(): void {
    if (this.at !== this.end) malformed(`${this.end - this.at} bytes are left over`)
  }

  #take(length: number): number {
    const from = this.at
    if (length < 0) malformed('a length is negative')
    if (length > this.end - from) cutShort()
    this.at = from + length
    return from
  }
}

export function malformed(what: string): never {
  throw new MillraceError('record.malformed', what)
}

function cutShort(): never {
  malformed('the bytes end before the value does')
}

/** Values of one Parquet column in the encoding PLAIN, with their bounds. Source: Apache Parquet format, "Encodings". */
import type { SchemaElement, Statistics } from 'hyparquet'
import { invariant } from '../../core/plugin.ts'

/** Up to this length ASCII is copied faster here than by a call. */
const SHORT_TEXT = 64
const SCRATCH_BYTES = 64 * 1024
/** Memory that stays for the next column at the most. */
const KEPT_BYTES = 2 * 1024 * 1024
const INT64 = { low: -(2n ** 63n), high: 2n ** 63n - 1n }

/** Bytes of the values of one page. One for all columns. */
class Scratch {
  at = 0
  bytes: Buffer
  view: DataView

  constructor() {
    ;({ bytes: this.bytes, view: this.view } = memory(SCRATCH_BYTES))
  }

  /** Makes room for so many more bytes. */
  need(bytes: number): void {
    if (this.at + bytes <= this.bytes.length) return
    const old = this.bytes
    ;({ bytes: this.bytes, view: this.view } = memory(Math.max(2 * old.length, this.at + bytes)))
    old.copy(this.bytes, 0, 0, this.at)
  }

  trim(): void {
    this.at = 0
    if (this.bytes.length > KEPT_BYTES) ({ bytes: this.bytes, view: this.view } = memory(SCRATCH_BYTES))
  }
}

function memory(length: number): { readonly bytes: Buffer; readonly view: DataView } {
  const bytes = Buffer.allocUnsafeSlow(length)
  return { bytes, view: new DataView(bytes.buffer) }
}

const scratch = new Scratch()

/** As hyparquet-writer puts them into the footer. */
export type ChunkStatistics = Statistics & { readonly nan_count?: bigint }

/** Values of one column, gathered a page at a time. Of all columns of the process one is written at a time: from the first `put` to `end`, without a pause. */
export abstract class PlainValues {
  /** A value that is not null, as its column's codec gives it. */
  abstract put(value: unknown): void
  /** Bounds of all values put. */
  abstract readonly statistics: ChunkStatistics

  /** Bytes of the open page. */
  get size(): number {
    return scratch.at
  }

  /** The bytes of the open page, which ends; valid until the next value. */
  take(): Uint8Array {
    const bytes = scratch.bytes.subarray(0, scratch.at)
    scratch.at = 0
    return bytes
  }

  end(): void {
    scratch.trim()
  }
}

class Booleans extends PlainValues {
  #bits = 0
  #count = 0
  #low = true
  #high = false
  #any = false

  put(value: boolean): void {
    if (this.#count === 0) scratch.need(1)
    if (value) this.#bits |= 1 << this.#count
    this.#low &&= value
    this.#high ||= value
    this.#any = true
    if (++this.#count === 8) this.#spill()
  }

  #spill(): void {
    scratch.bytes[scratch.at++] = this.#bits
    this.#bits = 0
    this.#count = 0
  }

  override take(): Uint8Array {
    if (this.#count > 0) this.#spill()
    return super.take()
  }

  get statistics(): ChunkStatistics {
    return this.#any ? { min_value: this.#low, max_value: this.#high } : {}
  }
}

class Integers extends PlainValues {
  readonly #decimal: boolean
  #low = Number.POSITIVE_INFINITY
  #high = Number.NEGATIVE_INFINITY

  constructor(decimal: boolean) {
    super()
    this.#decimal = decimal
  }

  put(value: number | bigint): void {
    const number = Number(value)
    scratch.need(4)
    scratch.view.setInt32(scratch.at, number, true)
    scratch.at += 4
    if (number < this.#low) this.#low = number
    if (number > this.#high) this.#high = number
  }

  get statistics(): ChunkStatistics {
    if (this.#low > this.#high) return {}
    invariant(this.#low >= -(2 ** 31) && this.#high < 2 ** 31, 'a number of more than 32 bits')
    return this.#decimal ? { min_value: BigInt(this.#low), max_value: BigInt(this.#high) } : { min_value: this.#low, max_value: this.#high }
  }
}

class Longs extends PlainValues {
  #low: bigint | null = null
  #high: bigint | null = null

  put(value: bigint): void {
    scratch.need(8)
    scratch.view.setBigInt64(scratch.at, value, true)
    scratch.at += 8
    if (this.#low === null || value < this.#low) this.#low = value
    if (this.#high === null || value > this.#high) this.#high = value
  }

  get statistics(): ChunkStatistics {
    if (this.#low === null || this.#high === null) return {}
    invariant(this.#low >= INT64.low && this.#high <= INT64.high, 'a number of more than 64 bits')
    return { min_value: this.#low, max_value: this.#high }
  }
}

class Floats extends PlainValues {
  readonly #single: boolean
  #low = Number.POSITIVE_INFINITY
  #high = Number.NEGATIVE_INFINITY
  #nans = 0n

  constructor(single: boolean) {
    super()
    this.#single = single
  }

  put(value: number): void {
    scratch.need(8)
    if (this.#single) scratch.view.setFloat32(scratch.at, value, true)
    else scratch.view.setFloat64(scratch.at, value, true)
    scratch.at += this.#single ? 4 : 8
    if (Number.isNaN(value)) this.#nans++
    if (value < this.#low) this.#low = value
    if (value > this.#high) this.#high = value
  }

  /** NaN is in no bound; zeros have the sign that bounds both. */
  get statistics(): ChunkStatistics {
    if (this.#low > this.#high) return { nan_count: this.#nans }
    return { min_value: this.#low === 0 ? -0 : this.#low, max_value: this.#high === 0 ? 0 : this.#high, nan_count: this.#nans }
  }
}

export class Texts extends PlainValues {
  #low: string | null = null
  #high: string | null = null

  put(text: string): void {
    const most = text.length * 3
    scratch.need(4 + most)
    const { bytes } = scratch
    const from = scratch.at + 4
    let to = from
    if (text.length <= SHORT_TEXT) {
      for (let i = 0; i < text.length; i++) {
        const unit = text.charCodeAt(i)
        if (unit > 127) {
          to = -1
          break
        }
        bytes[to++] = unit
      }
    } else to = -1
    if (to < 0) to = from + bytes.write(text, from, most, 'utf8')
    scratch.view.setUint32(scratch.at, to - from, true)
    scratch.at = to
    if (this.#low === null || precedes(text, this.#low)) this.#low = text
    if (this.#high === null || precedes(this.#high, text)) this.#high = text
  }

  get statistics(): ChunkStatistics {
    return this.#low === null || this.#high === null ? {} : { min_value: this.#low, max_value: this.#high }
  }
}

/** In the order of UTF-8: that of UTF-16, but for surrogates, which are above all else. */
function precedes(a: string, b: string): boolean {
  const shorter = Math.min(a.length, b.length)
  for (let i = 0; i < shorter; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return rank(x) < rank(y)
  }
  return a.length < b.length
}

function rank(unit: number): number {
  if (unit < 0xd800) return unit
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800
}

class Bytes extends PlainValues {
  #low: Uint8Array | null = null
  #high: Uint8Array | null = null

  put(value: Uint8Array): void {
    scratch.need(4 + value.length)
    scratch.view.setUint32(scratch.at, value.length, true)
    scratch.bytes.set(value, scratch.at + 4)
    scratch.at += 4 + value.length
    if (this.#low === null || Buffer.compare(value, this.#low) < 0) this.#low = value
    if (this.#high === null || Buffer.compare(value, this.#high) > 0) this.#high = value
  }

  get statistics(): ChunkStatistics {
    return this.#low === null || this.#high === null ? {} : { min_value: this.#low, max_value: this.#high }
  }
}

/** Of a fixed length, compared byte by byte. */
class Uuids extends PlainValues {
  readonly #low = Buffer.alloc(16, 0xff)
  readonly #high = Buffer.alloc(16)
  #any = false

  put(text: string): void {
    scratch.need(16)
    const { bytes } = scratch
    const from = scratch.at
    let at = from
    for (let i = 0; i < text.length && at < from + 16; i++) {
      if (text.charCodeAt(i) === 45) continue
      bytes[at++] = (digit(text.charCodeAt(i)) << 4) | digit(text.charCodeAt(++i))
    }
    invariant(at === from + 16, 'a uuid is not 16 bytes')
    scratch.at = at
    this.#any = true
    if (bytes.compare(this.#low, 0, 16, from, at) < 0) bytes.copy(this.#low, 0, from, at)
    if (bytes.compare(this.#high, 0, 16, from, at) > 0) bytes.copy(this.#high, 0, from, at)
  }

  get statistics(): ChunkStatistics {
    return this.#any ? { min_value: this.#low, max_value: this.#high } : {}
  }
}

function digit(unit: number): number {
  const value = unit < 58 ? unit - 48 : (unit | 32) - 87
  invariant(value >= 0 && value < 16, 'a uuid has a character that is no hexadecimal digit')
  return value
}

/** Decimals of more than 18 digits: big-endian two's complement of a fixed length, at least eight bytes. */
class WideDecimals extends PlainValues {
  readonly #length: number
  #low: bigint | null = null
  #high: bigint | null = null

  constructor(length: number) {
    super()
    this.#length = length
  }

  put(value: bigint): void {
    scratch.need(this.#length)
    const last = scratch.at + this.#length
    scratch.view.setBigInt64(last - 8, value)
    let rest = value >> 64n
    for (let at = last - 9; at >= scratch.at; at--) {
      scratch.bytes[at] = Number(rest & 0xffn)
      rest >>= 8n
    }
    scratch.at = last
    if (this.#low === null || value < this.#low) this.#low = value
    if (this.#high === null || value > this.#high) this.#high = value
  }

  get statistics(): ChunkStatistics {
    return this.#low === null || this.#high === null ? {} : { min_value: this.#low, max_value: this.#high }
  }
}

/** @throws invariant.broken for a column without a physical type that Iceberg has */
export function plainValues({ type, type_length: length, logical_type: logical, name }: SchemaElement): PlainValues {
  switch (type) {
    case 'BOOLEAN':
      return new Booleans()
    case 'INT32':
      return new Integers(logical?.type === 'DECIMAL')
    case 'INT64':
      return new Longs()
    case 'FLOAT':
      return new Floats(true)
    case 'DOUBLE':
      return new Floats(false)
    case 'BYTE_ARRAY':
      return logical?.type === 'STRING' ? new Texts() : new Bytes()
    case 'FIXED_LEN_BYTE_ARRAY':
      return logical?.type === 'UUID' ? new Uuids() : new WideDecimals(length!)
    default:
      return invariant(false, `the column ${name} has no physical type that is written`) as never
  }
}

/** Avro binary encoding into one growing buffer. Source: Apache Avro specification, "Binary Encoding". */

const TWO_32 = 4_294_967_296
/** Beyond this, doubling a number for the zigzag is no longer exact. */
const EXACT = 2 ** 52
const P28 = 2 ** 28
/** Up to this many bytes a loop beats the call into native copy. */
const SHORT_COPY = 40

/**
 * Position `at` rises as values are written; set it back to write again. Not reentrant. Allocates only when the buffer must grow.
 */
export class AvroWriter {
  buffer: Buffer
  view: DataView
  at = 0

  constructor(capacity = 16_384) {
    this.buffer = Buffer.from(new ArrayBuffer(capacity))
    this.view = new DataView(this.buffer.buffer)
  }

  /** Makes room for `bytes` more and a little: callers may overshoot by 32. */
  reserve(bytes: number): void {
    const needed = this.at + bytes + 32
    if (needed <= this.buffer.length) return
    const grown = Buffer.from(new ArrayBuffer(Math.max(needed, this.buffer.length * 2)))
    this.buffer.copy(grown, 0, 0, this.at)
    this.buffer = grown
    this.view = new DataView(grown.buffer)
  }

  byte(value: number): void {
    this.reserve(1)
    this.buffer[this.at++] = value
  }

  /** Avro int or long of a safe integer. */
  long(value: number): void {
    if (value >= EXACT || value <= -EXACT) {
      this.bigint(BigInt(value))
      return
    }
    this.reserve(10)
    const { buffer } = this
    let { at } = this
    let zigzag = value >= 0 ? value * 2 : -value * 2 - 1
    if (zigzag < P28) {
      zigzag |= 0
      while (zigzag > 127) {
        buffer[at++] = (zigzag & 127) | 128
        zigzag >>>= 7
      }
      buffer[at++] = zigzag
      this.at = at
      return
    }
    let high = Math.floor(zigzag / P28)
    const low = (zigzag - high * P28) | 0
    buffer[at] = (low & 127) | 128
    buffer[at + 1] = ((low >>> 7) & 127) | 128
    buffer[at + 2] = ((low >>> 14) & 127) | 128
    buffer[at + 3] = (low >>> 21) | 128
    at += 4
    while (high > 127) {
      buffer[at++] = (high % 128) | 128
      high = Math.floor(high / 128)
    }
    buffer[at++] = high
    this.at = at
  }

  /** Avro long of `high * 2^32 + low`; high signed, low unsigned. */
  long64(high: number, low: number): void {
    if (high < 0x100000 && high >= -0x100000) this.long(high * TWO_32 + low)
    else this.bigint((BigInt(high) << 32n) | BigInt(low))
  }

  /** Avro long of a signed 64-bit integer. */
  bigint(value: bigint): void {
    this.reserve(10)
    let zigzag = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n))
    while (zigzag > 127n) {
      this.buffer[this.at++] = Number(zigzag & 127n) | 128
      zigzag >>= 7n
    }
    this.buffer[this.at++] = Number(zigzag)
  }

  float(value: number): void {
    this.reserve(4)
    this.view.setFloat32(this.at, value, true)
    this.at += 4
  }

  double(value: number): void {
    this.reserve(8)
    this.view.setFloat64(this.at, value, true)
    this.at += 8
  }

  /** Length and bytes [from, to): Avro bytes, or a string that is UTF-8 already. */
  bytes(source: Uint8Array, from: number, to: number): void {
    this.long(to - from)
    this.raw(source, from, to)
  }

  /** Bytes [from, to) as they are. */
  raw(source: Uint8Array, from: number, to: number): void {
    const length = to - from
    this.reserve(length)
    const { buffer, at } = this
    if (length <= SHORT_COPY) for (let i = 0; i < length; i++) buffer[at + i] = source[from + i]!
    else if (Buffer.isBuffer(source)) source.copy(buffer, at, from, to)
    else buffer.set(source.subarray(from, to), at)
    this.at = at + length
  }

  string(value: string): void {
    const length = Buffer.byteLength(value)
    this.long(length)
    this.reserve(length)
    this.buffer.write(value, this.at, length, 'utf8')
    this.at += length
  }

  /** Avro decimal bytes, shortest two's complement, of an unscaled safe integer. */
  decimal(unscaled: number): void {
    if (unscaled >= EXACT || unscaled <= -EXACT) {
      this.decimalBig(BigInt(unscaled))
      return
    }
    this.reserve(9)
    let length = 1
    const magnitude = unscaled < 0 ? -unscaled - 1 : unscaled
    for (let limit = 128; magnitude >= limit; limit *= 256) length++
    this.buffer[this.at++] = length * 2
    for (let i = length - 1, rest = unscaled; i >= 0; i--) {
      const above = Math.floor(rest / 256)
      this.buffer[this.at + i] = rest - above * 256
      rest = above
    }
    this.at += length
  }

  decimalBig(unscaled: bigint): void {
    let length = 1
    const magnitude = unscaled < 0n ? -unscaled - 1n : unscaled
    for (let limit = 128n; magnitude >= limit; limit <<= 8n) length++
    this.long(length)
    this.reserve(length)
    for (let i = length - 1, rest = unscaled; i >= 0; i--) {
      this.buffer[this.at + i] = Number(rest & 255n)
      rest >>= 8n
    }
    this.at += length
  }
}

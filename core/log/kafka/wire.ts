import { KafkaFault } from './kafka-fault.ts'

const VARINT_BYTES = 5

/** Reads the fields of a Kafka response, in order. What ends too early throws a KafkaFault. Source: kafka.apache.org/protocol#protocol_types */
export class WireReader {
  readonly bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  /** @returns where the field of so many bytes begins */
  #pass(bytes: number): number {
    const from = this.#at
    if (bytes > this.bytes.length - from) throw new KafkaFault('NETWORK_EXCEPTION', `a response of ${this.bytes.length} bytes ends too early`)
    this.#at = from + bytes
    return from
  }

  int8(): number {
    return this.bytes.readInt8(this.#pass(1))
  }

  boolean(): boolean {
    return this.int8() !== 0
  }

  int16(): number {
    return this.bytes.readInt16BE(this.#pass(2))
  }

  int32(): number {
    return this.bytes.readInt32BE(this.#pass(4))
  }

  int64(): bigint {
    return this.bytes.readBigInt64BE(this.#pass(8))
  }

  string(): string | null {
    const length = this.int16()
    if (length < 0) return null
    const from = this.#pass(length)
    return this.bytes.toString('utf8', from, from + length)
  }

  /** A slice of the response. */
  nullableBytes(): Buffer {
    const length = Math.max(0, this.int32())
    const from = this.#pass(length)
    return this.bytes.subarray(from, from + length)
  }

  *array(): Generator<number> {
    const count = this.int32()
    for (let i = 0; i < count; i++) yield i
  }

  /** Of a flexible version: what newer brokers may add, none of which we know. */
  skipTaggedFields(): void {
    for (let left = this.#unsignedVarint(); left > 0; left--) {
      this.#unsignedVarint() // tag
      this.#pass(this.#unsignedVarint())
    }
  }

  #unsignedVarint(): number {
    let value = 0
    for (let i = 0; i < VARINT_BYTES; i++) {
      const byte = this.bytes.readUInt8(this.#pass(1))
      value += (byte & 0x7f) * 2 ** (7 * i)
      if (byte < 0x80) return value
    }
    throw new KafkaFault('NETWORK_EXCEPTION', 'a response has a number that does not end')
  }
}

/** Gathers the fields of a request; large byte ranges stay apart and are not copied. */
export class WireWriter {
  readonly #parts: Buffer[] = []
  #chunk = Buffer.allocUnsafe(512)
  #from = 0
  #at = 0

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#chunk.length) return
    this.#cut()
    this.#chunk = Buffer.allocUnsafe(Math.max(4096, bytes))
    this.#from = 0
    this.#at = 0
  }

  #cut(): void {
    if (this.#at > this.#from) this.#parts.push(this.#chunk.subarray(this.#from, this.#at))
    this.#from = this.#at
  }

  int8(value: number): this {
    this.#room(1)
    this.#at = this.#chunk.writeInt8(value, this.#at)
    return this
  }

  boolean(value: boolean): this {
    return this.int8(value ? 1 : 0)
  }

  int16(value: number): this {
    this.#room(2)
    this.#at = this.#chunk.writeInt16BE(value, this.#at)
    return this
  }

  int32(value: number): this {
    this.#room(4)
    this.#at = this.#chunk.writeInt32BE(value, this.#at)
    return this
  }

  int64(value: bigint): this {
    this.#room(8)
    this.#at = this.#chunk.writeBigInt64BE(value, this.#at)
    return this
  }

  string(value: string | null): this {
    if (value === null) return this.int16(-1)
    const length = Buffer.byteLength(value)
    return this.int16(length).#text(value, length)
  }

  strings(values: readonly string[] | null): this {
    this.int32(values?.length ?? -1)
    for (const value of values ?? []) this.string(value)
    return this
  }

  int32s(values: readonly number[]): this {
    this.int32(values.length)
    for (const value of values) this.int32(value)
    return this
  }

  /** Of a flexible version. */
  compactString(value: string): this {
    const length = Buffer.byteLength(value)
    return this.#unsignedVarint(length + 1).#text(value, length)
  }

  /** Of a flexible version. */
  noTaggedFields(): this {
    return this.#unsignedVarint(0)
  }

  #unsignedVarint(value: number): this {
    this.#room(VARINT_BYTES)
    for (; value > 0x7f; value = Math.floor(value / 128)) this.#at = this.#chunk.writeUInt8((value & 0x7f) | 0x80, this.#at)
    this.#at = this.#chunk.writeUInt8(value, this.#at)
    return this
  }

  #text(value: string, length: number): this {
    this.#room(length)
    this.#at += this.#chunk.write(value, this.#at)
    return this
  }

  /** Takes the bytes as they are, without copying. */
  raw(bytes: Buffer): this {
    this.#cut()
    if (bytes.length > 0) this.#parts.push(bytes)
    return this
  }

  parts(): readonly Buffer[] {
    this.#cut()
    return this.#parts
  }
}

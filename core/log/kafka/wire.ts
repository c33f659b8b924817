/** Reads the fields of a Kafka response that is not flexible, in order. Source: kafka.apache.org/protocol#protocol_types */
export class WireReader {
  readonly bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  int16(): number {
    return this.bytes.readInt16BE((this.#at += 2) - 2)
  }

  int32(): number {
    return this.bytes.readInt32BE((this.#at += 4) - 4)
  }

  int64(): bigint {
    return this.bytes.readBigInt64BE((this.#at += 8) - 8)
  }

  string(): string | null {
    const length = this.int16()
    return length < 0 ? null : this.bytes.toString('utf8', this.#at, (this.#at += length))
  }

  /** A slice of the response. */
  nullableBytes(): Buffer {
    const length = this.int32()
    return length <= 0 ? this.bytes.subarray(0, 0) : this.bytes.subarray(this.#at, (this.#at += length))
  }

  *array(): Generator<number> {
    const count = this.int32()
    for (let i = 0; i < count; i++) yield i
  }
}

/** Gathers the fields of a request that is not flexible; large byte ranges stay apart and are not copied. */
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
    this.int16(length)
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

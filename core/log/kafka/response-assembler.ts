const LENGTH_BYTES = 4
/** A broker never answers with more than this; a larger length means that it is no Kafka broker. */
const MAX_RESPONSE_BYTES = 512 * 1024 * 1024

/** Puts length-prefixed responses together from chunks of a socket. Each byte is copied once, so chunks may be reused at once. */
export class ResponseAssembler {
  readonly #onResponse: (body: Buffer) => void
  readonly #allocate: (bytes: number) => Buffer
  readonly #length = Buffer.alloc(LENGTH_BYTES)
  #lengthFilled = 0
  #body: Buffer | null = null
  #bodyFilled = 0

  /** `onResponse` gets the response without its length, in a buffer of exactly its size that `allocate` gave. */
  constructor(onResponse: (body: Buffer) => void, allocate: (bytes: number) => Buffer = Buffer.allocUnsafeSlow) {
    this.#onResponse = onResponse
    this.#allocate = allocate
  }

  /** @throws RangeError when a length is impossible; the connection cannot go on after that */
  push(chunk: Buffer, end = chunk.length): void {
    let at = 0
    while (at < end) {
      if (this.#body === null) {
        const copied = chunk.copy(this.#length, this.#lengthFilled, at, Math.min(end, at + LENGTH_BYTES - this.#lengthFilled))
        at += copied
        this.#lengthFilled += copied
        if (this.#lengthFilled < LENGTH_BYTES) return
        const length = this.#length.readInt32BE(0)
        if (length < LENGTH_BYTES || length > MAX_RESPONSE_BYTES)
          throw new RangeError(`a response of ${length} bytes: this is not a Kafka listener, or one that wants TLS`)
        this.#body = this.#allocate(length)
        this.#bodyFilled = 0
      }
      const copied = chunk.copy(this.#body, this.#bodyFilled, at, end)
      at += copied
      this.#bodyFilled += copied
      if (this.#bodyFilled < this.#body.length) return
      const body = this.#body
      this.#body = null
      this.#lengthFilled = 0
      this.#onResponse(body)
    }
  }
}

/**
 * Gives buffers in turn out of two, so that a response is valid until the one after the next begins. V8 lets go of large buffers far too late: a reader
 * that got a new one for each response held over a gigabyte.
 */
export function alternatingBuffers(): (bytes: number) => Buffer {
  let current = Buffer.alloc(0)
  let other = Buffer.alloc(0)
  return (bytes) => {
    const next = other.length >= bytes ? other : Buffer.allocUnsafeSlow(bytes)
    other = current
    current = next
    return next.length === bytes ? next : next.subarray(0, bytes)
  }
}

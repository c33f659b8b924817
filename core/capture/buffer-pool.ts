const LEAST_BITS = 10
const MOST_BITS = 18
/** The largest buffer that is kept. */
export const MOST_POOLED_BYTES = 2 ** MOST_BITS
/** All that lie here together hold no more than this. */
const POOL_BYTES = 4 * 1024 * 1024

/**
 * Buffers for reuse, in sizes that double from 1 KiB to 256 KiB: what many small frames hold stays in proportion to what is in them, and none is made anew
 * while the load stays as it is.
 */
export class BufferPool {
  readonly #free: Buffer[][] = Array.from({ length: MOST_BITS - LEAST_BITS + 1 }, () => [])
  #bytes = 0

  /** Bytes of the buffers that lie here. */
  get bytes(): number {
    return this.#bytes
  }

  /** A buffer of at least so many bytes, with an ArrayBuffer of its own; what is in it is arbitrary. */
  take(bytes: number): Buffer {
    if (bytes > MOST_POOLED_BYTES) return Buffer.from(new ArrayBuffer(bytes))
    const size = sizeOf(bytes)
    const pooled = this.#free[size]!.pop()
    if (pooled === undefined) return Buffer.from(new ArrayBuffer(1 << (LEAST_BITS + size)))
    this.#bytes -= pooled.length
    return pooled
  }

  /** Nobody uses the buffer any more. One of another size than those above is let go. */
  give(buffer: Buffer): void {
    const size = sizeOf(buffer.length)
    if (buffer.length !== 1 << (LEAST_BITS + size)) return
    this.#free[size]!.push(buffer)
    this.#bytes += buffer.length
    if (this.#bytes > POOL_BYTES) this.#letGo()
  }

  /** Of the size of which most lies here: the load has other sizes now. */
  #letGo(): void {
    const bytesOf = (size: number) => this.#free[size]!.length << (LEAST_BITS + size)
    let most = 0
    for (let size = 1; size < this.#free.length; size++) if (bytesOf(size) >= bytesOf(most)) most = size
    while (this.#bytes > POOL_BYTES) this.#bytes -= this.#free[most]!.pop()!.length
  }
}

/** Which of the sizes holds so many bytes; beyond the largest, the largest. */
function sizeOf(bytes: number): number {
  return Math.min(MOST_BITS, Math.max(LEAST_BITS, 32 - Math.clz32(bytes - 1))) - LEAST_BITS
}

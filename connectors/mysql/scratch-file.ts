import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { invariant, MillraceError } from '../../core/plugin.ts'

const MEMORY_BYTES = 256 * 1024

/**
 * Bytes that wait for their turn: a few in memory, more in a file, so that memory is bounded however many they are. Nothing is kept over a restart: the
 * server sends them again.
 *
 * @throws log.full when the disk is
 */
export class ScratchFile {
  readonly #path: string
  #file = -1
  #fileBytes = 0
  #held: Buffer[] = []
  #heldBytes = 0

  constructor(path: string) {
    this.#path = path
  }

  get size(): number {
    return this.#fileBytes + this.#heldBytes
  }

  /** Copies the bytes. */
  append(bytes: Buffer): void {
    this.#held.push(Buffer.from(bytes))
    this.#heldBytes += bytes.length
    if (this.#heldBytes > MEMORY_BYTES) this.#flush()
  }

  #flush(): void {
    const bytes = Buffer.concat(this.#held)
    this.#held = []
    this.#heldBytes = 0
    this.#guard(() => {
      if (this.#file < 0) this.#file = openSync(this.#path, 'w+')
      for (let at = 0; at < bytes.length; ) {
        const written = writeSync(this.#file, bytes, at, bytes.length - at, this.#fileBytes)
        at += written
        this.#fileBytes += written
      }
    })
  }

  /** The bytes of [from, to), a piece at a time; each is a buffer of its own. */
  *pieces(from = 0, to = this.size): Generator<Buffer> {
    if (this.#file < 0) {
      yield Buffer.concat(this.#held).subarray(from, to)
      return
    }
    if (this.#heldBytes > 0) this.#flush()
    for (let at = from; at < to; ) {
      const piece = Buffer.allocUnsafeSlow(Math.min(MEMORY_BYTES, to - at))
      const read = this.#guard(() => readSync(this.#file, piece, 0, piece.length, at))
      invariant(read > 0, `${this.#path} is as long as what was written`)
      at += read
      yield piece.subarray(0, read)
    }
  }

  /** Frees memory and file. May be called twice. */
  discard(): void {
    this.#held = []
    this.#heldBytes = 0
    this.#fileBytes = 0
    if (this.#file < 0) return
    closeSync(this.#file)
    this.#file = -1
    unlinkSync(this.#path)
  }

  #guard<T>(work: () => T): T {
    try {
      return work()
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException
      const full = code === 'ENOSPC' || code === 'EDQUOT'
      throw new MillraceError(full ? 'log.full' : 'config.invalid', `the scratch file ${this.#path} of a large transaction: ${message}`, {
        fix: 'make room in the data folder, and let Millrace write there',
        cause,
      })
    }
  }
}

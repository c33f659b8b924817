import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { invariant, MillraceError } from '../../core/plugin.ts'

const FIRST_BYTES = 16 * 1024
const MEMORY_BYTES = 256 * 1024
const READ_BYTES = 1024 * 1024
/** Per record: its length, and how many Relation messages had come before it. Both unsigned 32 bits, big-endian. */
export const RECORD_HEADER_BYTES = 8

/** Whole records at [0, end) of `bytes`; valid until the next piece is asked for. */
export interface SpillPiece {
  readonly bytes: Buffer
  readonly view: DataView
  readonly end: number
}

/**
 * The messages of one transaction that has not committed yet, raw and in order. A small one stays in memory; a larger one goes to a file, so
 * memory is bounded whatever the transaction's size. A file is scratch: after a restart the server sends the transaction again.
 *
 * @throws log.full when the disk is
 */
export class TransactionSpill {
  readonly xid: number
  /** Messages carry the xid of their subtransaction. */
  readonly streamed: boolean
  /** Subtransactions whose messages count no more. */
  readonly aborted = new Set<number>()
  readonly #path: string
  #file = -1
  #buffer = Buffer.allocUnsafeSlow(FIRST_BYTES)
  #used = 0
  #fileBytes = 0

  constructor(path: string, xid: number, streamed: boolean) {
    this.#path = path
    this.xid = xid
    this.streamed = streamed
  }

  get sizeBytes(): number {
    return this.#fileBytes + this.#used
  }

  /** Copies the message at [at, end) of `bytes`. */
  append(bytes: Buffer, at: number, end: number, arrival: number): void {
    const length = end - at
    const needed = this.#used + RECORD_HEADER_BYTES + length
    if (needed > this.#buffer.length) this.#makeRoom(RECORD_HEADER_BYTES + length)
    this.#buffer.writeUInt32BE(length, this.#used)
    this.#buffer.writeUInt32BE(arrival, this.#used + 4)
    bytes.copy(this.#buffer, this.#used + RECORD_HEADER_BYTES, at, end)
    this.#used += RECORD_HEADER_BYTES + length
  }

  #makeRoom(bytes: number): void {
    if (this.#used + bytes > MEMORY_BYTES) this.#flush()
    if (this.#used + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#used + bytes, Math.min(MEMORY_BYTES, this.#buffer.length * 4)))
    this.#buffer.copy(larger, 0, 0, this.#used)
    this.#buffer = larger
  }

  #flush(): void {
    if (this.#used === 0) return
    try {
      if (this.#file < 0) this.#file = openSync(this.#path, 'w+')
      for (let at = 0; at < this.#used; ) {
        const written = writeSync(this.#file, this.#buffer, at, this.#used - at, this.#fileBytes)
        at += written
        this.#fileBytes += written
      }
    } catch (error) {
      throw spillError(error, this.#path)
    }
    this.#used = 0
    if (this.#buffer.length > MEMORY_BYTES) this.#buffer = Buffer.allocUnsafeSlow(MEMORY_BYTES)
  }

  /** Everything that was appended, about a megabyte at a time. */
  *pieces(): Generator<SpillPiece> {
    if (this.#file < 0) {
      yield { bytes: this.#buffer, view: viewOf(this.#buffer), end: this.#used }
      return
    }
    this.#flush()
    let bytes = Buffer.allocUnsafeSlow(READ_BYTES)
    let view = viewOf(bytes)
    let held = 0
    for (let at = 0; at < this.#fileBytes; ) {
      let read = 0
      try {
        read = readSync(this.#file, bytes, held, bytes.length - held, at)
      } catch (error) {
        throw spillError(error, this.#path)
      }
      invariant(read > 0, `the spill file of transaction ${this.xid} is shorter than what was written`)
      at += read
      held += read
      let end = 0
      let needed = RECORD_HEADER_BYTES
      while (held - end >= RECORD_HEADER_BYTES) {
        needed = RECORD_HEADER_BYTES + view.getUint32(end)
        if (needed > held - end) break
        end += needed
      }
      if (end > 0) yield { bytes, view, end }
      const rest = held - end
      if (needed > bytes.length) {
        const larger = Buffer.allocUnsafeSlow(needed)
        bytes.copy(larger, 0, end, held)
        bytes = larger
        view = viewOf(bytes)
      } else bytes.copyWithin(0, end, held)
      held = rest
    }
    invariant(held === 0, `the spill file of transaction ${this.xid} ends within a message`)
  }

  /** Frees memory and file. May be called twice. */
  discard(): void {
    this.#used = 0
    this.#fileBytes = 0
    if (this.#file < 0) return
    closeSync(this.#file)
    this.#file = -1
    unlinkSync(this.#path)
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

function spillError(cause: unknown, path: string): MillraceError {
  const errno = cause as NodeJS.ErrnoException
  const full = errno.code === 'ENOSPC' || errno.code === 'EDQUOT'
  return new MillraceError(full ? 'log.full' : 'config.invalid', `the spill file ${path} of a large transaction: ${errno.message}`, {
    fix: 'make room in the data folder and let Millrace write there, or set `streaming: false` so that the server holds large transactions instead',
    cause,
  })
}

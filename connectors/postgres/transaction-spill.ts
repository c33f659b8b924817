import { invariant, ScratchFile, viewOf } from '../../core/plugin.ts'

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
 * The messages of one transaction that has not committed yet, raw and in order, in a {@link ScratchFile}.
 *
 * @throws log.full when the disk is
 */
export class TransactionSpill {
  readonly xid: number
  /** Messages carry the xid of their subtransaction. */
  readonly streamed: boolean
  /** Subtransactions whose messages count no more. */
  readonly aborted = new Set<number>()
  readonly #file: ScratchFile
  readonly #header = Buffer.alloc(RECORD_HEADER_BYTES)

  constructor(path: string, xid: number, streamed: boolean) {
    const fix = 'make room in the data folder and let Millrace write there, or set `streaming: false` so that the server holds large transactions instead'
    this.#file = new ScratchFile(path, fix)
    this.xid = xid
    this.streamed = streamed
  }

  get sizeBytes(): number {
    return this.#file.size
  }

  /** Copies the message at [at, end) of `bytes`. */
  append(bytes: Buffer, at: number, end: number, arrival: number): void {
    this.#header.writeUInt32BE(end - at, 0)
    this.#header.writeUInt32BE(arrival, 4)
    this.#file.append(this.#header)
    this.#file.append(bytes, at, end)
  }

  /** Everything that was appended, about a megabyte at a time. */
  *pieces(): Generator<SpillPiece> {
    const { size } = this.#file
    let bytes = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, size))
    let view = viewOf(bytes)
    let held = 0
    for (let at = 0; at < size; ) {
      const read = this.#file.read(bytes, held, at)
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
    this.#file.discard()
  }
}

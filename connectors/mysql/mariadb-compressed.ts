import { viewOf } from '../../core/plugin.ts'
import { EVENT } from './binlog-event.ts'
import { inflateInto } from './inflate.ts'
import { protocolError } from './mysql-error.ts'
import type { WireReader } from './type-reader.ts'
import { readLength } from './wire-connection.ts'

/** Compressed row events (`log_bin_compress` of MariaDB), and what they are once they are not. */
const PLAIN: ReadonlyMap<number, number> = new Map([
  [EVENT.mariadbWriteRowsCompressedV1, EVENT.writeRowsV1],
  [EVENT.mariadbUpdateRowsCompressedV1, EVENT.updateRowsV1],
  [EVENT.mariadbDeleteRowsCompressedV1, EVENT.deleteRowsV1],
  [EVENT.mariadbWriteRowsCompressed, EVENT.writeRows],
  [EVENT.mariadbUpdateRowsCompressed, EVENT.updateRows],
  [EVENT.mariadbDeleteRowsCompressed, EVENT.deleteRows],
])

/** More than a row has. */
const MOST_BYTES = 0x7fff_ffff
/** Deflate makes no more of a byte: 258 bytes of two bits. */
const MOST_TIMES = 1032
const METHOD = 0xf0
const ZLIB = 0x80
const BARE = 0x08
/** The memory of a larger event is not kept for the next one. */
const KEPT_BYTES = 65_536

/** A row event as it was before it was compressed: its head and bitmaps are not, its rows are. One at a time, in memory that the next one takes. */
export class CompressedRows {
  readonly #kept = Buffer.allocUnsafeSlow(KEPT_BYTES)
  readonly #keptView = viewOf(this.#kept)
  type = 0
  bytes = this.#kept
  view = this.#keptView
  /** The event's body is bytes[0..length). */
  length = 0

  /** Takes the body of an event of this type. @throws source.protocol */
  read(type: number, bytes: Buffer, at: number, end: number, event: { readonly place: string }): void {
    const plain = PLAIN.get(type)!
    const headAt = at + 8 + (plain >= EVENT.writeRows ? bytes.readUInt16LE(at + 8) : 0)
    const { value: columns, next } = readLength(bytes, headAt)
    const isUpdate = plain === EVENT.updateRows || plain === EVENT.updateRowsV1
    const rowsAt = next + ((columns + 7) >> 3) * (isUpdate ? 2 : 1)
    if (rowsAt >= end) throw protocolError('compressed rows that are cut off', event.place)
    try {
      const { dataAt, length, isBare } = readHead(bytes, rowsAt, end)
      this.type = plain
      this.length = rowsAt - at + length
      this.#makeRoom()
      bytes.copy(this.bytes, 0, at, rowsAt)
      inflateInto(bytes, dataAt, end, isBare, this.bytes, rowsAt - at, this.length)
    } catch (error) {
      throw protocolError('a compressed event that cannot be read', event.place, error)
    }
  }

  #makeRoom(): void {
    if (this.length <= KEPT_BYTES) {
      this.bytes = this.#kept
      this.view = this.#keptView
    } else {
      this.bytes = Buffer.allocUnsafe(this.length)
      this.view = viewOf(this.bytes)
    }
  }
}

/** The text of a compressed statement. @throws source.protocol */
export function inflate(bytes: Buffer, at: number, end: number, event: { readonly place: string }): Buffer {
  try {
    return inflated(bytes, at, end)
  } catch (error) {
    throw protocolError('a compressed event that cannot be read', event.place, error)
  }
}

/** A value of a column that is COMPRESSED: nothing for an empty one, one that is left as it is behind a zero byte, or what `inflated` reads. */
export function compressedValue(read: WireReader): WireReader {
  return (bytes, view, at, length, writer) => {
    if (length === 0) read(bytes, view, at, 0, writer)
    else if ((bytes[at]! & METHOD) === 0) read(bytes, view, at + 1, length - 1, writer)
    else {
      const value = inflated(bytes, at, at + length)
      read(value, viewOf(value), 0, value.length, writer)
    }
  }
}

/** @throws Error, which who reads the event places */
function inflated(bytes: Buffer, at: number, end: number): Buffer {
  const { dataAt, length, isBare } = readHead(bytes, at, end)
  const value = Buffer.allocUnsafe(length)
  inflateInto(bytes, dataAt, end, isBare, value, 0, length)
  return value
}

/**
 * The highest bit, three bits of algorithm (0: zlib), one for data without zlib's head and sum, and the bytes of the length; the length, high byte first; the data.
 * See `binlog_buf_compress` and `compress_zlib` of MariaDB. @throws RangeError
 */
function readHead(bytes: Buffer, at: number, end: number): { readonly dataAt: number; readonly length: number; readonly isBare: boolean } {
  const head = bytes[at]!
  const lengthBytes = head & 7
  const dataAt = at + 1 + lengthBytes
  if ((head & METHOD) !== ZLIB || lengthBytes < 1 || lengthBytes > 4 || dataAt >= end) throw new RangeError('compressed in an unknown way')
  const length = bytes.readUIntBE(at + 1, lengthBytes)
  // before as much memory is taken
  if (length < 1 || length > Math.min(MOST_BYTES, MOST_TIMES * (end - dataAt))) throw new RangeError(`${length} bytes uncompressed`)
  return { dataAt, length, isBare: (head & BARE) !== 0 }
}

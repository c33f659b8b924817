import { inflateRawSync, inflateSync } from 'node:zlib'
import { viewOf } from '../../core/plugin.ts'
import { EVENT } from './binlog-event.ts'
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
const METHOD = 0xf0
const ZLIB = 0x80
const BARE = 0x08

/** A row event as it was before it was compressed: its head and bitmaps are not, its rows are. @throws source.protocol */
export function inflateRows(type: number, bytes: Buffer, at: number, end: number, place: string): { readonly type: number; readonly bytes: Buffer } {
  const plain = PLAIN.get(type)!
  const headAt = at + 8 + (plain >= EVENT.writeRows ? bytes.readUInt16LE(at + 8) : 0)
  const { value: columns, next } = readLength(bytes, headAt)
  const isUpdate = plain === EVENT.updateRows || plain === EVENT.updateRowsV1
  const rowsAt = next + ((columns + 7) >> 3) * (isUpdate ? 2 : 1)
  if (rowsAt >= end) throw protocolError('compressed rows that are cut off', place)
  return { type: plain, bytes: Buffer.concat([bytes.subarray(at, rowsAt), inflate(bytes, rowsAt, end, place)]) }
}

/** The text of a compressed statement, or the rows of a compressed event. @throws source.protocol */
export function inflate(bytes: Buffer, at: number, end: number, place: string): Buffer {
  try {
    return inflated(bytes, at, end)
  } catch (error) {
    throw protocolError('a compressed event that cannot be read', place, error)
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

/**
 * The highest bit, three bits of algorithm (0: zlib), one for data without zlib's head and sum, and the bytes of the length; the length, high byte first; the data.
 * See `binlog_buf_compress` and `compress_zlib` of MariaDB. @throws RangeError, which who reads the event places
 */
function inflated(bytes: Buffer, at: number, end: number): Buffer {
  const head = bytes[at]!
  const lengthBytes = head & 7
  const dataAt = at + 1 + lengthBytes
  if ((head & METHOD) !== ZLIB || lengthBytes < 1 || lengthBytes > 4 || dataAt >= end) throw new RangeError('compressed in an unknown way')
  const length = bytes.readUIntBE(at + 1, lengthBytes)
  if (length < 1 || length > MOST_BYTES) throw new RangeError(`${length} bytes uncompressed`)
  const data = bytes.subarray(dataAt, end)
  const value = (head & BARE) === 0 ? inflateSync(data, { maxOutputLength: length }) : inflateRawSync(data, { maxOutputLength: length })
  if (value.length !== length) throw new RangeError(`${value.length} of ${length} bytes uncompressed`)
  return value
}

import { inflateSync } from 'node:zlib'
import { EVENT } from './binlog-event.ts'
import { protocolError } from './mysql-error.ts'
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

/** A byte with the highest bit set, three bits of algorithm (0: zlib) and the bytes of the length; the length, high byte first; the data. @throws source.protocol */
export function inflate(bytes: Buffer, at: number, end: number, place: string): Buffer {
  const head = bytes[at]!
  const lengthBytes = head & 7
  const dataAt = at + 1 + lengthBytes
  if ((head & 0xf0) !== 0x80 || lengthBytes < 1 || lengthBytes > 4 || dataAt >= end) throw protocolError('an event that is compressed in an unknown way', place)
  const length = bytes.readUIntBE(at + 1, lengthBytes)
  if (length < 1 || length > MOST_BYTES) throw protocolError(`an event of ${length} bytes uncompressed`, place)
  try {
    const inflated = inflateSync(bytes.subarray(dataAt, end), { maxOutputLength: length })
    if (inflated.length === length) return inflated
  } catch (error) {
    throw protocolError('a compressed event that cannot be read', place, error)
  }
  throw protocolError(`a compressed event that has not the ${length} bytes that it should`, place)
}

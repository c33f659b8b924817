import type { ChangeWriter } from '../../core/plugin.ts'
import { stringBytes } from './column-definition.ts'
import { realType, TYPE, type WireColumn } from './table-map.ts'
import { decimalBytes } from './type-number.ts'
import type { WireReader } from './type-reader.ts'
import { readLength } from './wire-connection.ts'

/** Bytes of a value in a row event: fixed when not negative, else a length prefix of that many bytes. */
function layoutOf({ type, meta }: WireColumn): number {
  const prefixed = (most: number) => (most > 255 ? -2 : -1)
  switch (realType(type, meta)) {
    case TYPE.tiny:
    case TYPE.year:
      return 1
    case TYPE.short:
      return 2
    case TYPE.int24:
    case TYPE.date:
    case TYPE.newdate:
    case TYPE.time:
      return 3
    case TYPE.long:
    case TYPE.float:
    case TYPE.timestamp:
      return 4
    case TYPE.longlong:
    case TYPE.double:
    case TYPE.datetime:
      return 8
    case TYPE.timestamp2:
      return 4 + ((meta + 1) >> 1)
    case TYPE.datetime2:
      return 5 + ((meta + 1) >> 1)
    case TYPE.time2:
      return 3 + ((meta + 1) >> 1)
    case TYPE.newdecimal:
      return decimalBytes(meta >> 8, meta & 0xff)
    case TYPE.bit:
      return (meta & 0xff) + (meta >> 8 > 0 ? 1 : 0)
    case TYPE.enum:
    case TYPE.set:
      return meta & 0xff
    case TYPE.varchar:
    case TYPE.varString:
    case TYPE.mariadbVarcharCompressed:
      return prefixed(meta)
    case TYPE.string:
      return prefixed(stringBytes(meta))
    case TYPE.blob:
    case TYPE.tinyBlob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
    case TYPE.json:
    case TYPE.geometry:
    case TYPE.vector:
    case TYPE.mariadbBlobCompressed:
      return -meta
    default:
      throw new RangeError(`a column of type ${type}`)
  }
}

/** Walks the rows of row events with one table map: over them, or through their columns into a writer. */
export class RowImages {
  readonly columns: number
  readonly #layouts: readonly number[]
  /** Columns of type JSON. */
  readonly #documents: readonly number[]
  /** Where each column of the row that `locate` walked begins, and its bytes; -1: NULL, -2: not sent, -3: only what changed of it was sent. */
  readonly starts: Int32Array
  readonly lengths: Int32Array

  constructor(columns: readonly WireColumn[]) {
    this.columns = columns.length
    this.#layouts = columns.map(layoutOf)
    this.#documents = columns.flatMap(({ type }, i) => (type === TYPE.json ? [i] : []))
    this.starts = new Int32Array(columns.length)
    this.lengths = new Int32Array(columns.length)
  }

  /** Finds the columns of the row at `at`, of which those in the bitmap at `present` were sent. @returns where the next row begins */
  locate(bytes: Buffer, at: number, end: number, present: number): number {
    const { starts, lengths } = this
    let sent = 0
    for (let i = 0; i < this.columns; i++) if ((bytes[present + (i >> 3)]! & (1 << (i & 7))) !== 0) sent++
    let next = at + ((sent + 7) >> 3)
    for (let i = 0, n = 0; i < this.columns; i++) {
      if ((bytes[present + (i >> 3)]! & (1 << (i & 7))) === 0) {
        lengths[i] = -2
        continue
      }
      const isNull = (bytes[at + (n >> 3)]! & (1 << (n & 7))) !== 0
      n++
      if (isNull) {
        lengths[i] = -1
        continue
      }
      let length = this.#layouts[i]!
      if (length < 0) {
        const size = -length
        if (next + size > end) throw new RangeError('a row is cut off')
        length = size === 1 ? bytes[next]! : bytes.readUIntLE(next, size)
        next += size
      }
      starts[i] = next
      lengths[i] = length
      next += length
    }
    if (next > end) throw new RangeError('a row is cut off')
    return next
  }

  /** The same for the new row of a PARTIAL_UPDATE_ROWS event, before which stands which documents it has only the changes of. */
  locatePartial(bytes: Buffer, at: number, end: number, present: number): number {
    const { value: options, next } = readLength(bytes, at)
    if (options === 0) return this.locate(bytes, next, end, present)
    if (options !== 1) throw new RangeError(`rows with the options ${options}`)
    const row = this.locate(bytes, next + ((this.#documents.length + 7) >> 3), end, present)
    for (const [n, column] of this.#documents.entries()) {
      if ((bytes[next + (n >> 3)]! & (1 << (n & 7))) !== 0 && this.lengths[column]! >= 0) this.lengths[column] = -3
    }
    return row
  }

  /** Whether the row that was located last came with this column, whole. */
  has(column: number): boolean {
    return this.lengths[column]! >= -1
  }

  /** Whether the row that was located last came with only what changed of this document. */
  isPartial(column: number): boolean {
    return this.lengths[column] === -3
  }

  /** Writes one column of the row that was located last, which came with it. */
  writeColumn(column: number, bytes: Buffer, view: DataView, read: WireReader, writer: ChangeWriter): void {
    const length = this.lengths[column]!
    if (length === -1) writer.null()
    else read(bytes, view, this.starts[column]!, length, writer)
  }

  /** Writes all columns of the row that was located last. */
  write(bytes: Buffer, view: DataView, readers: readonly WireReader[], writer: ChangeWriter): void {
    const { starts, lengths } = this
    for (let i = 0; i < readers.length; i++) {
      const length = lengths[i]!
      if (length >= 0) readers[i]!(bytes, view, starts[i]!, length, writer)
      else if (length === -1) writer.null()
      else writer.unchanged()
    }
  }
}

/** Whether every column was sent. */
export function isFull(bytes: Buffer, present: number, columns: number): boolean {
  for (let i = 0; i < columns; i++) if ((bytes[present + (i >> 3)]! & (1 << (i & 7))) === 0) return false
  return true
}

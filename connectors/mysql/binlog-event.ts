import { viewOf } from '../../core/plugin.ts'
import { protocolError } from './mysql-error.ts'
import { checksum } from './short-bytes.ts'

/** Event types: MySQL's libs/mysql/binlog/event/binlog_event.h, MariaDB's log_event.h. */
export const EVENT = {
  query: 2,
  stop: 3,
  rotate: 4,
  intvar: 5,
  appendBlock: 9,
  rand: 13,
  userVar: 14,
  formatDescription: 15,
  xid: 16,
  beginLoadQuery: 17,
  executeLoadQuery: 18,
  tableMap: 19,
  writeRowsV1: 23,
  updateRowsV1: 24,
  deleteRowsV1: 25,
  incident: 26,
  heartbeat: 27,
  rowsQuery: 29,
  writeRows: 30,
  updateRows: 31,
  deleteRows: 32,
  gtid: 33,
  anonymousGtid: 34,
  previousGtids: 35,
  xaPrepare: 38,
  partialUpdateRows: 39,
  transactionPayload: 40,
  heartbeatV2: 41,
  gtidTagged: 42,
  mariadbAnnotateRows: 160,
  mariadbCheckpoint: 161,
  mariadbGtid: 162,
  mariadbGtidList: 163,
  mariadbStartEncryption: 164,
  mariadbQueryCompressed: 165,
  mariadbWriteRowsCompressedV1: 166,
  mariadbUpdateRowsCompressedV1: 167,
  mariadbDeleteRowsCompressedV1: 168,
  mariadbWriteRowsCompressed: 169,
  mariadbUpdateRowsCompressed: 170,
  mariadbDeleteRowsCompressed: 171,
} as const

/** Events with rows, and the table maps before them. */
export const ROW_EVENTS: ReadonlySet<number> = new Set([
  EVENT.tableMap,
  EVENT.writeRows,
  EVENT.updateRows,
  EVENT.deleteRows,
  EVENT.partialUpdateRows,
  EVENT.writeRowsV1,
  EVENT.updateRowsV1,
  EVENT.deleteRowsV1,
  EVENT.mariadbWriteRowsCompressedV1,
  EVENT.mariadbUpdateRowsCompressedV1,
  EVENT.mariadbDeleteRowsCompressedV1,
  EVENT.mariadbWriteRowsCompressed,
  EVENT.mariadbUpdateRowsCompressed,
  EVENT.mariadbDeleteRowsCompressed,
])

export const HEADER_BYTES = 19
const CHECKSUM_BYTES = 4
/** A server may leave the event out that it does not know: a reader may, too. */
const FLAG_IGNORABLE = 0x80
/** Made by the server for this stream alone: it has no place in the file. */
const FLAG_ARTIFICIAL = 0x20

/**
 * One event at a time, in the buffer that it came in: its header read, its checksum verified. Keeps the file that the stream is in and the checksum
 * algorithm that the file's format description names.
 */
export class BinlogEvent {
  type = 0
  /** Seconds since epoch. */
  timestamp = 0
  serverId = 0
  size = 0
  /** Where the next event begins in the file (32 bits of it); 0 for artificial ones. */
  nextPosition = 0
  ignorable = false
  artificial = false
  /** The event's body lies at [at, end) of the bytes that `read` was given. */
  at = 0
  end = 0
  file = ''
  #checksummed: boolean | null = null

  /** @throws source.protocol when the length or the checksum does not fit */
  read(bytes: Buffer, view: DataView, from: number, to: number): void {
    this.readHeader(bytes, view, from, to)
    this.#fit(from, to)
    if (this.type === EVENT.formatDescription) this.#format(bytes, from, to)
    else if (this.#checksummed === true) this.#verify(bytes, view, from, to)
    if (this.type === EVENT.rotate) this.file = bytes.toString('utf8', this.at + 8, this.end)
  }

  /** Only the header, of an event that may go on beyond `to`. */
  readHeader(bytes: Buffer, view: DataView, from: number, to: number): void {
    if (to - from < HEADER_BYTES) throw protocolError(`an event of ${to - from} bytes`, this.place)
    this.#common(bytes, view, from)
    this.nextPosition = view.getUint32(from + 13, true)
    this.artificial = (view.getUint16(from + 17, true) & FLAG_ARTIFICIAL) !== 0
    this.at = from + HEADER_BYTES
    this.end = to
  }

  /** An event that lies within another: it has no checksum, and no place but that one's. */
  readInner(bytes: Buffer, view: DataView, from: number, to: number): void {
    this.#common(bytes, view, from)
    this.#fit(from, to)
  }

  #common(bytes: Buffer, view: DataView, from: number): void {
    this.timestamp = view.getUint32(from, true)
    this.type = bytes[from + 4]!
    this.serverId = view.getUint32(from + 5, true)
    this.size = view.getUint32(from + 9, true)
    this.ignorable = (view.getUint16(from + 17, true) & FLAG_IGNORABLE) !== 0
  }

  #fit(from: number, to: number): void {
    if (this.size !== to - from) throw protocolError(`an event of type ${this.type} with ${to - from} of its ${this.size} bytes`, this.place)
    this.at = from + HEADER_BYTES
    this.end = to
  }

  /** The event as one that lies within another. */
  withoutChecksum(bytes: Buffer): Buffer {
    const inner = Buffer.from(bytes.subarray(this.at - HEADER_BYTES, this.end))
    inner.writeUInt32LE(inner.length, 9)
    return inner
  }

  /** Bytes at the end of each event that are not its body. */
  get checksumBytes(): number {
    return this.#checksummed === true ? CHECKSUM_BYTES : 0
  }

  /** For messages: file and position. */
  get place(): string {
    return `${this.file === '' ? 'the start' : this.file}:${this.nextPosition}`
  }

  /** The stream follows the file of this name; the next rotate event may name another. */
  expectChecksums(on: boolean): void {
    this.#checksummed = on
  }

  #format(bytes: Buffer, from: number, to: number): void {
    // version 2, server version 50, created 4, header length 1, post-header lengths, algorithm 1, checksum 4: the last two since MySQL 5.6 and MariaDB 5.3
    if (to - from < HEADER_BYTES + 57 + 5) throw protocolError('a format description that is too short', this.place)
    const algorithm = bytes[to - CHECKSUM_BYTES - 1]!
    if (bytes.readUInt16LE(this.at) !== 4 || algorithm > 1) {
      throw protocolError(`a binlog of version ${bytes.readUInt16LE(this.at)} with checksum algorithm ${algorithm}`, this.place)
    }
    this.#checksummed = algorithm === 1
    if (this.#checksummed) this.#verify(bytes, viewOf(bytes), from, to)
    else this.end -= CHECKSUM_BYTES
  }

  #verify(bytes: Buffer, view: DataView, from: number, to: number): void {
    this.end = to - CHECKSUM_BYTES
    if (this.end < this.at) throw protocolError('an event without room for its checksum', this.place)
    if (checksum(bytes, from, this.end) !== view.getUint32(this.end, true)) {
      throw protocolError(`an event of type ${this.type} whose checksum does not fit its ${this.size} bytes`, this.place)
    }
  }
}

import { asMillraceError, invariant, isOfOneTable, MillraceError } from '../errors.ts'
import { partitionOf } from '../event/murmur2.ts'
import { DELETE_BYTES, DELETE_HEADER, POSITION_BYTES, POSITION_HEADER, SNAPSHOT_ORDINAL } from '../event/position.ts'
import { varintBytes, writeVarint } from '../event/record-batch.ts'
import { type ColumnType, Special, type TableSchema, tableId, UNCHANGED, type Value } from '../event/table-schema.ts'
import type { WindowLedger } from '../event/window-ledger.ts'
import { valueLayout } from '../schema/avro-mapping.ts'
import type { AvroWriter } from '../schema/avro-writer.ts'
import { encodeValue } from '../schema/value-encoder.ts'
import type { FrameAssembler, OpenFrame } from './frame-assembler.ts'
import type { ChangeWriter } from './source-connector.ts'
import type { WriterState } from './writer-state.ts'

const NO_BRANCH = 255

/** Which calls a column takes, as bits. */
const BOOLEAN = 1
const INT = 2
const LONG = 4
const FLOAT = 8
const DOUBLE = 16
const DECIMAL = 32
const TEXT = 64
const BYTES = 128
const ANY = 0xff | 256

const CALLS: Record<ColumnType['kind'], number> = {
  boolean: BOOLEAN,
  int32: INT,
  date: INT,
  int64: LONG,
  time: LONG,
  timestamp: LONG,
  timestamptz: LONG,
  float32: FLOAT,
  float64: DOUBLE,
  decimal: DECIMAL,
  string: TEXT,
  uuid: TEXT,
  json: TEXT,
  enum: TEXT,
  bytes: BYTES,
  array: 256,
  record: 256,
  map: 256,
}

const LETTER = { r: 'r'.charCodeAt(0), c: 'c'.charCodeAt(0), u: 'u'.charCodeAt(0), d: 'd'.charCodeAt(0), t: 't'.charCodeAt(0) }

/** count of headers, name, length, value: the same bytes but for the position itself. */
const HEADER = Buffer.concat([Buffer.from([2, POSITION_HEADER.length * 2]), Buffer.from(POSITION_HEADER), Buffer.from([POSITION_BYTES * 2])])
const HEADER_BYTES = HEADER.length + POSITION_BYTES

/** The second header of a tombstone: name, length; its value follows. */
const DELETE = Buffer.concat([Buffer.from([DELETE_HEADER.length * 2]), Buffer.from(DELETE_HEADER), Buffer.from([DELETE_BYTES * 2])])
const BOTH_HEADERS_BYTES = HEADER_BYTES + DELETE.length + DELETE_BYTES

/** Length, attributes, timestamp delta and offset delta of a record take no more bytes. */
const MOST_RECORD_OVERHEAD = 16

export interface WriterTarget {
  readonly topic: string
  readonly partitions: number
  readonly keySchemaId: number
  readonly valueSchemaId: number
  /** Avro strings version, connector, name, db, schema, table: constant for the table. */
  readonly sourcePrefix: Buffer
  /**
   * For a topic that is compacted: the id of the schema that keys of truncations have, since no record may be without a key there. Deletes are followed by
   * tombstones. Null for other topics.
   */
  readonly truncationKeyId: number | null
  /** Counts and sums every change by window: what was captured, to compare with what is in the log and what landed. */
  readonly ledger: WindowLedger
}

/** Whether changes of a table are written now, and what becomes of one that cannot be. */
export interface TableGate {
  /** Its changes are left out. */
  readonly closed: boolean
  /** A change is left out. */
  skip(): void
  /** A change holds what cannot be written: it is left out. @throws `error` where nothing may be */
  refuse(error: MillraceError): void
}

const ALWAYS_OPEN: TableGate = {
  closed: false,
  skip() {},
  refuse(error) {
    throw error
  },
}

/**
 * Encodes changes of one version of a table: Avro images into a scratch buffer, then whole records straight into Kafka frames.
 * See the contract in source-connector.ts; this class adds `beginRead` and `clear` for snapshots.
 */
export class TableWriter implements ChangeWriter {
  readonly table: TableSchema
  readonly #target: WriterTarget
  readonly #state: WriterState
  readonly #frames: FrameAssembler
  readonly #open: readonly OpenFrame[]
  readonly #gate: TableGate

  /** Scratch room that all writers share. */
  readonly #images: AvroWriter
  readonly #keys: AvroWriter
  readonly #starts: Int32Array
  readonly #types: readonly ColumnType[]
  readonly #rowBranches: Uint8Array
  readonly #rowCalls: Int32Array
  readonly #unchanged: Uint8Array
  readonly #special: Uint8Array
  readonly #keyTypes: readonly ColumnType[]
  readonly #keyBranches: Uint8Array
  readonly #keyCalls: Int32Array

  #branches: Uint8Array
  #calls: Int32Array
  #column = 0
  #columns = 0
  /** The change at hand holds what cannot be written: what else comes of it is taken, and no record is made. */
  #refused = false
  #op = 0
  #ordinal = 0
  #beforeFrom = -1
  #beforeTo = -1
  #afterFrom = -1
  #afterTo = -1
  /** [0, oldKeyTo) of #keys is the old key, [oldKeyTo, newKeyTo) the new one; -1: not given. */
  #oldKeyTo = -1
  #newKeyTo = -1
  /** Where the columns of a `key` image lie in #images until they are moved to #keys. */
  #keyFrom = -1

  constructor(table: TableSchema, target: WriterTarget, state: WriterState, frames: FrameAssembler, gate: TableGate = ALWAYS_OPEN) {
    this.table = table
    this.#target = target
    this.#state = state
    this.#images = state.images
    this.#keys = state.keys
    this.#frames = frames
    this.#gate = gate
    this.#open = frames.open(target.topic, target.partitions)
    const layout = valueLayout(table)
    const branch = (index: number | null) => (index === null ? NO_BRANCH : index * 2)
    this.#types = table.columns.map((column) => column.type)
    this.#rowBranches = Uint8Array.from(layout, (column) => branch(column.valueBranch))
    this.#unchanged = Uint8Array.from(layout, (column) => branch(column.unchangedBranch))
    this.#special = Uint8Array.from(layout, (column) => branch(column.specialBranch))
    this.#rowCalls = Int32Array.from(this.#types, (type) => CALLS[type.kind])
    this.#keyTypes = table.key.map((i) => this.#types[i]!)
    this.#keyBranches = new Uint8Array(table.key.length).fill(NO_BRANCH)
    this.#keyCalls = Int32Array.from(this.#keyTypes, (type) => CALLS[type.kind])
    this.#starts = new Int32Array(table.columns.length + 1)
    this.#branches = this.#rowBranches
    this.#calls = this.#rowCalls
  }

  begin(op: 'c' | 'u' | 'd', ordinal: number): boolean {
    if (ordinal <= this.#state.skipThrough) return false
    if (this.#gate.closed) {
      this.#gate.skip()
      return false
    }
    this.#start(LETTER[op], ordinal)
    return true
  }

  /** A row of a snapshot chunk: its ordinal follows the last one written at this commit, from {@link SNAPSHOT_ORDINAL} on. */
  beginRead(): void {
    this.#start(LETTER.r, this.#readOrdinal())
  }

  /** A truncation at the place of the next snapshot row: what was captured before counts no more. */
  clear(): void {
    this.#truncate(this.#readOrdinal())
  }

  #readOrdinal(): number {
    const ordinal = Math.max(this.#state.lastOrdinal + 1, SNAPSHOT_ORDINAL)
    invariant(ordinal <= 0xffff_ffff, 'more than 2^31 snapshot rows between two transactions')
    return ordinal
  }

  #start(op: number, ordinal: number): void {
    // I2: positions in the log only grow
    invariant(ordinal > this.#state.lastOrdinal, 'a change comes before one that was written')
    this.#op = op
    this.#ordinal = ordinal
    this.#images.at = 0
    this.#keys.at = 0
    this.#beforeFrom = -1
    this.#afterFrom = -1
    this.#oldKeyTo = -1
    this.#newKeyTo = -1
    this.#column = 0
    this.#columns = 0
    this.#refused = false
  }

  before(): void {
    this.#closeImage()
    this.#beforeFrom = this.#images.at
    this.#row()
  }

  after(): void {
    this.#closeImage()
    this.#afterFrom = this.#images.at
    this.#row()
  }

  #row(): void {
    this.#branches = this.#rowBranches
    this.#calls = this.#rowCalls
    this.#columns = this.#rowCalls.length
    this.#column = 0
  }

  key(): void {
    this.#closeImage()
    this.#branches = this.#keyBranches
    this.#calls = this.#keyCalls
    this.#columns = this.#keyCalls.length
    this.#column = 0
    this.#keyFrom = this.#images.at
  }

  /** Ends the image whose columns were given, and takes its key. */
  #closeImage(): void {
    if (this.#columns === 0) return
    if (this.#column !== this.#columns) this.#misuse(`${this.#column} of ${this.#columns} columns were given`)
    const { at } = this.#images
    if (this.#calls === this.#keyCalls && this.#keyFrom >= 0) {
      this.#startKey()
      this.#keys.raw(this.#images.buffer, this.#keyFrom, at)
      this.#oldKeyTo = this.#keys.at
      this.#images.at = this.#keyFrom
      this.#keyFrom = -1
      return
    }
    this.#starts[this.#columns] = at
    const { key } = this.table
    const isAfter = this.#afterFrom >= 0
    if (isAfter) this.#afterTo = at
    else this.#beforeTo = at
    if (key.length === 0) return
    this.#startKey()
    for (let i = 0; i < key.length; i++) {
      const column = key[i]!
      this.#keys.raw(this.#images.buffer, this.#starts[column]!, this.#starts[column + 1]!)
    }
    if (isAfter) this.#newKeyTo = this.#keys.at
    else this.#oldKeyTo = this.#keys.at
  }

  #startKey(schemaId = this.#target.keySchemaId): void {
    this.#keys.reserve(5)
    const { buffer, view, at } = this.#keys
    buffer[at] = 0
    view.setInt32(at + 1, schemaId)
    this.#keys.at = at + 5
  }

  end(): void {
    this.#closeImage()
    this.#columns = 0
    if (this.#refused) return
    const { key } = this.table
    const oldTo = this.#oldKeyTo
    const newTo = this.#newKeyTo
    const newFrom = oldTo < 0 ? 0 : oldTo
    if (this.#op === LETTER.d) {
      if (oldTo < 0 && key.length > 0) this.#misuse('a delete came without its key')
      this.#record(LETTER.d, this.#ordinal, 0, oldTo, this.#beforeFrom, this.#beforeTo, -1, -1)
      if (this.#target.truncationKeyId !== null && key.length > 0) this.#tombstone(this.#ordinal, 0, oldTo)
    } else {
      if (this.#afterFrom < 0) this.#misuse('an insert or update came without its new row')
      const moved = oldTo >= 0 && newTo >= 0 && this.#keys.buffer.compare(this.#keys.buffer, newFrom, newTo, 0, oldTo) !== 0
      if (moved) {
        this.#record(LETTER.d, this.#ordinal - 1, 0, oldTo, this.#beforeFrom, this.#beforeTo, -1, -1)
        if (this.#target.truncationKeyId !== null) this.#tombstone(this.#ordinal - 1, 0, oldTo)
        this.#record(LETTER.c, this.#ordinal, newFrom, newTo, -1, -1, this.#afterFrom, this.#afterTo)
      } else this.#record(this.#op, this.#ordinal, newFrom, newTo, this.#beforeFrom, this.#beforeTo, this.#afterFrom, this.#afterTo)
    }
    this.#state.lastOrdinal = this.#ordinal
  }

  truncate(ordinal: number): void {
    if (ordinal <= this.#state.skipThrough) return
    if (this.#gate.closed) this.#gate.skip()
    else this.#truncate(ordinal)
  }

  #truncate(ordinal: number): void {
    this.#start(LETTER.t, ordinal)
    const { partitions, truncationKeyId } = this.#target
    if (truncationKeyId !== null) this.#startKey(truncationKeyId)
    const keyTo = truncationKeyId === null ? -1 : this.#keys.at
    for (let partition = 0; partition < partitions; partition++) this.#recordTo(this.#open[partition]!, LETTER.t, ordinal, 0, keyTo, -1, -1, -1, -1)
    this.#state.lastOrdinal = ordinal
  }

  null(): void {
    const column = this.#next(ANY)
    if (this.#branches[column] === NO_BRANCH) {
      const name = this.table.columns[this.#calls === this.#keyCalls ? this.table.key[column]! : column]!.name
      this.#refuse(new MillraceError('record.null_key', `key column ${name} of ${tableId(this.table)} is NULL`))
    }
    this.#images.byte(0)
  }

  unchanged(): void {
    const column = this.#next(ANY)
    if (this.#calls !== this.#rowCalls || this.#unchanged[column] === NO_BRANCH) this.#misuse(`column ${column} cannot be unchanged`)
    this.#images.byte(this.#unchanged[column]!)
  }

  special(text: string): void {
    const column = this.#next(ANY)
    if (this.#calls !== this.#rowCalls || this.#special[column] === NO_BRANCH) {
      // I6: never a number or a text that stands for something else
      const { name, sourceType } = this.table.columns[this.#calls === this.#keyCalls ? this.table.key[column]! : column]!
      this.#refuse(
        new MillraceError('record.unrepresentable', `${tableId(this.table)}.${name} (${sourceType}) holds a value that its Avro type cannot`, {
          fix: 'set `unrepresentable: text` on the source: such values then travel as text in a branch of their own',
        }),
      )
      return
    }
    this.#images.byte(this.#special[column]!)
    this.#images.string(text)
  }

  boolean(value: boolean): void {
    this.#value(BOOLEAN)
    this.#images.byte(value ? 1 : 0)
  }

  int(value: number): void {
    this.#value(INT)
    this.#images.long(value)
  }

  long(value: number): void {
    this.#value(LONG)
    this.#images.long(value)
  }

  long64(high: number, low: number): void {
    this.#value(LONG)
    this.#images.long64(high, low)
  }

  bigint(value: bigint): void {
    this.#value(LONG)
    this.#images.bigint(value)
  }

  float(value: number): void {
    this.#value(FLOAT)
    this.#images.float(value)
  }

  double(value: number): void {
    this.#value(DOUBLE)
    this.#images.double(value)
  }

  decimal(unscaled: number): void {
    this.#value(DECIMAL)
    this.#images.decimal(unscaled)
  }

  decimalBig(unscaled: bigint): void {
    this.#value(DECIMAL)
    this.#images.decimalBig(unscaled)
  }

  text(bytes: Buffer, from: number, to: number): void {
    this.#value(TEXT)
    this.#images.bytes(bytes, from, to)
  }

  string(value: string): void {
    this.#value(TEXT)
    this.#images.string(value)
  }

  bytes(bytes: Buffer, from: number, to: number): void {
    this.#value(BYTES)
    this.#images.bytes(bytes, from, to)
  }

  value(value: Value): void {
    if (value === null) this.null()
    else if (value === UNCHANGED) this.unchanged()
    else if (value instanceof Special) this.special(value.text)
    else {
      const types = this.#calls === this.#keyCalls ? this.#keyTypes : this.#types
      const type = types[this.#column]
      this.#value(ANY)
      try {
        encodeValue(this.#images, type!, value)
      } catch (thrown) {
        const error = asMillraceError(thrown)
        if (!isOfOneTable(error)) throw thrown
        this.#refuse(error)
      }
    }
  }

  /** The change at hand holds what cannot be written. Its further columns come nevertheless, as the source knows nothing of it. */
  #refuse(error: MillraceError): void {
    if (this.#refused) return
    this.#gate.refuse(error)
    this.#refused = true
  }

  /** Steps to the next column, which must take one of `calls`. */
  #next(calls: number): number {
    const column = this.#column
    if ((this.#calls[column]! & calls) === 0 || column >= this.#columns) this.#misuse(`column ${column} does not take this call`)
    if (this.#calls === this.#rowCalls) this.#starts[column] = this.#images.at
    this.#column = column + 1
    return column
  }

  #value(calls: number): void {
    const branch = this.#branches[this.#next(calls)]!
    if (branch !== NO_BRANCH) this.#images.byte(branch)
  }

  #misuse(what: string): never {
    invariant(false, `the source drives the writer of ${tableId(this.table)} wrongly: ${what}`)
  }

  #record(op: number, ordinal: number, keyFrom: number, keyTo: number, beforeFrom: number, beforeTo: number, afterFrom: number, afterTo: number): void {
    const partition = this.#target.partitions === 1 || keyTo < 0 ? 0 : partitionOf(this.#keys.buffer, keyFrom, keyTo, this.#target.partitions)
    this.#recordTo(this.#open[partition]!, op, ordinal, keyFrom, keyTo, beforeFrom, beforeTo, afterFrom, afterTo)
  }

  #recordTo(
    frame: OpenFrame,
    op: number,
    ordinal: number,
    keyFrom: number,
    keyTo: number,
    beforeFrom: number,
    beforeTo: number,
    afterFrom: number,
    afterTo: number,
  ): void {
    const state = this.#state
    const { source, clock } = state
    const snapshot = op === LETTER.r
    const before = beforeFrom < 0 ? 0 : beforeTo - beforeFrom
    const after = afterFrom < 0 ? 0 : afterTo - afterFrom
    const prefix = this.#target.sourcePrefix
    // snapshot flag: the Avro string "true" or "false"
    const flag = snapshot ? TRUE : FALSE
    const valueLength = 5 + 1 + before + 1 + after + prefix.length + flag.length + source.at + varintBytes(ordinal) + 2 + clock.at
    const keyLength = keyTo < 0 ? -1 : keyTo - keyFrom
    const dataLength = varintBytes(keyLength) + Math.max(0, keyLength) + varintBytes(valueLength) + valueLength + HEADER_BYTES
    // room first: it may open the next frame, whose count begins again
    this.#frames.reserve(frame, dataLength + MOST_RECORD_OVERHEAD)
    const bodyLength = 2 + varintBytes(frame.count) + dataLength
    const { buffer, view } = frame
    let at = writeVarint(buffer, frame.at, bodyLength)
    buffer[at++] = 0
    buffer[at++] = 0
    at = writeVarint(buffer, at, frame.count)
    at = writeVarint(buffer, at, keyLength)
    const contentAt = at
    if (keyLength > 0) at = copy(this.#keys.buffer, keyFrom, buffer, at, keyLength)
    at = writeVarint(buffer, at, valueLength)
    const valueFrom = at
    buffer[at] = 0
    view.setInt32(at + 1, this.#target.valueSchemaId)
    at += 5
    const images = this.#images.buffer
    if (beforeFrom < 0) buffer[at++] = 0
    else {
      buffer[at++] = 2
      at = copy(images, beforeFrom, buffer, at, before)
    }
    if (afterFrom < 0) buffer[at++] = 0
    else {
      buffer[at++] = 2
      at = copy(images, afterFrom, buffer, at, after)
    }
    at = copy(prefix, 0, buffer, at, prefix.length)
    at = copy(flag, 0, buffer, at, flag.length)
    at = copy(source.buffer, 0, buffer, at, source.at)
    at = writeVarint(buffer, at, ordinal)
    buffer[at++] = 2
    buffer[at++] = op
    at = copy(clock.buffer, 0, buffer, at, clock.at)
    invariant(at - valueFrom === valueLength, 'a record is not as long as computed')
    this.#finish(frame, at, ordinal)
    this.#target.ledger.tally(state.window).add(op, view, keyLength > 0 ? contentAt : valueFrom, frame.at)
  }

  #tombstone(ordinal: number, keyFrom: number, keyTo: number): void {
    const partition = this.#target.partitions === 1 ? 0 : partitionOf(this.#keys.buffer, keyFrom, keyTo, this.#target.partitions)
    const frame = this.#open[partition]!
    const keyLength = keyTo - keyFrom
    const dataLength = varintBytes(keyLength) + keyLength + 1 + BOTH_HEADERS_BYTES
    this.#frames.reserve(frame, dataLength + MOST_RECORD_OVERHEAD)
    const bodyLength = 2 + varintBytes(frame.count) + dataLength
    const { buffer, view } = frame
    let at = writeVarint(buffer, frame.at, bodyLength)
    buffer[at++] = 0
    buffer[at++] = 0
    at = writeVarint(buffer, at, frame.count)
    at = writeVarint(buffer, at, keyLength)
    at = copy(this.#keys.buffer, keyFrom, buffer, at, keyLength)
    at = writeVarint(buffer, at, -1)
    at = this.#header(frame, at, ordinal, 2)
    at += DELETE.copy(buffer, at)
    view.setInt32(at, this.#target.valueSchemaId)
    view.setBigInt64(at + 4, this.#state.committedAt)
    frame.at = at + DELETE_BYTES
    this.#frames.wrote(frame)
  }

  /** The position header, the only one; the frame has the record. */
  #finish(frame: OpenFrame, at: number, ordinal: number): void {
    frame.at = this.#header(frame, at, ordinal, 1)
    this.#frames.wrote(frame)
  }

  /** The position header as the first of `count`. @returns where it ends */
  #header(frame: OpenFrame, at: number, ordinal: number, count: number): number {
    const { buffer, view } = frame
    const state = this.#state
    for (let i = 0; i < HEADER.length; i++) buffer[at + i] = HEADER[i]!
    buffer[at] = count * 2
    at += HEADER.length
    view.setUint32(at, state.commitHigh)
    view.setUint32(at + 4, state.commitLow)
    view.setUint32(at + 8, ordinal)
    return at + POSITION_BYTES
  }
}

const TRUE = Buffer.from([8, ...Buffer.from('true')])
const FALSE = Buffer.from([10, ...Buffer.from('false')])

/** Short copies by a loop: the call into native code costs more. */
function copy(from: Buffer, at: number, into: Buffer, to: number, length: number): number {
  if (length <= 40) for (let i = 0; i < length; i++) into[to + i] = from[at + i]!
  else from.copy(into, to, at, at + length)
  return to + length
}

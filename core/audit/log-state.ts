import { MillraceError } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { type FrameRecord, records } from '../event/record-batch.ts'
import { columnConversions, compileConversion } from '../event/row-conversion.ts'
import { hashBytes, hashHigh, hashKey, hashLow, hashPair, RowChecksum } from '../event/row-hash.ts'
import { type TableSchema, type Tuple, UNCHANGED } from '../event/table-schema.ts'
import { viewOf } from '../event/view-of.ts'
import type { Log, LogPosition } from '../log/log.ts'
import { AvroWriter } from '../schema/avro-writer.ts'
import { RecordDecoders, WIRE_HEADER_BYTES } from '../schema/record-decoder.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { compileColumnEncoders, encodeValue } from '../schema/value-encoder.ts'
import { RowTable, TOO_LARGE } from './row-table.ts'

/** Stands for a value that never came: such a row equals none that has one. */
const NEVER_CAME = 0xffff_ffff

/**
 * Hashes of a row's columns, each over its canonical bytes: the Avro `Value` of one version of the table, so that rows of any origin compare. The row's hash is
 * made of their sum, so that a column which a change leaves out can be taken from an earlier hash.
 */
export class RowHasher {
  /** Of the row hashed last: two words a column. */
  readonly columns: Uint32Array
  readonly #encode: ReturnType<typeof compileColumnEncoders>
  readonly #out = new AvroWriter()

  constructor(table: TableSchema) {
    this.#encode = compileColumnEncoders(table)
    this.columns = new Uint32Array(2 * this.#encode.length)
  }

  hash(row: Tuple): void {
    const out = this.#out
    for (let i = 0; i < this.#encode.length; i++) {
      if (row[i] === UNCHANGED) {
        this.columns[2 * i] = this.columns[2 * i + 1] = NEVER_CAME
        continue
      }
      out.at = 0
      this.#encode[i]!(out, row[i]!)
      hashBytes(out.view, 0, out.at)
      // the same value in another column is another value
      hashPair(hashHigh ^ Math.imul(i + 1, 0x9e37_79b1), hashLow)
      this.columns[2 * i] = hashHigh
      this.columns[2 * i + 1] = hashLow
    }
  }

  /** Of the row hashed last. */
  total(): ColumnSum {
    const sum = new ColumnSum()
    for (let i = 0; i < this.columns.length; i += 2) sum.add(this.columns[i]!, this.columns[i + 1]!)
    return sum
  }
}

/** The checksum over rows in the shape of a table. */
export class RowSum {
  readonly checksum = new RowChecksum()
  readonly #hasher: RowHasher

  constructor(table: TableSchema) {
    this.#hasher = new RowHasher(table)
  }

  add(row: Tuple): void {
    this.#hasher.hash(row)
    this.#hasher.total().addTo(this.checksum)
  }
}

/** A sum modulo 2^64. */
export class ColumnSum {
  high = 0
  low = 0

  add(high: number, low: number): void {
    const sum = this.low + low
    this.low = sum >>> 0
    this.high = (this.high + high + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
  }

  addTo(checksum: RowChecksum): void {
    // hashed once more: sums of rows whose columns are swapped among them would be the same
    hashPair(this.high, this.low)
    checksum.addHash(hashHigh, hashLow)
  }
}

/** How much of a topic to replay. */
export interface Cut {
  /** Up to these positions; a partition that is missing is not read. */
  readonly until: readonly LogPosition[]
  /** Only changes whose position's commit is below this. */
  readonly below: bigint | null
}

export interface ReplayOptions {
  readonly log: Log
  readonly registry: SchemaRegistry
  readonly topic: string
  /** The shape in which rows are summed. */
  readonly table: TableSchema
  readonly cut: Cut
  /** What the state may take; when it needs more, the stream is replayed several times, for some of the keys each. */
  readonly memoryBytes: number
  /** Rows that are expected. */
  readonly rows: number
  readonly signal: AbortSignal
}

export interface LogState {
  readonly sum: RowChecksum
  /** Changes in front of `until` were left out, since their commits are not below `below`. */
  readonly cut: boolean
  /** How often the stream was read. */
  readonly passes: number
}

/**
 * The state of a table as the log tells it: its changes replayed from the start up to a cut, the last version of each row in the shape `table`. Memory holds
 * hashes: 28 bytes a key at the least and 8 for each column that changes may leave out, within `memoryBytes`.
 * @throws log.position_lost when the topic's start is no longer retained
 */
export async function logState(options: ReplayOptions): Promise<LogState> {
  const { log, topic, table, cut, memoryBytes } = options
  const until = await offsetsOf(log, topic, cut)
  if (until.size === 0) return { sum: new RowChecksum(), cut: false, passes: 0 }
  const apart = new Set(table.columns.flatMap(({ mayBeUnchanged }, i) => (mayBeUnchanged ? [i] : [])))
  for (let parts = Math.max(1, Math.ceil(RowTable.bytes(1 + apart.size, options.rows) / memoryBytes)), passes = 0; ; ) {
    const replay = new Replay(options, until, [...apart])
    try {
      for (let part = 0; part < parts; part++) {
        passes++
        await replay.run(part, parts)
      }
      return { sum: replay.sum, cut: replay.cut, passes }
    } catch (error) {
      if (error === TOO_LARGE) parts *= 2
      else if (error instanceof LeftOut) apart.add(error.column)
      else throw error
    }
  }
}

/** Where to stop in each partition. @throws log.position_lost */
export async function offsetsOf(log: Log, topic: string, cut: Cut): Promise<ReadonlyMap<number, bigint>> {
  const bounds = await log.bounds(topic)
  const until = new Map<number, bigint>()
  for (const { partition, offset } of cut.until) {
    const bound = bounds.find((b) => b.partition === partition)
    if (bound === undefined) throw new MillraceError('invariant.broken', `${topic} has no partition ${partition}`)
    if (bound.start > 0n) {
      throw new MillraceError('log.position_lost', `${topic}/${partition} is retained from offset ${bound.start} only, so its state cannot be replayed`, {
        fix: 'compare source and sinks only, or keep the topic for ever (topics: retention: forever)',
      })
    }
    if (offset > 0n) until.set(partition, offset)
  }
  return until
}

/** A change leaves out a column whose hash is not kept apart. */
export class LeftOut {
  readonly column: number
  constructor(column: number) {
    this.column = column
  }
}

export class Replay {
  readonly sum = new RowChecksum()
  cut = false
  readonly #options: ReplayOptions
  readonly #until: ReadonlyMap<number, bigint>
  /** Columns whose hashes are kept apart. */
  readonly #apart: readonly number[]
  readonly #hasher: RowHasher
  readonly #keys: KeyHasher
  readonly #conversions = new Map<TableSchema, (row: Tuple) => Tuple>()

  constructor(options: ReplayOptions, until: ReadonlyMap<number, bigint>, apart: readonly number[]) {
    this.#options = options
    this.#until = until
    this.#apart = apart
    this.#hasher = new RowHasher(options.table)
    this.#keys = new KeyHasher(options.table)
  }

  /** Adds the rows of one part of the keys to the sum. @throws TOO_LARGE, LeftOut */
  async run(part: number, parts: number): Promise<void> {
    const rows = await this.state(part, parts)
    rows.each((at) => this.rowSum(rows, at).addTo(this.sum))
  }

  rowSum(rows: RowTable, at: number): ColumnSum {
    const sum = new ColumnSum()
    for (let i = 0; i <= this.#apart.length; i++) sum.add(rows.sumHigh(at, i), rows.sumLow(at, i))
    return sum
  }

  /** The rows of one part of the keys. @throws TOO_LARGE, LeftOut */
  async state(part: number, parts: number): Promise<RowTable> {
    const { cut, memoryBytes } = this.#options
    const rows = new RowTable(1 + this.#apart.length, memoryBytes, this.#options.rows / parts)
    await this.changes((change, view, record) => {
      if (cut.below !== null && change.position.commit >= cut.below) this.cut = true
      // it is in every partition, and partitions are read beside each other: newer rows of another one stay
      else if (change.kind === 'truncate') rows.deleteBefore(change.position)
      else {
        this.#keys.hash(change, view, record)
        if (hashLow % parts === part) this.#apply(rows, change, hashHigh, hashLow)
      }
    })
    return rows
  }

  /** Calls `visit` with each change up to the cut's positions. */
  async changes(visit: (change: RowChange | Truncation, view: DataView, record: FrameRecord) => void): Promise<void> {
    const { log, registry, topic, signal } = this.#options
    const decoders = new RecordDecoders(registry)
    const left = new Map(this.#until)
    const stop = new AbortController()
    const from = [...left.keys()].map((partition) => ({ topic, partition, offset: 0n }))
    try {
      for await (const { frame, partition, nextOffset } of log.consume(from, AbortSignal.any([signal, stop.signal]))) {
        const until = left.get(partition)
        if (until === undefined) continue
        await decoders.prepare(frame)
        const view = viewOf(frame)
        for (const record of records(frame)) {
          if (record.offset >= until) break
          const change = decodeOrSkip(decoders, frame, record)
          if (change !== null && change.kind !== 'message') visit(change, view, record)
        }
        if (nextOffset >= until) left.delete(partition)
        if (left.size === 0) break
      }
    } finally {
      stop.abort()
    }
    if (left.size > 0) throw new MillraceError('log.unreachable', `the replay of ${topic} was stopped before its end`)
  }

  #apply(rows: RowTable, change: RowChange, high: number, low: number): void {
    if (change.after === null) {
      rows.delete(high, low)
      return
    }
    let convert = this.#conversions.get(change.table)
    if (convert === undefined) this.#conversions.set(change.table, (convert = compileConversion(change.table, this.#options.table)))
    const row = convert(change.after)
    const leftOut = row.findIndex((value, i) => value === UNCHANGED && !this.#apart.includes(i))
    if (leftOut >= 0) throw new LeftOut(leftOut)
    this.#hasher.hash(row)
    const isKnown = rows.find(high, low) >= 0
    const at = rows.put(high, low, change.position)
    const { columns } = this.#hasher
    const rest = new ColumnSum()
    for (let i = 0; i < row.length; i++) if (!this.#apart.includes(i)) rest.add(columns[2 * i]!, columns[2 * i + 1]!)
    rows.setSum(at, 0, rest.high, rest.low)
    for (const [index, i] of this.#apart.entries()) {
      if (row[i] !== UNCHANGED || !isKnown) rows.setSum(at, 1 + index, columns[2 * i]!, columns[2 * i + 1]!)
    }
  }
}

/** Hashes keys by the Avro bytes that they have in one version of the table, so that one row has one hash whatever the version of its changes. */
export class KeyHasher {
  readonly #table: TableSchema
  readonly #out = new AvroWriter()
  /** By version: how its key is brought into the shape; null: its bytes are the same. */
  readonly #conversions = new Map<TableSchema, ((key: Tuple) => Tuple) | null>()

  constructor(table: TableSchema) {
    this.#table = table
  }

  /** Into `hashHigh` and `hashLow`. Without a key the whole row is the key. */
  hash(change: RowChange, view: DataView, record: FrameRecord): void {
    if (change.key === null) {
      const text = Buffer.from(keyText(change.after ?? change.before))
      hashKey(viewOf(text), 0, text.length)
      return
    }
    let convert = this.#conversions.get(change.table)
    if (convert === undefined) this.#conversions.set(change.table, (convert = this.#conversion(change.table)))
    if (convert === null) {
      hashKey(view, record.keyFrom + WIRE_HEADER_BYTES, record.keyTo)
      return
    }
    const out = this.#out
    out.at = 0
    for (const [i, value] of convert(change.key).entries()) encodeValue(out, this.#table.columns[this.#table.key[i]!]!.type, value)
    hashKey(out.view, 0, out.at)
  }

  /** The key of a row in the shape. */
  hashRow(row: Tuple): void {
    const { key, columns } = this.#table
    const out = this.#out
    out.at = 0
    const text = key.length === 0 ? Buffer.from(keyText(row)) : null
    if (text !== null) out.raw(text, 0, text.length)
    for (const i of key) encodeValue(out, columns[i]!.type, row[i]!)
    hashKey(out.view, 0, out.at)
  }

  #conversion(from: TableSchema): ((key: Tuple) => Tuple) | null {
    const to = this.#table
    const shape = ({ key, columns }: TableSchema) => JSON.stringify(key.map((i) => [columns[i]!.id, columns[i]!.type]))
    if (shape(from) === shape(to)) return null
    const columns = columnConversions(from, to)
    const parts = to.key.map((i) => ({ at: from.key.indexOf(columns[i]!.at), convert: columns[i]!.convert }))
    // other columns are the key now: none of these rows is one of the new ones
    if (parts.some(({ at }) => at < 0) || from.key.length !== to.key.length) return null
    return (key) => parts.map(({ at, convert }) => convert(key[at]!))
  }
}

/** Null for a record that no sink takes up either: it is a dead letter there, and the ledger counts it as foreign. */
function decodeOrSkip(decoders: RecordDecoders, frame: Buffer, record: FrameRecord): ReturnType<RecordDecoders['decode']> {
  try {
    return decoders.decode(frame, record)
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'record.malformed') return null
    throw error
  }
}

export function keyText(key: Tuple | null): string {
  return JSON.stringify(key, (_, value: unknown) =>
    typeof value === 'bigint' ? `${value}n` : value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
  )
}

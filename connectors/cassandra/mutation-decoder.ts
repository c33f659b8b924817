/**
 * Mutations from the bytes of their entries. Source: org.apache.cassandra.db.{Mutation, SerializationHeader, Columns, ClusteringPrefix},
 * partitions.PartitionUpdate, rows.{UnfilteredRowIteratorSerializer, UnfilteredSerializer, Cell} of Cassandra 4.0 to 5.0 (messaging versions 12 and 13, which
 * are the same here); see "Commit log format" in README.md.
 */
import type { MillraceError } from '../../core/plugin.ts'
import type {
  Cell,
  ComplexDeletion,
  Deletion,
  Liveness,
  Mutation,
  PartitionUpdate,
  RangeDeletion,
  RowUpdate,
  Slice,
  TableDescription,
  Unread,
  WriteTime,
} from './commit-log-events.ts'
import { fixedLength, isMultiCell } from './cql-type.ts'
import { segmentError } from './segment-error.ts'

/** 2015-09-22T00:00Z: write times and local times are told from here. */
const EPOCH_SECONDS = Date.UTC(2015, 8, 22) / 1000
const EPOCH_MICROS = EPOCH_SECONDS * 1_000_000
/** The write time of a deletion that is none. */
const NEVER = -(2n ** 63n)
const TWO_32 = 0x1_0000_0000
const TABLE_ID_BYTES = 16
/** Lists of columns that are remembered per table: statements write the same ones again and again. */
const MOST_HEADERS = 16

const PARTITION = { empty: 0x01, deletion: 0x04, staticRow: 0x08, rowEstimate: 0x10 } as const
const UNFILTERED = { end: 0x01, marker: 0x02, timestamp: 0x04, ttl: 0x08, deletion: 0x10, allColumns: 0x20, complexDeletion: 0x40, extension: 0x80 } as const
const EXTENSION_STATIC = 0x01
const CELL = { deleted: 0x01, expiring: 0x02, empty: 0x04, rowTimestamp: 0x08, rowTtl: 0x10 } as const

/** ClusteringPrefix.Kind, by its number: what a marker closes and opens. */
const MARKERS: readonly ({ readonly close: boolean | null; readonly open: boolean | null } | undefined)[] = [
  { close: false, open: null },
  { close: null, open: true },
  { close: false, open: true },
  undefined,
  undefined,
  { close: true, open: false },
  { close: true, open: null },
  { close: null, open: false },
]

const NO_SLICE: Slice = { from: -1, to: -1 }
const NO_SLICES: readonly Slice[] = []
const NO_ROWS: readonly RowUpdate[] = []
const NO_RANGES: readonly RangeDeletion[] = []
const NO_DELETIONS: readonly ComplexDeletion[] = []
const NOTHING: Mutation = { updates: [], unread: null }

interface DecodedColumn {
  /** Index into the description's columns. */
  readonly index: number
  readonly multiCell: boolean
  /** -1: a length comes before each value. */
  readonly fixed: number
}

interface DecodedTable {
  readonly description: TableDescription
  readonly columns: ReadonlyMap<string, DecodedColumn>
  /** As `fixed` above. */
  readonly clustering: readonly number[]
  readonly headers: Header[]
}

/** A list of columns, with the bytes that it was read from. */
interface Header {
  readonly bytes: Buffer
  readonly columns: readonly DecodedColumn[]
}

/** Reads entries of one server's log. Knows the tables that it was given last. Not reentrant. */
export class MutationDecoder {
  #tables: ReadonlyMap<string, DecodedTable> = new Map()
  #captured: readonly Buffer[] = []

  #bytes: Buffer = Buffer.alloc(0)
  #at = 0
  #end = 0
  #file = ''
  #offset = 0
  #minTimestamp: WriteTime = 0
  #minLocalTime = 0
  #minTtl = 0

  constructor(tables: Iterable<TableDescription>) {
    this.describe(tables)
  }

  /** The tables as they are from now on. */
  describe(tables: Iterable<TableDescription>): void {
    const all = [...tables]
    this.#tables = new Map(all.map((description) => [idBytes(description.id).toString('latin1'), decodedTable(description)]))
    this.#captured = all.filter(({ captured }) => captured).map(({ id }) => idBytes(id))
  }

  /**
   * The entry [from, to) of `bytes`.
   * @param file and `offset`: where it lies, for errors
   * @throws source.protocol when the bytes are no mutation
   */
  decode(bytes: Buffer, from: number, to: number, file: string, offset: number): Mutation {
    this.#bytes = bytes
    this.#at = from
    this.#end = to
    this.#file = file
    this.#offset = offset
    const count = this.#uvint()
    let updates: PartitionUpdate[] | null = null
    for (let i = 0; i < count; i++) {
      const start = this.#at
      if (this.#end - start < TABLE_ID_BYTES) this.#cutOff()
      const table = this.#tables.get(bytes.toString('latin1', start, start + TABLE_ID_BYTES))
      const isLast = i === count - 1
      if (table !== undefined && !table.description.captured && isLast) {
        this.#at = to
        break
      }
      if (table === undefined) return { updates: updates ?? [], unread: this.#unread(tableIdText(bytes, start), null, start + TABLE_ID_BYTES) }
      const update = this.#update(table, start)
      if (typeof update === 'string') return { updates: updates ?? [], unread: this.#unread(table.description.id, update, start) }
      if (table.description.captured) (updates ??= []).push(update)
    }
    if (this.#at !== to) this.#malformed(`${to - this.#at} bytes are left`)
    return updates === null ? NOTHING : { updates, unread: null }
  }

  /** What is not understood has no length, so that what comes after it is not known; but an update has its table's id. */
  #unread(table: string, column: string | null, from: number): Unread {
    const rest = this.#bytes.subarray(from, this.#end)
    return { table, column, mayHoldCaptured: this.#captured.some((id) => rest.includes(id)) }
  }

  /** @returns the name of a column that is not described */
  #update(table: DecodedTable, start: number): PartitionUpdate | string {
    this.#at = start + TABLE_ID_BYTES
    const key = this.#sized()
    const flags = this.#byte()
    let deletion: Deletion | null = null
    let staticRow: RowUpdate | null = null
    let rows: RowUpdate[] | null = null
    let ranges: RangeDeletion[] | null = null
    if ((flags & PARTITION.empty) === 0) {
      this.#minTimestamp = plus(this.#long(), EPOCH_MICROS)
      this.#minLocalTime = Number(this.#long()) + EPOCH_SECONDS
      this.#minTtl = this.#uvint()
      const hasStatic = (flags & PARTITION.staticRow) !== 0
      const statics = hasStatic ? this.#header(table) : null
      if (typeof statics === 'string') return statics
      const regulars = this.#header(table)
      if (typeof regulars === 'string') return regulars
      if ((flags & PARTITION.deletion) !== 0) deletion = this.#deletion()
      if (statics !== null) {
        const rowFlags = this.#byte()
        if ((rowFlags & UNFILTERED.extension) === 0 || (this.#byte() & EXTENSION_STATIC) === 0) this.#malformed('a static row is none')
        staticRow = this.#row(rowFlags, NO_SLICES, statics)
      }
      if ((flags & PARTITION.rowEstimate) !== 0) this.#uvint()
      let open: { readonly start: readonly Slice[]; readonly inclusive: boolean; readonly deletion: Deletion } | null = null
      for (;;) {
        const rowFlags = this.#byte()
        if ((rowFlags & UNFILTERED.end) !== 0) break
        if ((rowFlags & UNFILTERED.marker) === 0) {
          if ((rowFlags & UNFILTERED.extension) !== 0 && (this.#byte() & EXTENSION_STATIC) !== 0) this.#malformed('a static row among the others')
          const clustering = table.clustering.length === 0 ? NO_SLICES : this.#clustering(table, table.clustering.length)
          ;(rows ??= []).push(this.#row(rowFlags, clustering, regulars))
          continue
        }
        const marker = MARKERS[this.#byte()]
        const size = this.#short()
        if (marker === undefined || size > table.clustering.length) this.#malformed('a bound of a range that does not exist')
        const bound = this.#clustering(table, size)
        const first = this.#deletion()
        if (marker.close !== null) {
          if (open === null) this.#malformed('a range ends that did not start')
          ;(ranges ??= []).push({
            start: open.start,
            startInclusive: open.inclusive,
            end: bound,
            endInclusive: marker.close,
            writtenAt: first.writtenAt,
            deletedAt: first.deletedAt,
          })
          open = null
        } else if (open !== null) this.#malformed('a range starts within another')
        if (marker.open !== null) open = { start: bound, inclusive: marker.open, deletion: marker.close === null ? first : this.#deletion() }
      }
      if (open !== null) this.#malformed('a range has no end')
    }
    return {
      table: table.description,
      bytes: this.#bytes,
      from: start,
      to: this.#at,
      key,
      deletion,
      staticRow,
      rows: rows ?? NO_ROWS,
      ranges: ranges ?? NO_RANGES,
    }
  }

  #row(flags: number, clustering: readonly Slice[], header: readonly DecodedColumn[]): RowUpdate {
    let liveness: Liveness | null = null
    let deletion: Deletion | null = null
    if ((flags & UNFILTERED.timestamp) !== 0) {
      const writtenAt = this.#writeTime()
      const expires = (flags & UNFILTERED.ttl) !== 0
      const ttl = expires ? this.#ttl() : 0
      liveness = { writtenAt, ttl, expiresAt: expires ? this.#localTime() : 0 }
    }
    if ((flags & UNFILTERED.deletion) !== 0) deletion = this.#deletion()
    const columns = (flags & UNFILTERED.allColumns) !== 0 ? header : this.#subset(header)
    const cells: Cell[] = []
    let complexDeletions: ComplexDeletion[] | null = null
    for (let i = 0; i < columns.length; i++) {
      const column = columns[i]!
      if (!column.multiCell) {
        cells.push(this.#cell(column, liveness))
        continue
      }
      if ((flags & UNFILTERED.complexDeletion) !== 0) {
        const { writtenAt, deletedAt } = this.#deletion()
        if (writtenAt !== NEVER) (complexDeletions ??= []).push({ column: column.index, writtenAt, deletedAt })
      }
      for (let left = this.#uvint(); left > 0; left--) cells.push(this.#cell(column, liveness))
    }
    return { clustering, liveness, deletion, cells, complexDeletions: complexDeletions ?? NO_DELETIONS }
  }

  #cell(column: DecodedColumn, row: Liveness | null): Cell {
    const flags = this.#byte()
    const tombstone = (flags & CELL.deleted) !== 0
    const expiring = (flags & CELL.expiring) !== 0
    const ofRow = (flags & CELL.rowTtl) !== 0
    if (row === null && (flags & (CELL.rowTimestamp | CELL.rowTtl)) !== 0) this.#malformed("a cell has its row's time, which has none")
    const writtenAt = (flags & CELL.rowTimestamp) !== 0 ? row!.writtenAt : this.#writeTime()
    const localTime = ofRow ? row!.expiresAt : tombstone || expiring ? this.#localTime() : 0
    const ttl = ofRow ? row!.ttl : expiring ? this.#ttl() : 0
    let pathFrom = -1
    let pathTo = -1
    if (column.multiCell) {
      const length = this.#length()
      pathFrom = this.#at
      pathTo = this.#at += length
    }
    let length = 0
    if ((flags & CELL.empty) === 0) {
      if (column.multiCell || column.fixed < 0) length = this.#length()
      else if ((length = column.fixed) > this.#end - this.#at) this.#cutOff()
    }
    const from = this.#at
    const to = (this.#at += length)
    return { column: column.index, writtenAt, ttl, localTime, tombstone, pathFrom, pathTo, from, to }
  }

  /** The columns that an update may have, as they were when it was made. @returns the name of one that is not described */
  #header(table: DecodedTable): readonly DecodedColumn[] | string {
    const start = this.#at
    for (const known of table.headers) {
      const end = start + known.bytes.length
      if (end <= this.#end && startsWith(this.#bytes, start, known.bytes)) {
        this.#at = end
        return known.columns
      }
    }
    const columns: DecodedColumn[] = []
    for (let left = this.#uvint(); left > 0; left--) {
      const { from, to } = this.#sized()
      const name = this.#bytes.toString('utf8', from, to)
      const column = table.columns.get(name)
      if (column === undefined) return name
      columns.push(column)
    }
    if (table.headers.length >= MOST_HEADERS) table.headers.pop()
    table.headers.unshift({ bytes: Buffer.from(this.#bytes.subarray(start, this.#at)), columns })
    return columns
  }

  /** Columns.serializeSubset */
  #subset(header: readonly DecodedColumn[]): readonly DecodedColumn[] {
    if (header.length < 64) {
      const missing = this.#long()
      if (missing === 0) return header
      const low = typeof missing === 'number' ? (missing % TWO_32) | 0 : Number(BigInt.asIntN(32, missing))
      const high = typeof missing === 'number' ? Math.floor(missing / TWO_32) | 0 : Number(BigInt.asIntN(32, missing >> 32n))
      return header.filter((_, i) => (((i < 32 ? low : high) >>> (i & 31)) & 1) === 0)
    }
    const missing = this.#uvint()
    if (missing === 0) return header
    if (missing > header.length) this.#malformed('more columns are missing than there are')
    const present = header.length - missing
    // the shorter list of both
    const listsPresent = present < Math.floor(header.length / 2)
    const listed = new Set<number>()
    for (let left = listsPresent ? present : missing; left > 0; left--) {
      const index = this.#uvint()
      if (index >= header.length) this.#malformed('a column that does not exist')
      listed.add(index)
    }
    return header.filter((_, i) => listed.has(i) === listsPresent)
  }

  /** Before every 32 values come two bits for each: the lower for empty, the upper for null. */
  #clustering(table: DecodedTable, size: number): readonly Slice[] {
    if (size === 0) return NO_SLICES
    const values: Slice[] = []
    let bits: WriteTime = 0
    for (let i = 0; i < size; i++) {
      if (i % 32 === 0) bits = this.#long()
      const two = bits === 0 ? 0 : bitsAt(bits, (i % 32) * 2)
      if (two >= 2) values.push(NO_SLICE)
      else if (two === 1) values.push({ from: this.#at, to: this.#at })
      else {
        const fixed = table.clustering[i]!
        const length = fixed < 0 ? this.#length() : fixed
        if (length > this.#end - this.#at) this.#cutOff()
        values.push({ from: this.#at, to: (this.#at += length) })
      }
    }
    return values
  }

  #deletion(): Deletion {
    const writtenAt = this.#writeTime()
    return { writtenAt, deletedAt: this.#localTime() }
  }

  #writeTime(): WriteTime {
    return plus(this.#long(), this.#minTimestamp)
  }

  #localTime(): number {
    return Number(this.#long()) + this.#minLocalTime
  }

  #ttl(): number {
    return this.#uvint() + this.#minTtl
  }

  #sized(): Slice {
    const length = this.#length()
    const from = this.#at
    return { from, to: (this.#at = from + length) }
  }

  /** Of bytes that follow. */
  #length(): number {
    const length = this.#uvint()
    if (length > this.#end - this.#at) this.#cutOff()
    return length
  }

  /** Whole numbers of Cassandra's unsigned VIntCoding: as many bytes follow the first as it has leading ones. */
  #uvint(): number {
    if (this.#at >= this.#end) this.#cutOff()
    const first = this.#bytes[this.#at]!
    if (first < 0x80) {
      this.#at++
      return first
    }
    const value = this.#long()
    if (typeof value !== 'number' || value < 0) this.#malformed('a number is out of its range')
    return value
  }

  /** The same, of up to 64 bits, which stand for a signed number. */
  #long(): WriteTime {
    const bytes = this.#bytes
    let at = this.#at
    if (at >= this.#end) this.#cutOff()
    const first = bytes[at++]!
    if (first < 0x80) {
      this.#at = at
      return first
    }
    const extra = first === 0xff ? 8 : Math.clz32((~first & 0xff) << 24)
    if (extra > this.#end - at) this.#cutOff()
    this.#at = at + extra
    if (extra <= 6) {
      let value = first & (0xff >> extra)
      for (let i = 0; i < extra; i++) value = value * 256 + bytes[at++]!
      return value
    }
    const high = extra === 8 ? bytes.readInt32BE(at) : bytes.readUIntBE(at, 3)
    const low = bytes.readUInt32BE(at + extra - 4)
    const value = high * TWO_32 + low
    return Number.isSafeInteger(value) ? value : (BigInt(high) << 32n) | BigInt(low)
  }

  #short(): number {
    return this.#byte() * 256 + this.#byte()
  }

  #byte(): number {
    if (this.#at >= this.#end) this.#cutOff()
    return this.#bytes[this.#at++]!
  }

  #cutOff(): never {
    this.#malformed('it is cut off')
  }

  #malformed(what: string): never {
    throw this.#error(what)
  }

  #error(what: string): MillraceError {
    return segmentError(`an entry that is no mutation: ${what}`, this.#file, this.#offset)
  }
}

/** The components of a partition key. @throws source.protocol when it has not as many as its table */
export function partitionKey(update: PartitionUpdate): readonly Slice[] {
  const { table, bytes, key } = update
  let components = 0
  for (const column of table.columns) if (column.kind === 'partition_key' && !column.dropped) components++
  if (components === 1) return [key]
  const slices: Slice[] = []
  let at = key.from
  // CompositeType: length, bytes, a zero
  while (at + 3 <= key.to) {
    const from = at + 2
    const to = from + bytes.readUInt16BE(at)
    if (to >= key.to) break
    slices.push({ from, to })
    at = to + 1
  }
  if (at !== key.to || slices.length !== components) {
    throw segmentError(`a partition key of ${table.keyspace}.${table.name} that has not ${components} components`, '', update.from)
  }
  return slices
}

function decodedTable(description: TableDescription): DecodedTable {
  const columns = new Map<string, DecodedColumn>()
  const clustering: number[] = []
  for (const [index, { name, kind, position, type, dropped }] of description.columns.entries()) {
    const fixed = fixedLength(type)
    if (kind === 'clustering') clustering[position] = fixed
    if (!dropped || !columns.has(name)) columns.set(name, { index, multiCell: isMultiCell(type), fixed })
  }
  return { description, columns, clustering, headers: [] }
}

function idBytes(id: string): Buffer {
  return Buffer.from(id.replaceAll('-', ''), 'hex')
}

function tableIdText(bytes: Buffer, at: number): string {
  const hex = bytes.toString('hex', at, at + TABLE_ID_BYTES)
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

function startsWith(bytes: Buffer, at: number, prefix: Buffer): boolean {
  for (let i = 0; i < prefix.length; i++) if (bytes[at + i] !== prefix[i]) return false
  return true
}

/** 64-bit addition, which wraps. */
function plus(a: WriteTime, b: WriteTime): WriteTime {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b
    if (Number.isSafeInteger(sum)) return sum
  }
  const sum = BigInt.asIntN(64, BigInt(a) + BigInt(b))
  const exact = Number(sum)
  return Number.isSafeInteger(exact) ? exact : sum
}

/** Two bits of 64. */
function bitsAt(bits: WriteTime, shift: number): number {
  return typeof bits === 'number' && bits >= 0 && bits < TWO_32 && shift < 31
    ? (bits >>> shift) & 3
    : Number((BigInt.asUintN(64, BigInt(bits)) >> BigInt(shift)) & 3n)
}

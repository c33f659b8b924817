import { protocolError } from './mysql-error.ts'
import { readLength } from './wire-connection.ts'

/** Column types on the wire. */
export const TYPE = {
  tiny: 1,
  short: 2,
  long: 3,
  float: 4,
  double: 5,
  timestamp: 7,
  longlong: 8,
  int24: 9,
  date: 10,
  time: 11,
  datetime: 12,
  year: 13,
  newdate: 14,
  varchar: 15,
  bit: 16,
  timestamp2: 17,
  datetime2: 18,
  time2: 19,
  vector: 242,
  json: 245,
  newdecimal: 246,
  enum: 247,
  set: 248,
  tinyBlob: 249,
  mediumBlob: 250,
  longBlob: 251,
  blob: 252,
  varString: 253,
  string: 254,
  geometry: 255,
  mariadbBlobCompressed: 140,
  mariadbVarcharCompressed: 141,
} as const

const KNOWN: ReadonlySet<number> = new Set(Object.values(TYPE))

/** A column as a TABLE_MAP event has it. What the server was not set to write (binlog_row_metadata) is null. */
export interface WireColumn {
  readonly type: number
  /** The type's metadata, as its bytes read from high to low: see `metadataOf`. */
  readonly meta: number
  readonly nullable: boolean
  readonly name: string | null
  readonly unsigned: boolean | null
  /** Id of the collation of a character column. */
  readonly collation: number | null
  /** Of an enum or set, undecoded. */
  readonly values: readonly Buffer[] | null
  readonly geometry: number | null
  readonly dimension: number | null
}

export interface TableMap {
  readonly namespace: string
  readonly name: string
  readonly columns: readonly WireColumn[]
  /** Columns of the primary key; null when not written. */
  readonly primaryKey: readonly number[] | null
  /** A column's type that is not known: then no columns are, since its metadata may have any length. */
  readonly unknownType?: number
}

const METADATA_BYTES: Readonly<Record<number, number>> = {
  [TYPE.float]: 1,
  [TYPE.double]: 1,
  [TYPE.varchar]: 2,
  [TYPE.bit]: 2,
  [TYPE.newdecimal]: 2,
  [TYPE.enum]: 2,
  [TYPE.set]: 2,
  [TYPE.varString]: 2,
  [TYPE.string]: 2,
  [TYPE.blob]: 1,
  [TYPE.tinyBlob]: 1,
  [TYPE.mediumBlob]: 1,
  [TYPE.longBlob]: 1,
  [TYPE.json]: 1,
  [TYPE.geometry]: 1,
  [TYPE.vector]: 1,
  [TYPE.timestamp2]: 1,
  [TYPE.datetime2]: 1,
  [TYPE.time2]: 1,
  [TYPE.mariadbBlobCompressed]: 1,
  [TYPE.mariadbVarcharCompressed]: 2,
}

const FIELD = {
  signedness: 1,
  defaultCharset: 2,
  columnCharset: 3,
  columnName: 4,
  setValues: 5,
  enumValues: 6,
  geometryType: 7,
  simplePrimaryKey: 8,
  primaryKeyWithPrefix: 9,
  enumAndSetDefaultCharset: 10,
  enumAndSetColumnCharset: 11,
  visibility: 12,
  vectorDimension: 13,
} as const

const NUMERIC = new Set<number>([TYPE.tiny, TYPE.short, TYPE.int24, TYPE.long, TYPE.longlong, TYPE.float, TYPE.double, TYPE.newdecimal, TYPE.year])
const CHARACTER = new Set<number>([
  TYPE.varchar,
  TYPE.varString,
  TYPE.string,
  TYPE.blob,
  TYPE.tinyBlob,
  TYPE.mediumBlob,
  TYPE.longBlob,
  TYPE.mariadbBlobCompressed,
  TYPE.mariadbVarcharCompressed,
])

/** What a string column's metadata says it really is: enums and sets travel as strings. */
export function realType(type: number, meta: number): number {
  if (type !== TYPE.string) return type
  const real = meta >> 8
  return real === TYPE.enum || real === TYPE.set ? real : TYPE.string
}

/** Of MariaDB: a column whose values the server keeps compressed, and sends so. */
export function isCompressed({ type }: WireColumn): boolean {
  return type === TYPE.mariadbBlobCompressed || type === TYPE.mariadbVarcharCompressed
}

/** @throws source.protocol */
export function readTableMap(bytes: Buffer, at: number, end: number, flavor: 'mysql' | 'mariadb', place: string): TableMap {
  try {
    return new TableMapReader(bytes, at, end, flavor).read()
  } catch (error) {
    throw protocolError('a table map that cannot be read', place, error)
  }
}

class TableMapReader {
  readonly #bytes: Buffer
  readonly #end: number
  readonly #flavor: 'mysql' | 'mariadb'
  #at: number

  constructor(bytes: Buffer, at: number, end: number, flavor: 'mysql' | 'mariadb') {
    this.#bytes = bytes
    this.#flavor = flavor
    // table id and flags
    this.#at = at + 8
    this.#end = end
  }

  read(): TableMap {
    const namespace = this.#name()
    const name = this.#name()
    const count = this.#length()
    const types = this.#take(count)
    const unknownType = types.find((type) => !KNOWN.has(type))
    if (unknownType !== undefined) return { namespace, name, columns: [], primaryKey: null, unknownType }
    const metadataEnd = this.#length() + this.#at
    const metas = Array.from(types, (type) => this.#metadata(type))
    if (this.#at !== metadataEnd) throw new Error('metadata of another length')
    const nulls = this.#take((count + 7) >> 3)
    const more = this.#optional()
    const columns = describe(types, metas, nulls, more, this.#flavor)
    return { namespace, name, columns, primaryKey: primaryKey(more) }
  }

  #take(length: number): Buffer {
    const from = this.#at
    if (length < 0 || from + length > this.#end) throw new Error('cut off')
    this.#at += length
    return this.#bytes.subarray(from, this.#at)
  }

  #length(): number {
    const { value, next } = readLength(this.#bytes, this.#at)
    if (next > this.#end) throw new Error('cut off')
    this.#at = next
    return value
  }

  #name(): string {
    const text = this.#take(this.#take(1)[0]!).toString('utf8')
    this.#take(1)
    return text
  }

  /** Blob-like and temporal types: one byte. Lengths of varchar and bit: little-endian. The rest: the first byte in the high place. */
  #metadata(type: number): number {
    const length = METADATA_BYTES[type] ?? 0
    const raw = this.#take(length)
    if (length < 2) return raw[0] ?? 0
    return type === TYPE.varchar || type === TYPE.varString || type === TYPE.mariadbVarcharCompressed ? raw[0]! | (raw[1]! << 8) : (raw[0]! << 8) | raw[1]!
  }

  #optional(): ReadonlyMap<number, Buffer> {
    const fields = new Map<number, Buffer>()
    while (this.#at < this.#end) {
      const field = this.#take(1)[0]!
      fields.set(field, this.#take(this.#length()))
    }
    return fields
  }
}

type Fields = ReadonlyMap<number, Buffer>

function describe(types: Buffer, metas: readonly number[], nulls: Buffer, fields: Fields, flavor: 'mysql' | 'mariadb'): readonly WireColumn[] {
  const real = Array.from(types, (type, i) => realType(type, metas[i]!))
  const of = (matches: (type: number) => boolean) => real.flatMap((type, i) => (matches(type) ? [i] : []))
  const unsigned = spread(
    of((type) => NUMERIC.has(type)),
    bits(fields.get(FIELD.signedness)),
  )
  // MariaDB counts geometries among the columns with a character set
  const characters = of((type) => CHARACTER.has(type) || (type === TYPE.geometry && flavor === 'mariadb'))
  const listed = of((type) => type === TYPE.enum || type === TYPE.set)
  const collations = new Map([
    ...charsets(characters, fields.get(FIELD.defaultCharset), fields.get(FIELD.columnCharset)),
    ...charsets(listed, fields.get(FIELD.enumAndSetDefaultCharset), fields.get(FIELD.enumAndSetColumnCharset)),
  ])
  const values = new Map([
    ...spread(
      of((type) => type === TYPE.enum),
      lists(fields.get(FIELD.enumValues)),
    ),
    ...spread(
      of((type) => type === TYPE.set),
      lists(fields.get(FIELD.setValues)),
    ),
  ])
  const geometries = spread(
    of((type) => type === TYPE.geometry),
    numbers(fields.get(FIELD.geometryType)),
  )
  const dimensions = spread(
    of((type) => type === TYPE.vector),
    numbers(fields.get(FIELD.vectorDimension)),
  )
  const names = strings(fields.get(FIELD.columnName))
  if (names !== null && names.length !== types.length) throw new Error('names of other columns')
  return Array.from(types, (type, i) => ({
    type,
    meta: metas[i]!,
    nullable: (nulls[i >> 3]! & (1 << (i & 7))) !== 0,
    name: names?.[i]?.toString('utf8') ?? null,
    unsigned: unsigned.get(i) ?? null,
    collation: collations.get(i) ?? null,
    values: values.get(i) ?? null,
    geometry: geometries.get(i) ?? null,
    dimension: dimensions.get(i) ?? null,
  }))
}

function spread<T>(columns: readonly number[], values: readonly T[] | null): ReadonlyMap<number, T> {
  if (values === null) return new Map()
  if (values.length < columns.length) throw new Error('metadata of other columns')
  return new Map(columns.map((column, i) => [column, values[i]!]))
}

/** One bit per column, the first in the highest place. */
function bits(field: Buffer | undefined): readonly boolean[] | null {
  if (field === undefined) return null
  return Array.from({ length: field.length * 8 }, (_, i) => (field[i >> 3]! & (0x80 >> (i & 7))) !== 0)
}

function numbers(field: Buffer | undefined): readonly number[] | null {
  if (field === undefined) return null
  const out: number[] = []
  for (let at = 0; at < field.length; ) {
    const { value, next } = readLength(field, at)
    if (next > field.length) throw new Error('a number is cut off')
    out.push(value)
    at = next
  }
  return out
}

function strings(field: Buffer | undefined): readonly Buffer[] | null {
  if (field === undefined) return null
  const out: Buffer[] = []
  for (let at = 0; at < field.length; ) at = string(field, at, out)
  return out
}

function string(field: Buffer, at: number, into: Buffer[]): number {
  const { value, next } = readLength(field, at)
  if (next + value > field.length) throw new Error('a string is cut off')
  // a copy: the event's bytes are gone with the next read
  into.push(Buffer.from(field.subarray(next, next + value)))
  return next + value
}

function lists(field: Buffer | undefined): readonly (readonly Buffer[])[] | null {
  if (field === undefined) return null
  const out: Buffer[][] = []
  for (let at = 0; at < field.length; ) {
    const { value, next } = readLength(field, at)
    const list: Buffer[] = []
    at = next
    for (let i = 0; i < value; i++) at = string(field, at, list)
    out.push(list)
  }
  return out
}

/** A default collation with exceptions (index among the columns, collation), or one collation per column. */
function charsets(columns: readonly number[], byDefault: Buffer | undefined, each: Buffer | undefined): ReadonlyMap<number, number> {
  if (byDefault !== undefined) {
    const [collation, ...exceptions] = numbers(byDefault)!
    const found = new Map(columns.map((column) => [column, collation!]))
    for (let i = 0; i + 1 < exceptions.length; i += 2) {
      const column = columns[exceptions[i]!]
      if (column === undefined) throw new Error('a collation of no column')
      found.set(column, exceptions[i + 1]!)
    }
    return found
  }
  return spread(columns, numbers(each))
}

function primaryKey(fields: Fields): readonly number[] | null {
  const simple = numbers(fields.get(FIELD.simplePrimaryKey))
  if (simple !== null) return [...simple].sort((a, b) => a - b)
  const prefixed = numbers(fields.get(FIELD.primaryKeyWithPrefix))
  if (prefixed !== null) return prefixed.filter((_, i) => i % 2 === 0).sort((a, b) => a - b)
  // with names there, the whole metadata is, so there is no key
  return fields.has(FIELD.columnName) ? [] : null
}

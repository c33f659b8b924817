/**
 * Column chunks of flat columns, straight from rows: without an array of values or an object for each, which is most of what writing a file costs.
 * Source: Apache Parquet format, "Encodings", "Data Pages" (DATA_PAGE_V2) and parquet.thrift.
 */
import type { ColumnChunk, Encoding, SchemaElement } from 'hyparquet'
import { invariant, type Tuple, type Value } from '../../core/plugin.ts'
import { type ChunkStatistics, plainValues, Texts } from './plain-values.ts'

const PAGE_BYTES = 1024 * 1024
const PAGE_ROWS = 20_000
/** Texts are tried for a dictionary by so many of them, and have one when few differ. */
const PROBED = 1000
const DICTIONARY_SHARE = 4
const DICTIONARY_TEXTS = 65_536
const DATA_PAGE_V2 = 3
const DICTIONARY_PAGE = 2
const PLAIN = 0
const RLE_DICTIONARY = 8

/** A column of rows: `at` in each tuple; `encode` turns what is not null into what the column's physical type holds. */
export interface FlatColumn {
  readonly element: SchemaElement
  readonly at: number
  readonly encode: ((value: Value) => unknown) | undefined
}

export interface PageCompression {
  readonly codec: NonNullable<ColumnChunk['meta_data']>['codec']
  /** Null: pages stay as they are. */
  readonly compress: ((bytes: Uint8Array) => Uint8Array) | null
}

/** A chunk whose offsets count from its own start, and its bytes. */
export interface EncodedChunk {
  readonly chunk: ColumnChunk
  readonly pieces: readonly Uint8Array[]
}

/** Encodes one column of `rows`, one row group. Synchronous; statistics are in the chunk, bounds of long texts whole. */
export function encodeFlatColumn({ element, at, encode }: FlatColumn, rows: readonly Tuple[], compression: PageCompression): EncodedChunk {
  const pages = new Pages(compression, element.repetition_type !== 'REQUIRED')
  const values = plainValues(element)
  const dictionary = values instanceof Texts ? dictionaryOf(rows, at, encode) : null
  let statistics: ChunkStatistics
  if (dictionary === null) {
    for (let i = 0; i < rows.length; i++) {
      const value = rows[i]![at]!
      if (value === null) pages.skip()
      else {
        pages.keep()
        values.put(encode === undefined ? value : encode(value))
      }
      if (values.size >= PAGE_BYTES || pages.rows === PAGE_ROWS) pages.close(values.take(), PLAIN)
    }
    if (pages.rows > 0) pages.close(values.take(), PLAIN)
    statistics = values.statistics
  } else {
    for (const text of dictionary.texts) values.put(text)
    pages.dictionary(values.take(), dictionary.texts.length)
    statistics = values.statistics
    const width = Math.max(1, 32 - Math.clz32(dictionary.texts.length - 1))
    let from = 0
    let next = 0
    for (let i = 0; i < rows.length; i++) {
      if (rows[i]![at] === null) pages.skip()
      else {
        pages.keep()
        next++
      }
      if (pages.rows === PAGE_ROWS || i === rows.length - 1) {
        pages.close(packed(dictionary.indexes, from, next, width), RLE_DICTIONARY)
        from = next
      }
    }
  }
  values.end()
  const encodings: Encoding[] = dictionary === null ? ['PLAIN'] : ['PLAIN', 'RLE_DICTIONARY']
  return {
    pieces: pages.pieces,
    chunk: {
      file_offset: 0n,
      meta_data: {
        type: element.type!,
        encodings,
        path_in_schema: [element.name],
        codec: compression.codec,
        num_values: BigInt(rows.length),
        total_compressed_size: BigInt(pages.bytes),
        total_uncompressed_size: BigInt(pages.plainBytes),
        data_page_offset: BigInt(pages.dictionaryBytes),
        ...(dictionary === null ? {} : { dictionary_page_offset: 0n }),
        statistics: { ...statistics, null_count: BigInt(pages.nulls) },
        encoding_stats: [
          ...(dictionary === null ? [] : [{ page_type: 'DICTIONARY_PAGE' as const, encoding: 'PLAIN' as const, count: 1 }]),
          { page_type: 'DATA_PAGE_V2' as const, encoding: encodings.at(-1)!, count: pages.count },
        ],
      },
    },
  }
}

/** The pages of a chunk: which rows have a value, and the bytes of those. */
class Pages {
  readonly pieces: Uint8Array[] = []
  bytes = 0
  plainBytes = 0
  dictionaryBytes = 0
  count = 0
  /** Of the open page. */
  rows = 0
  /** Of the whole chunk. */
  nulls = 0
  #pageNulls = 0
  readonly #bits = Buffer.alloc(PAGE_ROWS / 8)
  readonly #compression: PageCompression
  readonly #optional: boolean

  constructor(compression: PageCompression, optional: boolean) {
    this.#compression = compression
    this.#optional = optional
  }

  keep(): void {
    this.#bits[this.rows >> 3]! |= 1 << (this.rows & 7)
    this.rows++
  }

  skip(): void {
    invariant(this.#optional, 'a required column has a null')
    this.rows++
    this.#pageNulls++
  }

  dictionary(values: Uint8Array, texts: number): void {
    const stored = this.#compress(values)
    const facts = struct(7, (out) => integers(out, [texts, PLAIN]))
    this.#push(pageHeader(DICTIONARY_PAGE, values.length, stored.length, facts), stored, values.length)
    this.dictionaryBytes = this.bytes
  }

  /** Ends the open page. `values` are only read. */
  close(values: Uint8Array, encoding: number): void {
    const levels = this.#levels()
    const stored = this.#compress(values)
    const facts = struct(8, (out) => integers(out, [this.rows, this.#pageNulls, this.rows, encoding, levels.length, 0]))
    const header = pageHeader(DATA_PAGE_V2, levels.length + values.length, levels.length + stored.length, facts)
    this.#push(Buffer.concat([header, levels]), stored, values.length)
    this.count++
    this.nulls += this.#pageNulls
    this.rows = 0
    this.#pageNulls = 0
    this.#bits.fill(0)
  }

  #compress(values: Uint8Array): Uint8Array {
    const { compress } = this.#compression
    return compress === null ? Uint8Array.from(values) : compress(values)
  }

  #push(header: Uint8Array, stored: Uint8Array, plain: number): void {
    this.pieces.push(header, stored)
    this.bytes += header.length + stored.length
    this.plainBytes += header.length + plain
  }

  /** Definition levels of one bit: one run when all are alike, else packed. */
  #levels(): Uint8Array {
    if (!this.#optional) return new Uint8Array(0)
    const out: number[] = []
    if (this.#pageNulls === 0 || this.#pageNulls === this.rows) {
      varint(out, this.rows << 1)
      out.push(this.#pageNulls === 0 ? 1 : 0)
      return Uint8Array.from(out)
    }
    const bytes = (this.rows + 7) >> 3
    varint(out, (bytes << 1) | 1)
    return Buffer.concat([Uint8Array.from(out), this.#bits.subarray(0, bytes)])
  }
}

// ---- dictionaries ----

interface Dictionary {
  readonly texts: readonly string[]
  /** Of the rows that are not null. */
  readonly indexes: Uint16Array
}

/** Null when texts differ too much, or there are none. */
function dictionaryOf(rows: readonly Tuple[], at: number, encode: FlatColumn['encode']): Dictionary | null {
  const textOf = (row: Tuple): string | null => {
    const value = row[at]!
    return value === null ? null : ((encode === undefined ? value : encode(value)) as string)
  }
  const probed = new Set<string>()
  const step = Math.max(1, Math.floor(rows.length / PROBED))
  let seen = 0
  for (let i = 0; i < rows.length; i += step) {
    const text = textOf(rows[i]!)
    if (text === null) continue
    seen++
    probed.add(text)
    if (probed.size * DICTIONARY_SHARE > PROBED) return null
  }
  if (seen === 0 || probed.size * 2 > seen) return null
  const known = new Map<string, number>()
  const indexes = new Uint16Array(rows.length)
  const most = Math.min(DICTIONARY_TEXTS, rows.length / 2)
  let count = 0
  for (const row of rows) {
    const text = textOf(row)
    if (text === null) continue
    let index = known.get(text)
    if (index === undefined) {
      if (known.size >= most) return null
      known.set(text, (index = known.size))
    }
    indexes[count++] = index
  }
  return { texts: [...known.keys()], indexes: indexes.subarray(0, count) }
}

/** Indexes as one packed run, after their width. */
function packed(indexes: Uint16Array, from: number, to: number, width: number): Uint8Array {
  const groups = (to - from + 7) >> 3
  const out: number[] = [width]
  if (groups === 0) return Uint8Array.from(out)
  varint(out, (groups << 1) | 1)
  const bytes = Buffer.alloc(out.length + groups * width)
  bytes.set(out)
  let at = out.length
  let held = 0
  let bits = 0
  for (let i = from; i < to; i++) {
    held |= indexes[i]! << bits
    for (bits += width; bits >= 8; bits -= 8) {
      bytes[at++] = held
      held >>>= 8
    }
  }
  if (bits > 0) bytes[at] = held
  return bytes
}

// ---- page headers, in Thrift's compact protocol ----

const INTEGER = 5
const STRUCT = 12

function pageHeader(type: number, plainBytes: number, storedBytes: number, facts: readonly number[]): Uint8Array {
  const out: number[] = []
  integers(out, [type, plainBytes, storedBytes])
  // the struct's field follows field 3
  out.push(((facts[0]! - 3) << 4) | STRUCT, ...facts.slice(1), 0)
  return Uint8Array.from(out)
}

/** A struct as the number of its field and its bytes. */
function struct(field: number, write: (out: number[]) => void): readonly number[] {
  const out = [field]
  write(out)
  out.push(0)
  return out
}

/** The fields from 1 on, all integers. */
function integers(out: number[], values: readonly number[]): void {
  for (const value of values) {
    out.push((1 << 4) | INTEGER)
    varint(out, value * 2)
  }
}

function varint(out: number[], value: number): void {
  let rest = value
  for (; rest > 127; rest = Math.floor(rest / 128)) out.push((rest & 127) | 128)
  out.push(rest)
}

/** Parquet files of a table: columns in, column statistics and bounds out; and column by column back, whoever wrote them. */
import zlib from 'node:zlib'
import { type ColumnChunk, type Compressors as Decompressors, type FileMetaData, parquetMetadataAsync, parquetRead, type SchemaElement } from 'hyparquet'
import { ByteWriter, ParquetWriter } from 'hyparquet-writer'
import { MillraceError, type TableSchema, type Tuple, type Value } from '../../core/plugin.ts'
import { encodeBound } from './bounds.ts'
import type { FileStore, RandomAccessFile } from './file-store.ts'
import { encodeFlatColumn } from './flat-column.ts'
import type { DataFile } from './manifest.ts'
import type { TableLayout } from './table-layout.ts'
import type { IcebergField, IcebergType } from './table-metadata.ts'
import { parquetElements, type ValueCodec, valueCodec } from './value-codec.ts'

const ROW_GROUP_ROWS = 65_536
/** Read first of a file: its footer is in there, but for very wide tables. */
const FOOTER_BYTES = 64 * 1024
const LARGEST_CHUNK = 4 * 1024 * 1024
/** `PAR1`, before all else. */
const MAGIC_BYTES = 4

export type Compression = 'snappy' | 'zstd' | 'gzip' | 'none'

const CODECS = { snappy: 'SNAPPY', zstd: 'ZSTD', gzip: 'GZIP', none: 'UNCOMPRESSED' } as const
const COMPRESSORS = {
  ZSTD: (input: Uint8Array) => zlib.zstdCompressSync(input, { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } }),
  GZIP: (input: Uint8Array) => zlib.gzipSync(input, { level: 1 }),
}
/** The size that the file states, so that the output is made once and not put together from small pieces. What turns out larger is still read whole. */
const inOneChunk = (bytes: number) => ({ chunkSize: Math.max(64, Math.min(bytes, LARGEST_CHUNK)) })
const DECOMPRESSORS: Decompressors = {
  ZSTD: (input, bytes) => zlib.zstdDecompressSync(input, inOneChunk(bytes)),
  GZIP: (input, bytes) => zlib.gunzipSync(input, inOneChunk(bytes)),
  BROTLI: (input, bytes) => zlib.brotliDecompressSync(input, inOneChunk(bytes)),
}

/** One column of a table, ready to be written and read. */
export interface TableColumn {
  readonly field: IcebergField
  readonly codec: ValueCodec
  /** Index into `table.columns`. */
  readonly index: number
}

export function tableColumns(layout: TableLayout): readonly TableColumn[] {
  return layout.schema.fields.map((field, index) => {
    const column = layout.table.columns[index]!
    return { field, index, codec: valueCodec(column.type, column.maybeSpecial) }
  })
}

export function keyColumns(table: TableSchema, columns: readonly TableColumn[]): readonly TableColumn[] {
  return table.key.map((index) => columns[index]!)
}

export interface ParquetFacts {
  readonly location: string
  readonly content: 0 | 2
  readonly equalityIds: readonly number[] | null
  readonly compression: Compression
}

/**
 * A new file, one row group after the other; what is held is compressed. Flat columns are encoded by {@link encodeFlatColumn}, nested ones and the footer
 * by hyparquet-writer.
 */
export class ParquetFileWriter {
  readonly #columns: readonly TableColumn[]
  readonly #facts: ParquetFacts
  readonly #ends = new ByteWriter()
  readonly #parquet: ParquetWriter
  readonly #pieces: Uint8Array[] = []
  #length: number

  constructor(columns: readonly TableColumn[], facts: ParquetFacts) {
    this.#columns = columns
    this.#facts = facts
    this.#parquet = openWriter(this.#ends, columns, facts.compression)
    this.#length = this.#ends.offset
  }

  get rows(): number {
    return Number(this.#parquet.num_rows)
  }

  /** A row group of these rows, whose values lie in the order of the columns. Others get their turn after each column; `rows` must not change meanwhile. */
  async add(rows: readonly Tuple[]): Promise<void> {
    const start = this.#length
    const chunks: ColumnChunk[] = []
    let plainBytes = 0n
    for (const [at, column] of this.#columns.entries()) {
      const encoded = encodeColumn(column, rows, at, this.#parquet)
      for (const chunk of encoded.chunks) {
        chunks.push(moved(chunk, BigInt(this.#length)))
        plainBytes += chunk.meta_data!.total_uncompressed_size
      }
      for (const piece of encoded.pieces) {
        this.#pieces.push(piece)
        this.#length += piece.length
      }
      await new Promise(setImmediate)
    }
    const groupBytes = BigInt(this.#length - start)
    this.#parquet.row_groups.push({ columns: chunks, total_byte_size: plainBytes, num_rows: BigInt(rows.length), total_compressed_size: groupBytes })
    this.#parquet.num_rows += BigInt(rows.length)
  }

  /** Writes the file, durably. @throws sink.unreachable, sink.forbidden */
  async finish(files: FileStore): Promise<DataFile> {
    const { content, location, equalityIds } = this.#facts
    const statistics = statisticsOf(this.#columns, this.#parquet, this.rows)
    await this.#parquet.finish()
    const ends = new Uint8Array(this.#ends.getBytes())
    const bytes = Buffer.concat([ends.subarray(0, MAGIC_BYTES), ...this.#pieces, ends.subarray(MAGIC_BYTES)])
    await files.write(location, bytes)
    return {
      content,
      file_path: location,
      file_format: 'PARQUET',
      partition: {},
      record_count: this.#parquet.num_rows,
      file_size_in_bytes: BigInt(bytes.length),
      ...statistics,
      nan_value_counts: null,
      key_metadata: null,
      split_offsets: null,
      equality_ids: equalityIds,
      sort_order_id: content === 0 ? 0 : null,
      referenced_data_file: null,
    }
  }
}

/** Writes rows whose values lie in the order of `columns`, durably. @throws sink.unreachable, sink.forbidden */
export async function writeParquetFile(files: FileStore, columns: readonly TableColumn[], rows: readonly Tuple[], facts: ParquetFacts): Promise<DataFile> {
  const writer = new ParquetFileWriter(columns, facts)
  for (let from = 0; from < rows.length; from += ROW_GROUP_ROWS) {
    await writer.add(rows.length <= ROW_GROUP_ROWS ? rows : rows.slice(from, from + ROW_GROUP_ROWS))
  }
  return writer.finish(files)
}

function openWriter(writer: ByteWriter, columns: readonly TableColumn[], compression: Compression): ParquetWriter {
  const schema = [{ name: 'table', num_children: columns.length }, ...columns.flatMap(({ field }) => parquetElements(field))]
  return new ParquetWriter({ writer, schema, codec: CODECS[compression], compressors: COMPRESSORS, createdBy: 'millrace' })
}

/** The chunks of column `at` of the rows, a nested one's leaves each, with offsets from the first; and their bytes. */
function encodeColumn(
  column: TableColumn,
  rows: readonly Tuple[],
  at: number,
  { codec, compressors }: ParquetWriter,
): { readonly chunks: readonly ColumnChunk[]; readonly pieces: readonly Uint8Array[] } {
  const { field } = column
  const { encode } = column.codec
  if (typeof field.type === 'string') {
    const { chunk, pieces } = encodeFlatColumn({ element: parquetElements(field)[0]!, at, encode }, rows, { codec, compress: compressors[codec] ?? null })
    return { chunks: [chunk], pieces }
  }
  const writer = new ByteWriter()
  const schema = [{ name: 'table', num_children: 1 }, ...parquetElements(field)]
  const alone = new ParquetWriter({ writer, schema, codec, compressors: COMPRESSORS })
  const data = rows.map((row) => {
    const value = row[at]!
    return value === null || encode === undefined ? value : encode(value)
  })
  alone.write({ columnData: [{ name: field.name, data, offsetIndex: false }], rowGroupSize: rows.length })
  const chunks = alone.row_groups[0]!.columns.map((chunk) => moved(chunk, -BigInt(MAGIC_BYTES)))
  return { chunks, pieces: [new Uint8Array(writer.getBytes()).subarray(MAGIC_BYTES)] }
}

function moved(chunk: ColumnChunk, by: bigint): ColumnChunk {
  const facts = chunk.meta_data!
  const { dictionary_page_offset: dictionary } = facts
  return {
    ...chunk,
    file_offset: chunk.file_offset + by,
    meta_data: {
      ...facts,
      data_page_offset: facts.data_page_offset + by,
      ...(dictionary === undefined ? {} : { dictionary_page_offset: dictionary + by }),
    },
  }
}

type Statistics = Pick<DataFile, 'column_sizes' | 'value_counts' | 'null_value_counts' | 'lower_bounds' | 'upper_bounds'>

/** From the statistics that the writer kept per row group, for columns of simple types. */
function statisticsOf(columns: readonly TableColumn[], { row_groups: groups }: ParquetWriter, rows: number): Statistics {
  const sizes: { key: number; value: bigint }[] = []
  const counts: { key: number; value: bigint }[] = []
  const nulls: { key: number; value: bigint }[] = []
  const lower: { key: number; value: Buffer }[] = []
  const upper: { key: number; value: Buffer }[] = []
  let leaf = 0
  for (const { field } of columns) {
    const first = leaf
    leaf += leavesOf(field.type)
    if (typeof field.type !== 'string') continue
    let size = 0n
    let nullCount = 0n
    let low: Buffer | null = null
    let high: Buffer | null = null
    let bounded = true
    for (const group of groups) {
      const facts = group.columns[first]!.meta_data!
      size += facts.total_compressed_size
      nullCount += facts.statistics?.null_count ?? 0n
      const { min_value: min, max_value: max } = facts.statistics ?? {}
      if (min === undefined || max === undefined) continue
      // bounds of several row groups are not merged for ordered text: one group is the rule
      if (low !== null) bounded = false
      low = encodeBound(field.type, min, false)
      high = encodeBound(field.type, max, true)
    }
    if (!bounded) [low, high] = mergedBounds(groups, first, field.type)
    sizes.push({ key: field.id, value: size })
    counts.push({ key: field.id, value: BigInt(rows) })
    nulls.push({ key: field.id, value: nullCount })
    if (low !== null) lower.push({ key: field.id, value: low })
    if (high !== null) upper.push({ key: field.id, value: high })
  }
  return { column_sizes: sizes, value_counts: counts, null_value_counts: nulls, lower_bounds: lower, upper_bounds: upper }
}

function mergedBounds(groups: ParquetWriter['row_groups'], leaf: number, type: string): [Buffer | null, Buffer | null] {
  let low: unknown
  let high: unknown
  const less = (a: unknown, b: unknown) =>
    typeof a === 'string' || a instanceof Uint8Array ? Buffer.compare(Buffer.from(a as string), Buffer.from(b as string)) < 0 : (a as number) < (b as number)
  for (const group of groups) {
    const { min_value: min, max_value: max } = group.columns[leaf]!.meta_data!.statistics ?? {}
    if (min !== undefined && (low === undefined || less(min, low))) low = min
    if (max !== undefined && (high === undefined || less(high, max))) high = max
  }
  return [encodeBound(type, low, false), encodeBound(type, high, true)]
}

function leavesOf(type: IcebergType): number {
  if (typeof type === 'string') return 1
  if (type.type === 'list') return leavesOf(type.element)
  if (type.type === 'map') return leavesOf(type.key) + leavesOf(type.value)
  return type.fields.reduce((n, field) => n + leavesOf(field.type), 0)
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
const RAW_PARSERS = {
  timestampFromMilliseconds: (value: bigint) => value * 1000n,
  timestampFromMicroseconds: (value: bigint) => value,
  timestampFromNanoseconds: (value: bigint) => value / 1000n,
  dateFromDays: (value: number) => value,
  stringFromBytes: (bytes: Uint8Array | undefined) => bytes && decoder.decode(bytes),
  uuidFromBytes: (bytes: Uint8Array) => bytes,
}

/**
 * Renames every element with a field id to what {@link parquetElements} calls it, top-level ones to `#<field id>`, so that columns are found by id in
 * files of any writer; and takes the conversions off that lose something (decimals to doubles, maps to objects).
 */
function normalise(metadata: FileMetaData, fields: readonly IcebergField[]): void {
  const names = new Map<number, string>()
  const visit = (type: IcebergType): void => {
    if (typeof type === 'string') return
    if (type.type === 'list') {
      names.set(type['element-id'], 'element')
      visit(type.element)
    } else if (type.type === 'map') {
      names.set(type['key-id'], 'key').set(type['value-id'], 'value')
      visit(type.value)
    } else
      type.fields.forEach((child, i) => {
        names.set(child.id, `f${i}`)
        visit(child.type)
      })
  }
  for (const field of fields) {
    names.set(field.id, `#${field.id}`)
    visit(field.type)
  }
  const paths: string[][] = []
  let at = 0
  const walk = (path: readonly string[], insideMap: boolean): void => {
    const element = metadata.schema[at++]! as { -readonly [K in keyof SchemaElement]: SchemaElement[K] }
    if (at > 1) {
      const known = element.field_id === undefined ? undefined : names.get(element.field_id)
      if (known !== undefined) element.name = known
      else if (insideMap) element.name = 'key_value'
      else if (path.length === 0) element.name = `?${at}`
    }
    const own = at > 1 && path.length >= 0 ? [...path, element.name] : []
    const isMap = element.converted_type === 'MAP' || element.logical_type?.type === 'MAP'
    if (element.converted_type === 'DECIMAL' || isMap) {
      delete element.converted_type
      delete element.logical_type
    }
    const children = element.num_children ?? 0
    if (children === 0) paths.push(own)
    for (let i = 0; i < children; i++) walk(own, isMap)
  }
  walk([], false)
  for (const group of metadata.row_groups) group.columns.forEach((chunk, i) => void (chunk.meta_data!.path_in_schema = paths[i]!))
}

/** An open Parquet file of a table. */
export interface ParquetReader extends AsyncDisposable {
  /** Rows of each row group. */
  readonly groups: readonly number[]
  /** One row group's values of some columns, in the order of `columns`; a column that the file lacks is all null. */
  read(columns: readonly TableColumn[], group: number): Promise<readonly (readonly Value[])[]>
}

/** @throws sink.unreachable, record.malformed */
export async function openParquetFile(files: FileStore, location: string, fields: readonly IcebergField[]): Promise<ParquetReader> {
  const file: RandomAccessFile = await files.open(location)
  try {
    const metadata = await parquetMetadataAsync(file, { geoparquet: false, initialFetchSize: FOOTER_BYTES })
    normalise(metadata, fields)
    const present = new Set(metadata.schema.map((element) => element.name))
    const groups = metadata.row_groups.map((group) => Number(group.num_rows))
    const starts = groups.map((_, i) => groups.slice(0, i).reduce((n, rows) => n + rows, 0))
    return {
      groups,
      async read(columns, group) {
        const rows = groups[group]!
        const stored = columns.filter(({ field }) => present.has(`#${field.id}`))
        const raw = new Map<string, unknown[]>()
        if (stored.length > 0) {
          const rowStart = starts[group]!
          await parquetRead({
            file,
            metadata,
            columns: stored.map(({ field }) => `#${field.id}`),
            rowStart,
            rowEnd: rowStart + rows,
            compressors: DECOMPRESSORS,
            utf8: false,
            geoparquet: false,
            parsers: RAW_PARSERS,
            onChunk({ columnName, columnData: data, rowStart: from }) {
              let into = raw.get(columnName)
              if (into === undefined) raw.set(columnName, (into = new Array<unknown>(rows)))
              for (let i = 0; i < data.length; i++) {
                const row = from + i - rowStart
                if (row >= 0 && row < rows) into[row] = data[i]
              }
            },
          })
        }
        return columns.map(({ field, codec }) => {
          const data = raw.get(`#${field.id}`)
          const values = new Array<Value>(rows)
          for (let i = 0; i < rows; i++) {
            const value = data?.[i]
            values[i] = value === undefined || value === null ? null : codec.decode(value)
          }
          return values
        })
      },
      [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
    }
  } catch (error) {
    await file[Symbol.asyncDispose]()
    if (error instanceof MillraceError) throw error
    throw new MillraceError('record.malformed', `${location} is not a Parquet file that can be read`, { cause: error })
  }
}

import fc from 'fast-check'
import { parquetMetadata } from 'hyparquet'
import { expect, test } from 'vitest'
import { type Comparable, comparableBound, comparableKey, compareComparables } from '../../../../connectors/iceberg/bounds.ts'
import type { FileStore } from '../../../../connectors/iceberg/file-store.ts'
import { type Compression, openParquetFile, tableColumns, writeParquetFile } from '../../../../connectors/iceberg/parquet-file.ts'
import { newLayout } from '../../../../connectors/iceberg/table-layout.ts'
import type { ColumnType, TableSchema, Tuple, Value } from '../../../../core/event/table-schema.ts'
import { runs } from '../../../fixed-seed.ts'

const long = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 90 }),
  fc.constantFrom('', '\u{10ffff}\uffff', '\uffff\u{10000}', '\ud7ff', 'é', 'x'.repeat(3000)),
)
const decimal = (precision: number) => fc.bigInt({ min: -(10n ** BigInt(precision)) + 1n, max: 10n ** BigInt(precision) - 1n })
const TYPES: readonly (readonly [ColumnType, fc.Arbitrary<unknown>])[] = [
  [{ kind: 'boolean' }, fc.boolean()],
  [{ kind: 'int32' }, fc.integer()],
  [{ kind: 'int64' }, long],
  [{ kind: 'float32' }, fc.float()],
  [{ kind: 'float64' }, fc.double()],
  [{ kind: 'decimal', precision: 9, scale: 2 }, decimal(9)],
  [{ kind: 'decimal', precision: 18, scale: 2 }, decimal(18)],
  [{ kind: 'decimal', precision: 19, scale: 0 }, decimal(19)],
  [{ kind: 'decimal', precision: 38, scale: 10 }, decimal(38)],
  [{ kind: 'string' }, text],
  [{ kind: 'enum', values: ['new', 'paid'] }, fc.constantFrom('new', 'paid')],
  [{ kind: 'bytes' }, fc.uint8Array({ maxLength: 40 })],
  [{ kind: 'uuid' }, fc.uuid()],
  [{ kind: 'date' }, fc.integer()],
  [{ kind: 'timestamptz' }, long],
  [{ kind: 'array', element: { kind: 'string' } }, fc.array(fc.option(text), { maxLength: 4 })],
  [{ kind: 'record', fields: [{ name: 'id', type: { kind: 'uuid' } }] }, fc.tuple(fc.option(fc.uuid()))],
]
/** One page, several pages, and several row groups. */
const LENGTHS = [1, 7, 8, 9, 100, 20_000, 20_001, 70_000]
const COMPRESSIONS: readonly Compression[] = ['zstd', 'snappy', 'gzip', 'none']

function tableOf(type: ColumnType): TableSchema {
  const column = (name: string, id: number, of: ColumnType) => ({
    name,
    id,
    type: of,
    sourceType: '',
    nullable: true,
    maybeSpecial: false,
    mayBeUnchanged: false,
  })
  return { namespace: 'n', name: 't', columns: [column('id', 1, { kind: 'int32' }), column('value', 2, type)], key: [0] } as unknown as TableSchema
}

/** One file in memory. */
class OneFile {
  bytes = Buffer.alloc(0)

  get store(): FileStore {
    const slice = async (from: number, to?: number) => Uint8Array.from(this.bytes.subarray(from, to)).buffer
    return {
      write: async (_: string, bytes: Uint8Array) => void (this.bytes = Buffer.from(bytes)),
      open: async () => ({ byteLength: this.bytes.length, slice, [Symbol.asyncDispose]: async () => {} }),
    } as unknown as FileStore
  }
}

test.each(TYPES)('values of %o come back, and lie within the bounds that the file states', async (type, arbitrary) => {
  const layout = newLayout(tableOf(type))
  const columns = tableColumns(layout)
  const field = layout.schema.fields[1]!
  const value = fc.oneof({ weight: 4, arbitrary }, { weight: 1, arbitrary: fc.constant(null) })
  await fc.assert(
    fc.asyncProperty(
      fc.array(value, { minLength: 1, maxLength: 40 }),
      fc.constantFrom(...LENGTHS),
      fc.constantFrom(...COMPRESSIONS),
      async (some, length, compression) => {
        const rows: Tuple[] = Array.from({ length }, (_, i) => [i, some[(i * 7 + (i >> 5)) % some.length] as Value])
        const file = new OneFile()
        const facts = await writeParquetFile(file.store, columns, rows, { location: 'f', content: 0, equalityIds: null, compression })
        await using reader = await openParquetFile(file.store, 'f', layout.schema.fields)
        const back: Tuple[] = []
        for (const group of reader.groups.keys()) {
          const [ids, values] = await reader.read(columns, group)
          for (let i = 0; i < ids!.length; i++) back.push([ids![i]!, values![i]!])
        }
        expect(back.length).toBe(length)
        const wrong = rows.findIndex((row, i) => !same(row, back[i]!))
        if (wrong >= 0) expect(back[wrong]).toEqual(rows[wrong])
        if (typeof field.type !== 'string') return
        const held = rows.map((row) => row[1]!).filter((item) => item !== null && !(typeof item === 'number' && Number.isNaN(item)))
        expect(facts.null_value_counts!.find(({ key }) => key === field.id)!.value).toBe(BigInt(rows.filter((row) => row[1] === null).length))
        const lower = facts.lower_bounds!.find(({ key }) => key === field.id)?.value
        const upper = facts.upper_bounds!.find(({ key }) => key === field.id)?.value
        if (field.type === 'float' || field.type === 'double' || field.type === 'boolean') return
        expect(lower === undefined).toBe(held.length === 0)
        for (const item of new Set(held)) {
          const key = comparableKey(field.type as string, item) as Comparable
          expect(compareComparables(comparableBound(field.type as string, lower!) as Comparable, key)).toBeLessThanOrEqual(0)
          if (upper !== undefined) expect(compareComparables(comparableBound(field.type as string, upper) as Comparable, key)).toBeGreaterThanOrEqual(0)
        }
      },
    ),
    { numRuns: runs(25) },
  )
})

function same(a: unknown, b: unknown): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => same(item, b[i]))
  return Object.is(a, b)
}

test('few texts become a dictionary, many do not; each page and chunk says how long it is', async () => {
  const layout = newLayout(tableOf({ kind: 'string' }))
  const columns = tableColumns(layout)
  const encodingsOf = async (textOf: (i: number) => string | null) => {
    const file = new OneFile()
    const rows: Tuple[] = Array.from({ length: 30_000 }, (_, i) => [i, textOf(i)])
    await writeParquetFile(file.store, columns, rows, { location: 'f', content: 0, equalityIds: null, compression: 'zstd' })
    const metadata = parquetMetadata(Uint8Array.from(file.bytes).buffer)
    const chunks = metadata.row_groups.flatMap((group) => group.columns.map((chunk) => chunk.meta_data!))
    let at = 4n
    for (const chunk of chunks) {
      expect(chunk.dictionary_page_offset ?? chunk.data_page_offset).toBe(at)
      at += chunk.total_compressed_size
    }
    return chunks[1]!.encodings
  }
  expect(await encodingsOf((i) => ['new', 'paid', null, 'sent'][i % 4]!)).toEqual(['PLAIN', 'RLE_DICTIONARY'])
  expect(await encodingsOf(() => 'same')).toEqual(['PLAIN', 'RLE_DICTIONARY'])
  expect(await encodingsOf((i) => `text ${i}`)).toEqual(['PLAIN'])
  expect(await encodingsOf(() => null)).toEqual(['PLAIN'])
})

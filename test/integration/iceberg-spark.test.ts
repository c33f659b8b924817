import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { IcebergSink } from '../../connectors/iceberg/iceberg-sink.ts'
import { decimalText } from '../../connectors/iceberg/value-codec.ts'
import type { RowChange, TableSchema, Tuple, Value } from '../../core/plugin.ts'
import { type Spark, skipReason, startSpark } from '../services/spark.ts'
import { never, type Warehouse, warehouse } from '../unit/connectors/iceberg/open-sink.ts'
import { batches, batchOf, changesOf, column, everyType, puts, rowOf, table } from '../unit/connectors/iceberg/sink-history.ts'
import { type DecimalType, engineText, notes, notesStep } from './iceberg-engines.ts'

/** Spark has no type for the time of day: a table with such a column cannot be read by it at all. */
const sparkTypes = table(everyType.columns.filter(({ type }) => type.kind !== 'time'))

const SPARK_NAMES: Readonly<Record<string, string>> = {
  id: 'bigint',
  flag: 'boolean',
  small: 'int',
  big: 'bigint',
  real: 'float',
  double: 'double',
  price: 'decimal(9,2)',
  total: 'decimal(18,4)',
  huge: 'decimal(38,10)',
  vast: 'string',
  name: 'string',
  blob: 'binary',
  uid: 'string',
  doc: 'string',
  mood: 'string',
  day: 'date',
  wall: 'timestamp_ntz',
  instant: 'timestamp',
  tags: 'array<string>',
  amounts: 'array<decimal(12,2)>',
  address: 'struct<street:string,zip:int>',
  spots: 'array<struct<x:double,u:string>>',
  labels: 'map<string,string>',
}

/** Beyond 38 digits it is text in the table too. */
const sparkDecimal = (type: DecimalType, value: bigint) => (type.precision > 38 ? decimalText(value, type.scale) : trimmed(decimalText(value, type.scale)))

/** Without the zeros at its end: the scale is told by the type. */
const trimmed = (digits: string) => digits.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '')

const expected = (schema: TableSchema, rows: Iterable<Tuple>) =>
  sorted([...rows].map((row) => schema.columns.map(({ type }, i) => engineText(type, row[i]!, sparkDecimal))))
/** Without the order of rows and of the entries of maps. */
const sorted = (rows: readonly unknown[][]) => {
  const isMap = (value: unknown): value is string[][] => Array.isArray(value) && value.every((one) => Array.isArray(one) && one.length === 2)
  return rows.map((row) => JSON.stringify(row.map((value) => (isMap(value) ? value.map((entry) => JSON.stringify(entry)).sort() : value)))).sort()
}

const reason = skipReason()
describe.skipIf(reason !== null)(`Spark reads what the sink writes${reason === null ? '' : ` (skipped: ${reason})`}`, { timeout: 600_000 }, () => {
  let spark: Spark
  let catalogs = 0
  beforeAll(async () => {
    spark = await startSpark()
  }, 900_000)
  afterAll(() => spark?.[Symbol.asyncDispose]())

  /** A sink whose catalog Spark has, and the name that its table has there. */
  async function open(place: Warehouse): Promise<{ readonly sink: IcebergSink; readonly name: string }> {
    const catalog = `lake${++catalogs}`
    const sink = await place.open({ catalog: { kind: 'sql', name: catalog } })
    await spark.attach(catalog, path.join(place.folder, 'catalog.db'), place.folder)
    return { sink, name: `${catalog}.public.orders` }
  }

  test('every type that Spark has comes as it was, by catalog and by metadata file', async () => {
    using place = warehouse()
    const { sink, name } = await open(place)
    await using _ = sink
    await sink.prepare(sparkTypes)
    const rows = fc.sample(rowOf(sparkTypes), { numRuns: 200, seed: 7 })
    const kept = [...new Map(rows.map((row) => [row[0], row])).values()]
    const { changes } = changesOf(sparkTypes, puts(kept))
    for (const batch of batches(sparkTypes, changes, [50])) expect(await sink.apply(batch, never)).toEqual([])
    const want = expected(sparkTypes, kept)
    expect(await spark.types(name)).toEqual(sparkTypes.columns.map((one) => [one.name, SPARK_NAMES[one.name]]))
    expect(sorted(await spark.rows(name))).toEqual(want)
    expect(sorted(await spark.rowsAt(sink.metadataLocation!))).toEqual(want)
  })

  test('any history in any batches reads the same, before and after a compaction', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(notesStep, { minLength: 20, maxLength: 60 }), fc.array(fc.nat(60), { minLength: 3, maxLength: 8 }), async (steps, cuts) => {
        using place = warehouse()
        const { sink, name } = await open(place)
        await using _ = sink
        await sink.prepare(notes)
        const { changes, rows } = changesOf(notes, steps)
        for (const batch of batches(notes, changes, cuts)) expect(await sink.apply(batch, never)).toEqual([])
        const want = expected(notes, rows.values())
        expect(sorted(await spark.rows(name))).toEqual(want)
        await sink.compact(never)
        expect(sorted(await spark.rows(name))).toEqual(want)
      }),
      { numRuns: 6 },
    )
  })

  test('a changed key, and columns that were renamed, added, dropped and widened, read right in old and new files; statistics lead it to rows', async () => {
    using place = warehouse()
    const { sink, name } = await open(place)
    await using _ = sink
    const before = table([
      column(1, 'id', { kind: 'int32' }),
      column(2, 'name', { kind: 'string' }),
      column(3, 'gone', { kind: 'string' }),
      column(4, 'price', { kind: 'decimal', precision: 6, scale: 2 }),
      column(6, 'weight', { kind: 'float32' }),
    ])
    const after = table([
      column(1, 'id', { kind: 'int64' }),
      column(5, 'name', { kind: 'string' }),
      column(2, 'title', { kind: 'string' }),
      column(4, 'price', { kind: 'decimal', precision: 20, scale: 2 }),
      column(6, 'weight', { kind: 'float64' }),
    ])
    let offset = 0
    const apply = async (schema: TableSchema, ...changes: readonly (readonly [key: Value, after: Tuple | null])[]) => {
      const made = changes.map(
        ([key, row]): RowChange => ({
          kind: 'row',
          op: row === null ? 'd' : 'c',
          table: schema,
          key: [key],
          before: null,
          after: row,
          position: { commit: BigInt(++offset), ordinal: 0 },
          committedAt: 0n,
        }),
      )
      expect(await sink.apply(batchOf(schema, made, offset), never)).toEqual([])
    }
    await sink.prepare(before)
    await apply(before, [1, [1, 'old one', 'x', 150n, 0.5]], [2, [2, 'old two', 'y', 250n, null]], [3, [3, 'old three', 'z', 350n, 1.5]])
    // a change of key comes as a delete and an insert
    await apply(before, [3, null], [30, [30, 'old three', 'z', 350n, 1.5]])
    expect(await spark.types(name)).toContainEqual(['price', 'decimal(6,2)'])
    await sink.prepare(after)
    await apply(after, [2n, [2n, 'new', 'title', 10n ** 15n, 0.1]], [2n ** 40n, [2n ** 40n, 'new', null, null, null]])
    const rows: Tuple[] = [
      [1n, null, 'old one', 150n, 0.5],
      [2n, 'new', 'title', 10n ** 15n, 0.1],
      [30n, null, 'old three', 350n, 1.5],
      [2n ** 40n, 'new', null, null, null],
    ]
    expect(await spark.types(name)).toEqual([
      ['id', 'bigint'],
      ['name', 'string'],
      ['title', 'string'],
      ['price', 'decimal(20,2)'],
      ['weight', 'double'],
    ])
    expect(sorted(await spark.rows(name))).toEqual(expected(after, rows))
    // files of both shapes are left out by their bounds, not rows
    expect(await spark.countWhere(name, 'id >= 30')).toBe(2)
    expect(await spark.countWhere(name, "title = 'old one' and price = 1.50")).toBe(1)
    expect(await spark.countWhere(name, 'id = 3')).toBe(0)
    await sink.compact(never)
    expect(sorted(await spark.rows(name))).toEqual(expected(after, rows))
  })

  test('a time of day is what it cannot read', async () => {
    using place = warehouse()
    const { sink, name } = await open(place)
    await using _ = sink
    await sink.prepare(everyType)
    const [row] = fc.sample(rowOf(everyType), { numRuns: 1, seed: 7 })
    await sink.apply(batches(everyType, changesOf(everyType, puts([row!])).changes, [])[0]!, never)
    await expect(spark.rows(name)).rejects.toThrow(/not support.*time/i)
  })
})

import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RowChange, TableSchema, Tuple } from '../../core/plugin.ts'
import { ICEBERG_READERS, LOAD_DUCKDB, type PythonSession, pythonSession, pythonSkipReason, pythonWith } from '../services/python.ts'
import { allRows, never, warehouse } from '../unit/connectors/iceberg/open-sink.ts'
import { batches, batchOf, changesOf, column, everyType, position, puts, rowOf, table } from '../unit/connectors/iceberg/sink-history.ts'
import { engineText, notes, notesStep } from './iceberg-engines.ts'

/** Both readers give each row as a list of texts that are equal when the values are. */
const SCRIPT = `${LOAD_DUCKDB}
import datetime, decimal, uuid, struct
EPOCH = datetime.datetime(1970, 1, 1)
def micros(delta):
    return str((delta.days * 86400 + delta.seconds) * 1000000 + delta.microseconds)
def text(value):
    if value is None: return None
    if isinstance(value, bool): return 'true' if value else 'false'
    if isinstance(value, (bytes, bytearray)): return '0x' + bytes(value).hex()
    if isinstance(value, float): return '0f' + struct.pack('>d', value).hex() if value == value else 'NaN'
    if isinstance(value, decimal.Decimal): return format(value, 'f')
    if isinstance(value, datetime.datetime): return micros(value.replace(tzinfo=None) - EPOCH)
    if isinstance(value, datetime.date): return str((value - EPOCH.date()).days)
    if isinstance(value, datetime.time): return micros(datetime.datetime.combine(EPOCH.date(), value) - EPOCH)
    if isinstance(value, dict): return [text(item) for item in value.values()]
    if isinstance(value, (list, tuple)): return [text(item) for item in value]
    return str(value)
def duck(location, maps=()):
    rows = connection.execute("select * from iceberg_scan('" + location + "')").fetchall()
    return [text([list(v.items()) if i in maps and v is not None else v for i, v in enumerate(row)]) for row in rows]
from pyiceberg.catalog import load_catalog
def catalog(path):
    return load_catalog('millrace', type='sql', uri='sqlite:///' + path)
def ice(path, name):
    return [text(list(row.values())) for row in catalog(path).load_table(name).scan().to_arrow().to_pylist()]
def ice_compacted(path, name):
    loaded = catalog(path).load_table(name)
    without = [s for s in loaded.metadata.snapshots if s.summary.additional_properties['total-delete-files'] == '0']
    return [text(list(row.values())) for row in loaded.scan(snapshot_id=without[-1].snapshot_id).to_arrow().to_pylist()]
def ice_facts(path, name):
    loaded = catalog(path).load_table(name)
    return {'schema': str(loaded.schema()), 'identifiers': sorted(loaded.schema().identifier_field_names()), 'properties': dict(loaded.properties), 'namespaces': [list(n) for n in catalog(path).list_namespaces()],
        'snapshots': [dict(s.summary.additional_properties) for s in loaded.metadata.snapshots], 'plan': len(list(loaded.scan().plan_files())) if not any(m.content for m in loaded.current_snapshot().manifests(loaded.io)) else -1}
def ice_prune(path, name, filter):
    return len(list(catalog(path).load_table(name).scan(row_filter=filter).plan_files()))
def ice_append(path, name, rows):
    import pyarrow
    loaded = catalog(path).load_table(name)
    loaded.append(pyarrow.Table.from_pylist(rows, schema=loaded.schema().as_arrow()))
`

const expected = (schema: TableSchema, row: Tuple) => schema.columns.map(({ type }, i) => engineText(type, row[i]!))

const sorted = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row)).sort()
/** Dates and times that Python can hold. */
const pythonCan = (schema: TableSchema, row: Tuple) =>
  schema.columns.every(({ type }, i) => {
    const value = row[i]!
    if (value === null) return true
    if (type.kind === 'date') return Math.abs(value as number) < 600_000
    if (type.kind === 'timestamp' || type.kind === 'timestamptz')
      return (value as bigint) > -60_000_000_000_000_000n && (value as bigint) < 200_000_000_000_000_000n
    return true
  })

const skip = pythonSkipReason()
describe.skipIf(skip !== null)(`other engines read what the sink writes${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  let python: PythonSession
  beforeAll(async () => {
    python = pythonSession(await pythonWith(ICEBERG_READERS), SCRIPT)
  }, 900_000)
  afterAll(() => python?.[Symbol.asyncDispose]())

  const mapped = (rows: unknown[]) =>
    rows.map((row) =>
      (row as unknown[]).map((value, i) => (everyType.columns[i]!.type.kind === 'map' && value !== null ? [...(value as string[][])].sort() : value)),
    )

  test('DuckDB and PyIceberg see every type as it was', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(
          rowOf(everyType).filter((row) => pythonCan(everyType, row)),
          { minLength: 1, maxLength: 20, selector: (row) => row[0] },
        ),
        async (rows) => {
          using place = warehouse()
          await using sink = await place.open()
          await sink.prepare(everyType)
          await sink.apply(batchOf(everyType, changesOf(everyType, puts(rows)).changes, rows.length), never)
          const want = sorted(rows.map((row) => expected(everyType, row)))
          const withMaps = (got: unknown) => sorted(mapped(got as unknown[]))
          // PyIceberg 0.12 gives [] for a NULL list of structs (plain pyarrow on the same file does not)
          const structs = everyType.columns.findIndex(({ name }) => name === 'spots')
          const lenient = (lists: readonly unknown[][]) => sorted(lists.map((list) => list.map((value, i) => (i === structs ? (value ?? []) : value))))
          const ice = mapped((await python.call('ice', path.join(place.folder, 'catalog.db'), 'public.orders')) as unknown[])
          expect(lenient(ice)).toEqual(lenient(rows.map((row) => expected(everyType, row))))
          const maps = everyType.columns.flatMap(({ type }, i) => (type.kind === 'map' ? [i] : []))
          expect(withMaps(await python.call('duck', sink.metadataLocation!, maps))).toEqual(want)
        },
      ),
      { numRuns: 15 },
    )
  }, 600_000)

  test('any history in any batches reads the same in DuckDB, and in PyIceberg once compacted', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(notesStep, { minLength: 1, maxLength: 40 }), fc.array(fc.nat(40), { maxLength: 6 }), async (steps, cuts) => {
        using place = warehouse()
        await using sink = await place.open()
        await sink.prepare(notes)
        const { changes, rows } = changesOf(notes, steps)
        for (const batch of batches(notes, changes, cuts)) expect(await sink.apply(batch, never)).toEqual([])
        const want = sorted([...rows.values()].map((values) => expected(notes, values)))
        expect(sorted((await python.call('duck', sink.metadataLocation!)) as unknown[])).toEqual(want)
        expect(sorted((await python.call('duck', path.join(place.folder, 'public/orders'))) as unknown[])).toEqual(want)
        await sink.compact(never)
        expect(sorted((await python.call('ice', path.join(place.folder, 'catalog.db'), 'public.orders')) as unknown[])).toEqual(want)
        expect(sorted((await allRows(sink)).map((values) => expected(notes, values)))).toEqual(want)
      }),
      { numRuns: 20 },
    )
  }, 600_000)

  test('PyIceberg, which refuses a table that changed since a compaction, reads it as it was then', async () => {
    using place = warehouse()
    await using sink = await place.open()
    await sink.prepare(notes)
    const put = (offset: number) => sink.apply(batchOf(notes, changesOf(notes, puts([[1n, `at ${offset}`, null]])).changes, offset), never)
    for (const offset of [1, 2]) await put(offset)
    await sink.compact(never)
    await put(3)
    const catalog = path.join(place.folder, 'catalog.db')
    await expect(python.call('ice', catalog, 'public.orders')).rejects.toThrow('equality deletes')
    expect(await python.call('ice_compacted', catalog, 'public.orders')).toEqual([['1', 'at 2', null]])
  })

  test("PyIceberg reads catalog, schema, statistics and summary, and its own commit on top loses none of Millrace's facts", async () => {
    using place = warehouse()
    await using sink = await place.open()
    await sink.prepare(notes)
    const history = (from: bigint, offset: number) => {
      const rows = [0n, 1n, 2n].map((n): Tuple => [from + n, `row ${n}`, null])
      return sink.apply(batchOf(notes, changesOf(notes, puts(rows)).changes, offset), never)
    }
    await history(1n, 3)
    await history(100n, 6)
    const catalog = path.join(place.folder, 'catalog.db')
    const facts = (await python.call('ice_facts', catalog, 'public.orders')) as {
      identifiers: string[]
      plan: number
      snapshots: Record<string, string>[]
      namespaces: string[][]
    }
    expect(facts.identifiers).toEqual(['id'])
    expect(facts.namespaces).toEqual([['public']])
    expect(facts.plan).toBe(2)
    expect(await python.call('ice_prune', catalog, 'public.orders', 'id > 50')).toBe(1)
    expect(facts.snapshots.at(-1)).toMatchObject({
      'total-records': '6',
      'millrace.positions': JSON.stringify([{ topic: position(0).topic, partition: 0, offset: '6' }]),
    })

    await python.call('ice_append', catalog, 'public.orders', [{ id: 1000, name: 'from PyIceberg', note: null }])
    await history(200n, 9)
    expect(await allRows(sink)).toHaveLength(10)
    await using again = await place.open()
    expect(await again.committed()).toEqual([position(9)])
    expect((await python.call('ice', catalog, 'public.orders')) as unknown[]).toHaveLength(10)
  })

  test('columns that were renamed, added, dropped and widened read right in old and new files', async () => {
    using place = warehouse()
    await using sink = await place.open()
    const before = table([
      column(1, 'id', { kind: 'int32' }),
      column(2, 'name', { kind: 'string' }),
      column(3, 'gone', { kind: 'string' }),
      column(4, 'price', { kind: 'decimal', precision: 6, scale: 2 }),
    ])
    const after = table([
      column(1, 'id', { kind: 'int64' }),
      column(5, 'name', { kind: 'string' }),
      column(2, 'title', { kind: 'string' }),
      column(4, 'price', { kind: 'decimal', precision: 20, scale: 2 }),
    ])
    const put = (schema: TableSchema, row: Tuple, offset: number) => {
      const position = { commit: BigInt(offset), ordinal: 0 }
      const change: RowChange = { kind: 'row', op: 'c', table: schema, key: [row[0]!], before: null, after: row, position, committedAt: 0n }
      return sink.apply(batchOf(schema, [change], offset), never)
    }
    await sink.prepare(before)
    await put(before, [1, 'old one', 'x', 150n], 1)
    await put(before, [2, 'old two', 'y', 250n], 2)
    await sink.prepare(after)
    await put(after, [2n, 'new', 'title', 10n ** 15n], 3)
    await put(after, [2n ** 40n, 'new', null, null], 4)
    const rows: Tuple[] = [
      [1n, null, 'old one', 150n],
      [2n, 'new', 'title', 10n ** 15n],
      [2n ** 40n, 'new', null, null],
    ]
    const want = sorted(rows.map((values) => expected(after, values)))
    expect(sorted((await allRows(sink)).map((values) => expected(after, values)))).toEqual(want)
    expect(sorted((await python.call('duck', sink.metadataLocation!)) as unknown[])).toEqual(want)
    await sink.compact(never)
    expect(sorted((await python.call('ice', path.join(place.folder, 'catalog.db'), 'public.orders')) as unknown[])).toEqual(want)
    expect(readdirSync(path.join(place.folder, 'public/orders/data')).length).toBeGreaterThan(0)
    expect(readFileSync(path.join(place.folder, 'public/orders/metadata/version-hint.text'), 'utf8')).toMatch(/^\d{5}-/)
  })
})

import { existsSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { parseLosslessJson } from '../../../../connectors/iceberg/lossless-json.ts'
import type { TableMetadata } from '../../../../connectors/iceberg/table-metadata.ts'
import type { RowChange, SinkBatch, Tuple } from '../../../../core/plugin.ts'
import { allRows, never, warehouse } from './open-sink.ts'
import { batchOf, column, position, table } from './sink-history.ts'

const small = table([
  column(1, 'id', { kind: 'int64' }),
  column(2, 'name', { kind: 'string' }),
  column(3, 'price', { kind: 'decimal', precision: 5, scale: 2 }, { maybeSpecial: true }),
])

function batch(offset: number, rows: readonly Tuple[], rejected: unknown[] = []): SinkBatch {
  const changes = rows.map(
    (row): RowChange => ({
      kind: 'row',
      op: 'u',
      table: small,
      key: [row[0]!],
      before: null,
      after: row,
      position: { commit: BigInt(offset), ordinal: 0 },
      committedAt: 0n,
    }),
  )
  return { ...batchOf(small, changes, offset), onRejected: async (all) => void rejected.push(...all) }
}

test('a long run keeps a bounded number of snapshots, manifests, metadata and data files', async () => {
  using place = warehouse()
  await using sink = await place.open({ keepSnapshotsMs: 0, compactAfterDeleteFiles: 20 })
  await sink.prepare(small)
  for (let n = 1; n <= 60; n++) await sink.apply(batch(n, [[BigInt(n % 7), `commit ${n}`, 1n]]), never)
  const folder = path.join(place.folder, 'public/orders')
  const metadata = parseLosslessJson(readFileSync(new URL(sink.metadataLocation!), 'utf8')) as TableMetadata
  expect(metadata.snapshots!.length).toBeLessThanOrEqual(20)
  expect(metadata.snapshots!.length).toBeGreaterThanOrEqual(10)
  expect(metadata['snapshot-log']!.length).toBeLessThanOrEqual(20)
  const names = readdirSync(path.join(folder, 'metadata'))
  expect(names.filter((name) => name.endsWith('.metadata.json')).length).toBeLessThanOrEqual(22)
  expect(names.filter((name) => name.endsWith('.avro')).length).toBeLessThan(100)
  expect(readdirSync(path.join(folder, 'data')).length).toBeLessThan(100)
  for (const snapshot of metadata.snapshots!) expect(existsSync(new URL(snapshot['manifest-list']))).toBe(true)
  expect((await allRows(sink)).map((row) => row[1]).sort()).toEqual(Array.from({ length: 7 }, (_, i) => `commit ${54 + i}`))
  await using again = await place.open()
  expect(await again.committed()).toEqual([position(60)])
})

test('files that a killed writer left go at the next start, when they are old and nobody refers to them', async () => {
  using place = warehouse()
  const folder = path.join(place.folder, 'public/orders')
  {
    await using sink = await place.open()
    await sink.prepare(small)
    await sink.apply(batch(1, [[1n, 'one', null]]), never)
  }
  const past = new Date(Date.now() - 3_600_000)
  const kept = readdirSync(path.join(folder, 'data')).map((name) => path.join(folder, 'data', name))
  const left = [
    'data/millrace-dead-000001-data.parquet',
    'metadata/millrace-dead-m0.avro',
    'data/millrace-young.parquet',
    'data/of-another-engine.parquet',
  ].map((name) => path.join(folder, name))
  for (const file of left) writeFileSync(file, '')
  for (const file of [...kept, left[0]!, left[1]!, left[3]!]) utimesSync(file, past, past)
  await using sink = await place.open()
  await sink.prepare(small)
  await sink.apply(batch(2, []), never)
  expect([...kept, ...left].map((file) => existsSync(file))).toEqual([...kept.map(() => true), false, false, true, true])
  expect(await allRows(sink)).toEqual([[1n, 'one', null]])
})

test('rising keys need no delete files, keys that may be there do', async () => {
  using place = warehouse()
  await using sink = await place.open()
  await sink.prepare(small)
  const deletes = () => readdirSync(path.join(place.folder, 'public/orders/data')).filter((name) => name.includes('deletes')).length
  for (let n = 0; n < 5; n++)
    await sink.apply(
      batch(n + 1, [
        [BigInt(n * 10), 'a', null],
        [BigInt(n * 10 + 5), 'b', null],
      ]),
      never,
    )
  expect(deletes()).toBe(0)
  await sink.apply(batch(9, [[12n, 'inside', null]]), never)
  expect(deletes()).toBe(1)
  expect(await allRows(sink)).toHaveLength(11)
})

test('values that the column cannot hold are rejected without showing them, and the row stays as it was', async () => {
  using place = warehouse()
  await using sink = await place.open()
  await sink.prepare(small)
  const announced: unknown[] = []
  await sink.apply(batch(1, [[1n, 'one', 99_999n]]), never)
  const rejections = await sink.apply(
    batch(
      2,
      [
        [1n, 'too large', 100_000n],
        [2n, 'fits', -99_999n],
      ],
      announced,
    ),
    never,
  )
  expect(rejections).toEqual([{ index: 0, reason: 'column price: a number beyond 5 digits' }])
  expect(announced).toEqual(rejections)
  expect((await allRows(sink)).sort()).toEqual([
    [1n, 'one', 99_999n],
    [2n, 'fits', -99_999n],
  ])
})

test('small data files are merged, and older delete files still apply to the others', async () => {
  using place = warehouse()
  await using sink = await place.open({ keepSnapshotsMs: 0, compactAfterDeleteFiles: 0, compactAfterSmallFiles: 10 })
  await sink.prepare(small)
  const rows = new Map<bigint, string>()
  for (let n = 1; n <= 60; n++) {
    const ids = [BigInt(n), BigInt(((n * 7) % n) + 1)]
    for (const id of ids) rows.set(id, `commit ${n}`)
    await sink.apply(batch(n, ids.map((id) => [id, `commit ${n}`, null])), never) // biome-ignore format: short
  }
  expect((await allRows(sink)).map(([id, name]) => [id, name]).sort()).toEqual([...rows].sort())
  const metadata = parseLosslessJson(readFileSync(new URL(sink.metadataLocation!), 'utf8')) as TableMetadata
  expect(Number(metadata.snapshots!.at(-1)!.summary['total-data-files'])).toBeLessThanOrEqual(10)
})

test('a reader beside the writer sees its commits and does not disturb it; a writer that starts from old positions gives up', async () => {
  using place = warehouse()
  await using writer = await place.open()
  await writer.prepare(small)
  await using reader = await place.open()
  expect(await reader.committed()).toEqual([])
  await reader.prepare(small)
  for (let n = 1; n < 4; n++) {
    await writer.apply(batch(n, [[BigInt(n), 'x', null]]), never)
    expect(await allRows(reader)).toHaveLength(n)
    expect(await reader.committed()).toEqual([position(n)])
  }
  await using late = await place.open()
  expect(await late.committed()).toEqual([position(3)])
  await late.prepare(small)
  await writer.apply(batch(4, [[4n, 'x', null]]), never)
  await expect(late.apply(batch(4, [[1n, 'old', null]]), never)).rejects.toMatchObject({ code: 'sink.conflict' })
  expect(await allRows(writer)).toHaveLength(4)
  await writer.apply(batch(5, [[5n, 'x', null]]), never)
})

test('columns keep their fields when the schema changed just before a restart', async () => {
  using place = warehouse()
  const wide = table([...small.columns, column(9, 'more', { kind: 'string' })])
  {
    await using sink = await place.open()
    await sink.prepare(small)
    await sink.apply(batch(1, [[1n, 'one', null]]), never)
    await sink.prepare(wide)
  }
  const file = () =>
    new DatabaseSync(path.join(place.folder, 'catalog.db')).prepare('select metadata_location from iceberg_tables').get() as { metadata_location: string }
  const before = file().metadata_location
  await using sink = await place.open()
  await sink.prepare(wide)
  expect(file().metadata_location).toBe(before)
  const metadata = parseLosslessJson(readFileSync(new URL(before), 'utf8')) as TableMetadata
  expect(metadata.properties['millrace.columns']).toBe('{"1":1,"2":2,"3":3,"9":4}')
  expect(await allRows(sink)).toEqual([[1n, 'one', null, null]])
})

test('a table of another maker or stream is left alone', async () => {
  using place = warehouse()
  {
    await using sink = await place.open()
    await sink.prepare(small)
  }
  const db = new DatabaseSync(path.join(place.folder, 'catalog.db'))
  const { metadata_location: location } = db.prepare('select metadata_location from iceberg_tables').get() as { metadata_location: string }
  db.close()
  const file = new URL(location)
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replace('"millrace.stream":"shop.public.orders"', '"millrace.stream":"other.public.orders"'))
  await using stranger = await place.open()
  await expect(stranger.committed()).rejects.toMatchObject({ code: 'sink.schema_unsupported', fix: expect.any(String) })
  writeFileSync(file, text.replace('"millrace.stream":"shop.public.orders",', ''))
  await expect(stranger.prepare(small)).rejects.toMatchObject({ code: 'sink.schema_unsupported', fix: expect.any(String) })
})

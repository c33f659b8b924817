import { readdirSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { LiveFile } from '../../../../connectors/iceberg/iceberg-table.ts'
import type { IcebergType } from '../../../../connectors/iceberg/table-metadata.ts'
import { scanRows, storedView } from '../../../../connectors/iceberg/table-scan.ts'
import { WarehouseFiles } from '../../../../connectors/iceberg/warehouse-files.ts'
import { Special, type Tuple } from '../../../../core/plugin.ts'
import { runs } from '../../../fixed-seed.ts'
import { allRows, never, warehouse } from './open-sink.ts'
import { batchOf, canonical, changesOf, column, everyType, puts, rowOf, table } from './sink-history.ts'

test('a compaction by the table alone leaves values of every type as they were', async () => {
  const rows = fc.uniqueArray(rowOf(everyType), { minLength: 2, maxLength: 12, selector: (row) => row[0] })
  await fc.assert(
    fc.asyncProperty(rows, async (all) => {
      using place = warehouse()
      await using sink = await place.open()
      await sink.prepare(everyType)
      // every row a second time, so that the first ones are deleted
      for (const from of [0, 1]) await sink.apply(batchOf(everyType, changesOf(everyType, puts(all)).changes, all.length * (from + 1)), never)
      const before = await allRows(sink)
      {
        await using compactor = await place.open()
        expect(await compactor.compact(never)).toMatchObject({ before: { deleteFiles: 1 }, after: { files: 1, deleteFiles: 0 } })
      }
      await using reader = await place.open({}, true)
      await reader.prepare(everyType)
      expect((await allRows(reader)).map(canonical).sort()).toEqual(before.map(canonical).sort())
    }),
    { numRuns: runs(20) },
  )
})

test('the shape stays that of the table: columns that came, went and changed their name, and text that stands for what no number holds', async () => {
  using place = warehouse()
  const vast = { kind: 'decimal', precision: 60, scale: 2 } as const
  const older = table([column(1, 'id', { kind: 'int32' }), column(2, 'gone', { kind: 'string' }), column(3, 'sum', vast, { maybeSpecial: true })])
  const newer = table([column(1, 'id', { kind: 'int64' }), column(3, 'total', vast, { maybeSpecial: true }), column(4, 'at', { kind: 'timestamptz' })])
  {
    await using sink = await place.open()
    await sink.prepare(older)
    const put = (rows: readonly Tuple[], offset: number, shape = older) => sink.apply(batchOf(shape, changesOf(shape, puts(rows)).changes, offset), never)
    await put([[1, 'a', new Special('NaN')], [2, 'b', 10n ** 50n]], 2) // biome-ignore format: rows
    await sink.prepare(newer)
    await put([[2n, -5n, 7n]], 3, newer)
  }
  {
    await using compactor = await place.open()
    await compactor.compact(never)
  }
  await using reader = await place.open({}, true)
  await reader.prepare(newer)
  expect(new Map((await allRows(reader)).map((row) => [row[0], row]))).toEqual(
    new Map<unknown, Tuple>([
      [1n, [1n, new Special('NaN'), null]],
      [2n, [2n, -5n, 7n]],
    ]),
  )
})

test('without delete files small files are merged, one alone is left as it is, and a table whose rows are all gone has no files', async () => {
  using place = warehouse()
  const small = table([column(1, 'id', { kind: 'int64' })])
  await using sink = await place.open()
  await sink.prepare(small)
  for (const id of [1n, 2n, 3n]) await sink.apply(batchOf(small, changesOf(small, puts([[id]])).changes, Number(id)), never)
  expect(await sink.compact(never)).toMatchObject({ before: { files: 3, deleteFiles: 0 }, after: { files: 1, deleteFiles: 0 } })
  const metadata = () => readdirSync(path.join(place.folder, 'public/orders/metadata')).sort()
  const names = metadata()
  const again = await sink.compact(never)
  expect(again!.after).toEqual(again!.before)
  expect(metadata()).toEqual(names)
  const deletes = [1n, 2n, 3n].map((key) => ({ do: 'delete', key }) as const)
  await sink.apply(batchOf(small, changesOf(small, deletes).changes, 4), never)
  expect(await sink.compact(never)).toMatchObject({ before: { files: 2, deleteFiles: 1 }, after: { files: 0, deleteFiles: 0, bytes: 0 } })
  expect(await allRows(sink)).toEqual([])
})

test('a stop leaves the table as it was, and no file of the compaction behind', async () => {
  using place = warehouse()
  const small = table([column(1, 'id', { kind: 'int64' })])
  await using sink = await place.open()
  await sink.prepare(small)
  for (const offset of [1, 2]) await sink.apply(batchOf(small, changesOf(small, puts([[1n]])).changes, offset), never)
  const names = readdirSync(path.join(place.folder, 'public/orders/data')).sort()
  const stop = new AbortController()
  stop.abort(new Error('enough'))
  await expect(sink.compact(stop.signal)).rejects.toThrow('enough')
  expect(readdirSync(path.join(place.folder, 'public/orders/data')).sort()).toEqual(names)
  expect(await allRows(sink)).toEqual([[1n]])
  expect(await sink.compact(never)).toMatchObject({ after: { files: 1, deleteFiles: 0 } })
})

const field = (type: IcebergType) =>
  ({ type: 'struct', 'schema-id': 0, 'identifier-field-ids': [1], fields: [{ id: 1, name: 'id', required: true, type }] }) as const

test.each([
  'fixed[4]',
  'timestamp_ns',
  { type: 'map', 'key-id': 2, key: 'int', 'value-id': 3, value: 'string', 'value-required': false },
] as const)('a column of the type %j, which Millrace does not write, is refused', (type) => {
  expect(() => storedView(new WarehouseFiles(), field(type))).toThrow(expect.objectContaining({ code: 'config.unsupported' }))
})

test('deletes by other columns than the key are refused, since they would be applied to the wrong rows', async () => {
  const view = storedView(new WarehouseFiles(), field('long'))
  const live = [{ file: { content: 2, equality_ids: [2] }, sequenceNumber: 1n }] as unknown as LiveFile[]
  await expect(scanRows(live, view, never).next()).rejects.toMatchObject({ code: 'config.unsupported', fix: expect.any(String) })
})

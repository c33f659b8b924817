import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { runs } from '../../../fixed-seed.ts'
import { allRows, never, warehouse } from './open-sink.ts'
import { batches, batchOf, canonical, changesOf, column, everyType, position, puts, rowOf, stepOf, table } from './sink-history.ts'

const sorted = (rows: Iterable<readonly unknown[]>) => [...rows].map((row) => canonical(row as never)).sort()

test('rows of every type come back as they went in', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(rowOf(everyType), { minLength: 1, maxLength: 30, selector: (row) => row[0] }), async (rows) => {
      using place = warehouse()
      await using sink = await place.open()
      await sink.prepare(everyType)
      const { changes } = changesOf(everyType, puts(rows))
      expect(await sink.apply(batchOf(everyType, changes, rows.length), never)).toEqual([])
      expect(sorted(await allRows(sink))).toEqual(sorted(rows))
    }),
    { numRuns: runs(40) },
  )
})

const small = table([
  column(1, 'id', { kind: 'int64' }),
  column(2, 'name', { kind: 'string' }),
  column(3, 'note', { kind: 'string' }, { mayBeUnchanged: true }),
  column(4, 'price', { kind: 'decimal', precision: 12, scale: 2 }),
])
const step = stepOf(rowOf(small))

test('any history in any batches, with redelivery and restarts, gives the rows of the source', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.array(fc.nat(60), { maxLength: 8 }),
      fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }),
      async (steps, cuts, again) => {
        using place = warehouse()
        const { changes, rows } = changesOf(small, steps)
        let sink = await place.open({ compactAfterDeleteFiles: 5, compactAfterSmallFiles: 3 })
        await sink.prepare(small)
        for (const [i, batch] of batches(small, changes, cuts).entries()) {
          expect(await sink.apply(batch, never)).toEqual([])
          if (again[i]) {
            expect(await sink.apply(batch, never)).toEqual([])
            await sink[Symbol.asyncDispose]()
            sink = await place.open({ compactAfterDeleteFiles: 5, compactAfterSmallFiles: 3 })
            expect(await sink.committed()).toEqual(batch.positions)
            await sink.prepare(small)
            expect(await sink.apply(batch, never)).toEqual([])
          }
        }
        expect(sorted(await allRows(sink))).toEqual(sorted(rows.values()))
        expect(await sink.committed()).toEqual([position(changes.length)])
        await sink[Symbol.asyncDispose]()
      },
    ),
    { numRuns: runs(40) },
  )
})

test('a warehouse that is away is unreachable, also when it is opened, and not a wrong setting', async () => {
  using place = warehouse()
  const away = path.join(place.folder, 'mount')
  writeFileSync(away, '')
  await expect(place.open({ warehouse: away })).rejects.toMatchObject({ code: 'sink.unreachable' })
  await expect(place.open({ warehouse: path.join(away, 'lake') })).rejects.toMatchObject({ code: 'sink.unreachable' })
})

test('opened to be read, it makes neither warehouse nor catalog, and sees what is made meanwhile', async () => {
  using place = warehouse()
  const look = async (more: object) => {
    await using sink = await place.open(more, true)
    expect(await sink.committed()).toEqual([])
    await sink.prepare(small)
    expect([await sink.recall(), await allRows(sink)]).toEqual([null, []])
  }
  const away = path.join(place.folder, 'away')
  await look({ warehouse: away })
  await look({ catalog: { kind: 'sql', path: path.join(away, 'c.db') } })
  const empty = path.join(place.folder, 'empty.db')
  writeFileSync(empty, '')
  await look({ catalog: { kind: 'sql', path: empty } })
  expect([readdirSync(place.folder), readFileSync(empty).length]).toEqual([['empty.db'], 0])
  // the audit waits for what the running mesh is about to make
  await using early = await place.open({ warehouse: away }, true)
  expect(await early.committed()).toEqual([])
  await using writer = await place.open({ warehouse: away })
  await writer.prepare(small)
  await writer.apply(batchOf(small, changesOf(small, puts([[1n, 'late', null, 1n]])).changes, 1), never)
  expect(await early.committed()).toEqual(await writer.committed())
  await early.prepare(small)
  expect(await allRows(early)).toEqual([[1n, 'late', null, 1n]])
})

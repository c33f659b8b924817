import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import type { RowChange, Truncation } from '../core/event/change-event.ts'
import { type Column, type ColumnType, type TableSchema, type Tuple, UNCHANGED, type Value } from '../core/event/table-schema.ts'
import type { LogPosition } from '../core/log/log.ts'
import type { Rejection, SinkBatch, SinkConnector } from '../core/materialize/sink-connector.ts'
import { EXTREMES } from './column-extremes.ts'
import { column, History, ITEMS, positionsOf, sorted, TOPIC, targetRows } from './sink-history.ts'

/** One target of its own, opened as often as a test likes; the stream's topic is `TOPIC`. */
export interface SinkProvision {
  /** @param readOnly as `PluginContext.readOnly`; false when absent */
  open(readOnly?: boolean): Promise<SinkConnector>
  dispose(): Promise<void>
}

export interface SinkCapabilities {
  /** The error's category when another instance has applied a batch meanwhile; null: the target cannot tell. */
  readonly secondWriter: 'conflict' | null
  /** Column types that the target refuses in `prepare` with sink.schema_unsupported. */
  readonly refuses?: (type: ColumnType) => boolean
  /** The sink has `compact`; false when absent. */
  readonly compacts?: boolean
  /** Runs of the random histories; fewer for slow targets. */
  readonly runs?: number
}

const still = new AbortController().signal

/** What every sink holds to: docs in core/materialize/sink-connector.ts. */
export function sinkContract(name: string, provision: (table: TableSchema, topic: string) => Promise<SinkProvision>, capabilities: SinkCapabilities): void {
  describe(`sink contract: ${name}`, () => {
    const opened: (() => PromiseLike<void>)[] = []
    afterEach(async () => {
      for (const close of opened.splice(0).reverse()) await close()
    })

    async function target(table: TableSchema = ITEMS) {
      const place = await provision(table, TOPIC)
      opened.push(() => place.dispose())
      const open = async (readOnly = false) => {
        const sink = await place.open(readOnly)
        opened.push(() => sink[Symbol.asyncDispose]())
        return sink
      }
      const reopen = async (sink: SinkConnector, shape: TableSchema = table) => {
        await sink[Symbol.asyncDispose]()
        const again = await place.open()
        opened.push(() => again[Symbol.asyncDispose]())
        await again.prepare(shape)
        return again
      }
      const sink = await open()
      await sink.prepare(table)
      return { sink, open, reopen }
    }

    const row = (id: bigint, text: string | null = `row ${id}`, body: Value = 'a body', quantity: number | null = 1): Tuple => [id, text, body, quantity, 1250n]

    test('a new target has no positions and no rows, and prepare may be called again', async () => {
      const { sink } = await target()
      await sink.prepare(structuredClone(ITEMS))
      expect(await sink.committed()).toEqual([])
      expect(await targetRows(sink)).toEqual([])
      expect(sink.limits.rows).toBeGreaterThan(0)
      expect(sink.limits.bytes).toBeGreaterThan(0)
      expect(sink.compact !== undefined).toBe(capabilities.compacts === true)
    })

    // I5
    test('rows and positions land together and are there after a reopen', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      const batch = history.batch([history.put('r', row(1n)), history.put('r', row(2n)), history.put('c', row(3n, null, null, null))])
      expect(await sink.apply(batch, still)).toEqual([])
      const again = await reopen(sink)
      expect(positionsOf(await again.committed())).toEqual(positionsOf(batch.positions))
      expect(await targetRows(again)).toEqual(sorted([row(1n), row(2n), row(3n, null, null, null)]))
    })

    test('a batch applied twice changes nothing, also after a reopen and after later batches', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      const first = history.batch([history.put('c', row(1n)), history.put('c', row(2n))])
      const second = history.batch([history.put('u', row(1n, 'newer')), history.delete(2n)])
      await sink.apply(first, still)
      await sink.apply(first, still)
      expect(await targetRows(sink)).toEqual(sorted([row(1n), row(2n)]))
      await sink.apply(second, still)
      await sink.apply(first, still)
      const again = await reopen(sink)
      await again.apply(second, still)
      await again.apply(first, still)
      expect(await targetRows(again)).toEqual(sorted([row(1n, 'newer')]))
      expect(positionsOf(await again.committed())).toEqual(positionsOf(second.positions))
    })

    test('an apply that is cut off leaves all of its batch or nothing', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      const first = history.batch([history.put('c', row(1n))])
      await sink.apply(first, still)
      const second = history.batch(Array.from({ length: 500 }, (_, n) => history.put('c', row(BigInt(n + 10)))))
      const cut = new AbortController()
      const applying = sink.apply(second, cut.signal).then(
        () => 'applied',
        () => 'failed',
      )
      setImmediate(() => cut.abort())
      await applying
      const again = await reopen(sink)
      const landed = positionsOf(await again.committed()).join() === positionsOf(second.positions).join()
      expect(await targetRows(again)).toHaveLength(landed ? 501 : 1)
      await again.apply(second, still)
      expect(await targetRows(again)).toHaveLength(501)
      expect(positionsOf(await again.committed())).toEqual(positionsOf(second.positions))
    })

    test('several changes of one key in a batch end as their order says', async () => {
      const { sink } = await target()
      const history = new History()
      await sink.apply(
        history.batch([
          history.put('c', row(1n)),
          history.put('u', row(1n, 'second')),
          history.delete(1n),
          history.put('c', row(1n, 'third')),
          history.put('c', row(2n)),
          history.delete(2n),
        ]),
        still,
      )
      expect(await targetRows(sink)).toEqual(sorted([row(1n, 'third')]))
    })

    test('deleting what is not there is no error, and the key may come later', async () => {
      const { sink } = await target()
      const history = new History()
      expect(await sink.apply(history.batch([history.delete(7n)]), still)).toEqual([])
      await sink.apply(history.batch([history.put('c', row(7n))]), still)
      expect(await targetRows(sink)).toEqual(sorted([row(7n)]))
    })

    test('a key change is a delete and an insert', async () => {
      const { sink } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n)), history.put('c', row(2n))]), still)
      await sink.apply(history.batch(history.rekey([1n], row(9n, 'moved'))), still)
      expect(await targetRows(sink)).toEqual(sorted([row(2n), row(9n, 'moved')]))
    })

    test("UNCHANGED keeps the target's value, across reopen and within a batch", async () => {
      const { sink, reopen } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n, 'one', 'kept')), history.put('c', row(2n, 'two', null))]), still)
      const again = await reopen(sink)
      await again.apply(history.batch([history.put('u', row(1n, 'uno', UNCHANGED)), history.put('u', row(2n, 'dos', UNCHANGED))]), still)
      await again.apply(
        history.batch([
          history.put('c', row(3n, 'three', 'in the batch')),
          history.put('u', row(3n, 'tres', UNCHANGED)),
          history.put('u', row(1n, 'un', UNCHANGED)),
          history.put('u', row(1n, 'eins', UNCHANGED)),
        ]),
        still,
      )
      expect(await targetRows(again)).toEqual(sorted([row(1n, 'eins', 'kept'), row(2n, 'dos', null), row(3n, 'tres', 'in the batch')]))
    })

    test('UNCHANGED in a key change keeps the value of the old key when both halves are in the batch', async () => {
      const { sink } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n, 'one', 'kept'))]), still)
      const rejections = await sink.apply(history.batch(history.rekey([1n], row(5n, 'five', UNCHANGED))), still)
      expect(rejections).toEqual([])
      expect(await targetRows(sink)).toEqual(sorted([row(5n, 'five', 'kept')]))
    })

    test('a record without its base is rejected, announced before the commit, and its neighbours land', async () => {
      const { sink } = await target()
      const history = new History()
      const before = await sink.committed()
      const announced: Rejection[] = []
      let committedAtAnnouncement: readonly LogPosition[] | null = null
      const plain = history.batch([history.put('c', row(1n)), history.put('u', row(2n, 'two', UNCHANGED)), history.put('c', row(3n))], announced)
      const batch: SinkBatch = {
        ...plain,
        onRejected: async (rejections) => {
          committedAtAnnouncement = await sink.committed()
          await plain.onRejected(rejections)
        },
      }
      const rejections = await sink.apply(batch, still)
      expect(rejections.map((rejection) => rejection.index)).toEqual([1])
      expect(rejections[0]!.reason).toMatch(/\w/)
      expect(rejections[0]!.reason).not.toContain('two')
      expect(announced).toEqual(rejections)
      expect(committedAtAnnouncement).toEqual(before)
      expect(await targetRows(sink)).toEqual(sorted([row(1n), row(3n)]))
      expect(positionsOf(await sink.committed())).toEqual(positionsOf(batch.positions))
    })

    test('a memo lands with the positions, is read back after a reopen, and is asked for once the rejections were announced', async (context) => {
      const { sink, reopen } = await target()
      if (sink.recall === undefined) return context.skip('the sink keeps no memo')
      expect(await sink.recall()).toBeNull()
      const history = new History()
      const memos: string[] = []
      const announced: Rejection[] = []
      const batch = (changes: SinkBatch['changes'], memo: string | null): SinkBatch => ({
        ...history.batch(changes, announced),
        memo: () => {
          memos.push(`${memo} after ${announced.length}`)
          return memo
        },
      })
      const first = batch([history.put('c', row(1n)), history.put('u', row(2n, 'two', UNCHANGED))], '{"first":"\u00e9\\"}')
      await sink.apply(first, still)
      expect(memos.at(-1)).toBe('{"first":"\u00e9\\"} after 1')
      expect(await sink.recall()).toBe('{"first":"\u00e9\\"}')
      const refused = { ...batch([history.put('u', row(9n, 'nine', UNCHANGED))], 'refused'), onRejected: () => Promise.reject(new Error('no room')) }
      await expect(sink.apply(refused, still)).rejects.toThrow('no room')
      const again = await reopen(sink)
      expect(await again.recall!()).toBe('{"first":"\u00e9\\"}')
      await again.apply({ ...first, memo: () => 'of a batch that is covered' }, still)
      expect(await again.recall!()).toBe('{"first":"\u00e9\\"}')
      await again.apply(batch([history.put('c', row(3n))], 'second'), still)
      expect(await again.recall!()).toBe('second')
    })

    if (capabilities.compacts === true) {
      test('a compaction that nothing prepared keeps rows, positions and memo; doing it again changes nothing, and the next writer goes on', async () => {
        const { sink, open, reopen } = await target()
        const history = new History()
        for (const text of ['one', 'uno', 'un']) {
          const changes = [history.put('u', row(1n, text)), history.put('u', row(2n, text, 'kept')), history.delete(3n)]
          await sink.apply({ ...history.batch(changes), memo: () => `memo ${text}` }, still)
        }
        const [rows, positions] = [await targetRows(sink), positionsOf(await sink.committed())]
        const compactor = await open()
        const done = await compactor.compact!(still)
        expect(done!.after.files).toBeLessThan(done!.before.files)
        expect(done!.after.deleteFiles).toBe(0)
        expect(await compactor.compact!(still)).toEqual({ before: done!.after, after: done!.after })
        const again = await reopen(compactor)
        expect(await targetRows(again)).toEqual(rows)
        expect(positionsOf(await again.committed())).toEqual(positions)
        if (sink.recall !== undefined) expect(await again.recall!()).toBe('memo un')
        const next = history.batch([history.put('u', row(2n, 'deux', UNCHANGED)), history.delete(1n)])
        await again.apply(next, still)
        expect(await targetRows(again)).toEqual(sorted([row(2n, 'deux', 'kept')]))
        expect(positionsOf(await again.committed())).toEqual(positionsOf(next.positions))
      })

      test('a compaction of a target that is not there makes none', async () => {
        const place = await provision(ITEMS, TOPIC)
        opened.push(() => place.dispose())
        const sink = await place.open()
        opened.push(() => sink[Symbol.asyncDispose]())
        expect(await sink.compact!(still)).toBeNull()
        expect(await sink.committed()).toEqual([])
      })
    }

    test('when a rejection cannot be taken, nothing of the batch lands', async () => {
      const { sink } = await target()
      const history = new History()
      const first = history.batch([history.put('c', row(1n))])
      await sink.apply(first, still)
      const batch = history.batch([history.put('c', row(4n)), history.put('u', row(2n, 'two', UNCHANGED))])
      const refusing: SinkBatch = { ...batch, onRejected: () => Promise.reject(new Error('no room for dead letters')) }
      await expect(sink.apply(refusing, still)).rejects.toThrow('no room for dead letters')
      expect(await targetRows(sink)).toEqual(sorted([row(1n)]))
      expect(positionsOf(await sink.committed())).toEqual(positionsOf(first.positions))
      await sink.apply(batch, still)
      expect(await targetRows(sink)).toEqual(sorted([row(1n), row(4n)]))
    })

    test('truncate removes what came before it, in the target and in the batch', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n)), history.put('c', row(2n))]), still)
      await sink.apply(history.batch([history.put('c', row(3n)), history.truncate(), history.put('c', row(4n))]), still)
      const again = await reopen(sink)
      expect(await targetRows(again)).toEqual(sorted([row(4n)]))
      await again.apply(history.batch([history.put('c', row(1n, 'again'))]), still)
      expect(await targetRows(again)).toEqual(sorted([row(1n, 'again'), row(4n)]))
    })

    test('an empty batch moves the positions', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n))]), still)
      const empty = history.batch([])
      await sink.apply(empty, still)
      const again = await reopen(sink)
      expect(positionsOf(await again.committed())).toEqual(positionsOf(empty.positions))
      expect(await targetRows(again)).toEqual(sorted([row(1n)]))
    })

    test('positions of partitions that a batch does not name stay', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      const first = history.batch([history.put('c', row(1n))])
      await sink.apply(first, still)
      const second = history.batch([history.put('c', row(2n))])
      await sink.apply({ ...second, positions: second.positions.slice(1) }, still)
      const again = await reopen(sink)
      expect(positionsOf(await again.committed())).toEqual(positionsOf([first.positions[0]!, second.positions[1]!]))
    })

    test('the target follows added, dropped, renamed and widened columns', async () => {
      const { sink, reopen } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n)), history.put('c', row(2n))]), still)
      const [id, label, body, quantity, price] = ITEMS.columns as [Column, Column, Column, Column, Column]
      const evolved: TableSchema = {
        ...ITEMS,
        columns: [
          id,
          { ...label, name: 'title' },
          body,
          { ...quantity, type: { kind: 'int64' } },
          { ...price, type: { kind: 'decimal', precision: 20, scale: 2 } },
          column('since', 6, { kind: 'timestamptz' }),
        ],
      }
      await sink.prepare(evolved)
      const next = history.with(evolved)
      await sink.apply(next.batch([next.put('u', [2n, 'two', 'b', 2n ** 40n, 10n ** 15n, 99n])]), still)
      expect(await targetRows(sink)).toEqual(sorted([[1n, 'row 1', 'a body', 1n, 1250n, null], [2n, 'two', 'b', 2n ** 40n, 10n ** 15n, 99n]])) // biome-ignore format: rows
      const slim: TableSchema = { ...evolved, columns: evolved.columns.filter((c) => c.name !== 'body') }
      await sink.prepare(slim)
      const last = next.with(slim)
      await sink.apply(last.batch([last.put('c', [3n, 'three', 3n, 1n, null])]), still)
      const again = await reopen(sink, slim)
      expect(await targetRows(again)).toEqual(sorted([[1n, 'row 1', 1n, 1250n, null], [2n, 'two', 2n ** 40n, 10n ** 15n, 99n], [3n, 'three', 3n, 1n, null]])) // biome-ignore format: rows
    })

    test('a column dropped and added again under its name starts empty', async () => {
      const { sink } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n, 'old name'))]), still)
      const dropped: TableSchema = { ...ITEMS, columns: ITEMS.columns.filter((c) => c.name !== 'name') }
      await sink.prepare(dropped)
      const added: TableSchema = { ...ITEMS, columns: [...dropped.columns, column('name', 9, { kind: 'string' })] }
      await sink.prepare(added)
      expect(await targetRows(sink)).toEqual(sorted([[1n, 'a body', 1, 1250n, null]]))
    })

    test('a change of type that loses values, and a change of key, are refused', async () => {
      const { sink } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n))]), still)
      const narrowed: TableSchema = { ...ITEMS, columns: ITEMS.columns.map((c) => (c.name === 'name' ? { ...c, type: { kind: 'boolean' } as const } : c)) }
      await expect(sink.prepare(narrowed)).rejects.toMatchObject({ code: 'sink.schema_unsupported', fix: expect.any(String) })
      await expect(sink.prepare({ ...ITEMS, key: [1] })).rejects.toMatchObject({ code: 'sink.schema_unsupported', fix: expect.any(String) })
      await sink.prepare(ITEMS)
      expect(await targetRows(sink)).toEqual(sorted([row(1n)]))
    })

    test('a table without a key is refused with its repair', async () => {
      const keyless: TableSchema = { ...ITEMS, key: [] }
      const place = await provision(keyless, TOPIC)
      opened.push(() => place.dispose())
      const sink = await place.open()
      opened.push(() => sink[Symbol.asyncDispose]())
      await expect(sink.prepare(keyless)).rejects.toMatchObject({ code: 'sink.schema_unsupported', fix: expect.any(String) })
    })

    for (const { name: label, type, values } of EXTREMES) {
      if (!(capabilities.refuses?.(type) === true))
        test(`extremes of ${label} come back as they went in`, async () => {
          const table: TableSchema = { ...ITEMS, key: [0], columns: [column('id', 1, { kind: 'int32' }, { nullable: false }), column('value', 2, type)] }
          const { sink, reopen } = await target(table)
          const history = new History(table)
          const rows: Tuple[] = [null, ...values].map((value, n) => [n, value])
          expect(await sink.apply(history.batch(rows.map((tuple) => history.put('r', tuple))), still)).toEqual([])
          const again = await reopen(sink)
          expect(await targetRows(again)).toEqual(sorted(rows))
        })
    }

    test('composite keys tell their parts apart', async () => {
      const table: TableSchema = {
        ...ITEMS,
        key: [0, 2],
        columns: [
          column('a', 1, { kind: 'string' }, { nullable: false }),
          column('v', 2, { kind: 'int32' }),
          column('b', 3, { kind: 'string' }, { nullable: false }),
        ],
      }
      const { sink } = await target(table)
      const history = new History(table)
      const rows: Tuple[] = [['a', 1, 'bc'], ['ab', 2, 'c'], ['', 3, 'abc'], ['abc', 4, ''], ['a","b', 5, ''], ['a', 6, '","b'], ['A', 7, 'bc'], ['é', 8, 'e\u0301']] // biome-ignore format: rows
      await sink.apply(history.batch(rows.map((tuple) => history.put('c', tuple))), still)
      expect(await targetRows(sink)).toEqual(sorted(rows))
      await sink.apply(history.batch([history.delete('a', 'bc'), history.delete('abc', '')]), still)
      expect(await targetRows(sink)).toEqual(sorted(rows.filter((r) => r[1] !== 1 && r[1] !== 4)))
    })

    if (!(capabilities.secondWriter === null))
      test('a writer that was overtaken gives up', async () => {
        const { sink, open } = await target()
        const history = new History()
        await sink.apply(history.batch([history.put('c', row(1n))]), still)
        const other = await open()
        await other.prepare(ITEMS)
        await other.apply(history.batch([history.put('c', row(2n))]), still)
        await expect(sink.apply(history.batch([history.put('c', row(3n))]), still)).rejects.toMatchObject({ category: capabilities.secondWriter })
        await other.apply(history.batch([history.put('c', row(4n))]), still)
        expect(await targetRows(other)).toEqual(sorted([row(1n), row(2n), row(4n)]))
      })

    test('reading beside a writer, as an audit does, takes nothing over', async () => {
      const { sink, open } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n))]), still)
      const reader = await open()
      await reader.committed()
      await reader.prepare(ITEMS)
      expect(await targetRows(reader)).toEqual(sorted([row(1n)]))
      await sink.apply(history.batch([history.put('c', row(2n))]), still)
      expect(await targetRows(reader)).toEqual(sorted([row(1n), row(2n)]))
    })

    test('opened read only it gives rows in the shape that it is asked for, and the target stays as it is', async () => {
      const { sink, open } = await target()
      const history = new History()
      await sink.apply(history.batch([history.put('c', row(1n))]), still)
      const [id, label, body, quantity, price] = ITEMS.columns as [Column, Column, Column, Column, Column]
      const columns = [id, { ...label, name: 'title' }, { ...quantity, type: { kind: 'int64' } as const }, price, column('since', 6, { kind: 'timestamptz' })]
      const newer: TableSchema = { ...ITEMS, columns }
      const reader = await open(true)
      await reader.prepare(newer)
      expect(await targetRows(reader)).toEqual(sorted([[1n, 'row 1', 1n, 1250n, null]]))
      expect(positionsOf(await reader.committed())).toEqual(positionsOf(await sink.committed()))
      expect(await targetRows(sink)).toEqual(sorted([row(1n)]))
      // the column that it would have lost
      const beside = await open(true)
      await beside.prepare(ITEMS)
      expect(await targetRows(beside)).toEqual(sorted([row(1n)]))
      // what the writer evolves to is not what the reader had in mind
      const other: TableSchema = { ...ITEMS, columns: [id, label, body, quantity, price, column('seen', 7, { kind: 'timestamptz' })] }
      await sink.prepare(other)
      const next = history.with(other)
      await sink.apply(next.batch([next.put('c', [2n, 'two', 'b', 2, 10n, 99n])]), still)
      expect(await targetRows(reader)).toEqual(sorted([[1n, 'row 1', 1n, 1250n, null], [2n, 'two', 2n, 10n, null]])) // biome-ignore format: rows
    })

    test('a target that is not there is read as an empty one', async () => {
      const place = await provision(ITEMS, TOPIC)
      opened.push(() => place.dispose())
      const look = async () => {
        const reader = await place.open(true)
        opened.push(() => reader[Symbol.asyncDispose]())
        expect(await reader.committed()).toEqual([])
        await reader.prepare(ITEMS)
        let views = 0
        for await (const rows of reader.rows((positions) => void (views += 1 + positions.length), still)) expect(rows).toEqual([])
        expect(views).toBe(1)
      }
      await look()
      await look()
    })

    test('rows and positions are of one moment, while batches land in between', async () => {
      const { sink, open } = await target()
      const history = new History()
      const ids = Array.from({ length: 1200 }, (_, n) => BigInt(n))
      await sink.apply(history.batch(ids.map((id) => history.put('c', row(id)))), still)
      const reader = await open()
      await reader.prepare(ITEMS)
      // what the reader knows by now is older than the view
      await reader.committed()
      const last = history.batch([history.put('c', row(1500n))])
      await sink.apply(last, still)
      const views: string[][] = []
      const seen: Tuple[] = []
      let landed = 0
      const land = async () => {
        const at = BigInt(landed++)
        await sink.apply(history.batch([history.put('u', row(at, 'newer')), history.delete(1199n - at), history.put('c', row(2000n + at))]), still)
      }
      for await (const part of reader.rows((positions) => views.push(positionsOf(positions)), still)) {
        expect(views).toHaveLength(1)
        if (landed < 3) await land()
        seen.push(...part)
      }
      expect(landed).toBeGreaterThan(0)
      expect(views).toEqual([positionsOf(last.positions)])
      expect(sorted(seen)).toEqual(sorted([...ids, 1500n].map((id) => row(id))))
      expect(await targetRows(reader)).not.toEqual(sorted(seen))
    })

    test('random histories, cut anywhere and delivered again, end as the oracle says', async () => {
      const step = fc.oneof(
        { weight: 8, arbitrary: fc.record({ kind: fc.constant('put' as const), op: fc.constantFrom('r' as const, 'c' as const, 'u' as const), id: fc.bigInt(0n, 7n), text: fc.string({ maxLength: 6 }), body: fc.option(fc.string({ maxLength: 4 }), { nil: null }), keep: fc.boolean() }) }, // biome-ignore format: one shape
        { weight: 3, arbitrary: fc.record({ kind: fc.constant('delete' as const), id: fc.bigInt(0n, 7n) }) },
        {
          weight: 2,
          arbitrary: fc.record({ kind: fc.constant('rekey' as const), id: fc.bigInt(0n, 7n), to: fc.bigInt(0n, 7n), text: fc.string({ maxLength: 6 }) }),
        },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('truncate' as const) }) },
      )
      const delivery = fc.record({ steps: fc.array(step, { maxLength: 12 }), again: fc.nat({ max: 3 }), reopen: fc.boolean() })
      await fc.assert(
        fc.asyncProperty(fc.array(delivery, { minLength: 1, maxLength: 6 }), async (deliveries) => {
          let { sink, reopen } = await target()
          const history = new History()
          const oracle = new Map<bigint, Tuple>()
          const sent: SinkBatch[] = []
          for (const { steps, again, reopen: restart } of deliveries) {
            const changes: (RowChange | Truncation)[] = []
            const rejected: number[] = []
            for (const s of steps) {
              if (s.kind === 'truncate') {
                changes.push(history.truncate())
                oracle.clear()
              } else if (s.kind === 'delete') {
                changes.push(history.delete(s.id))
                oracle.delete(s.id)
              } else if (s.kind === 'rekey') {
                if (s.id === s.to) continue
                changes.push(...history.rekey([s.id], row(s.to, s.text)))
                oracle.delete(s.id)
                oracle.set(s.to, row(s.to, s.text))
              } else {
                const base = oracle.get(s.id)
                if (s.keep && base === undefined) rejected.push(changes.length)
                changes.push(history.put(s.op, row(s.id, s.text, s.keep ? UNCHANGED : s.body)))
                if (!s.keep) oracle.set(s.id, row(s.id, s.text, s.body))
                else if (base !== undefined) oracle.set(s.id, row(s.id, s.text, base[2]!))
              }
            }
            const batch = history.batch(changes)
            sent.push(batch)
            const rejections = await sink.apply(batch, still)
            expect(rejections.map((rejection) => rejection.index)).toEqual(rejected)
            if (again > 0) await sink.apply(sent[Math.max(0, sent.length - again)]!, still)
            if (restart) sink = await reopen(sink)
            expect(await targetRows(sink)).toEqual(sorted(oracle.values()))
            expect(positionsOf(await sink.committed())).toEqual(positionsOf(batch.positions))
          }
          await sink[Symbol.asyncDispose]()
        }),
        { numRuns: capabilities.runs ?? 40 },
      )
    }, 600_000)
  })
}

import { isDeepStrictEqual } from 'node:util'
import { expect, test } from 'vitest'
import type { ChangeEvent } from '../../core/event/change-event.ts'
import type { Json } from '../../core/event/offset.ts'
import { comparePositions, SNAPSHOT_ORDINAL } from '../../core/event/position.ts'
import { UNCHANGED } from '../../core/event/table-schema.ts'
import type { Item, SourceCapabilities } from './source-driver.ts'
import { idOf, inPositionOrder, itemOf, replay, type SourceBench, type SourceRun, until } from './source-run.ts'
import type { TestLog } from './test-log.ts'
import type { ExpectedChange, Oracle } from './workload.ts'

export type OpenBench = () => Promise<SourceBench>

type Plain = { readonly table: string; readonly op: string; readonly id: number | null; readonly row: Record<string, unknown> | null }

const trimmed = (row: Record<string, unknown>) => (row.extra == null ? { id: row.id, name: row.name, quantity: row.quantity, body: row.body } : row)

function plainOf(change: ChangeEvent, mayLack: ExpectedChange['mayLack'], expected: Item | null): Plain {
  if (change.kind === 'message') return { table: '', op: 'm', id: null, row: null }
  const table = change.table.name
  if (change.kind === 'truncate') return { table, op: 't', id: null, row: null }
  const row = change.after === null ? null : itemOf(change.table, change.after)
  // left out, and that is allowed here: the sink has it
  for (const name of mayLack) if (row !== null && row[name] === UNCHANGED) row[name] = expected?.[name] ?? null
  return { table, op: change.op, id: idOf(change), row: row === null ? null : trimmed(row) }
}

const expectedOf = ({ table, op, id, row }: ExpectedChange): Plain => ({ table, op, id, row: row === null ? null : trimmed({ ...row }) })

/**
 * Exactly these changes, in this order; for a source without an order over keys: in the order of each key. One that reads rows back may give changes of a few
 * keys with what their row became later. @param readLater which part of the keys: after kills chance and the speed of the machine decide
 */
export function expectChanges(actual: readonly ChangeEvent[], expected: readonly ExpectedChange[], can: SourceCapabilities, readLater = 1 / 20): void {
  const perKey = (change: Plain) => `${change.table} ${change.id}`
  const all = inPositionOrder(actual)
  if (can.readsBack !== true) expect(all.length).toBe(expected.length)
  if (can.transactions === true) {
    expect(all.map((change, i) => plainOf(change, expected[i]!.mayLack, expected[i]!.row))).toEqual(expected.map(expectedOf))
    return
  }
  const wanted = Object.groupBy(expected, (change) => perKey(expectedOf(change)))
  const got = Object.groupBy(all, (change) => perKey(plainOf(change, [], null)))
  expect(Object.keys(got).sort()).toEqual(Object.keys(wanted).sort())
  let later = 0
  for (const [key, changes] of Object.entries(wanted)) {
    const exact = changes!.map(expectedOf)
    const told = got[key]!.map((change, i) => plainOf(change, changes![i]?.mayLack ?? [], changes![i]?.row ?? null))
    if (can.readsBack === true && !isDeepStrictEqual(told, exact) && isReadBack(got[key]!, changes!)) later++
    else expect(told).toEqual(exact)
  }
  expect(later).toBeLessThanOrEqual(Math.ceil(Object.keys(wanted).length * readLater))
}

/**
 * All changes from some place on that is not after `most`: where their number says, or before, since some of a row that was gone when it was read back are
 * left out. @returns the place
 */
export function expectRest(actual: readonly ChangeEvent[], oracle: Oracle, most: number, can: SourceCapabilities): number {
  const counted = oracle.changes.length - actual.length
  for (let from = counted; ; from--) {
    try {
      expect(from).toBeLessThanOrEqual(most)
      expectChanges(actual, oracle.changes.slice(from), can)
      return from
    } catch (error) {
      if (can.readsBack !== true || from === 0 || counted - from === MOST_LEFT_OUT) throw error
    }
  }
}

/** Changes of one key: an update may have a later state of the row, and from where the row was gone when it was read all is open to its deletion. */
export function isReadBack(got: readonly ChangeEvent[], wanted: readonly ExpectedChange[]): boolean {
  const [next, ...others] = wanted
  if (next === undefined) return got.length === 0
  const [first, ...rest] = got
  if (first !== undefined) {
    const told = plainOf(first, next.mayLack, next.row)
    const isAsWritten = isDeepStrictEqual(told, expectedOf(next))
    const isLater = told.op === 'u' && wanted.some((later) => later.row !== null && isDeepStrictEqual(plainOf(first, [], null).row, expectedOf(later).row))
    if ((isAsWritten || isLater) && isReadBack(rest, others)) return true
  }
  const gone = wanted.findIndex(({ op }) => op === 'd')
  if (gone < 0) return false
  const after = wanted.slice(gone + 1)
  return got.some((change, i) => change.kind === 'row' && change.op === 'd' && isReadBack(got.slice(i + 1), after))
}

/** The log, replayed, holds what the tables hold. */
export function expectState(log: TestLog, oracle: Oracle): void {
  for (const table of oracle.tables) {
    const rows = [...replay(log.changes, table)].sort(([a], [b]) => a - b).map(([id, row]) => [id, trimmed(row)])
    const wanted = [...oracle.rows(table)].sort(([a], [b]) => a - b).map(([id, row]) => [id, trimmed({ ...row })])
    expect(rows).toEqual(wanted)
  }
}

/** Positions rise in each stream as it was written: nothing twice, nothing out of order. */
export function expectRising(log: TestLog): void {
  const last = new Map<string, ChangeEvent>()
  for (const change of log.changes) {
    if (change.kind === 'message') continue
    const before = last.get(change.table.name)
    if (before !== undefined) expect(comparePositions(before.position, change.position)).toBeLessThan(0)
    last.set(change.table.name, change)
  }
}

/** Changes of rows that were gone when they were read back, at most: of a workload that deletes few. */
const MOST_LEFT_OUT = 5

export const isStreamed = (change: ChangeEvent) => change.position.ordinal < SNAPSHOT_ORDINAL

/** Does random transactions, with a large one among them. */
async function busy(bench: SourceBench, tables: readonly string[], transactions: number, large: number): Promise<void> {
  for (let n = 0; n < transactions; n++) {
    await bench.write(bench.work.transaction(tables))
    if (n === Math.floor(transactions / 2)) await bench.write(bench.work.fill(tables[0]!, large, 500))
  }
}

export function streamCases(open: OpenBench, can: SourceCapabilities): void {
  test('describes its tables, also one that appears later', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const run = await bench.start()
    const tables = await run.connector.tables()
    expect(tables.map(({ namespace, name }) => [namespace, name])).toEqual([[bench.source.namespace, 'items']])
    const [items] = tables
    const names = items!.columns.map(({ name }) => name)
    const ordered = ['id', 'name', 'quantity', 'body']
    expect(can.unorderedColumns === true ? [names[0], ...names.slice(1).sort()] : names).toEqual(
      can.unorderedColumns === true ? ['id', ...ordered.slice(1).sort()] : ordered,
    )
    expect(items!.key).toEqual(can.appendOnly === true && items!.key.length === 0 ? [] : [0])
    expect(new Set(items!.columns.map(({ id }) => id)).size).toBe(4)
    await bench.createTable('later')
    await until('the new table is listed', async () => (await run.connector.tables()).some(({ name }) => name === 'later'))
    await bench.caughtUp(run)
    expect((await run.connector.tables()).map(({ name }) => name).sort()).toEqual(['items', 'later'])
    expectChanges(bench.log.changes.filter(isStreamed), bench.oracle.changes, can)
  })

  test('gives every change once, in order, whole', async () => {
    await using bench = await open()
    await bench.createTable('items', 'parts')
    const run = await bench.start()
    await busy(bench, ['items', 'parts'], 60, 300)
    await bench.caughtUp(run)
    expectRising(bench.log)
    expectChanges(bench.log.changes, bench.oracle.changes, can)
    expectState(bench.log, bench.oracle)
    if (can.transactions === true) expectTransactions(bench)
    expect(Number.isFinite((await run.connector.lag()).behindBytes)).toBe(true)
  })

  test('resumes from any offset that it yielded with exactly the rest', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const first = await bench.start({ acknowledge: false })
    await busy(bench, ['items'], 20, 1500)
    await bench.caughtUp(first)
    await first.stop()
    expect(first.failure).toBe(null)
    const { yields } = first
    const { oracle } = bench
    const end = oracle.changes.length
    // the first, the last and some between
    const chosen = new Set([0, 1, 2, 3, 4, 5].map((n) => Math.floor(((yields.length - 1) * n) / 5)))
    for (const n of chosen) {
      const { offset, written } = yields[n]!
      const log = bench.newLog()
      log.stored.set('offset', JSON.parse(JSON.stringify(offset)) as Json)
      await using run = await bench.start({ acknowledge: false }, log)
      await bench.caughtUp(run, log)
      // nothing that was not written yet may be behind the offset; and never half a transaction
      const from = expectRest(log.changes, oracle, oracle.afterWrites[written]!, can)
      if (can.transactions === true) expect(oracle.boundaries).toContain(from)
      if (n === yields.length - 1) expect(from).toBeGreaterThanOrEqual(end - oracle.tables.length)
    }
  })

  test('what the log holds already is refused when the source gives it again', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const first = await bench.start({ acknowledge: false })
    const start = bench.log.stored.get('offset') ?? first.connector.start
    await busy(bench, ['items'], 20, 500)
    await bench.caughtUp(first)
    await first.stop()
    bench.log.stored.set('offset', start)
    const again = await bench.start()
    await busy(bench, ['items'], 5, 10)
    await bench.caughtUp(again)
    expectRising(bench.log)
    expectChanges(bench.log.changes, bench.oracle.changes, can)
  })

  test('acknowledging only moves forward', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const first = await bench.start()
    await busy(bench, ['items'], 10, 10)
    await bench.caughtUp(first)
    const { connector } = first
    for (const { offset } of first.yields) connector.acknowledge(offset)
    connector.acknowledge(connector.start)
    await busy(bench, ['items'], 5, 10)
    await bench.caughtUp(first)
    await first.stop()
    const second = await bench.start()
    await busy(bench, ['items'], 5, 10)
    await bench.caughtUp(second)
    await second.stop()
    expectChanges(bench.log.changes, bench.oracle.changes, can)
    // what was acknowledged may be forgotten: then it is an error, and never a gap
    const log = bench.newLog()
    log.stored.set('offset', connector.start)
    const old = await bench.start({}, log).catch((error: unknown) => error as { readonly category?: string; readonly fix?: string })
    if ('connector' in old) {
      await bench.caughtUp(old, log)
      expectChanges(log.changes, bench.oracle.changes, can)
    } else expect(old).toMatchObject({ category: 'history', fix: expect.any(String) })
  })

  test('ends promptly on an idle source', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const run: SourceRun = await bench.start()
    await bench.caughtUp(run)
    expect(await run.stop()).toBeLessThan(PROMPT_MS)
    expect(run.failure).toBe(null)
  })

  if (can.appendOnly !== true)
    test('says what it leaves out, and leaves out nothing of a row whose key changed', async () => {
      await using bench = await open()
      await bench.createTable('items')
      const run = await bench.start()
      const table = 'items'
      const { oracle } = bench
      const write = async (...writes: Parameters<Oracle['apply']>[0]) => {
        oracle.apply(writes)
        await bench.write(writes)
      }
      const [large, other] = ['large ', 'other '].map((text) => text.repeat(20_000)) as [string, string]
      await write({ op: 'insert', table, row: { id: -1, name: 'one', quantity: 1, body: large } })
      await write({ op: 'insert', table, row: { id: -2, name: null, quantity: null, body: null } })
      await write({ op: 'update', table, id: -1, set: { quantity: 2 } })
      await write({ op: 'update', table, id: -2, set: { name: 'two' } })
      await write({ op: 'update', table, id: -1, set: { body: other } })
      await write({ op: 'update', table, id: -1, set: { name: null } })
      await write({ op: 'update', table, id: -1, set: { body: null, quantity: null } })
      await write({ op: 'update', table, id: -1, set: { body: large } })
      if (can.changesKeys === true) await write({ op: 'update', table, id: -1, set: { id: -9 } })
      await bench.caughtUp(run)
      for (const change of bench.log.changes) {
        if (change.kind !== 'row' || change.after === null) continue
        for (const [i, column] of change.table.columns.entries()) if (!column.mayBeUnchanged) expect(change.after[i]).not.toBe(UNCHANGED)
      }
      expectChanges(bench.log.changes, oracle.changes, can)
    })
}

/** Milliseconds within which a source ends; far above what it takes, far below what a hang takes. */
export const PROMPT_MS = 30_000

/** Changes of one transaction have one commit, and commits rise. */
function expectTransactions(bench: SourceBench): void {
  const { boundaries } = bench.oracle
  const commits = inPositionOrder(bench.log.changes).map(({ position }) => position.commit)
  for (let n = 1; n < boundaries.length; n++) {
    const own = commits.slice(boundaries[n - 1], boundaries[n])
    expect(new Set(own).size).toBeLessThanOrEqual(1)
    if (own.length > 0 && boundaries[n - 1]! > 0) expect(own[0]).toBeGreaterThan(commits[boundaries[n - 1]! - 1]!)
  }
}

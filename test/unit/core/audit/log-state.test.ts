import fc from 'fast-check'
import { expect, test } from 'vitest'
import { differingKeys } from '../../../../core/audit/differing-keys.ts'
import { logState, RowSum } from '../../../../core/audit/log-state.ts'
import { compileConversion } from '../../../../core/event/row-conversion.ts'
import { type TableSchema, type Tuple, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'
import { runs } from '../../../fixed-seed.ts'
import { MemoryLog } from '../materialize/memory-log.ts'
import { SHAPES, StreamRecords, TOPIC } from '../materialize/stream-records.ts'

const still = new AbortController().signal

interface Change {
  readonly op: 'c' | 'u' | 'd' | 't'
  readonly id: number
  readonly text: string
  readonly keepsBody: boolean
}

/** The same in the plainest way: a row per key. */
function plainState(changes: readonly { readonly shape: TableSchema; readonly change: Change; readonly row: Tuple }[], table: TableSchema): RowSum {
  const rows = new Map<number, Tuple>()
  for (const { shape, change, row } of changes) {
    if (change.op === 't') rows.clear()
    else if (change.op === 'd') rows.delete(change.id)
    else {
      const base = rows.get(change.id)
      const now = compileConversion(shape, table)(row)
      rows.set(
        change.id,
        now.map((value, i) => (value === UNCHANGED && base !== undefined ? base[i]! : value)),
      )
    }
  }
  const sum = new RowSum(table)
  for (const row of rows.values()) sum.add(row)
  return sum
}

const rowOf = (shape: TableSchema, { id, text, keepsBody, op }: Change): Tuple =>
  shape.columns.map((column, i): Value => {
    if (i === 0) return BigInt(id)
    if (column.name === 'body') return op === 'u' && keepsBody ? UNCHANGED : `body ${text}`
    return column.type.kind === 'string' ? text : column.type.kind === 'int32' ? id : BigInt(id)
  })

const change = fc.record({
  op: fc.constantFrom('c' as const, 'u' as const, 'u' as const, 'd' as const, 't' as const),
  id: fc.nat(9),
  text: fc.string({ maxLength: 3 }),
  keepsBody: fc.boolean(),
})

async function replayed(
  written: readonly { readonly shape: TableSchema; readonly change: Change }[],
  table: TableSchema,
  memory: { bytes: number; rows: number },
) {
  const encoder = new StreamRecords()
  const log = new MemoryLog()
  log.create(TOPIC, 1)
  const changes = written.map(({ shape, change }) => ({ shape, change, row: rowOf(shape, change) }))
  const encoded = changes.map(({ shape, change, row }, i) => encoder.record(shape, { op: change.op, row }, { commit: BigInt(i + 1), ordinal: 1 }))
  log.append(TOPIC, new Map([[0, encoded]]), 7)
  const until = [{ topic: TOPIC, partition: 0, offset: BigInt(encoded.length) }]
  const common = { log, registry: encoder.registry, topic: TOPIC, table, memoryBytes: memory.bytes, rows: memory.rows, signal: still }
  const all = await logState({ ...common, cut: { until, below: null } })
  const middle = Math.floor(encoded.length / 2)
  const half = await logState({ ...common, cut: { until, below: BigInt(middle + 1) } })
  return { all, half, plain: plainState(changes, table), plainHalf: plainState(changes.slice(0, middle), table) }
}

test('a replay in hashes is the state that a replay in rows gives: shapes, left out columns, truncations; in one pass and in many', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 40 }), fc.nat(3), fc.constantFrom(0, 2000, 10_000), async (changes, at, rows) => {
      const written = changes.map((one, i) => ({ shape: SHAPES[i < changes.length / 2 ? 0 : at]!, change: one }))
      const { all, half, plain, plainHalf } = await replayed(written, SHAPES[at]!, { bytes: 40_000, rows })
      expect(all.sum.toString()).toBe(plain.checksum.toString())
      expect(all.sum.rows).toBe(plain.checksum.rows)
      expect(all.cut).toBe(false)
      expect(half.sum.toString()).toBe(plainHalf.checksum.toString())
      expect(half.cut).toBe(true)
      expect(all.passes > 1).toBe(rows > 0)
    }),
    { numRuns: runs(80) },
  )
})

test('more keys than were expected take more passes, and a column left out that nobody expected one more', async () => {
  const insert = (id: number): Change => ({ op: 'c', id, text: 'x', keepsBody: false })
  const many = Array.from({ length: 5000 }, (_, id) => ({ shape: SHAPES[0]!, change: insert(id) }))
  const whole = { ...SHAPES[0]!, columns: SHAPES[0]!.columns.map((column) => ({ ...column, mayBeUnchanged: false })) }
  const written = [...many, { shape: SHAPES[0]!, change: { ...insert(7), op: 'u' as const, text: 'y', keepsBody: true } }]
  const { all, plain } = await replayed(written, whole, { bytes: 60_000, rows: 10 })
  expect(all.sum.toString()).toBe(plain.checksum.toString())
  expect(all.sum.rows).toBe(5000)
  expect(all.passes).toBeGreaterThan(5)
})

test('values that change places, within a row and between rows, are other rows', () => {
  const sumOf = (...rows: Tuple[]) => {
    const sum = new RowSum(SHAPES[0]!)
    for (const row of rows) sum.add(row)
    return sum.checksum.toString()
  }
  expect(sumOf([1n, 'a', 'b'])).not.toBe(sumOf([1n, 'b', 'a']))
  expect(sumOf([1n, 'a', 'b'], [2n, 'c', 'd'])).not.toBe(sumOf([1n, 'a', 'd'], [2n, 'c', 'b']))
  expect(sumOf([1n, 'a', 'b'], [2n, 'c', 'd'])).toBe(sumOf([2n, 'c', 'd'], [1n, 'a', 'b']))
  expect(sumOf([1n, null, 'b'])).not.toBe(sumOf([1n, '', 'b']))
})

test('keys that differ from other rows are named, in one pass and in many', async () => {
  const encoder = new StreamRecords()
  const log = new MemoryLog()
  log.create(TOPIC, 1)
  const row = (id: number, text: string): Tuple => [BigInt(id), text, 'body']
  const changes = Array.from({ length: 60 }, (_, id) => ({ op: 'c' as const, row: row(id, 'a') }))
  // a column left out is no difference
  const kept = { op: 'u' as const, row: [7n, 'b', UNCHANGED] as Tuple }
  const encoded = [...changes, kept, { op: 'd' as const, row: row(8, 'a') }].map((change, i) =>
    encoder.record(SHAPES[0]!, change, { commit: BigInt(i + 1), ordinal: 1 }),
  )
  log.append(TOPIC, new Map([[0, encoded]]), 7)
  const cut = { until: [{ topic: TOPIC, partition: 0, offset: BigInt(encoded.length) }], below: null }
  const others = changes.map((change, id) => (id === 7 ? row(7, 'b') : change.row)).filter((_, id) => id !== 20)
  others[30] = row(31, 'other')
  others.push(row(99, 'a'))
  for (const rows of [60, 10_000]) {
    const common = { log, registry: encoder.registry, topic: TOPIC, table: SHAPES[0]!, memoryBytes: 40_000, rows, signal: still }
    let reads = 0
    const read = async (each: (row: Tuple) => void) => {
      reads++
      for (const one of others) each(one)
      return cut
    }
    const found = (await differingKeys(common, read, 10)).map(({ key, what }) => `${key} ${what}`)
    // 8 was deleted and is still there; 99 never was in the log
    expect(found.sort()).toEqual(['id=20 missing', 'id=31 other values', 'id=8 too many', 'id=99 too many'])
    expect(reads > 2).toBe(rows > 60)
    expect((await differingKeys(common, read, 2)).length).toBe(2)
  }
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { rowCodec } from '../../../../connectors/search/row-codec.ts'
import type { ColumnType, TableSchema, Tuple, Value } from '../../../../core/event/table-schema.ts'
import { EXTREMES } from '../../../../testing/column-extremes.ts'
import { canonical } from '../../../../testing/sink-history.ts'
import { rows, tables } from '../../core/schema/tables.ts'

const table = (type: ColumnType, id = 2): TableSchema => ({
  namespace: 'public',
  name: 'items',
  key: [0],
  columns: [{ name: 'value', id, type, sourceType: type.kind, nullable: true, mayBeUnchanged: false, maybeSpecial: false }],
})

test.each(EXTREMES)('$name comes back bit by bit', ({ type, values }) => {
  const codec = rowCodec(table(type))
  for (const value of [null, ...values]) expect(canonical(codec.decode(codec.encode([value]))[0])).toBe(canonical(value))
})

/** Ids tell columns apart, in every source. */
const withOwnIds = (of: TableSchema): TableSchema => ({ ...of, columns: of.columns.map((column, at) => ({ ...column, id: at + 1 })) })

test('random rows of random tables come back bit by bit', () => {
  fc.assert(
    fc.property(
      tables.map(withOwnIds).chain((of) => rows(of).map((row) => ({ of, row }))),
      ({ of, row }) => {
        const codec = rowCodec(of)
        const whole: Tuple = row.map((value) => (typeof value === 'symbol' ? null : value))
        expect(codec.decode(codec.encode(whole)).map(canonical)).toEqual(whole.map(canonical))
      },
    ),
  )
})

const WIDENINGS: readonly { name: string; from: ColumnType; to: ColumnType; value: Value; wider: Value }[] = [
  { name: 'int32 to int64', from: { kind: 'int32' }, to: { kind: 'int64' }, value: -7, wider: -7n },
  { name: 'float32 to float64', from: { kind: 'float32' }, to: { kind: 'float64' }, value: Math.fround(0.1), wider: Math.fround(0.1) },
  { name: 'decimal(6,2) to decimal(12,4)', from: { kind: 'decimal', precision: 6, scale: 2 }, to: { kind: 'decimal', precision: 12, scale: 4 }, value: -150n, wider: -15000n }, // biome-ignore format: one line
  { name: 'uuid to string', from: { kind: 'uuid' }, to: { kind: 'string' }, value: 'a', wider: 'a' },
]

test.each(WIDENINGS)('$name: stored rows read as the wider type, and the key stays the same text', ({ from, to, value, wider }) => {
  const narrow = rowCodec(table(from))
  const wide = rowCodec(table(to))
  expect(wide.decode(narrow.encode([value]))).toEqual([wider])
  expect(wide.key([wider])).toBe(narrow.key([value]))
})

test('a column with another id does not see the old value', () => {
  expect(rowCodec(table({ kind: 'string' }, 9)).decode(rowCodec(table({ kind: 'string' }, 2)).encode(['old']))).toEqual([null])
})

import { expect, test } from 'vitest'
import type { RowChange } from '../../../../core/event/change-event.ts'
import { type ColumnType, Special, type TableSchema, type Tuple, UNCHANGED } from '../../../../core/event/table-schema.ts'
import { changeConverter, fillFromBefore } from '../../../../core/materialize/shape-conversion.ts'

const table = (...columns: readonly (readonly [name: string, id: number, type: ColumnType])[]): TableSchema => ({
  namespace: 'public',
  name: 'items',
  key: [columns.findIndex(([, id]) => id === 1)],
  columns: columns.map(([name, id, type]) => ({ name, id, type, sourceType: type.kind, nullable: true, mayBeUnchanged: true, maybeSpecial: true })),
})
const change = (of: TableSchema, after: Tuple | null, key: Tuple = [1]): RowChange => ({
  kind: 'row',
  op: after === null ? 'd' : 'u',
  table: of,
  key,
  before: null,
  after,
  position: { commit: 1n, ordinal: 1 },
  committedAt: 1n,
})
const int: ColumnType = { kind: 'int32' }
const long: ColumnType = { kind: 'int64' }
const money = (precision: number, scale: number): ColumnType => ({ kind: 'decimal', precision, scale })

test('columns go by id: moved, renamed, dropped, added and widened', () => {
  const older = table(
    ['id', 1, int],
    ['a', 2, { kind: 'string' }],
    ['gone', 3, int],
    ['n', 4, int],
    ['price', 5, money(6, 2)],
    ['list', 6, { kind: 'array', element: int }],
  )
  const newer = table(
    ['n', 4, long],
    ['id', 1, long],
    ['A', 2, { kind: 'string' }],
    ['new', 7, int],
    ['price', 5, money(12, 4)],
    ['list', 6, { kind: 'array', element: long }],
  )
  const convert = changeConverter(older, newer)
  const converted = convert(change(older, [1, 'x', 9, -5, 1250n, [1, null]])) as RowChange
  expect(converted).toMatchObject({ table: newer, key: [1n], after: [-5n, 1n, 'x', null, 125000n, [1n, null]] })
  const unsent = convert(change(older, [1, UNCHANGED, 9, null, new Special('NaN'), null])) as RowChange
  expect(unsent.after).toEqual([null, 1n, UNCHANGED, null, new Special('NaN'), null])
  expect(convert(change(older, null))).toMatchObject({ op: 'd', key: [1n], after: null })
})

test.each([
  ['a text as a number', { kind: 'string' }, int],
  ['a long as an int', long, int],
  ['fewer digits before the point', money(6, 2), money(6, 4)],
  ['fewer digits after the point', money(6, 2), money(8, 1)],
] as const)('%s is refused', (_, from, to) => {
  const make = (type: ColumnType) => table(['id', 1, int], ['value', 2, type])
  expect(() => changeConverter(make(from), make(to))).toThrow(expect.objectContaining({ code: 'sink.schema_unsupported' }))
})

test('another key is refused', () => {
  const plain = table(['id', 1, int], ['other', 2, int])
  expect(() => changeConverter(plain, { ...plain, key: [1] })).toThrow(expect.objectContaining({ code: 'sink.schema_unsupported' }))
})

test('only what is unchanged is taken from the image before', () => {
  const of = table(['id', 1, int], ['a', 2, int], ['b', 3, int])
  expect(fillFromBefore({ ...change(of, [1, UNCHANGED, null]), before: [1, 5, 6] }).after).toEqual([1, 5, null])
  expect(fillFromBefore(change(of, [1, UNCHANGED, null])).after).toEqual([1, UNCHANGED, null])
})

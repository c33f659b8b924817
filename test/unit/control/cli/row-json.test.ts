import { expect, test } from 'vitest'
import { changeJson, valueJson } from '../../../../control/cli/row-json.ts'
import { type Column, type ColumnType, Special, type TableSchema, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'

test.each<[ColumnType, Value, unknown]>([
  [{ kind: 'int64' }, 42n, 42],
  [{ kind: 'int64' }, 9007199254740993n, '9007199254740993'],
  [{ kind: 'decimal', precision: 10, scale: 2 }, -5n, '-0.05'],
  [{ kind: 'decimal', precision: 10, scale: 0 }, 12n, '12'],
  [{ kind: 'float64' }, Number.NaN, 'NaN'],
  [{ kind: 'bytes' }, Buffer.from('hi'), 'aGk='],
  [{ kind: 'date' }, -1, '1969-12-31'],
  [{ kind: 'time' }, 86_399_999_999n, '23:59:59.999999'],
  [{ kind: 'timestamp' }, -1n, '1969-12-31T23:59:59.999999'],
  [{ kind: 'timestamptz' }, 1_700_000_000_123_456n, '2023-11-14T22:13:20.123456Z'],
  [{ kind: 'timestamptz' }, 10n ** 19n, '10000000000000000000'],
  [{ kind: 'array', element: { kind: 'date' } }, [0, null], ['1970-01-01', null]],
  [{ kind: 'map' }, new Map([['a', null]]), { a: null }],
  [{ kind: 'record', fields: [{ name: 'x', type: { kind: 'int32' } }] }, [1], { x: 1 }],
  [{ kind: 'timestamptz' }, new Special('infinity'), 'infinity'],
  [{ kind: 'string' }, null, null],
])('%j %s', (type, value, expected) => {
  expect(valueJson(type, value)).toEqual(expected)
})

test('a change names what the source did not send instead of showing it as null', () => {
  const column = (name: string, id: number): Column => ({
    name,
    id,
    type: { kind: 'string' },
    sourceType: 'text',
    nullable: true,
    mayBeUnchanged: true,
    maybeSpecial: false,
  })
  const table: TableSchema = { namespace: 'public', name: 't', columns: [column('id', 1), column('note', 2), column('other', 3)], key: [0] }
  const change = {
    kind: 'row',
    op: 'u',
    table,
    key: ['1'],
    before: null,
    after: ['1', UNCHANGED, 'x'],
    position: { commit: 5n, ordinal: 3 },
    committedAt: 1_700_000_000_000_000n,
  } as const
  const head = { op: 'u', at: '2023-11-14T22:13:20.000Z', position: '5/3', key: { id: '1' }, unchanged: ['note'] }
  expect(changeJson(change, null)).toEqual({ ...head, after: { id: '1', other: 'x' } })
  expect(changeJson(change, new Set(['other']))).toEqual({ ...head, after: { other: 'x' } })
})

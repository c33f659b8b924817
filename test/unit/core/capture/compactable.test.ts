import { expect, test } from 'vitest'
import { whyNotCompactable } from '../../../../core/capture/compactable.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'

const column = { sourceType: '', nullable: true, mayBeUnchanged: false, maybeSpecial: false }
const table: TableSchema = {
  namespace: 'public',
  name: 'notes',
  columns: [
    { ...column, name: 'id', id: 1, type: { kind: 'int64' }, nullable: false },
    { ...column, name: 'body', id: 2, type: { kind: 'string' } },
  ],
  key: [0],
}

test('a table with a key whose changes have every column may be compacted', () => {
  expect(whyNotCompactable(table)).toBeNull()
})

test('a table without a key, and one whose updates may leave columns out, may not: named, with what repairs it', () => {
  expect(whyNotCompactable({ ...table, key: [] })).toMatchObject({
    code: 'source.schema_unsupported',
    message: expect.stringContaining('public.notes has no key'),
    fix: expect.stringContaining('primary key'),
  })
  expect(whyNotCompactable({ ...table, columns: table.columns.map((one, i) => ({ ...one, mayBeUnchanged: i === 1 })) })).toMatchObject({
    code: 'source.schema_unsupported',
    message: expect.stringContaining('body'),
    fix: expect.stringContaining('REPLICA IDENTITY FULL'),
  })
})

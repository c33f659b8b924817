import { expect, test } from 'vitest'
import { CatalogReader } from '../../../../connectors/cockroachdb/catalog.ts'
import type { CockroachdbConfig } from '../../../../connectors/cockroachdb/cockroachdb-config.ts'
import type { SqlSession } from '../../../../connectors/cockroachdb/sql-session.ts'

const row = (namespace: string, name: string, column: string, id: string, place: string | null) => {
  return [namespace, name, '104', column, id, 'INT8', 'f', 't', 'f', place]
}

function reader(rows: readonly (readonly (string | null)[])[]): CatalogReader {
  const query = async (what: string) => (what === 'to list tables and columns' ? rows : [['db']])
  return new CatalogReader({ query } as unknown as SqlSession, { tables: ['a*.*'], unrepresentable: 'error' } as unknown as CockroachdbConfig)
}

test('two tables whose names are one by their dots are refused, and not read as one table', async () => {
  const rows = [row('a', 'b.c', 'id', '1', '1'), row('a.b', 'c', 'id', '1', '1'), row('a.b', 'c', 'n', '2', null)]
  const refused = { code: 'source.schema_unsupported', message: expect.stringContaining('"a"."b.c" and "a.b"."c"'), fix: expect.stringContaining('rename') }
  await expect(reader(rows).at(1n)).rejects.toMatchObject(refused)
  const alone = await reader(rows.slice(1)).at(1n)
  expect([...alone.values()].map(({ schema }) => [schema.namespace, schema.name, schema.columns.length])).toEqual([['a.b', 'c', 2]])
})

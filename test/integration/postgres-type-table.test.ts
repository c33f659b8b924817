import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectClient } from '../../connectors/postgres/catalog-connection.ts'
import { TypeCatalog } from '../../connectors/postgres/type-catalog.ts'
import type { ColumnType } from '../../core/event/table-schema.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectRow, tableOf, typesOf } from '../unit/docs/type-tables.ts'

const ROWS = tableOf('connectors/postgres/README.md', 'Postgres')
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  'numeric(p,s), up to 38 digits': ['numeric(10,2)', 'numeric(38,0)', 'numeric(3,-2)', 'numeric(2,5)'],
  'numeric, numeric(p,s) beyond 38 digits': ['numeric', 'numeric(39,2)', 'numeric(38,-1)'],
  'text, varchar, char(n), name, citext, xml, "char", ltree, jsonpath': ['text', 'varchar', 'char(3)', 'name', 'citext', 'xml', '"char"', 'ltree', 'jsonpath'],
  'ranges, multiranges': ['int4range', 'numrange', 'tstzrange', 'datemultirange'],
  enum: ['an_enum'],
  composite: ['a_composite'],
  'arrays of all these': ['int4[]', 'numeric(10,2)[]', 'an_enum[]', 'a_composite[]'],
  'arrays declared `type[][]`': ['int4[][]'],
  'tsquery, reg*, int2vector, oidvector, pg_snapshot, types without a binary form, unknown types of extensions': [
    'tsquery',
    'regclass',
    'int2vector',
    'oidvector',
    'pg_snapshot',
    'aclitem',
  ],
}
/** The extension is not at hand: its bytes have a unit test. */
const NOT_HERE = 'vector (pgvector)'

describe('the table of types in the README of postgres', () => {
  let db: TestDatabase
  const oids = new Set<number>()
  beforeAll(async () => {
    db = await testDatabase()
    await db.sql(`create extension citext; create extension hstore; create extension ltree; create type an_enum as enum ('a');
      create domain a_domain as int4; create type a_composite as (a int4, b text)`)
  })
  afterAll(() => db.drop())

  async function typeOf(name: string): Promise<ColumnType> {
    const { rows } = await db.sql('select to_regtype($1)::oid::int8::float8 as oid, coalesce(to_regtypemod($1), -1) as modifier', [name])
    const { oid, modifier } = rows[0] as { oid: number | null; modifier: number }
    expect(oid, `Postgres knows no type ${name}`).not.toBe(null)
    oids.add(oid!)
    const client = await connectClient({ connectionString: db.url })
    try {
      return (await TypeCatalog.load(client, [oid!])).reader(oid!, modifier, name.split('[]').length - 1).type
    } finally {
      await client.end()
    }
  }

  test.each(ROWS.map((row) => [row[0]!, row] as const).filter(([label]) => label !== NOT_HERE))('says of %s what the code does', async (label, row) => {
    if (label === 'domain') {
      expect(row[1]).toBe('its base type')
      expect(await typeOf('a_domain')).toEqual(await typeOf('int4'))
      return
    }
    const types: (readonly [string, ColumnType])[] = []
    for (const name of typesOf(label, EXAMPLES)) types.push([name, await typeOf(name)])
    expectRow(row, types)
  })

  test('names every built-in type that is more than text', async () => {
    const { rows } = await db.sql(`select oid::int8::float8 as oid, typname::text as name from pg_type
      where typnamespace = 'pg_catalog'::regnamespace and typtype = 'b' and typcategory <> 'A' order by typname`)
    const missing: string[] = []
    for (const [label] of ROWS) if (label !== NOT_HERE) for (const name of typesOf(label!, EXAMPLES)) if (label !== 'domain') await typeOf(name)
    for (const { oid, name } of rows as { oid: number; name: string }[]) {
      if (!oids.has(oid) && (await typeOf(`pg_catalog."${name}"`)).kind !== 'string') missing.push(name)
    }
    expect(missing).toEqual([])
  })
})

/** Each type's values by hand; the server's own random ones are in postgres-random-values.test.ts. */
import type pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { formatValue } from '../../connectors/postgres/type-reader.ts'
import { PostgresSession } from './postgres-session.ts'
import { SAMPLES } from './postgres-type-samples.ts'

let session: PostgresSession
let client: pg.Client
beforeAll(async () => {
  session = await PostgresSession.open()
  client = session.client
})
afterAll(() => session?.close())

it.each(SAMPLES)('$type, from both wire forms', async ({ type, kind, values }) => {
  await client.query(`drop table if exists sample; create table sample (n int primary key, v ${type})`)
  for (const [n, [literal]] of values.entries()) await client.query(`insert into sample values (${n}, $1::text::${type})`, [literal])
  await client.query(`insert into sample values (-1, null)`)
  const mapped = await session.describe('sample')
  expect(mapped.columns[1]!.column.type.kind).toBe(kind)
  const { binary, text } = await session.bothForms(mapped, '(select * from sample order by n) sample')
  const expected = [null, ...values.map(([, value]) => value)]
  expect(text.rows.map((row) => row[1])).toEqual(expected)
  expect(binary.rows.map((row) => row[1])).toEqual(expected)
  // what is formatted is the same value to the server
  for (const [i, row] of binary.rows.entries()) {
    if (row[1] === null) continue
    const formatted = formatValue(mapped.columns[1]!.reader, row[1]!)
    const { rows } = await client.query(`select $1::text::${type}::text is not distinct from v::text as same from sample where n = $2`, [formatted, i - 1])
    expect([formatted, rows[0]]).toEqual([formatted, { same: true }])
  }
})

/** Both wire forms of random values, made by the server from its own seeds. */
import fc from 'fast-check'
import type pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { PostgresSession } from './postgres-session.ts'

let session: PostgresSession
let client: pg.Client
beforeAll(async () => {
  session = await PostgresSession.open()
  client = session.client
})
afterAll(() => session?.close())

const random: Record<string, string> = {
  numeric: `(random() - 0.5)::numeric * 10::numeric ^ (g % 60 - 30)`,
  'numeric(20,6)': `trunc(((random() - 0.5) * 10 ^ (g % 14))::numeric, 6)`,
  'numeric(38,0)': `trunc((random() - 0.5)::numeric * 10::numeric ^ (g % 38))`,
  float8: `(random() - 0.5) * 10 ^ (g % 600 - 300)`,
  float4: `((random() - 0.5) * 10 ^ (g % 70 - 35))::float4`,
  point: `point((random() - 0.5) * 10 ^ (g % 40 - 20), random())`,
  date: `'1970-01-01'::date + ((random() - 0.4) * 10 ^ (g % 7))::int`,
  timestamp: `'1970-01-01'::timestamp + ((random() - 0.3) * 10 ^ (g % 7)) * interval '1 day' + random() * interval '1 day'`,
  timestamptz: `'1970-01-01'::timestamptz + ((random() - 0.3) * 10 ^ (g % 7)) * interval '1 day' + random() * interval '1 day'`,
  time: `random() * interval '23 hours'`,
  interval: `make_interval(months => ((random() - 0.5) * 10 ^ (g % 6))::int, days => ((random() - 0.5) * 10 ^ (g % 5))::int, secs => (random() - 0.5) * 10 ^ (g % 8))`,
  int8: `((random() - 0.5) * 2 * 10 ^ (g % 19))::int8`,
  money: `((random() - 0.5) * 10 ^ (g % 14))::numeric::money`,
  uuid: `gen_random_uuid()`,
  inet: `('::'::inet + (random() * 10 ^ (g % 18))::int8)`,
  'float8[]': `array[random(), -random() * 10 ^ (g % 30)]`,
  tstzrange: `tstzrange('2000-01-01'::timestamptz + random() * interval '1 year', null)`,
  bytea: `decode(md5(random()::text), 'hex')`,
}
const styles = [
  { IntervalStyle: 'postgres', bytea_output: 'hex' },
  { IntervalStyle: 'postgres_verbose', bytea_output: 'escape' },
  { IntervalStyle: 'sql_standard' },
  { IntervalStyle: 'iso_8601' },
]
it.each(styles)('random values in both forms, with %o', async (style) => {
  for (const [name, value] of Object.entries(style)) await client.query(`set ${name} = '${value}'`)
  const types = Object.keys(random)
  await client.query(`drop table if exists random_values; create table random_values (${types.map((type, i) => `c${i} ${type}`).join(', ')})`)
  await client.query(`insert into random_values select ${Object.values(random).join(', ')} from generate_series(1, 1500) g`)
  const mapped = await session.describe('random_values')
  const { binary, text } = await session.bothForms(mapped, 'random_values')
  expect(binary.rows.length).toBe(1500)
  for (const [i, type] of types.entries()) expect([type, binary.rows.map((row) => row[i])]).toEqual([type, text.rows.map((row) => row[i])])
  await client.query('reset IntervalStyle; reset bytea_output')
})

it('texts of any characters, alone and in containers', async () => {
  await client.query('drop table if exists texts; create table texts (t text, a text[], m hstore, r address, g textrange, j jsonb)')
  const mapped = await session.describe('texts')
  const anyText = fc.string({
    unit: fc.constantFrom('a', 'B', ' ', '"', '\\', ',', '{', '}', '(', ')', '[', "'", '\n', '\t', 'é', '🐘', '=', '>', 'N', 'U', 'L', ';', '.', '\v'),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(anyText, anyText, anyText), { minLength: 1, maxLength: 30 }), async (rows) => {
      await client.query('truncate texts')
      for (const [a, b, c] of rows) {
        await client.query(
          `insert into texts values ($1, array[$1, $2, null, $3]::text[], hstore(array[[$1, $2], [$2 || 'x', null]]), row(1, $2, array[1], $3)::address,
           textrange(least($1, $2), greatest($1, $2), '[]'), to_jsonb($3::text))`,
          [a, b, c],
        )
      }
      const { binary, text } = await session.bothForms(mapped, 'texts')
      expect(binary.rows).toEqual(text.rows)
      for (const [i, [a, b, c]] of rows.entries()) {
        expect(binary.rows[i]!.slice(0, 2)).toEqual([a, [a, b, null, c]])
        expect(binary.rows[i]![3]).toEqual([1, b, [1], c])
        expect(JSON.parse(binary.rows[i]![5] as string)).toBe(c)
      }
    }),
    { numRuns: 15 },
  )
})

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { formatLsn, parseLsn } from '../../../../connectors/postgres/lsn.ts'
import { clientConfig, objectName, postgresConfig } from '../../../../connectors/postgres/postgres-config.ts'
import { TablePatterns } from '../../../../connectors/postgres/table-patterns.ts'

it('takes tables that a pattern matches and none leaves out, in any order of the patterns', () => {
  const patterns = new TablePatterns(['!public.tmp_*', 'public.*', 'sales.order', '*.audit'])
  const taken = (id: string) => patterns.matches(...(id.split(/\.(.*)/).slice(0, 2) as [string, string]))
  expect(['public.a', 'public.A.b', 'sales.order', 'x.audit'].map(taken)).toEqual([true, true, true, true])
  expect(['public.tmp_1', 'sales.orders', 'sales.order_lines', 'xpublic.a', 'x.audit2'].map(taken)).toEqual([false, false, false, false, false])
  expect(() => new TablePatterns(['orders'])).toThrow('not a table pattern')
})

it('treats every other character of a pattern as itself', () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1 }).filter((name) => !name.includes('*')),
      (name) => {
        expect(new TablePatterns([`s.${name}`]).matches('s', name)).toBe(true)
        expect(new TablePatterns([`s.${name}`]).matches('s', `${name}x`)).toBe(false)
      },
    ),
  )
})

it('writes and reads LSNs', () => {
  expect(parseLsn('16/B374D848')).toBe(0x16_b374_d848n)
  expect(() => parseLsn('16')).toThrow(RangeError)
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (lsn) => parseLsn(formatLsn(lsn)) === lsn))
})

it('names slots within the rules of Postgres, each its own', () => {
  expect(objectName('Shop', 'orders-db')).toBe('millrace_shop_orders_db')
  const long = [objectName('m'.repeat(60), 'a'), objectName('m'.repeat(60), 'b')]
  expect(new Set(long).size).toBe(2)
  for (const name of long) expect(name).toMatch(/^[a-z0-9_]{1,63}$/)
})

it('reads settings strictly', () => {
  expect(postgresConfig.safeParse({ tables: ['public.*'] }).success).toBe(false)
  expect(postgresConfig.safeParse({ url: 'postgres://h/d', tables: ['public.*'], tabels: [] }).success).toBe(false)
  expect(postgresConfig.safeParse({ url: 'postgres://h/d', tables: ['orders'] }).success).toBe(false)
  const config = postgresConfig.parse({ host: 'h', database: 'd', user: 'u', password: 'p', tables: ['public.*'] })
  expect(config).toMatchObject({ port: 5432, streaming: true, twoPhase: false, origin: 'any', messages: false, unrepresentable: 'error', binary: true })
  expect(clientConfig(config)).toMatchObject({ host: 'h', database: 'd', user: 'u', password: 'p', port: 5432 })
})

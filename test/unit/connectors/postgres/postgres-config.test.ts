import fc from 'fast-check'
import { expect, it } from 'vitest'
import { connectClient } from '../../../../connectors/postgres/catalog-connection.ts'
import { formatLsn, parseLsn } from '../../../../connectors/postgres/lsn.ts'
import { clientConfig, objectName, postgresConfig } from '../../../../connectors/postgres/postgres-config.ts'
import { postgresError } from '../../../../connectors/postgres/postgres-error.ts'

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
  expect(config).toMatchObject({ port: 5432, streaming: true, twoPhase: false, origin: 'any', messages: false, unrepresentable: 'error', binary: 'auto' })
  expect(clientConfig(config)).toMatchObject({ host: 'h', database: 'd', user: 'u', password: 'p', port: 5432 })
})

it.each(['postgres://u:a/secret@h/d', 'postgres://u:%ff@h/d'])('a url that cannot be read is a mistake of the file, and not told', async (url) => {
  const config = postgresConfig.parse({ url, tables: ['public.*'] })
  const failure = await connectClient(clientConfig(config)).catch((error: unknown) => postgresError(error, 'to connect'))
  expect(failure).toMatchObject({ code: 'config.invalid', fix: expect.stringContaining('%25') })
  expect(JSON.stringify(failure, Object.getOwnPropertyNames(failure))).not.toContain('secret')
})

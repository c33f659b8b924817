import { expect, test } from 'vitest'
import { postgresConfig } from '../../../../connectors/postgres/postgres-config.ts'
import { hostUrls } from '../../../../connectors/postgres/postgres-url.ts'

test('a url with several hosts is one url for each, in order', () => {
  expect(hostUrls('postgres://u:p%2C@a:5432,b,[::1]:5433/shop?sslmode=require&target_session_attrs=read-write')).toEqual([
    'postgres://u:p%2C@a:5432/shop?sslmode=require',
    'postgres://u:p%2C@b/shop?sslmode=require',
    'postgres://u:p%2C@[::1]:5433/shop?sslmode=require',
  ])
  expect(hostUrls('postgresql://a:1,b:2/shop')).toEqual(['postgresql://a:1/shop', 'postgresql://b:2/shop'])
  const plain = 'postgres://u:p@a:5432/shop?sslmode=require'
  expect(hostUrls(plain)).toEqual([plain])
})

test('a url that cannot name a primary is refused', () => {
  const mistake = (url: string) => postgresConfig.safeParse({ url, tables: ['public.*'] }).error?.issues[0]?.message
  expect(mistake('postgres://a,b/shop?target_session_attrs=standby')).toBe(
    'target_session_attrs=standby: a source is read from the primary, so read-write, primary or any',
  )
  expect(mistake('postgres://a:1,/shop')).toBe('"" is no host or host:port')
  expect(mistake('postgres://a:1,b:x/shop')).toBe('"b:x" is no host or host:port')
  for (const url of ['postgres://a:1,b:2/shop?target_session_attrs=primary', 'postgres://a/shop', '$' + '{env:SHOP_URL}']) expect(mistake(url)).toBe(undefined)
})

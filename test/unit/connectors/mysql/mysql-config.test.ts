import { expect, test } from 'vitest'
import { connectOptions, mysqlConfig } from '../../../../connectors/mysql/mysql-config.ts'

test('reads a url', () => {
  const config = mysqlConfig.parse({ url: 'mysql://u%40x:p%25%2F@[::1]:3307/shop', tables: ['shop.*'] })
  expect(connectOptions(config)).toEqual({ host: '::1', port: 3307, user: 'u@x', password: 'p%/', ssl: null })
})

test.each(['mysql://u:100%secret@h/d', 'mysql://u:a/secret@h:x/d', 'u:secret@h'])('a url that cannot be read is a mistake of the file, and not told', (url) => {
  const config = mysqlConfig.parse({ url, tables: ['shop.*'] })
  let failure: unknown
  try {
    connectOptions(config)
  } catch (error) {
    failure = error
  }
  expect(failure).toMatchObject({ code: 'config.invalid', fix: expect.stringContaining('%25') })
  expect(JSON.stringify(failure, Object.getOwnPropertyNames(failure))).not.toContain('secret')
})

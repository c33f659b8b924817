import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { clearSecretLevel, hasReference, referenceProblem, Secrets } from '../../../../core/mesh/secrets.ts'
import { statusError } from '../../../../core/runtime/mesh-status.ts'

const WHERE = { file: 'x.mesh.yaml', line: 3, column: 5 }
const given = (env: Record<string, string>) => new Secrets({ env, dir: '.' })

// I9
describe('a secret that was given out', () => {
  test('is in no text afterwards: as it is, as part of a URL, and as JSON', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 4, unit: 'grapheme-ascii' }), fc.string(), fc.string(), (secret, before, after) => {
        fc.pre(secret.trim() !== '' && !'[secret]'.includes(secret))
        const secrets = given({ SECRET: secret })
        expect(secrets.resolve('${env:SECRET}', WHERE)).toBe(secret)
        for (const form of [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)]) {
          // what surrounds it may hold the secret's own beginning or end, so that only the form itself is looked for
          expect(secrets.redact(`${before}\n${form}\n${after}`)).not.toContain(`\n${form}\n`)
        }
      }),
    )
  })

  test('is masked when it is the password in a URL, escaped or not', () => {
    const secrets = given({ URL: 'postgres://shop:hunt%40er2@db:5432/shop' })
    secrets.resolve('${env:URL}', WHERE)
    for (const text of ['password hunt@er2 is wrong', 'postgres://shop:hunt%40er2@db', '{"password":"hunt@er2"}']) {
      expect(secrets.redact(text)).not.toMatch(/hunt/)
      expect(secrets.redact(text)).toContain('[secret]')
    }
  })

  test.each([
    'postgres://shop:hunt%40er2@h1:5432,h2:5433/shop?target_session_attrs=read-write',
    'postgres://shop:hunt@er2@h1:5432,h2:5433/shop',
    'mysql://shop:hunt@er2@[::1]:3306/shop',
    'postgres://h1:5432,h2:5433/shop?user=shop&password=hunt%40er2',
    'http://shop:hunt%40er2@registry:8081',
  ])('is masked when it is the password in %s, alone and in the URL of one host', (url) => {
    const secrets = given({ URL: url })
    secrets.resolve('${env:URL}', WHERE)
    const written = url.includes('%40') ? 'hunt%40er2' : 'hunt@er2'
    for (const text of ['password hunt@er2 is wrong', `dial postgres://shop:${written}@h2:5433/shop`, url]) {
      expect(secrets.redact(text)).not.toMatch(/er2/)
      expect(secrets.redact(text)).toContain('[secret]')
    }
  })

  test('is masked when it is the password in a URL and has characters that should be escaped there', () => {
    const secrets = given({ URL: 'postgres://shop:a/b?c#d@h1:5432,h2/shop' })
    secrets.resolve('${env:URL}', WHERE)
    expect(secrets.redact('the password a/b?c#d is wrong')).toBe('the password [secret] is wrong')
  })

  test('is in no error that a status shows, not even in its fix', () => {
    const secrets = given({ TOKEN: 's3cr3t-token' })
    secrets.resolve('Bearer ${env:TOKEN}', WHERE)
    const error = new MillraceError('sink.forbidden', 'the catalog refuses s3cr3t-token', { fix: 'replace s3cr3t-token' })
    expect(JSON.stringify(statusError(error, (text) => secrets.redact(text)))).not.toContain('s3cr3t')
  })
})

test('a secret that is missing is an error with its place, and says nothing of others', () => {
  const secrets = given({ OTHER: 'something-else' })
  expect(() => secrets.resolve('${env:SECRET}', WHERE)).toThrow(
    expect.objectContaining({ code: 'config.secret_missing', where: WHERE, message: 'the environment variable SECRET is not set' }),
  )
})

test('references are told from plain text, and malformed ones are named', () => {
  expect([hasReference('${env:A}'), hasReference('$A')]).toEqual([true, false])
  expect(referenceProblem('${env:A}/${file:b}')).toBeNull()
  expect(referenceProblem('${A}')).toBe('${A} is neither ${env:NAME} nor ${file:path}')
  expect(referenceProblem('a${env:A')).toBe('a ${ without its }')
})

test.each([
  ['password', 'hunter2', 'error'],
  ['password', '', null],
  ['password', '${env:A}', null],
  ['secretAccessKey', 'abc', 'error'],
  ['key', '-----BEGIN PRIVATE KEY-----\nMIIE', 'error'],
  ['cert', '-----BEGIN CERTIFICATE-----\nMIIE', null],
  ['url', 'http://h', null],
  ['url', 'http://u:p@h', 'error'],
  ['url', 'postgres://u:p@h1:5432,h2:5433/d', 'error'],
  ['url', 'postgres://u:p@127.0.0.1:5432,h2:5433/d', 'error'],
  ['url', 'postgres://h/d?user=u&password=p', 'error'],
  ['url', 'postgres://u:p@${env:HOST}/d', 'error'],
  ['url', 'postgres://u:${env:P}@h/d', null],
  ['url', 'postgres://u:${file:./p}@h1,h2/d', null],
  ['url', 'postgres://u@h/d', null],
  ['url', 'postgres://u:p@localhost/d', 'warning'],
  ['url', 'postgres://u:p@127.0.0.1:5432,[::1]:5433/d', 'warning'],
  ['url', 'postgres://u:p@localhost.example.com/d', 'error'],
])('a secret in clear: %s: %s is %s', (key, text, level) => {
  expect(clearSecretLevel(key, text)).toBe(level)
})

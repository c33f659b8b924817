import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { scram } from '../../../../../core/log/kafka/scram.ts'

const USER = { username: 'user', password: 'pencil' }
const NONCE = 'rOprNGfwEbeRWgbNEkqO'
const SALT = 'W22ZaJ0SNY7soEsUEjb6gQ=='
const HASHES = { 'SCRAM-SHA-256': ['sha256', 32], 'SCRAM-SHA-512': ['sha512', 64] } as const

/** An exchange whose answers are fixed, or made from what was said. */
function scripted(...answers: readonly (string | ((message: string) => string))[]) {
  const said: string[] = []
  const exchange = async (message: string): Promise<string> => {
    const answer = answers[said.push(message) - 1] ?? ''
    return typeof answer === 'string' ? answer : answer(message)
  }
  return { said, exchange }
}

/** The server's side, which holds only StoredKey and ServerKey. Source: RFC 5802, 3. */
function server(mechanism: keyof typeof HASHES, password: string) {
  const [hash, bytes] = HASHES[mechanism]
  const hmac = (key: Buffer, text: string) => createHmac(hash, key).update(text).digest()
  const salted = pbkdf2Sync(password, Buffer.from(SALT, 'base64'), 4096, bytes, hash)
  const storedKey = createHash(hash).update(hmac(salted, 'Client Key')).digest()
  const serverKey = hmac(salted, 'Server Key')
  let spoken = ''
  return scripted(
    (message) => {
      const bare = message.slice('n,,'.length)
      const first = `r=${bare.slice(bare.lastIndexOf(',r=') + 3)}-and-ours,s=${SALT},i=4096`
      spoken = `${bare},${first}`
      return first
    },
    (message) => {
      const proofAt = message.indexOf(',p=')
      spoken += `,${message.slice(0, proofAt)}`
      const signature = hmac(storedKey, spoken)
      const clientKey = Buffer.from(message.slice(proofAt + 3), 'base64').map((byte, at) => byte ^ signature[at]!)
      if (!createHash(hash).update(clientKey).digest().equals(storedKey)) return 'e=invalid-proof'
      return `v=${hmac(serverKey, spoken).toString('base64')}`
    },
  )
}

const refused = expect.objectContaining({ id: 'SASL_AUTHENTICATION_FAILED' })

test('SCRAM-SHA-256 is the exchange of RFC 7677, 3', async () => {
  const both = `${NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0`
  const { said, exchange } = scripted(`r=${both},s=${SALT},i=4096`, 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')
  await scram('SCRAM-SHA-256', USER, exchange, NONCE)
  expect(said).toEqual([`n,,n=user,r=${NONCE}`, `c=biws,r=${both},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`])
})

test.each([
  'SCRAM-SHA-256',
  'SCRAM-SHA-512',
] as const)('%s: a server that knows the password and one that does not, whatever the name holds', async (mechanism) => {
  const username = 'a=b,c=d,é'
  const right = server(mechanism, 'pässword, =')
  await scram(mechanism, { username, password: 'pässword, =' }, right.exchange)
  expect(right.said[0]).toMatch(/^n,,n=a=3Db=2Cc=3Dd=2Cé,r=[A-Za-z0-9_-]{32}$/)
  await expect(scram(mechanism, { username, password: 'other' }, server(mechanism, 'pässword, =').exchange)).rejects.toEqual(refused)
  await expect(scram(mechanism, { username, password: 'other' }, server(mechanism, 'pässword, =').exchange)).rejects.toThrow(/invalid-proof/)
})

test('a nonce is never used twice', async () => {
  const [one, other] = [server('SCRAM-SHA-256', 'p'), server('SCRAM-SHA-256', 'p')]
  for (const { exchange } of [one, other]) await scram('SCRAM-SHA-256', { username: 'u', password: 'p' }, exchange)
  expect(one.said[0]).not.toBe(other.said[0])
})

test.each([
  ['another nonce', `r=x${NONCE}abc,s=${SALT},i=4096`],
  ['only our nonce', `r=${NONCE},s=${SALT},i=4096`],
  ['too few iterations', `r=${NONCE}abc,s=${SALT},i=4095`],
  ['more iterations than can be worth it', `r=${NONCE}abc,s=${SALT},i=1000001`],
  ['iterations that are no number', `r=${NONCE}abc,s=${SALT},i=4096e9`],
  ['a salt that is no base64', `r=${NONCE}abc,s=?,i=4096`],
  ['an extension that must be known', `m=x,r=${NONCE}abc,s=${SALT},i=4096`],
  ['an error', 'e=unknown-user'],
  ['nothing', ''],
])('what the server says first is not taken: %s', async (_, first) => {
  const { said, exchange } = scripted(first, 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')
  await expect(scram('SCRAM-SHA-256', USER, exchange, NONCE)).rejects.toEqual(refused)
  // and no proof is given
  expect(said.length).toBe(1)
})

test('a server that signs wrongly is refused, whatever it says', async () => {
  const first = `r=${NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=${SALT},i=4096`
  const right = '6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4='
  const finals = fc.oneof(
    fc.uint8Array({ maxLength: 64 }).map((bytes) => `v=${Buffer.from(bytes).toString('base64')}`),
    fc.string({ maxLength: 80 }),
    fc.integer({ min: 0, max: right.length - 2 }).map((length) => `v=${right.slice(0, length)}`),
    fc.constantFrom(`v=${right.replace('6', '7')}`, `x=${right}`, 'e=other-error', 'v=', ''),
  )
  await fc.assert(
    fc.asyncProperty(finals, async (final) => {
      await expect(scram('SCRAM-SHA-256', USER, scripted(first, final).exchange, NONCE)).rejects.toEqual(refused)
    }),
    { numRuns: 60 },
  )
})

import { expect, test } from 'vitest'
import { asLogError } from '../../../../../core/log/kafka/kafka-fault.ts'
import type { KafkaSasl } from '../../../../../core/log/kafka/kafka-options.ts'
import { fieldsOf, ScriptedBroker } from './scripted-broker.ts'

const HANDSHAKE = 17
const OFFERED = Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 2]), Buffer.from('\0\x05PLAIN\0\x0dSCRAM-SHA-256', 'latin1')])
const REFUSED_HANDSHAKE = Buffer.concat([Buffer.from([0, 33]), OFFERED.subarray(2)])

/** The response of SaslAuthenticate version 1. */
function answered(bytes: string, { errorCode = 0, message = null as string | null, lifetimeMs = 0n } = {}): Buffer {
  const text = Buffer.from(message ?? '')
  const response = Buffer.alloc(16 + text.length + Buffer.byteLength(bytes))
  let at = response.writeInt16BE(errorCode, 0)
  at = response.writeInt16BE(message === null ? -1 : text.length, at)
  at += text.copy(response, at)
  at = response.writeInt32BE(Buffer.byteLength(bytes), at)
  at += response.write(bytes, at)
  response.writeBigInt64BE(lifetimeMs, at)
  return response
}

const broker = (answer: (message: string) => Buffer, handshake = OFFERED) =>
  ScriptedBroker.start((request) => (request.readInt16BE(0) === HANDSHAKE ? handshake : answer(fieldsOf(request).subarray(4).toString())))

/** What crosses the log's boundary when the connection is not let in. */
async function refusal(at: ScriptedBroker, sasl: KafkaSasl): Promise<unknown> {
  const error = await at.connect({ sasl }).then(
    (connection) => connection.close(),
    (error: unknown) => error,
  )
  return asLogError(error, 'connecting', at.address)
}

const PLAIN: KafkaSasl = { mechanism: 'PLAIN', username: 'user', password: 'only-for-this-test' }

test('PLAIN sends user and password as RFC 4616 has them', async () => {
  await using at = await broker(() => answered(''))
  const connection = await at.connect({ sasl: PLAIN })
  connection.close()
  expect(at.asked.map((request) => request.toString('hex'))).toEqual([
    // key 17, version 1, correlation id 1, client id; mechanism
    `001100010000000100086d696c6c72616365${'0005504c41494e'}`,
    // key 36, version 1, correlation id 2, client id; bytes
    `002400010000000200086d696c6c72616365${'00000018'}${Buffer.from('\0user\0only-for-this-test').toString('hex')}`,
  ])
})

test('a session that is due is renewed before the next request, also when the process stood still and no timer ran', async () => {
  let sessions = 0
  // the second one is for ever: a machine that is slow renews no more
  await using at = await broker(() => answered('', { lifetimeMs: sessions++ === 0 ? 1300n : 0n }))
  const connection = await at.connect({ sasl: PLAIN })
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1200)
  const METADATA = 3
  await connection.request(METADATA, 8, [])
  connection.close()
  expect(at.asked.map((request) => request.readInt16BE(0))).toEqual([HANDSHAKE, 36, HANDSHAKE, 36, METADATA])
})

test('a mechanism that the broker does not offer is refused with those that it does', async () => {
  await using at = await broker(() => answered(''), REFUSED_HANDSHAKE)
  expect(await refusal(at, PLAIN)).toMatchObject({
    code: 'log.refused',
    message: expect.stringMatching(/UNSUPPORTED_SASL_MECHANISM.*PLAIN, SCRAM-SHA-256/),
    fix: expect.stringContaining('log.sasl'),
  })
})

test("a password that the broker does not take is refused with the broker's words", async () => {
  await using at = await broker(() => answered('', { errorCode: 58, message: 'Authentication failed: Invalid username or password' }))
  const error = await refusal(at, PLAIN)
  expect(error).toMatchObject({
    code: 'log.refused',
    message: expect.stringContaining('Invalid username or password'),
    fix: expect.stringContaining('log.sasl'),
  })
  expect(String(error)).not.toContain('only-for-this-test')
})

test('a broker that cannot prove that it knows the password is refused', async () => {
  await using at = await broker((message) => {
    const nonce = /^n,,n=user,r=(.*)$/.exec(message)?.[1]
    return answered(nonce === undefined ? `v=${'A'.repeat(43)}=` : `r=${nonce}abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`)
  })
  expect(await refusal(at, { ...PLAIN, mechanism: 'SCRAM-SHA-256' })).toMatchObject({
    code: 'log.refused',
    message: expect.stringContaining('prove'),
    fix: expect.stringContaining('log.sasl'),
  })
})

test('a token that the broker does not take comes back as JSON without an error code, and is refused', async () => {
  await using at = await broker(() => answered('{"status":"invalid_token"}'))
  const error = await refusal(at, { mechanism: 'OAUTHBEARER', token: 'only-for-this-test' })
  expect(error).toMatchObject({ code: 'log.refused', message: expect.stringContaining('invalid_token') })
  expect(String(error)).not.toContain('only-for-this-test')
})

import { type Connection, saslAuthenticateV2, saslHandshakeV1, saslPlain, saslScramSha } from '@platformatic/kafka'
import { KafkaFault } from './kafka-fault.ts'
import type { KafkaCredentials } from './kafka-options.ts'

/** SASL over a fresh connection. @returns how long the session lives in milliseconds, 0 for ever. @throws the library's errors, a KafkaFault, those of the token */
export async function authenticate(connection: Connection, sasl: KafkaCredentials): Promise<number> {
  const token = sasl.mechanism === 'OAUTHBEARER' ? await sasl.token() : ''
  await saslHandshakeV1.api.async(connection, sasl.mechanism)
  if (sasl.mechanism === 'OAUTHBEARER') return bearer(connection, token)
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const done = (error: Error | null, response?: { readonly sessionLifetimeMs: bigint }) => {
    if (error !== null) reject(error)
    else resolve(Number(response?.sessionLifetimeMs ?? 0n))
  }
  const api = saslAuthenticateV2.api
  const { mechanism, username, password } = sasl
  if (mechanism === 'PLAIN') saslPlain.authenticate(api, connection, username, password, done)
  else {
    const hash = mechanism === 'SCRAM-SHA-256' ? 'SHA-256' : 'SHA-512'
    saslScramSha.authenticate(api, connection, hash, username, password, saslScramSha.defaultCrypto, done)
  }
  return promise
}

/** Ours, since the library takes a refused token for an accepted one: the broker answers without an error, with the reason as JSON. Source: RFC 7628, 3.2. */
async function bearer(connection: Connection, token: string): Promise<number> {
  const answer = await saslAuthenticateV2.api.async(connection, Buffer.from(`n,,\x01auth=Bearer ${token}\x01\x01`))
  if (answer.authBytes.length === 0) return Number(answer.sessionLifetimeMs)
  throw new KafkaFault('SASL_AUTHENTICATION_FAILED', `the broker does not take the token: ${answer.authBytes.toString('utf8').slice(0, 200)}`)
}

import { type Connection, saslAuthenticateV2, saslHandshakeV1, saslOAuthBearer, saslPlain, saslScramSha } from '@platformatic/kafka'
import type { KafkaSasl } from './kafka-options.ts'

/** SASL over a fresh connection, by the library's mechanisms. @returns how long the session lives in milliseconds, 0 for ever. @throws the library's errors */
export async function authenticate(connection: Connection, sasl: KafkaSasl): Promise<number> {
  await saslHandshakeV1.api.async(connection, sasl.mechanism)
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const done = (error: Error | null, response?: { readonly sessionLifetimeMs: bigint }) => {
    if (error !== null) reject(error)
    else resolve(Number(response?.sessionLifetimeMs ?? 0n))
  }
  const api = saslAuthenticateV2.api
  const { username = '', password = '', token = '' } = sasl
  switch (sasl.mechanism) {
    case 'PLAIN':
      saslPlain.authenticate(api, connection, username, password, done)
      break
    case 'OAUTHBEARER':
      saslOAuthBearer.authenticate(api, connection, token, {}, done)
      break
    case 'SCRAM-SHA-256':
    case 'SCRAM-SHA-512':
      saslScramSha.authenticate(
        api,
        connection,
        sasl.mechanism === 'SCRAM-SHA-256' ? 'SHA-256' : 'SHA-512',
        username,
        password,
        saslScramSha.defaultCrypto,
        done,
      )
      break
  }
  return promise
}

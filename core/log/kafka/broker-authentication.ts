import { checkCode, KafkaFault } from './kafka-fault.ts'
import type { KafkaCredentials } from './kafka-options.ts'
import { type SaslConnection, saslAuthenticate, saslHandshake } from './sasl-requests.ts'
import { scram } from './scram.ts'

/** SASL over a fresh connection. @returns how long the session lives in milliseconds, 0 for ever. @throws KafkaFault, and the errors of the token */
export async function authenticate(connection: SaslConnection, sasl: KafkaCredentials): Promise<number> {
  const token = sasl.mechanism === 'OAUTHBEARER' ? await sasl.token() : ''
  const { errorCode, mechanisms } = await saslHandshake(connection, sasl.mechanism)
  checkCode(errorCode, `${sasl.mechanism}; the broker offers ${mechanisms.join(', ')}`)
  let lifetimeMs = 0
  const exchange = async (message: string): Promise<string> => {
    const answer = await saslAuthenticate(connection, Buffer.from(message))
    checkCode(answer.errorCode, answer.message ?? `${sasl.mechanism} without a reason`)
    lifetimeMs = answer.sessionLifetimeMs
    return answer.bytes.toString('utf8')
  }
  if (sasl.mechanism === 'OAUTHBEARER') await bearer(token, exchange)
  else if (sasl.mechanism === 'PLAIN') await exchange(`\0${sasl.username}\0${sasl.password}`)
  else await scram(sasl.mechanism, sasl, exchange)
  return lifetimeMs
}

/** A broker refuses a token without an error code, with the reason as JSON. Source: RFC 7628, 3.2. */
async function bearer(token: string, exchange: (message: string) => Promise<string>): Promise<void> {
  const answer = await exchange(`n,,\x01auth=Bearer ${token}\x01\x01`)
  if (answer !== '') throw new KafkaFault('SASL_AUTHENTICATION_FAILED', `the broker does not take the token: ${answer.slice(0, 200)}`)
}

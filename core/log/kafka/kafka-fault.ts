import { protocolErrors, protocolErrorsCodesById } from '@platformatic/kafka'
import { MillraceError } from '../../errors.ts'

/** A failure that the broker named, in Kafka's own words: `NOT_LEADER_OR_FOLLOWER`. Never crosses the log's boundary. */
export class KafkaFault extends Error {
  override readonly name = 'KafkaFault'
  readonly id: string

  constructor(id: string, message: string) {
    super(`${id}: ${message}`)
    this.id = id
  }
}

/** Kafka's name of an error code; 0 is null. Source: kafka.apache.org/protocol#protocol_error_codes */
export function faultId(code: number): string | null {
  return code === 0 ? null : (protocolErrorsCodesById[code] ?? `ERROR_${code}`)
}

/** The names that an error carries: ours, or those that the library collected from a response. */
export function faultIds(error: unknown): readonly string[] {
  if (error instanceof KafkaFault) return [error.id]
  const ids: string[] = []
  const walk = (at: unknown) => {
    if (at === null || typeof at !== 'object') return
    const { apiId, errors, cause } = at as { apiId?: unknown; errors?: unknown; cause?: unknown }
    if (typeof apiId === 'string') ids.push(apiId)
    if (Array.isArray(errors)) for (const inner of errors) walk(inner)
    if (cause !== undefined) walk(cause)
  }
  walk(error)
  return ids
}

export const FENCED = new Set(['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED', 'INVALID_PRODUCER_ID_MAPPING'])
const TOO_LARGE = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'])
const SASL_FAULTS = new Set(['SASL_AUTHENTICATION_FAILED', 'UNSUPPORTED_SASL_MECHANISM', 'ILLEGAL_SASL_STATE'])
/** Settings, rights and records that no retry repairs. */
const REFUSED = new Set([
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
  'GROUP_AUTHORIZATION_FAILED',
  'UNSUPPORTED_VERSION',
  'INVALID_REQUIRED_ACKS',
  'INVALID_TRANSACTION_TIMEOUT',
  'INVALID_TOPIC_EXCEPTION',
  'INVALID_CONFIG',
  'INVALID_PARTITIONS',
  'INVALID_REPLICATION_FACTOR',
  'INVALID_REQUEST',
  'INVALID_RECORD',
  'INVALID_TIMESTAMP',
  'POLICY_VIOLATION',
  'UNSUPPORTED_COMPRESSION_TYPE',
  'UNSUPPORTED_FOR_MESSAGE_FORMAT',
])

export const isFenced = (error: unknown): boolean => faultIds(error).some((id) => FENCED.has(id))
export const hasFault = (error: unknown, id: string): boolean => faultIds(error).includes(id)

/** True when no retry helps: a MillraceError, a refusal, a record that is too large, wrong credentials. */
export function isFinal(error: unknown): boolean {
  return error instanceof MillraceError || refusalOf(error) !== null || faultIds(error).some((id) => REFUSED.has(id) || TOO_LARGE.has(id))
}

/** TLS that fails the same way each time: certificates that are not trusted, on either side, and a peer that speaks something else. */
const TLS_REFUSED = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_.*ALERT|ERR_OSSL_|EPROTO$)/

type Refusal = 'credentials' | 'tls' | null

/** Why the broker did not let us in. */
function refusalOf(error: unknown): Refusal {
  if (faultIds(error).some((id) => SASL_FAULTS.has(id))) return 'credentials'
  for (let at = error; at !== null && typeof at === 'object'; at = (at as { cause?: unknown }).cause) {
    const code = (at as { code?: unknown }).code
    if (code === 'PLT_KFK_AUTHENTICATION' || code === 'PLT_KFK_USER') return 'credentials'
    if (typeof code === 'string' && TLS_REFUSED.test(code)) return 'tls'
  }
  return null
}

const ACL_FAULTS = /^(TOPIC|CLUSTER|TRANSACTIONAL_ID|GROUP)_AUTHORIZATION_FAILED$/

function fixOf(error: unknown, ids: readonly string[]): string {
  const refusal = refusalOf(error)
  if (refusal === 'credentials') return 'check log.sasl of the mesh: mechanism, user, password or token, against the listener of the broker'
  if (refusal === 'tls') return 'check log.ssl of the mesh: `ca` must hold the authority of the brokers, `cert` and `key` a client certificate that they trust'
  const denied = ids.find((id) => ACL_FAULTS.test(id))
  if (denied !== undefined) return `${RIGHTS[denied]!} (docs/how-to/run-on-kafka.md lists the rights)`
  return 'grant the right or correct the setting that the message names'
}

const RIGHTS: Readonly<Record<string, string>> = {
  TOPIC_AUTHORIZATION_FAILED: "grant the mesh's user Create, Describe, DescribeConfigs, Read and Write on the topic",
  CLUSTER_AUTHORIZATION_FAILED: "grant the mesh's user Create on the cluster or on the topics, and IdempotentWrite",
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant the mesh's user Describe and Write on the transactional ids that begin with its prefix",
  GROUP_AUTHORIZATION_FAILED: "grant the mesh's user Read on the group",
}

/** What crosses the log's boundary. `doing` completes "Kafka … while …". */
export function asLogError(error: unknown, doing: string, brokers: string): MillraceError {
  if (error instanceof MillraceError) return error
  const ids = faultIds(error)
  const described = ids.map((id) => `${id} (${protocolErrors[id]?.message ?? 'no description'})`)
  const text = error instanceof KafkaFault ? error.message : described.length > 0 ? described.join(', ') : rootMessage(error)
  if (isFenced(error)) return new MillraceError('log.fenced', `a newer writer took over while ${doing}: ${text}`, { cause: error })
  if (ids.some((id) => TOO_LARGE.has(id))) {
    return new MillraceError('record.too_large', `Kafka refused a batch as too large while ${doing}: ${text}`, {
      fix: 'raise the topic setting max.message.bytes (and the broker settings message.max.bytes and replica.fetch.max.bytes)',
      cause: error,
    })
  }
  if (isFinal(error)) {
    return new MillraceError('log.refused', `Kafka at ${brokers} refused while ${doing}: ${text}`, { fix: fixOf(error, ids), cause: error })
  }
  return new MillraceError('log.unreachable', `Kafka at ${brokers} did not answer well while ${doing}: ${text}`, {
    fix: 'check that the brokers run and that their advertised.listeners can be reached from here',
    cause: error,
  })
}

function rootMessage(error: unknown): string {
  const messages: string[] = []
  for (let at = error; at instanceof Error && messages.length < 4; at = at.cause) messages.push(at.message)
  return messages.length === 0 ? String(error) : messages.join(': ')
}

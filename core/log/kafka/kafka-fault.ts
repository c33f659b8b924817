import { MillraceError } from '../../errors.ts'
import { faultId } from './error-names.ts'

/** A failure that the broker named, in Kafka's own words: `NOT_LEADER_OR_FOLLOWER`. Never crosses the log's boundary. */
export class KafkaFault extends Error {
  override readonly name = 'KafkaFault'
  readonly id: string
  /** Whose frame the broker did not take; null: it was not about one. */
  readonly topic: string | null

  constructor(id: string, message: string, topic: string | null = null) {
    super(`${id}: ${message}`)
    this.id = id
    this.topic = topic
  }
}

/** `where` completes the message: the topic, the id. @throws KafkaFault unless `code` is 0 */
export function checkCode(code: number, where: string): void {
  const id = faultId(code)
  if (id !== null) throw new KafkaFault(id, where)
}

/** Kafka's name of what went wrong; null when it was no broker who said so. */
export function faultOf(error: unknown): string | null {
  return error instanceof KafkaFault ? error.id : null
}

const isOneOf = (error: unknown, ids: ReadonlySet<string>): boolean => error instanceof KafkaFault && ids.has(error.id)

const FENCED = new Set(['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED', 'INVALID_PRODUCER_ID_MAPPING'])
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

export const isFenced = (error: unknown): boolean => isOneOf(error, FENCED)
export const hasFault = (error: unknown, id: string): boolean => faultOf(error) === id

/** True when no retry helps: a MillraceError, a refusal, a record that is too large, wrong credentials. */
export function isFinal(error: unknown): boolean {
  return error instanceof MillraceError || refusalOf(error) !== null || isOneOf(error, REFUSED) || isOneOf(error, TOO_LARGE)
}

/** TLS that fails the same way each time: certificates that are not trusted, on either side, and a peer that speaks something else. */
const TLS_REFUSED = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_.*ALERT|ERR_OSSL_|EPROTO$)/

type Refusal = 'credentials' | 'tls' | null

/** Why the broker did not let us in. */
function refusalOf(error: unknown): Refusal {
  if (isOneOf(error, SASL_FAULTS)) return 'credentials'
  for (let at = error; at !== null && typeof at === 'object'; at = (at as { cause?: unknown }).cause) {
    const code = (at as { code?: unknown }).code
    if (typeof code === 'string' && TLS_REFUSED.test(code)) return 'tls'
  }
  return null
}

function fixOf(error: unknown): string {
  const refusal = refusalOf(error)
  if (refusal === 'credentials') return 'check log.sasl of the mesh: mechanism, user, password or token, against the listener of the broker'
  if (refusal === 'tls') return 'check log.ssl of the mesh: `ca` must hold the authority of the brokers, `cert` and `key` a client certificate that they trust'
  const right = RIGHTS[faultOf(error) ?? '']
  if (right !== undefined) return `${right} (docs/how-to/run-on-kafka.md lists the rights)`
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
  const text = error instanceof KafkaFault ? error.message : rootMessage(error)
  if (isFenced(error)) return new MillraceError('log.fenced', `a newer writer took over while ${doing}: ${text}`, { cause: error })
  if (isOneOf(error, TOO_LARGE)) {
    return new MillraceError('record.too_large', `Kafka refused a batch as too large while ${doing}: ${text}`, {
      fix: 'raise the topic setting max.message.bytes (and the broker settings message.max.bytes and replica.fetch.max.bytes)',
      cause: error,
      ...(error instanceof KafkaFault && error.topic !== null ? { topic: error.topic } : {}),
    })
  }
  if (isFinal(error)) {
    return new MillraceError('log.refused', `Kafka at ${brokers} refused while ${doing}: ${text}`, { fix: fixOf(error), cause: error })
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

import { MillraceError } from '../../errors.ts'
import { tokenOfFile, tokensOfClient } from './access-token.ts'
import type { KafkaCredentials, KafkaLogOptions, KafkaSasl, KafkaSettings } from './kafka-options.ts'

/** Options with their defaults. @throws config.invalid */
export function kafkaSettings(options: KafkaLogOptions): KafkaSettings {
  if (options.brokers.length === 0) throw new MillraceError('config.invalid', 'no Kafka brokers are named', { fix: 'set log.brokers to one or more host:port' })
  const transactionMs = options.transactionMs ?? 50
  if (!(transactionMs >= 1 && transactionMs <= 10_000)) throw new MillraceError('config.invalid', `transactionMs is ${transactionMs}; it must be 1 to 10000`)
  return {
    brokers: options.brokers.map(parseBroker),
    clientId: options.clientId ?? 'millrace',
    tls: options.ssl === undefined || options.ssl === false ? null : options.ssl === true ? {} : options.ssl,
    sasl: options.sasl === undefined ? null : credentials(options.sasl),
    compression: options.compression ?? 'none',
    exactlyOnce: (options.delivery ?? 'exactly-once') === 'exactly-once',
    transactionMs,
    transactionalIdPrefix: options.transactionalIdPrefix ?? 'millrace',
    progressTopic: options.progressTopic ?? '__millrace.progress',
    replicationFactor: options.replicationFactor ?? -1,
    topicConfig: options.topicConfig ?? {},
    unreachableMs: options.unreachableMs ?? 120_000,
    requestTimeoutMs: options.requestTimeoutMs ?? 30_000,
    onWarning: options.onWarning ?? (() => {}),
  }
}

/** `host:port`, `[v6]:port` or `host`, which takes port 9092. */
function parseBroker(text: string): { host: string; port: number } {
  const found = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/\s]+))(?::(\d{1,5}))?$/.exec(text.trim())
  const port = Number(found?.[3] ?? 9092)
  const host = found?.[1] ?? found?.[2]
  if (host === undefined || port < 1 || port > 65_535) {
    throw new MillraceError('config.invalid', `"${text}" is not a Kafka broker`, { fix: 'write host:port, such as kafka-1.example.org:9092' })
  }
  return { host, port }
}

function credentials({ mechanism, username, password, token, tokenFile, oauth }: KafkaSasl): KafkaCredentials {
  if (mechanism !== 'OAUTHBEARER') {
    if (username !== undefined && password !== undefined) return { mechanism, username, password }
    throw new MillraceError('config.invalid', `${mechanism} needs a user and a password`, { fix: 'set log.sasl.username and log.sasl.password' })
  }
  if ([token, tokenFile, oauth].filter((way) => way !== undefined).length === 1) {
    if (oauth !== undefined) return { mechanism, token: tokensOfClient(oauth) }
    return { mechanism, token: tokenFile !== undefined ? tokenOfFile(tokenFile) : () => Promise.resolve(token!) }
  }
  throw new MillraceError('config.invalid', 'OAUTHBEARER needs one way to a token', { fix: 'set one of log.sasl.token, log.sasl.tokenFile and log.sasl.oauth' })
}

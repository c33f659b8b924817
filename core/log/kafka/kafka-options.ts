import type { ConnectionOptions as TlsOptions } from 'node:tls'

export type Compression = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd'

/** Client credentials for tokens of an OpenID provider. */
export interface KafkaOauth {
  readonly tokenUrl: string
  readonly clientId: string
  readonly clientSecret: string
  readonly scope?: string
  /** Further fields of the request, such as `audience`. */
  readonly parameters?: Readonly<Record<string, string>>
  /** TLS of the endpoint: node:tls options. */
  readonly ssl?: boolean | TlsOptions
}

/** PLAIN and SCRAM take a user and a password, OAUTHBEARER one of `token`, `tokenFile` (read for each session) and `oauth`. */
export interface KafkaSasl {
  readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512' | 'OAUTHBEARER'
  readonly username?: string
  readonly password?: string
  readonly token?: string
  readonly tokenFile?: string
  readonly oauth?: KafkaOauth
}

export type KafkaCredentials =
  | { readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'; readonly username: string; readonly password: string }
  | { readonly mechanism: 'OAUTHBEARER'; readonly token: () => Promise<string> }

export interface KafkaLogOptions {
  /** `host:port` of some brokers; the others are found through them. */
  readonly brokers: readonly string[]
  readonly clientId?: string
  /** true, or node:tls options (`ca`, `cert`, `key`, `servername`, `rejectUnauthorized`). */
  readonly ssl?: boolean | TlsOptions
  readonly sasl?: KafkaSasl
  readonly compression?: Compression
  /**
   * exactly-once: every append and its progress are in one transaction. idempotent: no transactions, lower latency for readers that don't wait for
   * commits; after a crash between records and progress the tail is written again, so readers may see it twice.
   */
  readonly delivery?: 'exactly-once' | 'idempotent'
  /** How long a transaction may gather appends under load, milliseconds. */
  readonly transactionMs?: number
  /** Prefix of transactional ids and of nothing else; the node's name follows. */
  readonly transactionalIdPrefix?: string
  readonly progressTopic?: string
  /** Of topics that we create and whose spec has none; -1 takes the cluster's default. */
  readonly replicationFactor?: number
  /** Further topic settings for topics that we create, such as `min.insync.replicas`. */
  readonly topicConfig?: Readonly<Record<string, string>>
  /** Give up with log.unreachable when nothing succeeded for so long, milliseconds. */
  readonly unreachableMs?: number
  /** A broker that has not answered a request for so long is taken for dead, milliseconds. */
  readonly requestTimeoutMs?: number
  /** Told of a topic that exists and keeps more than its stream wants, with the command that repairs it. */
  readonly onWarning?: (message: string) => void
}

export interface KafkaSettings {
  readonly brokers: readonly { readonly host: string; readonly port: number }[]
  readonly clientId: string
  readonly tls: TlsOptions | null
  readonly sasl: KafkaCredentials | null
  readonly compression: Compression
  readonly exactlyOnce: boolean
  readonly transactionMs: number
  readonly transactionalIdPrefix: string
  readonly progressTopic: string
  readonly replicationFactor: number
  readonly topicConfig: Readonly<Record<string, string>>
  readonly unreachableMs: number
  readonly requestTimeoutMs: number
  readonly onWarning: (message: string) => void
}

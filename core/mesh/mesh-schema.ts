/** The frame of a mesh file as zod schemas: everything but the plugins' own settings. The only declaration; lint and JSON schema come from it. */
import { z } from 'zod'

const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,47}$/, 'a name has lower-case letters, digits and dashes, 48 at most, and starts with a letter or digit')

/** `forever`, or a number with s, m, h or d; parsed to milliseconds or null. */
const retention = z
  .string()
  .regex(/^(forever|[1-9]\d{0,8}[smhd])$/, 'expected forever or a duration such as 90m, 12h, 7d')
  .transform((text) => (text === 'forever' ? null : Number(text.slice(0, -1)) * UNIT_MS[text.at(-1) as keyof typeof UNIT_MS]))

const topicFields = {
  partitions: z.int().min(1).max(4096).describe('Partitions of each new topic; rows are spread by key.'),
  retention: retention.describe('How long the log keeps changes: forever (the default), or a duration such as 7d.'),
  compacted: z
    .boolean()
    .describe(
      'Keep only the last change of each key, no longer than `retention` says; deletes are followed by a tombstone. ' +
        'Tables whose changes may come without a key or without some columns are parked.',
    ),
  replicationFactor: z.int().min(1).max(32).nullable().describe('Kafka only: copies of each partition; the cluster default when absent.'),
}

const topicsSchema = z
  .strictObject({
    partitions: topicFields.partitions.default(1),
    retention: topicFields.retention.default(null),
    compacted: topicFields.compacted.default(false),
    replicationFactor: topicFields.replicationFactor.default(null),
  })
  .describe('Defaults for the topics that sources create.')

export const topicOverridesSchema = z
  .strictObject({
    partitions: topicFields.partitions.optional(),
    retention: topicFields.retention.optional(),
    compacted: topicFields.compacted.optional(),
    replicationFactor: topicFields.replicationFactor.optional(),
  })
  .describe('What differs from the mesh-wide `topics` for this source.')

export const snapshotSchema = z
  .strictObject({
    mode: z
      .enum(['initial', 'never'])
      .default('initial')
      .describe('initial reads the rows that exist, then streams from there; never only streams, but reads a table whole whose rows an ALTER TABLE changed.'),
    chunkRows: z.int().min(1).max(1_000_000).default(10_000).describe('Most rows of one chunk.'),
    chunkBytes: z
      .int()
      .min(1024)
      .max(256_000_000)
      .default(2_000_000)
      .describe('About the most bytes of one chunk; twice this times `parallel` may be held in memory.'),
    parallel: z.int().min(1).max(16).default(2).describe('Tables read at the same time, each over its own connection.'),
  })
  .describe('How the rows that exist are read.')

const ssl = z
  .union([
    z.boolean(),
    z.strictObject({
      ca: z.string().optional().describe('PEM text of the authorities to trust; usually ${file:…}.'),
      cert: z.string().optional().describe('PEM text of the client certificate.'),
      key: z.string().optional().describe('PEM text of the client key; use ${file:…}.'),
      servername: z.string().optional().describe('Host name to check the certificate against.'),
      rejectUnauthorized: z.boolean().optional().describe('false accepts any certificate: for tests only.'),
    }),
  ])
  .describe('true uses TLS with the system authorities; an object gives its parts.')

const oauth = z
  .strictObject({
    tokenUrl: z
      .string()
      .regex(/^(https?:\/\/|.*\$\{)/, 'expected an http(s) URL')
      .describe('Token endpoint of the OpenID provider.'),
    clientId: z.string().describe('Client id.'),
    clientSecret: z.string().describe('Client secret; use ${env:…}.'),
    scope: z.string().optional().describe('Scopes to ask for, with spaces between.'),
    parameters: z.record(z.string(), z.string()).optional().describe('Further fields of the request, such as audience.'),
    ssl: ssl.optional(),
  })
  .describe('Tokens for OAUTHBEARER by the client-credentials grant, renewed before they expire.')

const sasl = z
  .strictObject({
    mechanism: z.enum(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER']).describe('How to authenticate.'),
    username: z.string().optional().describe('User; not for OAUTHBEARER.'),
    password: z.string().optional().describe('Password; use ${env:…}.'),
    token: z.string().optional().describe('OAUTHBEARER: a token that never changes; use ${env:…} or ${file:…}.'),
    tokenFile: z
      .string()
      .optional()
      .describe('OAUTHBEARER: file with the token (a path beginning with ./ counts from the mesh file); read again for each session.'),
    oauth: oauth.optional(),
  })
  .refine(({ mechanism, username, password }) => mechanism === 'OAUTHBEARER' || (username !== undefined && password !== undefined), {
    error: 'give username and password, which this mechanism needs',
  })
  .refine(
    ({ mechanism, token, tokenFile, oauth }) => mechanism !== 'OAUTHBEARER' || [token, tokenFile, oauth].filter((way) => way !== undefined).length === 1,
    { error: 'give exactly one of token, tokenFile and oauth, which OAUTHBEARER needs' },
  )
  .describe('Authentication of the Kafka client.')

const embeddedLogSchema = z.strictObject({ kind: z.literal('embedded').describe('A durable log in files under dataDir: no service needed.') })

const kafkaLogSchema = z.strictObject({
  kind: z.literal('kafka').describe('An Apache Kafka cluster, or one that speaks its protocol.'),
  brokers: z
    .array(z.string().regex(/^(\S+:\d+|.*\$\{.*)$/, 'expected host:port'))
    .min(1)
    .describe('Brokers to ask first, as host:port.'),
  clientId: z.string().optional().describe('Name shown in the broker logs; default millrace-<mesh>.'),
  compression: z.enum(['none', 'gzip', 'snappy', 'lz4', 'zstd']).default('none').describe('Codec of the record batches.'),
  delivery: z
    .enum(['exactly-once', 'idempotent'])
    .default('exactly-once')
    .describe('exactly-once writes records and progress in one transaction; idempotent is cheaper and may repeat the tail after a crash.'),
  transactionMs: z.int().min(1).max(10_000).default(50).describe('Under load, how long one transaction may gather batches.'),
  progressTopic: z.string().optional().describe('Compacted topic that holds the progress of the nodes.'),
  replicationFactor: z.int().min(1).max(32).optional().describe('Copies of each partition; the cluster default when absent.'),
  ssl: ssl.optional(),
  sasl: sasl.optional(),
  topicConfig: z.record(z.string(), z.string()).optional().describe('Further topic settings by their Kafka names.'),
  requestTimeoutMs: z
    .int()
    .min(1000)
    .max(600_000)
    .default(30_000)
    .describe('A broker that has not answered a request for so long is taken for dead, in milliseconds.'),
  unreachableMs: z
    .int()
    .min(1000)
    .max(3_600_000)
    .default(120_000)
    .describe(
      'When nothing has succeeded for so long, in milliseconds, nodes are shown as degraded (log.unreachable); they go on trying. A broker that hangs is noticed after requestTimeoutMs, not before.',
    ),
})

export const logSchema = z.discriminatedUnion('kind', [embeddedLogSchema, kafkaLogSchema]).describe('The durable log between all nodes.')
export type LogConfig = z.output<typeof logSchema>

const embeddedRegistrySchema = z.strictObject({
  kind: z.literal('embedded').describe('A schema registry in a file under dataDir.'),
  compatibility: z
    .enum(['NONE', 'BACKWARD', 'BACKWARD_TRANSITIVE', 'FORWARD', 'FORWARD_TRANSITIVE', 'FULL', 'FULL_TRANSITIVE'])
    .optional()
    .describe('Compatibility level of all subjects; BACKWARD when absent.'),
  port: z
    .int()
    .min(0)
    .max(65_535)
    .optional()
    .describe('Serve the Confluent REST interface on this port while the mesh runs (0 takes a free one); not served when absent.'),
  host: z.string().default('127.0.0.1').describe('Address to serve on. There is no authentication: keep it local, or behind a proxy.'),
  readOnly: z.boolean().default(false).describe('Other programs may read and check schemas over the interface, not change them.'),
})

const confluentRegistrySchema = z.strictObject({
  kind: z
    .literal('confluent')
    .describe('A registry with the Confluent REST interface: Apicurio; those of Confluent, Karapace and Redpanda have the same and were not run.'),
  url: z
    .string()
    .regex(/^(https?:\/\/|.*\$\{)/, 'expected an http(s) URL')
    .describe('Root URL, for Apicurio with /apis/ccompat/v7.'),
  auth: z
    .discriminatedUnion('kind', [
      z.strictObject({
        kind: z.literal('basic'),
        username: z.string().describe('User or API key.'),
        password: z.string().describe('Password or API secret; use ${env:…}.'),
      }),
      z.strictObject({ kind: z.literal('bearer'), token: z.string().describe('Bearer token; use ${env:…}.') }),
    ])
    .optional()
    .describe('How to authenticate; none when absent.'),
  ssl: ssl.optional(),
  timeoutMs: z.int().min(100).max(600_000).default(10_000).describe('Longest wait for an answer, in milliseconds.'),
})

export const registrySchema = z
  .discriminatedUnion('kind', [embeddedRegistrySchema, confluentRegistrySchema])
  .describe('Where Avro schemas are kept and governed.')
export type RegistryConfig = z.output<typeof registrySchema>

const kind = z.string().min(1).describe('The plugin: see `millrace plugins`.')
const plugin = z.string().min(1).optional().describe('Where a plugin of your own is loaded from: a path beginning with ./ or the name of an npm package.')

/** Keys of a source that belong to the mesh; all others are its plugin's settings. */
export const sourceFrameSchema = z.object({ kind, plugin, topics: topicOverridesSchema.optional(), snapshot: snapshotSchema.prefault({}) })

/** Keys of a sink that belong to the mesh; all others are its plugin's settings. */
export const sinkFrameSchema = z.object({
  kind,
  plugin,
  from: z
    .union([
      z
        .string()
        .min(1)
        .transform((one) => [one]),
      z.array(z.string().min(1)).min(1),
    ])
    .describe('Streams to take: a source, or patterns such as shop.public.* and !shop.public.tmp_*.'),
  onRejected: z
    .enum(['dead-letter', 'halt'])
    .default('dead-letter')
    .describe('What happens to a record that the sink cannot hold: copied to <sink>.dead-letter, or the sink halts.'),
})

/** Node names are the keys of `sources` and `sinks`; checked apart, so that a bad name is reported at its place. */
export const nodeName = name

export const meshFrameSchema = z.strictObject({
  mesh: name.describe('Name of the mesh; part of slot names, so keep it.'),
  dataDir: z.string().min(1).default('.millrace').describe('Folder for state, relative to this file.'),
  log: logSchema.prefault({ kind: 'embedded' }),
  registry: registrySchema.prefault({ kind: 'embedded' }),
  topics: topicsSchema.prefault({}),
  sources: z.record(z.string(), sourceFrameSchema.loose()).describe('Databases to capture, by node name.'),
  sinks: z.record(z.string(), sinkFrameSchema.loose()).default({}).describe('Targets to keep equal to the sources, by node name.'),
})

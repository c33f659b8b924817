import type pg from 'pg'
import { z } from 'zod'
import { sslSetting, tablesSetting, tlsSettings, unrepresentableSetting } from '../../core/plugin.ts'

const tls = tlsSettings.extend({ servername: z.string().optional().describe('Name that the server certificate must bear; default: host.') })

const webhook = z.strictObject({
  host: z.string().default('0.0.0.0').describe('Address at which rows are received.'),
  port: z.int().min(1).max(65535).describe('Port at which rows are received.'),
  url: z
    .string()
    .regex(/^https:\/\/[^/?#]+\/?$/, 'https://host:port')
    .describe('How the nodes of the cluster reach that: `https://millrace.example:8443`.'),
  cert: z.string().min(1).describe('Path of the certificate, in PEM form: CockroachDB posts to https alone.'),
  key: z.string().min(1).describe('Path of its key, in PEM form.'),
  ca: z.string().min(1).optional().describe('Path of the authority that the nodes are told to trust, in PEM form; default: the well-known ones.'),
})

export const cockroachdbConfig = z
  .strictObject({
    url: z.string().optional().describe('postgres://user:password@host:26257/database, instead of the single settings.'),
    host: z.string().optional().describe('Host of a node, or of the load balancer before the nodes.'),
    port: z.int().min(1).max(65535).default(26257).describe('SQL port.'),
    database: z.string().optional().describe('Database to capture.'),
    user: z.string().optional().describe('A user with SELECT and CHANGEFEED on the tables.'),
    password: z.string().optional().describe('Password of the user; take it from a secret.'),
    ssl: sslSetting(tls),
    tables: tablesSetting('schema.table', 'Tables to capture: `public.*`, `!public.tmp_*`. New tables that match are taken in while it runs.'),
    envelope: z
      .enum(['wrapped', 'enriched'])
      .default('wrapped')
      .describe('Form of the messages that the changefeed is asked for; both say the same here. enriched is a preview of CockroachDB 25.2 and later.'),
    diff: z.boolean().default(true).describe('Ask for rows as they were before, so that inserts and updates are told apart; the cluster reads each row twice.'),
    resolvedMs: z
      .int()
      .min(10)
      .max(600_000)
      .default(1000)
      .describe('How often the changefeed says up to where it is complete, in milliseconds: rows wait for that. Lower costs the cluster CPU.'),
    memoryBytes: z
      .int()
      .min(64 * 1024)
      .default(8 * 1024 * 1024)
      .describe('Rows that wait for their resolved timestamp take about this much memory; more of them wait in files.'),
    webhook: webhook
      .optional()
      .describe('Receive rows over HTTPS from a changefeed job, which keeps history while Millrace is away; default: over the SQL connection, without a job.'),
    unrepresentable: unrepresentableSetting('infinity, NaN'),
  })
  .refine((config) => config.url !== undefined || (config.host !== undefined && config.database !== undefined && config.user !== undefined), {
    message: 'give url, or host, database and user',
    path: ['url'],
  })

export type CockroachdbConfig = z.infer<typeof cockroachdbConfig>

export function clientConfig(config: CockroachdbConfig): pg.ClientConfig {
  return {
    ...(config.url === undefined
      ? { host: config.host, port: config.port, database: config.database, user: config.user, password: config.password }
      : { connectionString: config.url }),
    ...(config.ssl === undefined ? {} : { ssl: config.ssl }),
    keepAlive: true,
    connectionTimeoutMillis: 15_000,
    application_name: 'millrace',
  } as pg.ClientConfig
}

import { createHash } from 'node:crypto'
import type pg from 'pg'
import { z } from 'zod'
import { sslSetting, tablesSetting, tlsSettings, unrepresentableSetting } from '../../core/plugin.ts'
import { urlMistake } from './postgres-url.ts'

const name = z.string().regex(/^[a-z0-9_]{1,63}$/, 'lower-case letters, digits and _, at most 63')

const tls = tlsSettings.extend({ servername: z.string().optional().describe('Name that the server certificate must bear; default: host.') })

export const postgresConfig = z
  .strictObject({
    url: z
      .string()
      .superRefine((url, check) => {
        const mistake = urlMistake(url)
        if (mistake !== null) check.addIssue({ code: 'custom', message: mistake })
      })
      .optional()
      .describe('postgres://user:password@host:port/database, instead of the single settings; of several hosts (host1:5432,host2:5432) the primary is taken.'),
    host: z.string().optional().describe('Host of the server.'),
    port: z.int().min(1).max(65535).default(5432).describe('Port of the server.'),
    database: z.string().optional().describe('Database to capture.'),
    user: z.string().optional().describe('A role with REPLICATION that may read the tables and owns them or the publication.'),
    password: z.string().optional().describe('Password of the role; take it from a secret.'),
    ssl: sslSetting(tls),
    tables: tablesSetting('schema.table', 'Tables to capture: `public.*`, `!public.tmp_*`. New tables that match are taken in while it runs.'),
    slot: name.optional().describe('Name of the replication slot; default: from mesh and node.'),
    publication: name.optional().describe('Name of the publication; default: from mesh and node.'),
    streaming: z.boolean().default(true).describe('Receive large transactions while they run; they wait in a file until they commit.'),
    twoPhase: z.boolean().default(false).describe('Receive prepared transactions when they are prepared (Postgres 15 or later).'),
    origin: z.enum(['any', 'none']).default('any').describe('none leaves out changes that were themselves replicated to this server (Postgres 16 or later).'),
    messages: z.boolean().default(false).describe('Capture pg_logical_emit_message as the table millrace.message.'),
    unrepresentable: unrepresentableSetting('infinity, NaN'),
    silenceMs: z
      .int()
      .min(1000)
      .max(3_600_000)
      .default(60_000)
      .describe('A server that sends nothing for so long, in milliseconds, though it was asked for a sign of life, is given up and connected to anew.'),
    binary: z
      .union([z.literal('auto'), z.boolean()])
      .default('auto')
      .describe('Receive values in binary form, which costs less than text; auto: unless a captured table has a type that needs text.'),
  })
  .refine((config) => config.url !== undefined || (config.host !== undefined && config.database !== undefined && config.user !== undefined), {
    message: 'give url, or host, database and user',
    path: ['url'],
  })

export type PostgresConfig = z.infer<typeof postgresConfig>

/** Text forms that the type mapping reads; no limit that would end a long wait. */
const SESSION =
  '-c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=3 -c bytea_output=hex -c TimeZone=UTC -c statement_timeout=0 -c lock_timeout=0'

export function clientConfig(config: PostgresConfig): pg.ClientConfig {
  return {
    ...(config.url === undefined
      ? { host: config.host, port: config.port, database: config.database, user: config.user, password: config.password }
      : { connectionString: config.url }),
    ...(config.ssl === undefined ? {} : { ssl: config.ssl }),
    options: SESSION,
    keepAlive: true,
    // the kernel notices a connection that the other side has forgotten
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: 15_000,
    application_name: 'millrace',
  } as pg.ClientConfig
}

/** `millrace_<mesh>_<node>`, fit for a slot or publication and still unique when it had to be shortened. */
export function objectName(mesh: string, node: string): string {
  const plain = `millrace_${mesh}_${node}`
  const name = plain.toLowerCase().replace(/[^a-z0-9_]/g, '_')
  if (name.length <= 63) return name
  return `${name.slice(0, 54)}_${createHash('sha256').update(plain).digest('hex').slice(0, 8)}`
}

/** Settings that a server of this version (server_version_num) does not know. */
export function unsupportedSettings(
  config: PostgresConfig,
  version: number,
): readonly { readonly subject: string; readonly message: string; readonly fix: string }[] {
  const found: { subject: string; message: string; fix: string }[] = []
  if (config.twoPhase && version < 150_000)
    found.push({ subject: 'twoPhase', message: 'prepared transactions need Postgres 15 or later', fix: 'set twoPhase: false' })
  if (config.origin === 'none' && version < 160_000)
    found.push({ subject: 'origin', message: 'origin: none needs Postgres 16 or later', fix: 'set origin: any' })
  return found
}

import { createHash } from 'node:crypto'
import { z } from 'zod'
import { MillraceError, sslSetting, tablesSetting, tlsSettings, unrepresentableSetting } from '../../core/plugin.ts'
import type { ConnectOptions } from './wire-connection.ts'

export const mysqlConfig = z
  .strictObject({
    url: z.string().optional().describe('mysql://user:password@host:port/database, instead of the single settings; the database is a label only.'),
    host: z.string().optional().describe('Host of the server.'),
    port: z.int().min(1).max(65535).default(3306).describe('Port of the server.'),
    user: z.string().optional().describe('A user with REPLICATION SLAVE, REPLICATION CLIENT and SELECT on the tables.'),
    password: z.string().optional().describe('Password of the user; take it from a secret.'),
    ssl: sslSetting(tlsSettings),
    tables: tablesSetting('database.table', 'Tables to capture: `shop.*`, `!shop.tmp_*`. New tables that match are taken in while it runs.'),
    serverId: z
      .int()
      .min(1)
      .max(0xffff_ffff)
      .optional()
      .describe('Server id under which the binlog is asked for; no replica may have the same. Default: from mesh and node.'),
    cascades: z
      .enum(['refuse', 'ignore'])
      .default('refuse')
      .describe(
        'Tables whose rows foreign keys delete or change (ON DELETE CASCADE, SET NULL…), which MariaDB, and MySQL before 9.6, do not write to the binlog: leave them out, named, or capture them without that.',
      ),
    unrepresentable: unrepresentableSetting('dates with a zero year, month or day'),
  })
  .refine((config) => config.url !== undefined || (config.host !== undefined && config.user !== undefined), {
    message: 'give url, or host and user',
    path: ['url'],
  })

export type MysqlConfig = z.infer<typeof mysqlConfig>

/** @throws config.invalid */
export function connectOptions(config: MysqlConfig): ConnectOptions {
  const ssl = config.ssl === undefined || config.ssl === false ? null : config.ssl === true ? { rejectUnauthorized: true } : config.ssl
  if (config.url === undefined) return { host: config.host!, port: config.port, user: config.user!, password: config.password ?? '', ssl }
  try {
    const url = new URL(config.url)
    if (url.hostname === '') throw new URIError('no host')
    return {
      host: decodeURIComponent(url.hostname.replace(/^\[|\]$/g, '')),
      port: url.port === '' ? 3306 : Number(url.port),
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      ssl,
    }
  } catch {
    // without what was thrown, which has the URL
    throw new MillraceError('config.invalid', 'the `url` of the source cannot be read', {
      fix: 'write mysql://user:password@host:port/database, and what is special in user and password as %XX: a % itself is %25, @ is %40, / is %2F',
    })
  }
}

/** What the server knows this node by: a server id that real replicas hardly use, and a uuid. Stable, so that a second process of the node is noticed. */
export function replicaIdentity(config: MysqlConfig, mesh: string, node: string): { readonly serverId: number; readonly uuid: string } {
  const digest = createHash('sha256')
    .update(JSON.stringify(['millrace', mesh, node, config.serverId ?? 0]))
    .digest()
  const hex = digest.toString('hex')
  const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
  return { serverId: config.serverId ?? (digest.readUInt32LE(28) | 0x4000_0000) >>> 0, uuid }
}

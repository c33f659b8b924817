import { z } from 'zod'
import { sslSetting, tablesSetting, tlsSettings, unrepresentableSetting } from '../../core/plugin.ts'

const agent = z.strictObject({
  token: z.string().min(16).describe('What a source must know to read and delete segments: the same on all machines; take it from a secret.'),
  folder: z.string().min(1).optional().describe('On the machine of an agent: the `cdc_raw_directory` that it serves.'),
  cert: z.string().optional().describe('On the machine of an agent: its certificate in PEM form, for the host by which it is asked.'),
  key: z.string().optional().describe('On the machine of an agent: the key of the certificate in PEM form.'),
  ca: z.string().optional().describe('Where the source runs: certificate authority of the agents in PEM form; without it the well-known ones.'),
})

const CONSISTENCIES = ['ONE', 'TWO', 'THREE', 'QUORUM', 'ALL', 'LOCAL_QUORUM', 'EACH_QUORUM', 'LOCAL_ONE'] as const

export const cassandraConfig = z.strictObject({
  contactPoints: z.array(z.string().min(1)).min(1).describe('Hosts, or host:port, of the cluster; the node whose log is read is best.'),
  port: z.int().min(1).max(65535).default(9042).describe('Port of contact points that name none.'),
  localDataCenter: z.string().min(1).describe('Data center of the node, as `nodetool status` names it.'),
  user: z.string().optional().describe('A user with SELECT on the tables, and on system_views.settings.'),
  password: z.string().optional().describe('Password of the user; take it from a secret.'),
  ssl: sslSetting(tlsSettings),
  tables: tablesSetting('keyspace.table', 'Tables to capture: `shop.*`, `!shop.tmp_*`. New ones with `cdc = true` that match are taken in while it runs.'),
  cdcRaw: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .describe(
      'The `cdc_raw_directory` of the node, or of several, and `https://HOST:PORT` of agents that serve theirs. This node of the mesh is their only consumer: what is durable in the log is deleted there.',
    ),
  agent: agent
    .optional()
    .describe('For folders of other machines, which `millrace agent cassandra --config FILE --serve HOST:PORT` serves there: the same settings on both sides.'),
  consistency: z
    .enum(CONSISTENCIES)
    .default('LOCAL_QUORUM')
    .describe('With which rows are read: the snapshot, the audit, and rows of which the log does not say all.'),
  rows: z
    .enum(['written', 'whole'])
    .default('written')
    .describe('Of a changed row, what was written (sinks keep the rest), or the whole row, read back at `consistency`: one read a change.'),
  unrepresentable: unrepresentableSetting('timestamps beyond microseconds, the empty value'),
  pollMs: z.int().min(1).max(60_000).default(50).describe('How often the folder is looked at for more, in milliseconds.'),
  spaceAlarm: z
    .number()
    .min(0.01)
    .max(1)
    .default(0.5)
    .describe('Part of `cdc_total_space` from which on warnings are logged: when it is full, writes are refused.'),
})

export type CassandraConfig = z.infer<typeof cassandraConfig>

export function foldersOf({ cdcRaw }: CassandraConfig): readonly string[] {
  return typeof cdcRaw === 'string' ? [cdcRaw] : cdcRaw
}

export function isUrl(folder: string): boolean {
  return /^https?:/.test(folder)
}

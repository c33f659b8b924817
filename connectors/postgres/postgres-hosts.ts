import { addAbortListener } from 'node:events'
import type pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'
import { connectClient, cut, endClient } from './catalog-connection.ts'
import { clientConfig, type PostgresConfig } from './postgres-config.ts'
import { postgresError } from './postgres-error.ts'
import { hostUrls } from './postgres-url.ts'

/** A host that does not answer keeps us for so long at most. */
const HOST_TIMEOUT_MS = 5000

/**
 * How to connect to the server to capture: of several hosts in `url` the one that can be written to, and of two that can (an old primary that came back)
 * the one promoted last. All connections of one opening use the same answer; after a failure ask again.
 * @throws source.unreachable when none can be written to, or `signal` aborted; source.forbidden when one refuses us and none takes us
 */
export async function reachServer(config: PostgresConfig, signal?: AbortSignal): Promise<pg.ClientConfig> {
  const urls = config.url === undefined ? [] : hostUrls(config.url)
  if (urls.length < 2) return clientConfig(config)
  const targets = urls.map((url): pg.ClientConfig => ({ ...clientConfig({ ...config, url }), connectionTimeoutMillis: HOST_TIMEOUT_MS }))
  const answers = await Promise.all(
    targets.map((target) => timelineOf(target, signal).catch((error: unknown) => postgresError(error, 'to look for the primary'))),
  )
  let best = -1
  for (const [i, answer] of answers.entries()) {
    if (typeof answer === 'number' && (best < 0 || answer > (answers[best] as number))) best = i
  }
  if (best >= 0) return targets[best]!
  const refusals = answers.filter((answer) => answer instanceof MillraceError)
  const mistake = refusals.find(({ category }) => category === 'config')
  if (mistake !== undefined) throw mistake
  throw new MillraceError('source.unreachable', `none of the ${urls.length} hosts can be written to: ${refusals.map(({ message }) => message).join('; ')}`, {
    fix: 'promote a standby, or name the host of the primary in `url`',
  })
}

/** The timeline that a server writes, or why it cannot be written to. */
async function timelineOf(target: pg.ClientConfig, signal: AbortSignal | undefined): Promise<number | MillraceError> {
  const client = await connectClient(target, undefined, signal)
  using _ = signal === undefined ? null : addAbortListener(signal, () => cut(client))
  try {
    const { rows } = await client.query<{ file: string | null }>(
      'select case when not pg_is_in_recovery() then pg_walfile_name(pg_current_wal_lsn()) end as file',
    )
    const { file } = rows[0]!
    return file === null ? new MillraceError('source.unreachable', `${client.host}:${client.port} is a standby`) : Number.parseInt(file.slice(0, 8), 16)
  } finally {
    await endClient(client)
  }
}

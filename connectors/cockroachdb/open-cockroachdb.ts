import {
  MillraceError,
  type PluginContext,
  type Provision,
  type ScanTarget,
  type SourceConnector,
  type SourceOffset,
  type SourceReader,
  type TableSchema,
  tableId,
  writeRows,
} from '../../core/plugin.ts'
import { CatalogReader } from './catalog.ts'
import { type CockroachdbConfig, clientConfig } from './cockroachdb-config.ts'
import { CockroachdbSource, readOffset } from './cockroachdb-source.ts'
import { endOf } from './hlc.ts'
import { readPage } from './snapshot-reader.ts'
import { literal, SqlSession } from './sql-session.ts'
import { WebhookEndpoint } from './webhook-endpoint.ts'
import { dropWebhookJobs, webhookJobs } from './webhook-feed.ts'

const PAGE_ROWS = 1000
/** Older ones do not tell the JSON null from NULL. */
const OLDEST: readonly [year: number, release: number] = [24, 3]

/** Opens the cluster at an offset, or as of now. @throws source.history_lost, source.identity_changed, source.forbidden, source.unreachable, source.unprepared */
export async function openCockroachdb(config: CockroachdbConfig, context: PluginContext, resume: SourceOffset | null): Promise<SourceConnector> {
  const sql = new SqlSession(clientConfig(config))
  try {
    const mistake = versionMistake(await versionOf(sql))
    if (mistake !== null) throw new MillraceError('source.unprepared', mistake, { fix: 'upgrade the cluster' })
    const reader = new CatalogReader(sql, config)
    const offset = resume === null ? null : readOffset(resume)
    const cluster = await clusterOf(sql)
    if (offset !== null && offset.cluster !== null && cluster !== null && offset.cluster !== cluster) {
      throw new MillraceError('source.identity_changed', `this is the cluster ${cluster}, and ${offset.cluster} was captured before`, {
        fix: `connect to that one, or millrace run FILE --resnapshot ${context.node}`,
      })
    }
    const wall = offset === null ? (await reader.now()) - 1n : BigInt(offset.wall)
    const tables = await reader.at(wall)
    // the changefeed looks at every range; the first row of each table tells early what is collected
    for (const { sqlName } of config.webhook === undefined ? tables.values() : []) {
      await sql.query('to look at the tables as they were then', `SELECT 1 FROM ${sqlName} AS OF SYSTEM TIME ${literal(endOf(wall))} LIMIT 1`)
    }
    const endpoint = config.webhook === undefined ? null : await WebhookEndpoint.open(config.webhook)
    return new CockroachdbSource(config, context, sql, reader, { wall, tables, cluster, endpoint })
  } catch (error) {
    await sql[Symbol.asyncDispose]()
    throw error
  }
}

/** Opens the cluster for the audit, beside whatever captures it. */
export async function openCockroachdbReader(config: CockroachdbConfig): Promise<SourceReader> {
  const sql = new SqlSession(clientConfig(config))
  const reader = new CatalogReader(sql, config)
  return {
    tables: async () => [...(await reader.at((await reader.now()) - 1n)).values()].map(({ schema }) => schema),
    async scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal) {
      const view = await reader.now()
      const now = (await reader.at(view - 1n)).get(tableId(table))
      if (now === undefined) throw new MillraceError('source.table_gone', `${tableId(table)} is not there any more`)
      const target = open(now.schema)
      let after: readonly string[] | null = null
      do {
        signal.throwIfAborted()
        const page = await readPage(sql, now, view - 1n, after, PAGE_ROWS)
        writeRows(page.rows, target)
        after = page.next
      } while (after !== null)
      return view
    },
    reached: (offset: SourceOffset, commit: bigint) => BigInt(readOffset(offset).wall) + 1n >= commit,
    [Symbol.asyncDispose]: () => sql[Symbol.asyncDispose](),
  }
}

/** The changefeed jobs of a webhook; a changefeed without a sink leaves nothing. */
export const cockroachdbProvisions = {
  async list(config: CockroachdbConfig, context: PluginContext): Promise<readonly Provision[]> {
    if (config.webhook === undefined) return []
    await using sql = new SqlSession(clientConfig(config))
    return await webhookJobs(sql, context)
  },
  async drop(config: CockroachdbConfig, context: PluginContext): Promise<void> {
    if (config.webhook === undefined) return
    // whoever captures the source listens there
    await using _ = await WebhookEndpoint.open(config.webhook)
    await using sql = new SqlSession(clientConfig(config))
    await dropWebhookJobs(sql, context)
  },
}

/** `CockroachDB CCL v25.2.0 (…)`: 25 and 2; null: it is something else. */
export async function versionOf(sql: SqlSession): Promise<readonly [year: number, release: number] | null> {
  const [row] = await sql.query('to ask for the version', 'SELECT version()')
  const found = /^CockroachDB \S+ v(\d+)\.(\d+)/.exec(row?.[0] ?? '')
  return found === null ? null : [Number(found[1]), Number(found[2])]
}

export function versionMistake(version: readonly [year: number, release: number] | null): string | null {
  if (version === null) return 'the server is no CockroachDB'
  const [year, release] = version
  const isOld = year < OLDEST[0] || (year === OLDEST[0] && release < OLDEST[1])
  return isOld ? `CockroachDB ${year}.${release} is older than ${OLDEST.join('.')}` : null
}

/** null: the cluster does not tell. */
async function clusterOf(sql: SqlSession): Promise<string | null> {
  try {
    return (await sql.query('to ask for the cluster', 'SELECT crdb_internal.cluster_id()::STRING'))[0]?.[0] ?? null
  } catch (error) {
    if (error instanceof MillraceError && error.category === 'unavailable') throw error
    return null
  }
}

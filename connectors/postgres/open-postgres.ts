import { addAbortListener } from 'node:events'
import { invariant, MillraceError, type PluginContext, type SourceConnector, type SourceOffset, TablePatterns, tableId } from '../../core/plugin.ts'
import { AppliedTransactions, unseenCommits } from './applied-transactions.ts'
import { CapturedTables, publicationLacks, publicationLost, requireIdentity } from './captured-tables.ts'
import { CatalogConnection, connectClient } from './catalog-connection.ts'
import { formatLsn, parseLsn } from './lsn.ts'
import { objectName, type PostgresConfig, unsupportedSettings } from './postgres-config.ts'
import type { ServerError } from './postgres-error.ts'
import { reachServer } from './postgres-hosts.ts'
import { PostgresSource } from './postgres-source.ts'
import { createPublication, findPublication, listTables, type Publication, quoteName, wholeFix } from './publication.ts'
import { ReplicationConnection } from './replication-connection.ts'
import {
  ANSWER_MS,
  checkHistory,
  checkSlot,
  createSlot,
  dropSlot,
  findSlot,
  forkOf,
  historyLost,
  isInvalidated,
  type PostgresOffset,
  readOffset,
  type ServerHistory,
  type SlotClaim,
  taken,
  waitUntilFree,
} from './slot.ts'
import { PostgresSnapshotReader } from './snapshot-reader.ts'
import { StreamForm } from './stream-form.ts'
import { parseTimelineHistory } from './timeline.ts'

const REFRESH_MS = 3000
export const OLDEST_VERSION = 140_000
export const WAL_LEVEL_FIX = 'ALTER SYSTEM SET wal_level = logical; then restart the server'

interface Server {
  /** server_version_num */
  readonly version: number
  readonly database: string
  readonly standby: boolean
  readonly walLevel: string
  /** It ends a stream from which it hears nothing for so long; 0: never. */
  readonly senderTimeoutMs: number
}

/** Connects, provisions publication and slot, checks that nothing after `resume` is missing, and starts the stream, which claims the slot. */
export async function openPostgres(
  config: PostgresConfig,
  context: PluginContext,
  resume: SourceOffset | null,
  signal: AbortSignal = new AbortController().signal,
): Promise<SourceConnector> {
  await using cleanup = new AsyncDisposableStack()
  // what `signal` gives up until the source is open
  using waiting = new DisposableStack()
  const connect = await reachServer(config, signal)
  const patterns = new TablePatterns(config.tables)
  const mapping = { unrepresentable: config.unrepresentable }
  const catalog = cleanup.use(new CatalogConnection(connect, config.silenceMs))
  waiting.use(addAbortListener(signal, () => catalog.close()))
  const streamCatalog = cleanup.use(new CatalogConnection(connect, config.silenceMs))
  const server = await catalog.run('to look at the server', readServer)
  if (server.version < OLDEST_VERSION) {
    throw new MillraceError('source.unprepared', `Postgres ${Math.trunc(server.version / 10_000)} is too old`, {
      fix: 'upgrade the server to Postgres 14 or later',
    })
  }
  if (server.standby) throw onStandby(resume !== null)
  for (const { message, fix } of unsupportedSettings(config, server.version)) throw new MillraceError('config.unsupported', message, { fix })
  if (server.walLevel !== 'logical') throw new MillraceError('source.unprepared', `wal_level is ${server.walLevel}`, { fix: WAL_LEVEL_FIX })
  const name = objectName(context.mesh, context.node)
  const claim: SlotClaim = { slot: config.slot ?? name, database: server.database, node: context.node }
  const from = resume === null ? null : readOffset(resume)

  const answerMs = server.senderTimeoutMs > 0 ? Math.min(ANSWER_MS, server.senderTimeoutMs / 4) : ANSWER_MS
  const connection = cleanup.use(
    await ReplicationConnection.connect(
      {
        config: connect,
        onNotice: (code, message) => context.logger.warn({ code }, `Postgres: ${message}`),
        silenceMs: config.silenceMs,
        statusIntervalMs: answerMs,
      },
      signal,
    ),
  )
  waiting.use(addAbortListener(signal, () => connection.destroy()))
  const history = await readHistory(connection)
  if (from !== null) checkHistory(await catalog.run('to look at the slot', (client) => findSlot(client, claim.slot, server.version)), from, claim, history)

  const { publication, created } = await preparePublication(catalog, config.publication ?? name, patterns, from, context.node)
  const tables = new CapturedTables({
    catalog,
    publication,
    patterns,
    mapping,
    logger: context.logger,
    node: context.node,
    version: server.version,
    resumed: from !== null,
    refreshMs: REFRESH_MS,
  })
  if (from === null) await tables.list()
  const lsn = from?.lsn ?? (await prepareSlot(catalog, config, claim, server, created))
  const start: PostgresOffset = { lsn, system: history.system, timeline: history.timeline, publication: publication.oid }

  await catalog.run('to claim the slot', (client) => waitUntilFree(client, claim.slot, server.version, answerMs))
  const form = await catalog.run('to look at the types of its tables', (client) =>
    StreamForm.choose(client, {
      setting: config.binary,
      slot: `${history.system}/${claim.slot}`,
      publication: publication.name,
      patterns,
      logger: context.logger,
    }),
  )
  await connection.start(startCommand(config, form.binary, claim.slot, publication.name, lsn, server.version), (error) =>
    explain(error, form, claim, publication.name),
  )
  connection.received = lsn
  connection.confirmed = lsn
  const applied = new AppliedTransactions(await catalog.run('to look for commits that cannot be seen yet', unseenCommits))
  const source = new PostgresSource({
    context,
    connection,
    streamCatalog,
    catalog,
    tables,
    patterns,
    mapping,
    form,
    snapshot: new PostgresSnapshotReader({
      connect: () => connectClient(connect),
      mapping,
      accepts: (fence) => applied.allSeenBy(fence),
      // the slot was made once all that wrote to the first tables had ended
      joined: (oid) => !created || !tables.wasFirst(oid),
      onNotReady: (table) => context.logger.info({ table: tableId(table) }, 'the table is read once the transactions that are writing to it have ended'),
      logger: context.logger,
    }),
    applied,
    slot: claim.slot,
    publication: publication.name,
    version: server.version,
    start,
    fork: from === null ? null : forkOf(from, history),
  })
  cleanup.move()
  return source
}

export async function readServer(client: { query(text: string): Promise<{ readonly rows: readonly unknown[] }> }): Promise<Server> {
  const { rows } = await client.query(
    `select current_setting('server_version_num')::int as version, current_database() as database, pg_is_in_recovery() as standby, current_setting('wal_level') as "walLevel",
            (select setting::int from pg_settings where name = 'wal_sender_timeout') as "senderTimeoutMs"`,
  )
  return rows[0] as Server
}

async function readHistory(connection: ReplicationConnection): Promise<ServerHistory> {
  const [identity] = await connection.query('IDENTIFY_SYSTEM')
  const timeline = Number(identity?.timeline)
  // the first timeline has no history file
  const [file] = timeline > 1 ? await connection.query(`TIMELINE_HISTORY ${timeline}`) : []
  return {
    system: String(identity?.systemid),
    timeline,
    ancestors: parseTimelineHistory(String(file?.content ?? '')),
    walLsn: parseLsn(String(identity?.xlogpos)),
  }
}

async function preparePublication(
  catalog: CatalogConnection,
  name: string,
  patterns: TablePatterns,
  from: PostgresOffset | null,
  node: string,
): Promise<{ readonly publication: Publication; readonly created: boolean }> {
  return await catalog.run('to prepare the publication', async (client) => {
    const found = await findPublication(client, name)
    if (from !== null && (found === null || found.oid !== from.publication)) throw publicationLost(name, node)
    const tables = await listTables(client, name, patterns)
    // once there is a publication of ours, such a table stays out of it, named
    if (from === null && found?.own !== true) requireIdentity(tables)
    if (found !== null) {
      if (found.omits.length === 0) return { publication: found, created: false }
      if (from !== null) throw publicationLacks(found, node)
      throw new MillraceError('source.unprepared', `the publication ${name} leaves out ${found.omits.join(', ')}: changes would be missing without a word`, {
        fix: wholeFix(name),
      })
    }
    await createPublication(client, name, tables)
    const publication = await findPublication(client, name)
    invariant(publication !== null, `the publication ${name} is there once it was created`)
    return { publication, created: true }
  })
}

/** A standby has no slot of ours that can be read; one that was captured before may be about to be promoted. */
function onStandby(captured: boolean): MillraceError {
  const fix = `promote it, or name the primary; \`url\` may list all of them: host1:5432,host2:5432`
  return new MillraceError(captured ? 'source.unreachable' : 'source.unprepared', 'the server is a standby: a source is read from its primary', { fix })
}

/** The slot of a first run. @returns where its stream starts */
async function prepareSlot(catalog: CatalogConnection, config: PostgresConfig, claim: SlotClaim, server: Server, publicationCreated: boolean): Promise<bigint> {
  return await catalog.run('to prepare the slot', async (client) => {
    const found = await findSlot(client, claim.slot, server.version)
    if (found !== null) {
      // Without progress nothing depends on what an invalidated slot of ours has lost.
      if (config.slot !== undefined || !isInvalidated(found)) {
        checkSlot(found, claim)
        // Its stream starts before the publication was there, which pgoutput cannot decode; nothing was captured from it.
        if (!publicationCreated && found.confirmedLsn !== null) return found.confirmedLsn
      }
      if (config.slot !== undefined) {
        throw new MillraceError('source.unprepared', `the slot ${claim.slot} is older than its publication`, {
          fix: `select pg_drop_replication_slot('${claim.slot}')`,
        })
      }
      await dropSlot(client, claim.slot, server.version)
    }
    return await createSlot(client, claim.slot, server.version, config.twoPhase)
  })
}

function startCommand(config: PostgresConfig, binary: boolean, slot: string, publication: string, lsn: bigint, version: number): string {
  const options = [
    `proto_version '${version >= 160_000 ? 4 : version >= 150_000 ? 3 : 2}'`,
    `publication_names '${quoteName(publication).replaceAll("'", "''")}'`,
    `binary '${binary}'`,
    `messages '${config.messages}'`,
  ]
  if (config.streaming) options.push(`streaming 'on'`)
  if (config.twoPhase) options.push(`two_phase 'on'`)
  if (version >= 160_000) options.push(`origin '${config.origin}'`)
  return `START_REPLICATION SLOT ${quoteName(slot)} LOGICAL ${formatLsn(lsn)} (${options.join(', ')})`
}

function explain(error: Error & ServerError, form: StreamForm, claim: SlotClaim, publication: string): MillraceError {
  switch (error.code) {
    case '55006':
      return taken(claim.slot, error)
    case '55000':
    case '58P01':
      return historyLost(`Postgres cannot stream from the slot ${claim.slot} any more: ${error.message}`, claim, error)
    case '42704':
      return historyLost(`the slot ${claim.slot} or its publication ${publication} is gone: ${error.message}`, claim, error)
    default:
      return form.explain(error)
  }
}

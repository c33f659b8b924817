import { addAbortListener } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError, type PluginContext, type SourceConnector, type SourceOffset, TablePatterns } from '../../core/plugin.ts'
import { CapturedTables } from './captured-tables.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { connectOptions, type MysqlConfig, replicaIdentity } from './mysql-config.ts'
import { historyLost, identityChanged, mysqlError, ServerError, streamError } from './mysql-error.ts'
import { type MysqlOffset, readOffset, resumeGtids } from './mysql-offset.ts'
import { MysqlSource } from './mysql-source.ts'
import { binlogEnd, readCharsets, readServer, requirePrepared, SESSION, type Server } from './server.ts'
import { SNAPSHOT_SESSION } from './snapshot-reader.ts'
import { CATALOG_SILENCE_MS, SqlConnections } from './sql-connection.ts'
import { COMMAND, type ConnectOptions, literal, type Row, WireConnection } from './wire-connection.ts'

const REFRESH_MS = 3000
const HEARTBEAT_NS = 1_000_000_000
const XA_PATIENCE_MS = 30_000
const XA_POLL_MS = 50
const FORBIDDEN_XA: ReadonlySet<number> = new Set([1227, 1401])

/** Connects, checks that nothing after `resume` is missing, and starts the stream. The server keeps nothing for us, so nothing is made there. */
export async function openMysql(
  config: MysqlConfig,
  context: PluginContext,
  resume: SourceOffset | null,
  signal: AbortSignal = new AbortController().signal,
): Promise<SourceConnector> {
  await using cleanup = new AsyncDisposableStack()
  const options = connectOptions(config)
  const connections = cleanup.use(new SqlConnections(options, SESSION, CATALOG_SILENCE_MS))
  // until the source is open
  using _ = addAbortListener(signal, () => connections.close())
  const server = await connections.run('to look at the server', readServer)
  requirePrepared(server)
  const charsets = await connections.run('to look at character sets', readCharsets)
  const start = resume === null ? await firstOffset(connections, server) : await checkHistory(connections, server, readOffset(resume), context.node)
  const patterns = new TablePatterns(config.tables)
  const mapping = { unrepresentable: config.unrepresentable }
  const tables = new CapturedTables({ connections, server, settings: config, charsets, logger: context.logger, refreshMs: REFRESH_MS })
  const stream = cleanup.use(await startStream(options, server, replicaIdentity(config, context.mesh, context.node), start, context.node, signal))
  const snapshots = cleanup.use(new SqlConnections(options, SNAPSHOT_SESSION))
  const settled = resume === null ? await settledXa(connections, server, context) : null
  const source = new MysqlSource({ settled, context, connections, snapshots, stream, server, charsets, tables, patterns, mapping, start, signal })
  cleanup.move()
  return source
}

async function firstOffset(connections: SqlConnections, server: Server): Promise<MysqlOffset> {
  return await connections.run('to look at the binlog', async (connection): Promise<MysqlOffset> => {
    if (server.flavor === 'mysql') {
      const [row] = await connection.query('select @@global.gtid_executed')
      return { flavor: 'mysql', gtids: String(GtidSet.parse(row![0] ?? '')) }
    }
    const { file, position } = await binlogEnd(connection, server)
    const [row] = await connection.query(`select binlog_gtid_pos(${literal(file)}, ${position})`)
    return { flavor: 'mariadb', gtids: String(MariadbPosition.parse(row![0] ?? '')) }
  })
}

/**
 * At a first start XA transactions may be prepared whose rows came before it: waits a while until they have ended.
 * @returns a state with all that ended by now; its changes are in the views that are taken from now on
 */
async function settledXa(connections: SqlConnections, server: Server, { logger }: PluginContext): Promise<GtidSet | MariadbPosition> {
  return await connections.run('to look for XA transactions', async (connection) => {
    const prepared = async () => new Set((await recoverable(connection, server)).map((row) => row.join()))
    const first = await prepared()
    for (const until = performance.now() + XA_PATIENCE_MS; first.size > 0 && performance.now() < until; await delay(XA_POLL_MS)) {
      const now = await prepared()
      for (const xid of first) if (!now.has(xid)) first.delete(xid)
    }
    if (first.size > 0) logger.warn({ transactions: first.size }, 'XA transactions are prepared: when one of them is committed, the tables must be read anew')
    if (server.flavor === 'mysql') return GtidSet.parse((await connection.query('select @@global.gtid_executed'))[0]![0] ?? '')
    return MariadbPosition.parse((await connection.query('select @@global.gtid_binlog_pos'))[0]![0] ?? '')
  })
}

/** Without the privilege for it (XA_RECOVER_ADMIN of MySQL) none are known. */
async function recoverable(connection: WireConnection, server: Server): Promise<readonly Row[]> {
  try {
    return await connection.query(server.flavor === 'mysql' ? 'xa recover convert xid' : `xa recover format = 'SQL'`)
  } catch (error) {
    if (error instanceof ServerError && FORBIDDEN_XA.has(error.errno)) return []
    throw error
  }
}

/** @throws source.history_lost when transactions after the offset are purged, source.identity_changed when the server never had those before it */
async function checkHistory(connections: SqlConnections, server: Server, offset: MysqlOffset, node: string): Promise<MysqlOffset> {
  if (offset.flavor !== server.flavor) {
    throw new MillraceError('source.identity_changed', `the server is ${server.versionText}, and the progress is of another product`, {
      fix: `read the tables anew: \`millrace run FILE --resnapshot ${node}\``,
    })
  }
  // MariaDB tells both as the stream starts
  if (server.flavor === 'mariadb') return offset
  const ours = literal(offset.gtids)
  const [row] = await connections.run('to look at its GTIDs', (connection) =>
    connection.query(`select gtid_subtract(${ours}, @@global.gtid_executed), gtid_subtract(@@global.gtid_purged, ${literal(resumeGtids(offset))})`),
  )
  const [foreign, purged] = row!
  if (foreign !== '') throw identityChanged(foreign!, node)
  if (purged !== '') throw historyLost(`the server has purged binlogs with the transactions ${purged}, which were not captured`, node)
  return offset
}

/** Opens a connection of its own and asks for the binlog after `start`. */
async function startStream(
  options: ConnectOptions,
  server: Server,
  identity: { readonly serverId: number; readonly uuid: string },
  start: MysqlOffset,
  node: string,
  signal: AbortSignal,
): Promise<WireConnection> {
  const connection = await WireConnection.connect(options, signal)
  using _ = addAbortListener(signal, () => connection.destroy())
  try {
    const checksum = server.checksum === 'NONE' ? 'NONE' : 'CRC32'
    if (server.flavor === 'mysql') {
      await connection.query(
        `set @source_binlog_checksum = '${checksum}', @source_heartbeat_period = ${HEARTBEAT_NS}, @replica_uuid = '${identity.uuid}',
             @master_binlog_checksum = '${checksum}', @master_heartbeat_period = ${HEARTBEAT_NS}, @slave_uuid = '${identity.uuid}'`,
      )
      connection.send(COMMAND.binlogDumpGtid, dumpGtidRequest(identity.serverId, GtidSet.parse(resumeGtids(start))))
    } else {
      await connection.query(
        `set @master_binlog_checksum = '${checksum}', @master_heartbeat_period = ${HEARTBEAT_NS}, @mariadb_slave_capability = 4,
             @slave_connect_state = ${literal(resumeGtids(start))}, @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0`,
      )
      connection.send(COMMAND.binlogDump, dumpRequest(identity.serverId))
    }
    // the server looks for the start before it sends anything
    await connection.peek()
    return connection
  } catch (error) {
    connection.destroy()
    throw error instanceof ServerError ? streamError(error, node) : mysqlError(error, 'to start the stream')
  }
}

/** Flags, server id, file name (none), position 4, the GTIDs that are here already. */
function dumpGtidRequest(serverId: number, gtids: GtidSet): Buffer {
  const set = gtids.encode()
  const head = Buffer.alloc(22)
  head.writeUInt16LE(0, 0)
  head.writeUInt32LE(serverId, 2)
  head.writeUInt32LE(0, 6)
  head.writeBigUInt64LE(4n, 10)
  head.writeUInt32LE(set.length, 18)
  return Buffer.concat([head, set])
}

/** Position 4, flags, server id, file name (none): MariaDB starts where `@slave_connect_state` says. */
function dumpRequest(serverId: number): Buffer {
  const request = Buffer.alloc(10)
  request.writeUInt32LE(4, 0)
  request.writeUInt16LE(0, 4)
  request.writeUInt32LE(serverId, 6)
  return request
}

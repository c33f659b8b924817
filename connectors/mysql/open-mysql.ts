import { addAbortListener } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError, type PluginContext, type SourceConnector, type SourceOffset, TablePatterns } from '../../core/plugin.ts'
import { EVENT } from './binlog-event.ts'
import { fileMark } from './binlog-place.ts'
import { CapturedTables } from './captured-tables.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { connectOptions, type MysqlConfig, replicaIdentity } from './mysql-config.ts'
import { filesReplaced, historyLost, identityChanged, mysqlError, protocolError, ServerError, streamError } from './mysql-error.ts'
import { type FileOffset, isByFile, type MysqlOffset, readOffset, requireForm, resumeGtids, resumePlace } from './mysql-offset.ts'
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
  const from = resume === null ? await firstOffset(connections, server) : await checkHistory(connections, server, readOffset(resume), context.node)
  const patterns = new TablePatterns(config.tables)
  const mapping = { unrepresentable: config.unrepresentable }
  const tables = new CapturedTables({ connections, server, settings: config, charsets, logger: context.logger, refreshMs: REFRESH_MS })
  const stream = cleanup.use(await startStream(options, server, replicaIdentity(config, context.mesh, context.node), from, context.node, signal))
  const start = isByFile(from) ? requireFile(stream, from, resume === null, context.node) : from
  const snapshots = cleanup.use(new SqlConnections(options, SNAPSHOT_SESSION))
  const settled = resume === null ? await settledXa(connections, server, context) : null
  const source = new MysqlSource({ settled, context, connections, snapshots, stream, server, charsets, tables, patterns, mapping, start, signal })
  cleanup.move()
  return source
}

async function firstOffset(connections: SqlConnections, server: Server): Promise<MysqlOffset> {
  return await connections.run('to look at the binlog', async (connection): Promise<MysqlOffset> => {
    if (server.flavor === 'mysql' && !server.byFile) {
      const [row] = await connection.query('select @@global.gtid_executed')
      return { flavor: 'mysql', gtids: String(GtidSet.parse(row![0] ?? '')) }
    }
    const { file, position } = await binlogEnd(connection, server)
    // when the file was begun is said as it is streamed
    if (server.byFile) return { flavor: 'mysql', server: server.uuid, file, position, created: 0 }
    const [row] = await connection.query(`select binlog_gtid_pos(${literal(file)}, ${position})`)
    return { flavor: 'mariadb', gtids: String(MariadbPosition.parse(row![0] ?? '')) }
  })
}

/**
 * At a first start XA transactions may be prepared whose rows came before it: waits a while until they have ended.
 * @returns the number of the last commit by now; what ended by then is in the views that are taken from now on
 */
async function settledXa(connections: SqlConnections, server: Server, { logger }: PluginContext): Promise<bigint> {
  return await connections.run('to look for XA transactions', async (connection) => {
    const prepared = async () => new Set((await recoverable(connection, server)).map((row) => row.join()))
    const first = await prepared()
    for (const until = performance.now() + XA_PATIENCE_MS; first.size > 0 && performance.now() < until; await delay(XA_POLL_MS)) {
      const now = await prepared()
      for (const xid of first) if (!now.has(xid)) first.delete(xid)
    }
    if (first.size > 0) logger.warn({ transactions: first.size }, 'XA transactions are prepared: when one of them is committed, the tables must be read anew')
    if (server.byFile) {
      const { file, position } = await binlogEnd(connection, server)
      return fileMark(file, position)
    }
    if (server.flavor === 'mysql') return BigInt(GtidSet.parse((await connection.query('select @@global.gtid_executed'))[0]![0] ?? '').size)
    return BigInt(MariadbPosition.parse((await connection.query('select @@global.gtid_binlog_pos'))[0]![0] ?? '').sum)
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
  requireForm(offset, server, node)
  if (isByFile(offset)) return await checkFiles(connections, server, offset, node)
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

/** What is not seen here, the server says as it is asked for the place, or {@link requireFile}. */
async function checkFiles(connections: SqlConnections, server: Server, offset: FileOffset, node: string): Promise<FileOffset> {
  if (offset.server !== server.uuid) {
    throw new MillraceError(
      'source.identity_changed',
      `the server has the server_uuid ${server.uuid}, and the progress is ${offset.file}:${offset.position} of ${offset.server}: without GTIDs a place says nothing about another server`,
      { fix: `point the source at the server that was captured, or read the tables anew: \`millrace run FILE --resnapshot ${node}\`` },
    )
  }
  const logs = await connections.run('to look at its binlogs', (connection) => connection.query('show binary logs'))
  const first = logs[0]?.[0]
  // the stream begins at the first, and the binlog must come to the second
  for (const { file, position } of [resumePlace(offset), offset]) {
    const log = logs.find(([name]) => name === file)
    if (log === undefined) {
      const isPurged = first != null && fileMark(first, 0) > fileMark(file, 0)
      const why = isPurged ? `it has purged those before ${first}` : 'its binlogs were reset, or it is a copy that was restored'
      throw historyLost(`the server does not have ${file} any more, with changes from position ${position} on that were not captured: ${why}`, node)
    }
    if (Number(log[1]) < position) {
      const why = 'its binlogs were reset, or a crash took what was not on disk (sync_binlog other than 1)'
      throw historyLost(`${file} of the server ends at position ${log[1]}, before ${position}, up to where it was captured: ${why}`, node)
    }
  }
  return offset
}

/**
 * The stream is about to begin within a file, whose first event is at hand. @returns the offset with when that was begun, at a first start
 * @throws source.history_lost when it is another file than was captured
 */
function requireFile({ bytes, packetAt }: WireConnection, from: FileOffset, isFirst: boolean, node: string): FileOffset {
  const created = bytes.readUInt32LE(packetAt + 1)
  if (bytes[packetAt + 5] !== EVENT.formatDescription) throw protocolError('a stream that does not begin with its format', `${from.file}:${from.position}`)
  const place = resumePlace(from)
  if (isFirst) return { ...from, created }
  if (created !== place.created) throw filesReplaced(place, created, node)
  return from
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
      if (isByFile(start)) connection.send(COMMAND.binlogDump, dumpRequest(identity.serverId, resumePlace(start)))
      else connection.send(COMMAND.binlogDumpGtid, dumpGtidRequest(identity.serverId, GtidSet.parse(resumeGtids(start))))
    } else if (!isByFile(start)) {
      await connection.query(
        `set @master_binlog_checksum = '${checksum}', @master_heartbeat_period = ${HEARTBEAT_NS}, @mariadb_slave_capability = 4,
             @slave_connect_state = ${literal(resumeGtids(start))}, @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0`,
      )
      connection.send(COMMAND.binlogDump, dumpRequest(identity.serverId, FILE_OF_GTIDS))
    }
    // the server looks for the start before it sends anything: the name of the file, then the file's own first event
    await connection.peek(isByFile(start) ? 2 : 1)
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

/** MariaDB starts where `@slave_connect_state` says. */
const FILE_OF_GTIDS = { file: '', position: 4 }

/** Position, flags, server id, file name. */
function dumpRequest(serverId: number, { file, position }: { readonly file: string; readonly position: number }): Buffer {
  const request = Buffer.alloc(10)
  request.writeUInt32LE(position, 0)
  request.writeUInt16LE(0, 4)
  request.writeUInt32LE(serverId, 6)
  return Buffer.concat([request, Buffer.from(file)])
}

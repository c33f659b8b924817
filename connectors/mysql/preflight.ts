import { type Finding, MillraceError, type PluginContext, TablePatterns, tableId } from '../../core/plugin.ts'
import { among, type CatalogTable, catalogKey, type KnownCascades, listTables } from './catalog.ts'
import { mapCurrent, unloggedTables } from './fit-tables.ts'
import { connectOptions, type MysqlConfig, replicaIdentity } from './mysql-config.ts'
import { ServerError } from './mysql-error.ts'
import { lacks, readServer, SERVERS, SESSION, type Server, SWITCH_ON, tableName } from './server.ts'
import { SqlConnections } from './sql-connection.ts'
import { COMMITTING, committing } from './view.ts'
import { identifier, type Row, type WireConnection } from './wire-connection.ts'

/** With less than this an absence over a weekend loses the place. */
const SHORT_RETENTION_SECONDS = 3 * 86_400
/** What a first reading is taken to do, a quarter of what was measured into the embedded log of the same machine. */
const ASSUMED_ROWS_PER_SECOND = 20_000
const ASSUMED_BYTES_PER_SECOND = 10 * 1024 * 1024
/** Access denied to a table, and to one of its columns. */
const UNREADABLE: ReadonlySet<number> = new Set([1142, 1143])
/** A table that another session holds for itself is not waited for longer, by default a year. */
const LOCK_PATIENCE_SECONDS = 2
const LOCK_TIMEOUT = 1205

/** Everything that `open` needs, looked at without changing anything; all findings at once. @throws source.unreachable, source.forbidden */
export async function checkMysql(config: MysqlConfig, context: PluginContext): Promise<readonly Finding[]> {
  await using connections = new SqlConnections(connectOptions(config), SESSION)
  return await connections.run('to look at the server', async (connection) => {
    const server = await readServer(connection)
    const tables = [...(await listTables(connection, new TablePatterns(config.tables))).values()]
    return [
      ...serverFindings(server),
      retentionFinding(server.retentionSeconds, await sizeOf(connection, tables)),
      ...(await privilegeFindings(connection)),
      ...(await commitFindings(connection, server)),
      ...(await selectFindings(connection, tables)),
      ...(await replicaFindings(connection, server, replicaIdentity(config, context.mesh, context.node).serverId)),
      ...(await tableFindings(connection, server, tables, config)),
    ]
  })
}

function serverFindings(server: Server): readonly Finding[] {
  const lacking = lacks(server)
  const found: Finding[] = lacking.map((lack) => ({ level: 'error', ...lack }))
  const ok = (subject: string, message: string) => {
    if (!lacking.some((lack) => lack.subject === subject)) found.push({ level: 'ok', subject, message })
  }
  const { product, from, tested } = SERVERS[server.flavor]
  ok('server version', `${server.versionText}; tested on ${product} ${tested}, taken from ${from} on`)
  ok('log_bin', 'on')
  ok('binlog_format', server.format)
  if (server.byFile) {
    found.push({
      level: 'warning',
      subject: 'gtid_mode',
      message: `it is ${server.gtidMode}: the server is captured by binlog file and position, which say nothing about a replica: after a failover the tables must be read anew`,
      fix: `${SWITCH_ON}; what was captured by file then is read anew once (\`millrace run FILE --resnapshot NODE\`)`,
    })
  } else if (server.flavor === 'mysql') ok('gtid_mode', server.gtidMode)
  if (server.metadata.toUpperCase() === 'FULL') found.push({ level: 'ok', subject: 'binlog_row_metadata', message: 'FULL' })
  else {
    found.push({
      level: 'warning',
      subject: 'binlog_row_metadata',
      message: `it is ${server.metadata}: changes from before an ALTER TABLE that was made while Millrace was away cannot be read: their table is parked, or read anew`,
      fix: `SET GLOBAL binlog_row_metadata = 'FULL', and in the server configuration`,
    })
  }
  if (server.image.toUpperCase() === 'FULL') found.push({ level: 'ok', subject: 'binlog_row_image', message: 'FULL' })
  else {
    found.push({
      level: 'warning',
      subject: 'binlog_row_image',
      message: `it is ${server.image}: changes come without what did not change, and inserted rows that left columns to their defaults are looked up one by one`,
      fix: `SET GLOBAL binlog_row_image = 'FULL', and in the server configuration`,
    })
  }
  return found
}

/** By the server's statistics, which may be a day old, or off by half. */
interface TablesSize {
  readonly rows: number
  readonly bytes: number
}

async function sizeOf(connection: WireConnection, tables: readonly CatalogTable[]): Promise<TablesSize> {
  if (tables.length === 0) return { rows: 0, bytes: 0 }
  const captured = new Set(tables.map(({ namespace, name }) => catalogKey(namespace, name)))
  const sizes = await connection.query(`select table_schema, table_name, table_rows, data_length from information_schema.tables where ${among(tables)}`)
  const own = sizes.filter(([namespace, name]) => captured.has(catalogKey(namespace!, name!)))
  const sum = (column: number) => own.reduce((total, row) => total + Number(row[column] ?? 0), 0)
  return { rows: sum(2), bytes: sum(3) }
}

/** Whether the server keeps binlogs for as long as the first reading of the tables is estimated to take, and over a weekend. */
export function retentionFinding(seconds: number, { rows, bytes }: TablesSize): Finding {
  const subject = 'binlog retention'
  const reading = Math.max(rows / ASSUMED_ROWS_PER_SECOND, bytes / ASSUMED_BYTES_PER_SECOND)
  const assumed = `the first reading is estimated at ${spanText(reading)}: some ${rows} rows, ${Math.ceil(bytes / 2 ** 20)} MB, at ${ASSUMED_ROWS_PER_SECOND} rows and ${ASSUMED_BYTES_PER_SECOND >> 20} MB a second`
  if (seconds === 0) return { level: 'ok', subject, message: `binlogs are kept until somebody purges them; ${assumed}` }
  const enough = Math.max(SHORT_RETENTION_SECONDS, 2 * reading)
  if (seconds >= enough) return { level: 'ok', subject, message: `${spanText(seconds)}; ${assumed}` }
  const short =
    seconds >= SHORT_RETENTION_SECONDS
      ? `${spanText(seconds)}, less than twice what the first reading may take: a longer absence within it loses what was read`
      : `${spanText(seconds)}: when Millrace is away for longer, the tables must be read anew`
  return {
    level: 'warning',
    subject,
    message: `${short}; ${assumed}`,
    fix: `SET GLOBAL binlog_expire_logs_seconds = ${Math.max(7 * 86_400, Math.ceil(enough / 86_400) * 86_400)}, and in the server configuration`,
  }
}

function spanText(seconds: number): string {
  if (seconds >= 86_400) return `${(seconds / 86_400).toFixed(1)} days`
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} hours`
  return seconds < 60 ? 'less than a minute' : `${Math.ceil(seconds / 60)} minutes`
}

async function privilegeFindings(connection: WireConnection): Promise<readonly Finding[]> {
  const [user] = (await connection.query('select current_user()'))[0]!
  const grants = (await connection.query('show grants')).map(([grant]) => grant!)
  const global = grants.filter((grant) => / ON \*\.\* /i.test(grant)).join(', ')
  const has = (...names: string[]) => names.some((name) => new RegExp(`\\b(ALL PRIVILEGES|${name})\\b`, 'i').test(global))
  const quoted = quotedUser(user!)
  const needed: readonly (readonly [string, readonly string[]])[] = [
    ['REPLICATION SLAVE', ['REPLICATION SLAVE', 'REPLICATION REPLICA']],
    ['REPLICATION CLIENT', ['REPLICATION CLIENT', 'BINLOG MONITOR']],
  ]
  return needed.map(([name, names]): Finding => {
    const subject = `privilege ${name}`
    if (has(...names)) return { level: 'ok', subject, message: `${user} has it` }
    return { level: 'error', subject, message: `${user} lacks it`, fix: `GRANT ${name} ON *.* TO ${quoted}` }
  })
}

/** Whether the user may see which transactions are being committed, and the server says it. */
async function commitFindings(connection: WireConnection, server: Server): Promise<readonly Finding[]> {
  if (!server.byFile || !server.performanceSchema) return []
  const subject = 'performance_schema'
  try {
    committing(await connection.query(COMMITTING))
    return [{ level: 'ok', subject, message: 'it says which transactions are being committed' }]
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'source.unprepared') {
      return [{ level: 'error', subject, message: error.message, ...(error.fix === undefined ? {} : { fix: error.fix }) }]
    }
    if (!(error instanceof ServerError) || !UNREADABLE.has(error.errno)) throw error
    const [user] = (await connection.query('select current_user()'))[0]!
    const message = `${user} lacks it, which without GTIDs places what is read of the tables: ${error.message}`
    return [{ level: 'error', subject: 'privilege SELECT on performance_schema', message, fix: `GRANT SELECT ON performance_schema.* TO ${quotedUser(user!)}` }]
  }
}

function quotedUser(user: string): string {
  return user
    .split('@')
    .map((part) => `'${part}'`)
    .join('@')
}

/** Tables that the user sees and may not read, or not all columns of. Those that it does not see are none. */
async function selectFindings(connection: WireConnection, tables: readonly CatalogTable[]): Promise<readonly Finding[]> {
  if (tables.length === 0) return []
  const [user] = (await connection.query('select current_user()'))[0]!
  const found: Finding[] = []
  await connection.query(`set session lock_wait_timeout = ${LOCK_PATIENCE_SECONDS}`)
  for (const table of tables) {
    const name = tableName(table.namespace, table.name)
    try {
      await connection.query(`select ${table.columns.map((column) => identifier(column.name)).join(', ')} from ${name} limit 0`)
    } catch (error) {
      // whatever else is wrong with a table is not about privileges
      if (!(error instanceof ServerError)) throw error
      const subject = `privilege SELECT on ${tableId(table)}`
      if (error.errno === LOCK_TIMEOUT) {
        found.push({
          level: 'warning',
          subject,
          message: 'whether it may be read could not be looked at: another session has locked it, or waits to alter it',
          fix: 'end that session, or check again later',
        })
      }
      if (!UNREADABLE.has(error.errno)) continue
      found.push({ level: 'error', subject, message: `${user} lacks it: ${error.message}`, fix: `GRANT SELECT ON ${name} TO ${quotedUser(user!)}` })
    }
  }
  await connection.query('set session lock_wait_timeout = @@global.lock_wait_timeout')
  return found.length > 0 ? found : [{ level: 'ok', subject: 'privilege SELECT', message: `${user} may read the captured tables` }]
}

async function replicaFindings(connection: WireConnection, server: Server, serverId: number): Promise<readonly Finding[]> {
  const subject = `server_id ${serverId}`
  if (serverId === server.serverId) {
    return [{ level: 'error', subject, message: 'it is the id of the server itself', fix: 'set another `serverId` in the source' }]
  }
  const replicas = await knownReplicas(connection, server)
  if (replicas === null) return [{ level: 'ok', subject, message: 'whether a replica of the server has it, this user may not see' }]
  if (replicas.some(([id]) => Number(id) === serverId)) {
    return [{ level: 'error', subject, message: 'a replica of the server has it', fix: 'set another `serverId` in the source' }]
  }
  return [{ level: 'ok', subject, message: 'free among the replicas that the server knows' }]
}

/** Null: MariaDB shows them to who has REPLICATION MASTER ADMIN, which nothing else needs. */
async function knownReplicas(connection: WireConnection, server: Server): Promise<readonly Row[] | null> {
  try {
    return await connection.query(server.flavor === 'mysql' ? 'show replicas' : 'show slave hosts')
  } catch (error) {
    if (error instanceof ServerError && error.errno === 1227) return null
    throw error
  }
}

async function tableFindings(connection: WireConnection, server: Server, tables: readonly CatalogTable[], config: MysqlConfig): Promise<readonly Finding[]> {
  if (tables.length === 0) {
    return [{ level: 'warning', subject: 'tables', message: `no table that this user may see matches ${config.tables.join(', ')} yet` }]
  }
  const known: KnownCascades = new WeakMap()
  const leftOut = await unloggedTables(connection, server, tables, { ...config, known })
  const unlogged = await unloggedTables(connection, server, tables, { cascades: 'refuse', known })
  return tables.flatMap((table) => {
    const id = tableId(table)
    const reason = unlogged.get(id)
    if (reason === undefined) return oneTable(table, config)
    const level = leftOut.has(id) ? 'error' : 'warning'
    return [...oneTable(table, config), { level, subject: `binlog of ${id}`, message: `it ${reason.why}`, fix: reason.fix }]
  })
}

function oneTable(table: CatalogTable, config: MysqlConfig): readonly Finding[] {
  const id = tableId(table)
  const found: Finding[] = []
  try {
    mapCurrent(table, { unrepresentable: config.unrepresentable })
  } catch (error) {
    const { message, fix } = error as Error & { fix?: string }
    found.push({ level: 'error', subject: `types of ${id}`, message, ...(fix === undefined ? {} : { fix }) })
  }
  if (table.index !== null) found.push({ level: 'ok', subject: `key of ${id}`, message: `${table.index.name} (${table.index.columns.join(', ')})` })
  else {
    found.push({
      level: 'warning',
      subject: `key of ${id}`,
      message: 'it has none: it is captured into the log, and sinks refuse it',
      fix: `add a primary key, or leave out '!${id}' in tables`,
    })
  }
  if (/^(blackhole|memory|federated)$/i.test(table.engine)) {
    found.push({
      level: 'warning',
      subject: `engine of ${id}`,
      message: `${table.engine} does not keep its rows as the binlog has them: changes are captured, and an audit will differ`,
      fix: `leave out '!${id}' in tables, or ALTER TABLE … ENGINE = InnoDB`,
    })
  }
  return found
}

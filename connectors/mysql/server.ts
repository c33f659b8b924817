import { MillraceError } from '../../core/plugin.ts'
import type { Charsets } from './column-definition.ts'
import { identifier, type Row, type WireConnection } from './wire-connection.ts'

export type Flavor = 'mysql' | 'mariadb'

/** Facts about the server that decide how it is talked to. */
export interface Server {
  readonly flavor: Flavor
  /** `8.4.3` is 80403. */
  readonly version: number
  readonly versionText: string
  /** `server_uuid` of MySQL; MariaDB has none. */
  readonly uuid: string
  readonly serverId: number
  readonly logBin: boolean
  readonly format: string
  readonly image: string
  readonly metadata: string
  readonly checksum: string
  readonly gtidMode: string
  /** MySQL that gives transactions no GTIDs, or did so lately: they are known by their places in its binlog files. */
  readonly byFile: boolean
  readonly performanceSchema: boolean
  readonly retentionSeconds: number
  /** See `StatementSession`. */
  readonly lowerCase: boolean
  /** What foreign keys change by cascade is in the binlog. */
  readonly logsCascades: boolean
  /** It replicates from another server, and what it does so is not in its own binlog. */
  readonly omitsReplicated: boolean
}

/** From here on MySQL follows foreign keys above the storage engine, unless `innodb_native_foreign_keys` says otherwise. */
const LOGS_CASCADES = 90_600

/**
 * Text in UTF-8 but for the columns of tables, which come in their own character sets; times in UTC; values as they are stored. MySQL is asked to show primary keys
 * that it generated, which are in its binlog whether they are shown or not.
 */
export const SESSION: readonly string[] = [
  `set names utf8mb4`,
  `set session time_zone = '+00:00', session sql_mode = '' /*!80030 , session show_gipk_in_create_table_and_information_schema = ON */`,
]

export interface Supported {
  readonly product: string
  /** Older servers are refused. */
  readonly oldest: number
  readonly from: string
  /** What the tests run against. */
  readonly tested: string
}

/** The one place that says which servers are taken, and which were tried. */
export const SERVERS: Readonly<Record<Flavor, Supported>> = {
  mysql: { product: 'MySQL', oldest: 80_000, from: '8.0', tested: '9.7' },
  mariadb: { product: 'MariaDB', oldest: 100_600, from: '10.6', tested: '10.11 and 11.8' },
}

export async function readServer(connection: WireConnection): Promise<Server> {
  const [versionText] = (await connection.query('select version()'))[0]!
  const flavor: Flavor = /mariadb/i.test(versionText ?? '') ? 'mariadb' : 'mysql'
  const [, major = '0', minor = '0', patch = '0'] = /(\d+)\.(\d+)\.(\d+)/.exec(versionText ?? '') ?? []
  const rows = await connection.query(
    `show global variables where variable_name in ('server_uuid', 'server_id', 'log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata',
       'binlog_checksum', 'gtid_mode', 'binlog_expire_logs_seconds', 'innodb_native_foreign_keys', 'log_replica_updates', 'log_slave_updates',
       'lower_case_table_names', 'performance_schema')`,
  )
  const of = new Map(rows.map(([name, value]) => [name!.toLowerCase(), value ?? '']))
  const version = Number(major) * 10_000 + Number(minor) * 100 + Number(patch)
  const isOn = (name: string) => of.get(name) === 'ON' || of.get(name) === '1'
  const gtidMode = of.get('gtid_mode') ?? 'ON'
  const logsReplicated = isOn('log_replica_updates') || isOn('log_slave_updates')
  return {
    flavor,
    version,
    versionText: versionText ?? '',
    uuid: of.get('server_uuid') ?? '',
    serverId: Number(of.get('server_id') ?? 0),
    logBin: isOn('log_bin'),
    format: of.get('binlog_format') ?? 'ROW',
    image: of.get('binlog_row_image') ?? 'FULL',
    metadata: of.get('binlog_row_metadata') ?? 'NO_LOG',
    checksum: of.get('binlog_checksum') ?? 'NONE',
    gtidMode,
    byFile: flavor === 'mysql' && gtidMode.toUpperCase() !== 'ON',
    performanceSchema: isOn('performance_schema'),
    retentionSeconds: Number(of.get('binlog_expire_logs_seconds') ?? 0),
    lowerCase: of.get('lower_case_table_names') === '1',
    logsCascades: flavor === 'mysql' && version >= LOGS_CASCADES && !isOn('innodb_native_foreign_keys'),
    omitsReplicated: !logsReplicated && (await isReplica(connection, flavor)),
  }
}

/** MariaDB tells how many replications run without a privilege for it, MySQL of one that is set up. */
async function isReplica(connection: WireConnection, flavor: Flavor): Promise<boolean> {
  if (flavor === 'mysql') return (await connection.query('show replica status')).length > 0
  const [row] = await connection.query(`show global status like 'slaves_running'`)
  return Number(row?.[1] ?? 0) > 0
}

/** @throws source.unprepared with the statement that repairs it */
export function requirePrepared(server: Server): void {
  const [lack] = lacks(server)
  if (lack !== undefined) throw new MillraceError('source.unprepared', `${lack.subject}: ${lack.message}`, { fix: lack.fix })
}

export interface Lack {
  readonly subject: string
  readonly message: string
  readonly fix: string
}

export const SWITCH_ON =
  'SET GLOBAL enforce_gtid_consistency = ON; then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE and ON, one after another, and in the server configuration'

/** What capture cannot do without. */
export function lacks(server: Server): readonly Lack[] {
  const found: Lack[] = []
  const { flavor, version } = server
  const { product, oldest, from } = SERVERS[flavor]
  if (version < oldest) found.push({ subject: 'server version', message: `${server.versionText} is too old`, fix: `upgrade to ${product} ${from} or later` })
  if (!server.logBin) found.push({ subject: 'log_bin', message: 'the server writes no binlog', fix: 'start the server with --log-bin' })
  if (server.serverId === 0) found.push({ subject: 'server_id', message: 'it is 0', fix: 'set server_id to a number of its own in the server configuration' })
  if (server.format.toUpperCase() !== 'ROW') {
    found.push({
      subject: 'binlog_format',
      message: `it is ${server.format}`,
      fix: `SET PERSIST binlog_format = 'ROW' (MariaDB: SET GLOBAL, and in its configuration)`,
    })
  }
  if (server.omitsReplicated) {
    found.push({
      subject: 'log_replica_updates',
      message: 'it is OFF, and the server is a replica: what it replicates is not in its binlog',
      fix: 'set log_replica_updates (MariaDB: log_slave_updates) = ON in the server configuration and restart it; or capture from the primary',
    })
  }
  if (server.byFile && !server.performanceSchema) {
    found.push({
      subject: 'performance_schema',
      message: `it is OFF, and gtid_mode is ${server.gtidMode}: nothing says what a view of the tables has of the binlog`,
      fix: `set performance_schema = ON in the server configuration and restart it; or, without a restart: ${SWITCH_ON}`,
    })
  }
  return found
}

export async function readCharsets(connection: WireConnection): Promise<Charsets> {
  const collations = await connection.query(
    'select id, character_set_name from information_schema.collations where id is not null and character_set_name is not null',
  )
  const widths = await connection.query('select character_set_name, maxlen from information_schema.character_sets')
  const ofCollation = new Map(collations.map(([id, name]) => [Number(id), name!]))
  // MariaDB names a collation's character set in a table of its own when it serves several
  const served = await connection.query(`select table_name from information_schema.tables where table_schema = 'information_schema'
    and table_name = 'COLLATION_CHARACTER_SET_APPLICABILITY'`)
  if (served.length > 0) {
    const more = await connection
      .query('select * from information_schema.collation_character_set_applicability limit 0')
      .then(() => connection.query('show columns from information_schema.collation_character_set_applicability'))
    if (more.some(([field]) => field!.toUpperCase() === 'ID')) {
      for (const [id, name] of await connection.query('select id, character_set_name from information_schema.collation_character_set_applicability')) {
        if (id !== null && name !== null) ofCollation.set(Number(id), name!)
      }
    }
  }
  return { ofCollation, widths: new Map(widths.map(([name, width]) => [name!, Number(width)])) }
}

export interface BinlogEnd {
  readonly file: string
  readonly position: number
  /** Databases that are in it alone, when there are some, and those that are not. */
  readonly only: readonly string[]
  readonly without: readonly string[]
}

export function statusStatement({ flavor, version }: Server): string {
  if (flavor === 'mariadb') return version >= 100_502 ? 'show binlog status' : 'show master status'
  return version >= 80_200 ? 'show binary log status' : 'show master status'
}

/** Where the binlog ends now, and what is left out of it. */
export async function binlogEnd(connection: WireConnection, server: Server): Promise<BinlogEnd> {
  return readEnd(await connection.query(statusStatement(server)))
}

/** The answer to {@link statusStatement}. @throws source.unprepared */
export function readEnd([row]: readonly Row[]): BinlogEnd {
  if (row === undefined) throw new MillraceError('source.unprepared', 'the server writes no binlog', { fix: 'start the server with --log-bin' })
  const list = (text: string | null | undefined) => (text ?? '').split(',').filter((name) => name !== '')
  return { file: row[0]!, position: Number(row[1]), only: list(row[2]), without: list(row[3]) }
}

export function tableName(namespace: string, name: string): string {
  return `${identifier(namespace)}.${identifier(name)}`
}

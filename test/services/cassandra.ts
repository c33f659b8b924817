/** Real Cassandra servers from Maven's jars, with CDC: one of each release per test file by {@link testCassandra}, private ones by {@link startCassandra}. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Client, policies, types } from 'cassandra-driver'
import { freePorts } from './free-ports.ts'
import { findJava, javaSkipReason, mavenJars } from './maven.ts'
import { serviceVersion } from './service-version.ts'
import { sharedService } from './shared-service.ts'

export type Release = '4.1' | '5.0'
export const RELEASES: readonly Release[] = ['4.1', '5.0']
const VERSIONS: Readonly<Record<Release, string>> = { '4.1': '4.1.8', '5.0': serviceVersion('cassandra') }

/** Later ones have no Security Manager, which it asks for. */
const JDK = 17
const START_DEADLINE_MS = 120_000
export const LOCAL_DC = 'datacenter1'

/** What the server's classes reach into. */
const OPEN = {
  'java.base': `java.io java.lang java.lang.module java.lang.reflect java.lang.ref java.math java.net java.nio java.util java.util.concurrent
    java.util.concurrent.atomic jdk.internal.loader jdk.internal.ref jdk.internal.reflect jdk.internal.math jdk.internal.module jdk.internal.util
    jdk.internal.util.jar sun.nio.ch jdk.internal.misc sun.net.util`,
  'java.rmi': 'sun.rmi.registry sun.rmi.server sun.rmi.transport sun.rmi.transport.tcp',
  'java.sql': 'java.sql',
  'java.management': 'com.sun.jmx.remote.security',
  'java.management.rmi': 'com.sun.jmx.remote.internal.rmi',
  'jdk.management': 'com.sun.management.internal',
  'jdk.management.agent': 'jdk.internal.agent',
}

/** Why Cassandra cannot run here, or null. */
export function cassandraSkipReason(): string | null {
  return findJava(JDK, JDK) === null ? `no JDK ${JDK} found by JAVA_HOME, JAVA17_HOME, PATH or /usr/lib/jvm` : javaSkipReason(JDK)
}

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

/** @throws when it does not answer within two minutes; the end of its log is in the message */
export async function startCassandra(options: CassandraOptions): Promise<CassandraServer> {
  const { dir, release } = options
  const { joins } = options
  const address = joins?.address ?? '127.0.0.1'
  const [freeNative, freeStorage, jmx] = (await freePorts(3)) as [number, number, number]
  // nodes of a cluster have the same ports
  const port = joins?.server.port ?? freeNative
  const storage = joins?.server.storagePort ?? freeStorage
  const java = findJava(JDK, JDK)
  if (java === null) throw new Error(cassandraSkipReason() ?? 'no java')
  const jars = await mavenJars(`cassandra-${VERSIONS[release]}`, [{ group: 'org.apache.cassandra', artifact: 'cassandra-all', version: VERSIONS[release] }])
  configure(dir, address, port, storage, joins === undefined ? (options.yaml ?? '') : `auto_bootstrap: false\n${options.yaml ?? ''}`)
  const run = async (): Promise<ChildProcess> => {
    const out = openSync(path.join(dir, 'server.log'), 'a')
    const child = spawn(java, flags(dir, jars, jmx), { stdio: ['ignore', out, out], detached: options.detached === true })
    if (options.detached === true) child.unref()
    await untilAnswering(child, { address, port, access: options.access }, path.join(dir, 'server.log'))
    return child
  }
  let child = await run()
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

/** Small segments that end soon, and a log that is synced often, so that tests see what takes minutes elsewhere. */
function configure(dir: string, address: string, port: number, storage: number, more: string): void {
  mkdirSync(path.join(dir, 'conf'), { recursive: true })
  const folders = `data_file_directories: [${dir}/data]
commitlog_directory: ${dir}/commitlog
cdc_raw_directory: ${dir}/cdc_raw
hints_directory: ${dir}/hints
saved_caches_directory: ${dir}/saved_caches`
  writeFileSync(
    path.join(dir, 'conf', 'cassandra.yaml'),
    `cluster_name: millrace
num_tokens: 1
allocate_tokens_for_local_replication_factor: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "127.0.0.1:${storage}"}]}]
listen_address: ${address}
rpc_address: ${address}
storage_port: ${storage}
native_transport_port: ${port}
start_native_transport: true
${folders}
cdc_enabled: true
commitlog_sync: periodic
commitlog_sync_period: 100ms
commitlog_segment_size: 1MiB
${more}
`,
  )
  writeFileSync(
    path.join(dir, 'conf', 'logback.xml'),
    `<configuration><appender name="F" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%-5level %date{HH:mm:ss.SSS} %logger{1} %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="F"/></root></configuration>
`,
  )
}

function flags(dir: string, jars: string, jmx: number): string[] {
  const agent = readdirSync(jars).find((name) => name.startsWith('jamm-0.3'))
  return [
    // the older jamm cannot look into hidden classes without it
    ...(agent === undefined ? [] : [`-javaagent:${path.join(jars, agent)}`]),
    ...Object.entries(OPEN).flatMap(([module, packages]) =>
      packages.split(/\s+/).flatMap((name) => ['--add-opens', `${module}/${name}=ALL-UNNAMED`, '--add-exports', `${module}/${name}=ALL-UNNAMED`]),
    ),
    ...['-Xms512m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Djava.security.manager=allow', '-Djava.awt.headless=true'],
    ...['-Djdk.attach.allowAttachSelf=true', '-Dio.netty.tryReflectionSetAccessible=true'],
    `-Dcassandra.config=file://${dir}/conf/cassandra.yaml`,
    `-Dlogback.configurationFile=file://${dir}/conf/logback.xml`,
    `-Dcassandra.storagedir=${dir}`,
    `-Dcassandra.jmx.local.port=${jmx}`,
    ...['skip_wait_for_gossip_to_settle=0', 'ring_delay_ms=1', 'superuser_setup_delay_ms=0', 'skip_schema_check=true'].map((flag) => `-Dcassandra.${flag}`),
    ...['-cp', `${dir}/conf:${jars}/*`, 'org.apache.cassandra.service.CassandraDaemon'],
  ]
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
    protocolOptions: { maxVersion: types.protocolVersion.v4 },
    ...(access === undefined ? {} : { credentials: { username: access.user, password: access.password }, sslOptions: access.ssl }),
    ...(keyspace === undefined ? {} : { keyspace }),
    encoding: { useBigIntAsLong: true, useBigIntAsVarint: true, set: Set, map: Map },
    policies: { reconnection: new policies.reconnection.ConstantReconnectionPolicy(200) },
    socketOptions: { readTimeout: 30_000 },
  })
}

async function untilAnswering(child: ChildProcess, options: ConnectOptions, log: string): Promise<void> {
  let last: unknown = null
  for (const deadline = Date.now() + START_DEADLINE_MS; ; await delay(200)) {
    const why = child.exitCode !== null ? 'ended' : Date.now() > deadline ? 'did not answer' : null
    if (why !== null) throw new Error(`Cassandra ${why}: ${readFileSync(log, 'utf8').slice(-3000)}`, { cause: last })
    const client = connect(options)
    try {
      await client.connect()
      return
    } catch (error) {
      last = error
    } finally {
      await client.shutdown()
    }
  }
}

export interface CassandraKeyspace {
  readonly release: Release
  readonly port: number
  readonly cdcRaw: string
  readonly keyspace: string
  readonly client: Client
  cql(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>
  /** Resolves when all that was written before is in the log on disk. */
  synced(): Promise<void>
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
      await client.execute('create table if not exists marks (id int primary key) with cdc = true')
      const indexes = () =>
        readdirSync(cdcRaw)
          .filter((name) => name.endsWith('.idx'))
          .map((name) => `${name} ${readFileSync(path.join(cdcRaw, name), 'utf8')}`)
          .join()
      // what the first of two syncs does may have begun before
      for (const id of [1, 2]) {
        const before = indexes()
        await client.execute('insert into marks (id) values (?)', [id], { prepare: true })
        while (indexes() === before) await delay(5)
      }
    },
    async drop() {
      await client.execute(`drop keyspace if exists ${keyspace}`)
      await client.shutdown()
    },
  }
}

/** How Cassandra is run here from Maven's jars, as a server or inside another class: its releases, configuration, JVM and flags. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { findJava, javaSkipReason, mavenJars } from './maven.ts'
import { serviceVersion } from './service-version.ts'

export type Release = '4.0' | '4.1' | '5.0'
export const VERSIONS: Readonly<Record<Release, string>> = { '4.0': '4.0.17', '4.1': '4.1.8', '5.0': serviceVersion('cassandra') }

/** Later ones have no Security Manager, which it asks for. */
const JDK = 17
/** Of every kind of request: by its own defaults a node gives up writes after two seconds, which a busy machine takes now and then. */
export const REQUEST_TIMEOUT_S = 120
const REQUESTS = ['', 'read_', 'range_', 'write_', 'counter_write_', 'truncate_']

/** What its classes reach into, by module. */
const OPENED = {
  'java.base': `java.io java.lang java.lang.module java.lang.reflect java.lang.ref java.math java.net java.nio java.util java.util.concurrent
    java.util.concurrent.atomic jdk.internal.loader jdk.internal.ref jdk.internal.reflect jdk.internal.math jdk.internal.module jdk.internal.util
    jdk.internal.util.jar sun.nio.ch jdk.internal.misc sun.net.util`,
  'java.rmi': 'sun.rmi.registry sun.rmi.server sun.rmi.transport sun.rmi.transport.tcp',
  'java.sql': 'java.sql',
  'java.management': 'com.sun.jmx.remote.security javax.management',
  'java.management.rmi': 'com.sun.jmx.remote.internal.rmi',
  'jdk.management': 'com.sun.management.internal',
  'jdk.management.agent': 'jdk.internal.agent',
}

/** Why Cassandra cannot run here, or null. */
export function cassandraSkipReason(): string | null {
  return findJava(JDK, JDK) === null ? `no JDK ${JDK} found by JAVA_HOME, JAVA17_HOME, PATH or /usr/lib/jvm` : javaSkipReason(JDK)
}

export interface CassandraRun {
  readonly release: Release
  /** Of its own: configuration, data, `cdc_raw`. */
  readonly dir: string
  /** Default: 127.0.0.1. */
  readonly address?: string
  /** `native`: for clients; without it none can come. */
  readonly ports: { readonly storage: number; readonly jmx: number; readonly native?: number }
  /** Lines of cassandra.yaml more; they win. */
  readonly yaml?: string
  /** A class, or a file of source code, with its arguments. */
  readonly main: readonly string[]
}

/** Writes its configuration: small segments that end soon, and a log that is synced often, so that tests see what takes minutes elsewhere. */
export async function cassandraCommand(run: CassandraRun): Promise<{ readonly java: string; readonly flags: readonly string[] }> {
  const { release, dir, ports, main } = run
  const java = findJava(JDK, JDK)
  if (java === null) throw new Error(cassandraSkipReason() ?? 'no java')
  const version = VERSIONS[release]
  const jars = await mavenJars(`cassandra-${version}`, [{ group: 'org.apache.cassandra', artifact: 'cassandra-all', version }])
  const conf = path.join(dir, 'conf')
  mkdirSync(conf, { recursive: true })
  writeFileSync(path.join(conf, 'cassandra.yaml'), yamlOf(run))
  writeFileSync(
    path.join(conf, 'logback.xml'),
    `<configuration><appender name="F" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%-5level %date{HH:mm:ss.SSS} %logger{1} %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="F"/></root></configuration>
`,
  )
  // the jamm of 4.x cannot look into hidden classes but as an agent
  const agent = readdirSync(jars).find((name) => name.startsWith('jamm-0.3'))
  const flags = [
    ...(agent === undefined ? [] : [`-javaagent:${path.join(jars, agent)}`]),
    ...Object.entries(OPENED).flatMap(([module, packages]) =>
      packages.split(/\s+/).flatMap((name) => ['--add-opens', `${module}/${name}=ALL-UNNAMED`, '--add-exports', `${module}/${name}=ALL-UNNAMED`]),
    ),
    ...['-Xms512m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Djava.security.manager=allow', '-Djava.awt.headless=true'],
    ...['-Djdk.attach.allowAttachSelf=true', '-Dio.netty.tryReflectionSetAccessible=true'],
    `-Dlogback.configurationFile=file://${conf}/logback.xml`,
    ...[
      `config=file://${conf}/cassandra.yaml`,
      `storagedir=${dir}`,
      `jmx.local.port=${ports.jmx}`,
      'skip_wait_for_gossip_to_settle=0',
      'ring_delay_ms=1',
      'superuser_setup_delay_ms=0',
      'skip_schema_check=true',
    ].map((flag) => `-Dcassandra.${flag}`),
    // else it closes its output
    '-Dcassandra-foreground=yes',
    ...['-cp', `${conf}:${jars}/*`, ...main],
  ]
  return { java, flags }
}

function yamlOf({ release, dir, address = '127.0.0.1', ports, yaml = '' }: CassandraRun): string {
  // 4.0 has the unit in the name
  const unit = (name: string, amount: number, [now, before]: readonly [string, string]) =>
    release === '4.0' ? `${name}_in_${before}: ${amount}` : `${name}: ${amount}${now}`
  const ms = ['ms', 'ms'] as const
  return `cluster_name: millrace
num_tokens: 1
allocate_tokens_for_local_replication_factor: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "127.0.0.1:${ports.storage}"}]}]
listen_address: ${address}
rpc_address: ${address}
storage_port: ${ports.storage}
${ports.native === undefined ? '' : `native_transport_port: ${ports.native}\n`}start_native_transport: ${ports.native !== undefined}
data_file_directories: [${dir}/data]
${['commitlog', 'cdc_raw', 'hints', 'saved_caches'].map((name) => `${name}_directory: ${dir}/${name}`).join('\n')}
cdc_enabled: true
commitlog_sync: periodic
${unit('commitlog_sync_period', 100, ms)}
${unit('commitlog_segment_size', 1, ['MiB', 'mb'])}
${REQUESTS.map((kind) => unit(`${kind}request_timeout`, REQUEST_TIMEOUT_S * 1000, ms)).join('\n')}
${release === '4.0' ? '' : `native_transport_timeout: ${REQUEST_TIMEOUT_S}s\n`}${yaml}
`
}

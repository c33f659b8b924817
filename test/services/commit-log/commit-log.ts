/** Segments that a real Cassandra wrote, with what its own reader finds in them: one JVM that is server, writer and reader. Jars come from Maven. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { freePorts } from '../free-ports.ts'
import { findJava, javaSkipReason, mavenJars } from '../maven.ts'

const run = promisify(execFile)
/** Cassandra has no Security Manager to start with on later ones. */
const JDK = 17
const DEADLINE_MS = 240_000

/** Packages that Cassandra reaches into: what its own start script opens. */
const OPENED = [
  ...['io', 'lang', 'lang.module', 'lang.reflect', 'lang.ref', 'math', 'net', 'nio', 'util', 'util.concurrent', 'util.concurrent.atomic'].map(
    (name) => `java.base/java.${name}`,
  ),
  ...['loader', 'ref', 'reflect', 'math', 'module', 'util', 'util.jar', 'misc'].map((name) => `java.base/jdk.internal.${name}`),
  'java.base/sun.nio.ch',
  'java.base/sun.net.util',
  'java.rmi/sun.rmi.registry',
  'java.rmi/sun.rmi.server',
  'java.rmi/sun.rmi.transport',
  'java.rmi/sun.rmi.transport.tcp',
  'java.sql/java.sql',
  'java.management/com.sun.jmx.remote.security',
  'java.management.rmi/com.sun.jmx.remote.internal.rmi',
  'java.management/javax.management',
  'jdk.management/com.sun.management.internal',
  'jdk.management.agent/jdk.internal.agent',
]

/** Why Cassandra cannot run here, or null. */
export function skipReason(): string | null {
  return findJava(JDK, JDK) === null ? `no JDK ${JDK}` : javaSkipReason(JDK)
}

export interface RecordedSegment {
  /** Path of the segment; its index lies beside it. */
  readonly file: string
  readonly index: string
  /** A line of JSON for each mutation that Cassandra's reader gave; empty when that was not asked for. */
  readonly mutations: readonly string[]
}

export interface Recording {
  /** Rows of system_schema, as pairs of its table's name and the row; those of the keyspaces that it leaves out as well. */
  readonly schema: readonly (readonly [string, Readonly<Record<string, unknown>>])[]
  readonly segments: readonly RecordedSegment[]
}

export interface RecordingOptions {
  /** Empty folder. */
  readonly dir: string
  /** Of Cassandra, as Maven has it. */
  readonly version: string
  /** Lines of cassandra.yaml more. */
  readonly yaml: readonly string[]
  /** Run one after the other; `---` starts a new segment; `1000 x ` before one runs it so often, with each number from 0 on for %d. */
  readonly statements: readonly string[]
  /** Cassandra's own reader reads them too. */
  readonly reread: boolean
}

/** @throws with the output of Cassandra when it or a statement fails */
export async function recordCommitLog({ dir, version, yaml, statements, reread }: RecordingOptions): Promise<Recording> {
  const jars = await mavenJars(`cassandra-${version}`, [{ group: 'org.apache.cassandra', artifact: 'cassandra-all', version }])
  const [storagePort, jmxPort] = (await freePorts(2)) as [number, number]
  const data = path.join(dir, 'data')
  const out = path.join(dir, 'out')
  for (const folder of [data, out]) mkdirSync(folder, { recursive: true })
  const config = path.join(dir, 'cassandra.yaml')
  writeFileSync(
    config,
    [
      'cluster_name: lab',
      'num_tokens: 1',
      'partitioner: org.apache.cassandra.dht.Murmur3Partitioner',
      'endpoint_snitch: SimpleSnitch',
      `seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "127.0.0.1:${storagePort}"}]}]`,
      'listen_address: 127.0.0.1',
      'rpc_address: 127.0.0.1',
      `storage_port: ${storagePort}`,
      'start_native_transport: false',
      ...['commitlog', 'cdc_raw', 'hints', 'saved_caches'].map((name) => `${name}_directory: ${path.join(data, name)}`),
      `data_file_directories: [${path.join(data, 'data')}]`,
      'cdc_enabled: true',
      'commitlog_sync: periodic',
      'commitlog_sync_period: 200ms',
      'commitlog_segment_size: 1MiB',
      ...yaml,
      '',
    ].join('\n'),
  )
  const logback = path.join(dir, 'logback.xml')
  writeFileSync(
    logback,
    '<configuration><appender name="O" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%-5level %logger{1} %msg%n</pattern></encoder></appender><root level="WARN"><appender-ref ref="O"/></root></configuration>',
  )
  const script = path.join(dir, 'statements.cql')
  writeFileSync(script, `${statements.join('\n')}\n`)
  // 4.1 measures objects by this agent only
  const agent = readdirSync(jars).find((name) => /^jamm-0\.3/.test(name))
  await run(
    findJava(JDK, JDK)!,
    [
      ...(agent === undefined ? [] : [`-javaagent:${path.join(jars, agent)}`]),
      ...OPENED.flatMap((name) => ['--add-opens', `${name}=ALL-UNNAMED`, '--add-exports', `${name}=ALL-UNNAMED`]),
      ...[
        '-Xmx512m',
        '-XX:+UseSerialGC',
        '-XX:TieredStopAtLevel=1',
        '-Djava.security.manager=allow',
        '-Djava.awt.headless=true',
        '-Djdk.attach.allowAttachSelf=true',
      ],
      `-Dcassandra.config=file://${config}`,
      `-Dlogback.configurationFile=file://${logback}`,
      `-Dcassandra.storagedir=${data}`,
      `-Dcassandra.jmx.local.port=${jmxPort}`,
      // else it closes its output
      '-Dcassandra-foreground=yes',
      '-Dcassandra.skip_wait_for_gossip_to_settle=0',
      '-Dcassandra.ring_delay_ms=1',
      '-Dcassandra.superuser_setup_delay_ms=-1',
      '-Dio.netty.tryReflectionSetAccessible=true',
      ...['-cp', `${jars}/*`, path.join(import.meta.dirname, 'CommitLogLab.java'), script, out, String(reread)],
    ],
    { cwd: dir, timeout: DEADLINE_MS, maxBuffer: 64 * 1024 * 1024 },
  ).catch((error: { stdout?: string; stderr?: string }) => {
    throw new Error(`Cassandra ${version} failed:\n${(error.stdout ?? '').slice(-6000)}\n${(error.stderr ?? '').slice(-4000)}`, { cause: error })
  })
  const lines = (file: string) =>
    readFileSync(path.join(out, file), 'utf8')
      .split('\n')
      .filter((line) => line !== '')
  return {
    schema: lines('schema.jsonl').map((line) => JSON.parse(line)),
    segments: readdirSync(out)
      .filter((name) => name.endsWith('.log') && existsSync(path.join(out, name.replace('.log', '_cdc.idx'))))
      .sort()
      .map((name) => ({
        file: path.join(out, name),
        index: readFileSync(path.join(out, name.replace('.log', '_cdc.idx')), 'utf8'),
        mutations: reread ? lines(name.replace('.log', '.jsonl')) : [],
      })),
  }
}

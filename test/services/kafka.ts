/** A real Apache Kafka broker (KRaft, one node): one per test run by {@link testKafka}, private ones for fault tests by {@link startKafka}. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'
import kafkajs from 'kafkajs'
import { freePorts } from './free-ports.ts'
import { findJava, javaSkipReason, mavenJars } from './maven.ts'
import { serviceVersion } from './service-version.ts'
import { sharedService } from './shared-service.ts'
import { untilAnswering } from './until-answering.ts'

const run = promisify(execFile)
const KAFKA_VERSION = serviceVersion('kafka')
const JDK = 17
const CLUSTER_ID = 'MkU3OEVBNTcwNTJENDM2Qg'
const START_DEADLINE_MS = 120_000

/** Why Kafka cannot run here, or null: `describe.skipIf(skipReason() !== null)`. */
export function skipReason(): string | null {
  return javaSkipReason(JDK)
}

/** The run's shared broker. Use fresh topic names. */
export async function testKafka(): Promise<{ readonly brokers: string[] }> {
  const { brokers } = await sharedService('kafka', async (dir) => {
    const server = await startKafka({ dir })
    server.detach()
    return { brokers: server.brokers, pids: [server.pid] }
  })
  return { brokers }
}

/** A broker that is starved answers late, and tells late what was changed. */
const PATIENT = { retries: 30, maxRetryTime: 2000 }

/** Another client. Ask it for consumers with `retry: {}`: left out, theirs is shorter. */
export function kafkajsClient(brokers: readonly string[]): kafkajs.Kafka {
  return new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING, connectionTimeout: 30_000, requestTimeout: 60_000, retry: PATIENT })
}

export interface KafkaServer {
  readonly brokers: string[]
  /** Port of the extra listener, when one was asked for. */
  readonly securePort: number
  readonly pid: number
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>
  /** SIGTERM: an orderly shutdown. */
  stop(): Promise<void>
  /** Starts it again on the same data, and on the same port unless another is given (one that nobody told the clients). */
  restart(port?: number): Promise<void>
  /** SIGSTOP and SIGCONT: a broker that hangs. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
  /** Let it outlive this process. */
  detach(): void
}

export interface KafkaServerOptions {
  readonly dir: string
  /** Extra lines of server.properties; a line wins over ours of the same name. */
  readonly properties?: Readonly<Record<string, string>>
  /** Adds a SASL_SSL or SSL listener named SECURE on `securePort`. */
  readonly secure?: 'SSL' | 'SASL_SSL'
  /** Flags of the JVM; small and quick to start unless told. */
  readonly jvm?: readonly string[]
  /** Arguments to StorageTool format, such as `--add-scram` and its value. */
  readonly format?: readonly string[]
  /** Taken ports, where others must know them beforehand. */
  readonly ports?: { readonly broker: number; readonly controller: number }
}

/** @throws when it does not answer within two minutes; its own output is in the message */
export async function startKafka(options: KafkaServerOptions): Promise<KafkaServer> {
  const java = findJava(JDK)
  if (java === null) throw new Error(skipReason() ?? 'no java')
  const jars = await mavenJars(`kafka-${KAFKA_VERSION}`, [
    { group: 'org.apache.kafka', artifact: 'kafka_2.13', version: KAFKA_VERSION },
    { group: 'org.apache.logging.log4j', artifact: 'log4j-slf4j-impl', version: '2.25.5' },
  ])
  const [free, freeController, securePort] = (await freePorts(3)) as [number, number, number]
  const [firstPort, controllerPort] = [options.ports?.broker ?? free, options.ports?.controller ?? freeController]
  let port = firstPort
  mkdirSync(options.dir, { recursive: true })
  const config = path.join(options.dir, 'server.properties')
  const log = path.join(options.dir, 'broker.log')
  const secure = options.secure === undefined ? ['', ''] : [`,SECURE://127.0.0.1:${securePort}`, `,SECURE:${options.secure}`]
  const properties = () => ({
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}${secure[0]}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}${secure[0]}`,
    'listener.security.protocol.map': `PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT${secure[1]}`,
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': path.join(options.dir, 'data'),
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '4',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '4',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
    'auto.create.topics.enable': 'false',
    ...options.properties,
  })
  const configure = () =>
    writeFileSync(
      config,
      `${Object.entries(properties())
        .map(([name, value]) => `${name}=${value}`)
        .join('\n')}\n`,
    )
  configure()
  const log4j = path.join(options.dir, 'log4j2.properties')
  writeFileSync(
    log4j,
    ['appender.out.type=Console', 'appender.out.name=out', 'appender.out.layout.type=PatternLayout', 'appender.out.layout.pattern=[%d] %p %m (%c)%n']
      .concat('rootLogger.level=WARN', 'rootLogger.appenderRef.out.ref=out', '')
      .join('\n'),
  )
  const classpath = ['-cp', path.join(jars, '*')]
  if (!existsSync(path.join(options.dir, 'data', 'meta.properties'))) {
    await run(java, ['-XX:TieredStopAtLevel=1', ...classpath, 'kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', config, ...(options.format ?? [])])
  }

  let child: ChildProcess
  const start = async () => {
    const out = openSync(log, 'a')
    child = spawn(
      java,
      [
        '-server',
        ...(options.jvm ?? ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xms128m', '-Xmx768m']),
        `-Dlog4j2.configurationFile=${log4j}`,
        ...classpath,
        'kafka.Kafka',
        config,
      ],
      { stdio: ['ignore', out, out], detached: true },
    )
    await untilAnswering(child, { name: 'Kafka', log, patienceMs: START_DEADLINE_MS, answers: () => answers(port) })
  }
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await gone
  }
  await start()
  return {
    brokers: [`127.0.0.1:${firstPort}`],
    securePort,
    get pid() {
      return child.pid!
    },
    kill: () => end('SIGKILL'),
    stop: () => end('SIGTERM'),
    restart: async (onPort = port) => {
      port = onPort
      configure()
      await start()
    },
    signal: (signal) => void child.kill(signal),
    detach: () => child.unref(),
  }
}

/** True when the broker answers a whole ApiVersions request: its port opens before it serves. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    const done = (ok: boolean) => {
      socket.destroy()
      resolve(ok)
    }
    socket.setTimeout(2000, () => done(false))
    socket.on('error', () => done(false))
    socket.on('close', () => done(false))
    // size 10, ApiVersions version 0, correlation id 1, no client id
    socket.on('connect', () => socket.write(Buffer.from('0000000a0012000000000001ffff', 'hex')))
    socket.on('data', () => done(true))
  })
}

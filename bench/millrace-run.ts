/** Millrace as users run it: `millrace run FILE` as a process of its own, watched from outside. */
import { type ChildProcess, spawn } from 'node:child_process'
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import type { Log } from '../core/log/log.ts'
import { readRunning } from '../core/runtime/data-folder.ts'
import type { MeshStatus } from '../core/runtime/mesh-status.ts'
import { folderBytes, type Lab } from './lab.ts'

export type LogKind = 'embedded' | 'kafka' | 'kafka-idempotent'

export interface MeshOptions {
  readonly log: LogKind
  readonly snapshot?: 'initial' | 'never'
  /** YAML of the `sinks:` block's content, indented by two. */
  readonly sinks?: string
  readonly compression?: string
  readonly source?: string
  /** Further arguments of Node. */
  readonly nodeArgs?: readonly string[]
  /** Another source than the lab's Postgres: its `sources:` block below `bench:`, and its topic. */
  readonly from?: { readonly yaml: string; readonly topic: string }
}

const TOPIC = 'bench.public.bench'
const MILLRACE = path.join(import.meta.dirname, '..', 'control', 'cli', 'millrace.js')

/** A mesh in a folder of its own; started and stopped any number of times on the same state. */
export class MillraceRun {
  readonly dir: string
  readonly file: string
  readonly #lab: Lab
  readonly #options: MeshOptions
  readonly #brokers: readonly string[]
  #child: ChildProcess | null = null
  #reader: Log | null = null
  startedAt = 0

  private constructor(lab: Lab, dir: string, brokers: readonly string[], options: MeshOptions) {
    this.#lab = lab
    this.dir = dir
    this.file = path.join(dir, 'bench.mesh.yaml')
    this.#options = options
    this.#brokers = brokers
  }

  static async prepare(lab: Lab, name: string, options: MeshOptions): Promise<MillraceRun> {
    const source = options.from?.yaml ?? postgresSource((await lab.postgres()).url)
    const brokers = options.log === 'embedded' ? [] : (await lab.kafka()).brokers
    const run = new MillraceRun(lab, lab.folder(name), brokers, options)
    const log =
      options.log === 'embedded'
        ? 'embedded'
        : `{ kind: kafka, brokers: ['${brokers[0]}'], delivery: ${options.log === 'kafka' ? 'exactly-once' : 'idempotent'}, compression: ${options.compression ?? 'none'}, progressTopic: progress-${name} }`
    writeFileSync(
      run.file,
      `mesh: ${name}
dataDir: state
log: ${log}
sources:
  bench:
${source}    snapshot: { mode: ${options.snapshot ?? 'never'} }
${options.source ?? ''}${options.sinks === undefined ? '' : `sinks:\n${options.sinks}`}`,
    )
    return run
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  start(args: readonly string[] = []): void {
    this.startedAt = performance.now()
    const nodeArgs = [...(process.env.MILLRACE_NODE_ARGS?.split(' ') ?? []), ...(this.#options.nodeArgs ?? [])]
    const child = spawn(process.execPath, [...nodeArgs, MILLRACE, 'run', this.file, ...args], {
      cwd: this.dir,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const output = path.join(this.dir, 'output.txt')
    child.stderr!.on('data', (bytes: Buffer) => appendFileSync(output, bytes))
    child.once('exit', (code) => {
      if (code !== 0 && code !== null && this.#child === child) {
        throw new Error(`millrace ended with ${code}:\n${readFileSync(output, 'utf8').slice(-3000)}`)
      }
    })
    this.#child = child
  }

  /** SIGINT: a graceful stop. */
  async stop(): Promise<void> {
    const child = this.#child
    if (child === null) return
    this.#child = null
    if (child.exitCode === null && child.signalCode === null) {
      const gone = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGINT')
      await gone
    }
  }

  /** Records of the bench topic that a committed reader sees. */
  async records(): Promise<number> {
    const log = await this.reader()
    if (log === null) return 0
    try {
      return Number((await log.bounds(this.#options.from?.topic ?? TOPIC)).reduce((sum, { end }) => sum + end, 0n))
    } catch {
      return 0
    }
  }

  /** Bytes of the bench topic on disk; of the embedded log, all that it holds. */
  bytes(): number {
    if (this.#options.log !== 'embedded') return this.#lab.topicBytes(this.#options.from?.topic ?? TOPIC)
    const dir = path.join(this.dir, 'state', 'log')
    return existsSync(dir) ? folderBytes(dir) : 0
  }

  /** Rows that a node has carried since this process started, as `millrace status` shows it; 0 before the mesh answers. */
  async rowsOf(node: string): Promise<number> {
    const running = readRunning(path.join(this.dir, 'state'))
    if (running === null) return 0
    try {
      const { nodes } = (await (await fetch(`http://${running.host}:${running.port}/status`)).json()) as MeshStatus
      return nodes.find((one) => one.node === node)?.rows ?? 0
    } catch {
      return 0
    }
  }

  /** The log, for reading; null while it does not exist. */
  async reader(): Promise<Log | null> {
    if (this.#reader !== null) return this.#reader
    const logger = pino({ level: 'silent' })
    try {
      if (this.#options.log === 'embedded') {
        const { openEmbeddedLog } = await import('../core/log/embedded/embedded-log.ts')
        this.#reader = await openEmbeddedLog({ dir: path.join(this.dir, 'state', 'log'), readOnly: true, logger })
      } else {
        const { openKafkaLog } = await import('../core/log/kafka/kafka-log.ts')
        this.#reader = await openKafkaLog({ brokers: this.#brokers, clientId: 'bench', progressTopic: `progress-${path.basename(this.dir)}` })
      }
    } catch {
      return null
    }
    return this.#reader
  }

  /** Waits until the source streams: its walsender is there. */
  async streaming(): Promise<number> {
    for (const deadline = Date.now() + 60_000; ; ) {
      const pid = await this.#lab.walsender()
      if (pid > 0) return pid
      if (Date.now() > deadline) throw new Error(`millrace did not begin to stream:\n${readFileSync(path.join(this.dir, 'output.txt'), 'utf8').slice(-3000)}`)
      await delay(20)
    }
  }

  /** Starts once and stops, so that slot and start offset are durable and a backlog can gather. */
  async provision(): Promise<void> {
    this.start()
    if (this.#options.from === undefined) await this.streaming()
    const settled = async () => (await (await this.reader())?.progress('bench'))?.has('offset') ?? false
    for (const deadline = Date.now() + 60_000; !(await settled()); await delay(50))
      if (Date.now() > deadline) throw new Error('no durable offset after a minute')
    await this.stop()
    while (this.#options.from === undefined && (await this.#lab.walsender()) > 0) await delay(20)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    await this.#reader?.[Symbol.asyncDispose]()
  }
}

function postgresSource(url: string): string {
  return `    kind: postgres\n    url: ${url}\n    tables: [public.bench]\n`
}

export { TOPIC }

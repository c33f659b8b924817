import type { Logger } from 'pino'
import { asMillraceError, EXIT_CODE } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { MemoryBudget } from '../materialize/memory-budget.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import { packageVersion } from '../package-version.ts'
import { backoffMs, DEFAULT_RETRY, pause } from '../retry.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { AuditLoop } from './audit-loop.ts'
import { DataFolder } from './data-folder.ts'
import { type NodeCommand, openHttpServer } from './http-server.ts'
import { isReady, type MeshStatus, type NodeStatus, standing } from './mesh-status.ts'
import { Metrics } from './metrics.ts'
import { openLog, openRegistry, serveOwnRegistry } from './open-log.ts'
import { checkResnapshot, parseResnapshot, pausedSource, type Resnapshot } from './resnapshot.ts'
import type { RunningNode, RuntimeContext } from './runtime-context.ts'
import { SinkRunner } from './sink-runner.ts'
import { SourceRunner } from './source-runner.ts'

export interface RunOptions {
  readonly secrets: Secrets
  readonly logger: Logger
  /** Ends the run gracefully: what is durable stays, what is not is read again next time. */
  readonly signal: AbortSignal
  /** Address for metrics, health and status; a free local port when absent. */
  readonly host?: string
  readonly port?: number
  /** End once snapshots are done and nothing has moved for this long, in milliseconds; what failed or is paused is not waited for. Absent: run until the signal. */
  readonly untilIdleMs?: number
  /** NODE: a source, not a paused one, that, once nobody else has it, forgets its progress and reads its tables anew; NODE/TABLE: only this table. */
  readonly resnapshot?: string
  /** Not ready when a node neither moved nor was at the end for this long. */
  readonly staleMs?: number
  /** Called when something changed, at most ten times a second, and at the end. */
  readonly onStatus?: (status: MeshStatus) => void
}

export interface RunResult {
  /** stopped: by the signal. idle: see `untilIdleMs`. failed: no source is left that could go on. */
  readonly outcome: 'stopped' | 'idle' | 'failed'
  /** By the worst category of what stands, see {@link standing}; 0 when nothing does. */
  readonly exitCode: 0 | 1 | 2 | 3
  readonly status: MeshStatus
}

const STATUS_MS = 100
/** Encoded bytes of all open batches together, in equal shares of the sinks; decoded they take about five times as much. */
const OPEN_BATCH_BYTES = 4 * 1024 * 1024
const DEFAULT_STALE_MS = 60_000

/**
 * Runs a mesh in this process until it is stopped. Every node is supervised on its own: one that fails stops no other.
 * @throws MillraceError when the mesh cannot start at all: log.locked, config.*, node.unknown. A log or registry that is away is waited for.
 */
export async function runMesh(mesh: Mesh, options: RunOptions): Promise<RunResult> {
  const { secrets, logger } = options
  using folder = new DataFolder(mesh.dataDir)
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  await using log = await whenAvailable(() => openLog({ mesh, secrets, logger, readOnly: false }), logger, signal)
  await using registry = log === null ? null : await whenAvailable(() => openRegistry({ mesh, secrets }), logger, signal)
  const run = new Run(mesh, options, folder, stop, signal)
  if (log === null || registry === null) return run.result('stopped')
  const resnapshot = options.resnapshot === undefined ? null : parseResnapshot(mesh, options.resnapshot)
  if (resnapshot !== null) {
    // this process would end without the source, and with it what was asked
    if (folder.paused.has(resnapshot.node)) throw pausedSource(resnapshot.node)
    await checkResnapshot(log, resnapshot)
  }
  // awaited here: leaving the block would close the log first
  return await run.run(log, registry, resnapshot)
}

class Run {
  readonly #mesh: Mesh
  readonly #options: RunOptions
  readonly #folder: DataFolder
  readonly #stop: AbortController
  readonly #signal: AbortSignal
  readonly #sources: SourceRunner[] = []
  readonly #sinks: SinkRunner[] = []
  #audit: AuditLoop | null = null
  readonly #startedAt = Date.now()
  #statusDue: NodeJS.Timeout | null = null

  constructor(mesh: Mesh, options: RunOptions, folder: DataFolder, stop: AbortController, signal: AbortSignal) {
    this.#mesh = mesh
    this.#options = options
    this.#folder = folder
    this.#stop = stop
    this.#signal = signal
  }

  get #nodes(): readonly RunningNode[] {
    return [...this.#sources, ...this.#sinks]
  }

  async run(log: Log, registry: SchemaRegistry, resnapshot: Resnapshot | null): Promise<RunResult> {
    const { host = '127.0.0.1', port = 0, logger, secrets } = this.#options
    const metrics = new Metrics(
      this.#mesh.name,
      () => this.#status(),
      (text) => secrets.redact(text),
    )
    const command = (name: string, what: NodeCommand, table: string | null) => this.#command(name, what, table)
    await using server = await openHttpServer({ host, port, status: () => this.#status(), metrics, command })
    await using served = await serveOwnRegistry({ mesh: this.#mesh, secrets }, registry)
    if (served !== null) logger.info({ url: served.url }, `the schema registry listens on ${served.url}`)
    this.#folder.announce({ mesh: this.#mesh.name, pid: process.pid, host, port: server.port, startedAt: this.#startedAt })
    logger.info({ mesh: this.#mesh.name, port: server.port, log: log.kind }, `the mesh ${this.#mesh.name} runs; status and metrics on port ${server.port}`)
    const context: RuntimeContext = {
      mesh: this.#mesh,
      secrets,
      folder: this.#folder,
      log,
      registry,
      logger,
      metrics,
      version: packageVersion(),
      signal: this.#signal,
      onChange: () => this.#changed(),
    }
    for (const node of this.#mesh.sources) this.#sources.push(new SourceRunner(node, context, resnapshot?.node === node.name ? resnapshot : null))
    // a share for each, and no more: what a sink that stands still holds is missing to no other
    const { sinks } = this.#mesh
    for (const node of sinks) this.#sinks.push(new SinkRunner(node, context, new MemoryBudget(OPEN_BATCH_BYTES / sinks.length)))
    const { paused } = this.#folder
    for (const node of this.#nodes) {
      const since = paused.get(node.name)
      if (since === undefined) continue
      node.pause(since)
      logger.warn({ node: node.name, since, fix: `millrace resume FILE ${node.name}` }, `${node.name} is paused since ${since}`)
    }
    this.#audit = new AuditLoop({
      log,
      logger,
      signal: this.#signal,
      captured: (topics) => this.#sources.flatMap((node) => node.captured(topics)),
      landed: () => this.#sinks.flatMap((node) => node.landed()),
    })
    const outcome = await this.#untilEnd()
    // read before the nodes stop: a stopped node is done, whatever it was
    const last = this.result(outcome)
    this.#stop.abort()
    await Promise.all([...this.#nodes.map((node) => node.finished), this.#audit.finished])
    if (this.#statusDue !== null) clearTimeout(this.#statusDue)
    const status = this.#status()
    this.#options.onStatus?.(status)
    return { ...last, status }
  }

  result(outcome: RunResult['outcome']): RunResult {
    const status = this.#status()
    const codes = standing(status).map(({ error }) => EXIT_CODE[error.category])
    return { outcome, exitCode: codes.length === 0 ? 0 : (Math.min(...codes) as 1 | 2 | 3), status }
  }

  /** Looks at the nodes a few times a second: cheap, and nothing has to tell anyone that it ended. */
  async #untilEnd(): Promise<RunResult['outcome']> {
    let lastPrint = ''
    let movedAt = performance.now()
    for (;;) {
      if (this.#signal.aborted) return 'stopped'
      const { nodes } = this.#status()
      const print = nodes.map(({ rows, rejected, state, snapshot }) => `${rows} ${rejected} ${state} ${sumRows(snapshot)}`).join()
      if (print !== lastPrint) movedAt = performance.now()
      lastPrint = print
      const sources = nodes.filter(({ role }) => role === 'source')
      const sinks = nodes.filter(({ role }) => role === 'sink')
      const areStreamsKnown = this.#nodes.every(({ streamsKnownAt }) => streamsKnownAt >= movedAt)
      const areSinksThrough = areStreamsKnown && sinks.every((sink) => sink.streams.every(({ state, behind }) => isOut(state) || behind === 0))
      if (sources.every(({ state }) => state === 'failed') && areSinksThrough) return 'failed'
      const idleMs = this.#options.untilIdleMs
      const areSourcesThrough = sources.every(
        ({ state, snapshot, parked }) => isOut(state) || ((state === 'running' || parked.length > 0) && snapshot.every(({ done }) => done)),
      )
      if (idleMs !== undefined && areSourcesThrough && areSinksThrough && performance.now() - movedAt >= idleMs) return 'idle'
      await pause(STATUS_MS, this.#signal)
    }
  }

  #status(): MeshStatus {
    const nodes: NodeStatus[] = this.#nodes.map((node) => node.status())
    const at = Date.now()
    const staleMs = this.#options.staleMs ?? DEFAULT_STALE_MS
    const ready = nodes.length > 0 && nodes.every((node) => isReady(node, at, staleMs))
    return { mesh: this.#mesh.name, pid: process.pid, startedAt: this.#startedAt, at, ready, nodes, audit: this.#audit?.status ?? NO_AUDIT }
  }

  #changed(): void {
    const { onStatus } = this.#options
    if (onStatus === undefined || this.#statusDue !== null) return
    this.#statusDue = setTimeout(() => {
      this.#statusDue = null
      onStatus(this.#status())
    }, STATUS_MS)
  }

  #command(name: string, command: NodeCommand, table: string | null): boolean {
    const node = this.#nodes.find((one) => one.name === name)
    if (node === undefined) return false
    if (command === 'resnapshot') return node.resnapshot?.(table) ?? false
    if (command === 'pause') node.pause(this.#folder.pause(name))
    else {
      this.#folder.resume(name)
      node.resume()
    }
    return true
  }
}

const NO_AUDIT: MeshStatus['audit'] = { throughMs: null, differences: [], uncounted: [] }

/** It does not move until somebody does something about it. */
function isOut(state: NodeStatus['state']): boolean {
  return state === 'failed' || state === 'paused'
}

function sumRows(snapshot: NodeStatus['snapshot']): number {
  return snapshot.reduce((sum, { rows }) => sum + rows, 0)
}

/** Tries until it works or the signal aborts (null); only what is unavailable is waited for. */
async function whenAvailable<T>(open: () => Promise<T>, logger: Logger, signal: AbortSignal): Promise<T | null> {
  for (let attempt = 1; !signal.aborted; attempt++) {
    try {
      return await open()
    } catch (thrown) {
      const error = asMillraceError(thrown)
      if (error.category !== 'unavailable') throw error
      logger.warn({ code: error.code, fix: error.fix }, `${error.message}; trying again`)
      await pause(backoffMs(attempt, DEFAULT_RETRY, error.retryAfterMs), signal)
    }
  }
  return null
}

import type { CapturedStream } from '../audit/continuous-audit.ts'
import { type CaptureStatus, capture } from '../capture/capture.ts'
import type { ParkedStatus } from '../capture/parked-tables.ts'
import type { SourceConnector } from '../capture/source-connector.ts'
import { asMillraceError, ERROR_CODES, type ErrorCategory, MillraceError } from '../errors.ts'
import type { SourceOffset } from '../event/offset.ts'
import type { LogWriter, Progress } from '../log/log.ts'
import type { SourceNode } from '../mesh/mesh.ts'
import { pause } from '../retry.ts'
import { epochMs, type NodeStatus, type ParkedTableStatus, statusError } from './mesh-status.ts'
import { pausedSource, type Resnapshot, resnapshot } from './resnapshot.ts'
import { pluginContext, type RunningNode, type RuntimeContext } from './runtime-context.ts'
import { SupervisedUnit, type UnitReport } from './supervised-unit.ts'

const LAG_POLL_MS = 1000
/** Errors that a new reading may mend, and that are thrown to who would have the source otherwise. */
const MENDED: ReadonlySet<ErrorCategory> = new Set(['history', 'schema', 'data'])

/** Runs one source: opens it at its durable offset, captures, and again after what may pass. */
export class SourceRunner implements RunningNode {
  readonly name: string
  readonly #node: SourceNode
  readonly #context: RuntimeContext
  readonly #unit: SupervisedUnit
  #capture: CaptureStatus | null = null
  /** Rows and bytes of captures that ended before the present one. */
  #earlier = { rows: 0, bytes: 0 }
  #lag: { readonly retainedBytes: number; readonly behindBytes: number } | null = null
  #progressedAt: number | null = null
  #pausedSince: string | null = null
  /** Tables to read again before the next capture; null: all. */
  readonly #wanted: Set<string | null>
  /** Parked tables that the log of this process names already. */
  readonly #announced = new Set<string>()

  /** @param reading to be read again, besides what an earlier process was asked for; forgotten when this process ends before it has the source */
  constructor(node: SourceNode, context: RuntimeContext, reading: Resnapshot | null = null) {
    this.name = node.name
    this.#node = node
    this.#context = context
    this.#wanted = new Set(context.folder.wanted.get(node.name))
    if (reading !== null) this.#wanted.add(reading.table)
    const { signal, onChange } = context
    const logger = context.logger.child({ node: node.name })
    this.#unit = new SupervisedUnit({ name: node.name, signal, logger, onChange, run: (stop, report) => this.#run(stop, report) })
  }

  /** A source makes its streams itself. */
  get streamsKnownAt(): number {
    return Number.POSITIVE_INFINITY
  }

  get finished(): Promise<void> {
    return this.#unit.finished
  }

  pause(since: string): void {
    this.#pausedSince = since
    this.#unit.pause()
  }

  resume(): void {
    this.#pausedSince = null
    this.#unit.resume()
  }

  resnapshot(table: string | null): boolean {
    const captured = this.#capture
    const isKnown = (captured?.snapshot ?? []).some((one) => one.table === table) || (captured?.parked ?? []).some((one) => one.table === table)
    if (table !== null && captured !== null && !isKnown) return false
    if (this.#unit.state === 'paused') throw pausedSource(this.name)
    this.#context.folder.want(this.name, table)
    this.#wanted.add(table)
    this.#unit.pause()
    this.#unit.resume()
    return true
  }

  /** What is durable of those of its streams that are among `topics`, for the audit. */
  captured(topics: ReadonlySet<string>): CapturedStream[] {
    const { compacted } = this.#node.topics
    return [...(this.#capture?.windows ?? [])]
      .filter(([topic]) => topics.has(topic))
      .map(([topic, { windows }]) => ({ node: this.name, topic, compacted, windows }))
  }

  status(): NodeStatus {
    const captured = this.#capture
    const parked = (captured?.parked ?? []).map((one) => this.#parkedStatus(one))
    const { state } = this.#unit
    // nobody looks while it is paused, and the last figures do not stay true
    const lag = state === 'paused' ? null : this.#lag
    const isDegraded = parked.length > 0 && (state === 'running' || state === 'snapshotting')
    return {
      node: this.name,
      role: 'source',
      plugin: this.#node.plugin.name,
      state: isDegraded ? 'degraded' : state,
      pausedSince: this.#pausedSince,
      rows: this.#earlier.rows + (captured?.rows ?? 0),
      bytes: this.#earlier.bytes + (captured?.bytes ?? 0),
      rejected: 0,
      lagMs: captured?.lagMs ?? null,
      behind: lag?.behindBytes ?? null,
      retainedBytes: lag?.retainedBytes ?? null,
      progressedAt: epochMs(this.#progressedAt),
      error: statusError(this.#unit.error, (text) => this.#context.secrets.redact(text)) ?? parked[0]?.error ?? null,
      retryAt: this.#unit.retryAt,
      snapshot: (captured?.snapshot ?? []).map(({ table, rows, estimate, done }) => ({ table, rows, estimate, done })),
      parked,
      streams: [],
    }
  }

  #parkedStatus({ table, code, message, fix, since, skipped }: ParkedStatus): ParkedTableStatus {
    const redact = (text: string) => this.#context.secrets.redact(text)
    return { table, since, skipped, error: { code, category: ERROR_CODES[code][0], message: redact(message), fix: redact(fix) } }
  }

  async #run(stop: AbortSignal, report: UnitReport): Promise<void> {
    while ((await this.#runOnce(stop, report)) === 'parked' && !stop.aborted) this.#context.logger.info({ node: this.name }, 'starts again without the table')
  }

  async #runOnce(stop: AbortSignal, report: UnitReport): Promise<'stopped' | 'parked'> {
    const { log, secrets, mesh } = this.#context
    const config = this.#node.settings.resolve(secrets, mesh.dir)
    if (this.#wanted.size > 0) await this.#readAnew(config, stop)
    let resume = offsetIn(await log.progress(this.name))
    for (;;) {
      // the source first: a second process finds it taken, and must not have fenced the first by then
      await using connector = await this.#open(config, resume, stop)
      await using writer = await log.openWriter(this.name)
      const durable = offsetIn(writer.progress)
      if (isSame(durable, resume)) return await this.#captureInto(writer, connector, config, stop, report)
      // somebody else wrote until the fence
      resume = durable
    }
  }

  /** @throws source.in_use also when somebody else goes on from `resume` meanwhile */
  async #open(config: unknown, resume: SourceOffset | null, stop: AbortSignal): Promise<SourceConnector> {
    try {
      return await this.#node.plugin.open(config, pluginContext(this.#context, this.#node), resume, stop)
    } catch (thrown) {
      const error = asMillraceError(thrown)
      // to whoever read the progress before, history that another has acknowledged since looks lost
      if (error.category !== 'history' || isSame(offsetIn(await this.#context.log.progress(this.name)), resume)) throw error
      throw new MillraceError('source.in_use', `another process captures ${this.name}: it goes on in the log`, { fix: 'stop one of them', cause: error })
    }
  }

  async #captureInto(writer: LogWriter, connector: SourceConnector, config: unknown, stop: AbortSignal, report: UnitReport): Promise<'stopped' | 'parked'> {
    const { log, registry, version } = this.#context
    const { plugin, topics, snapshot } = this.#node
    const polling = new AbortController()
    const lag = this.#pollLag(connector, AbortSignal.any([stop, polling.signal]))
    try {
      return await capture({
        node: this.name,
        connector,
        plugin: { name: plugin.name, version, sourceFields: plugin.sourceFields },
        database: databaseOf(config),
        log,
        writer,
        registry,
        topics,
        snapshot,
        signal: stop,
        onStatus: (status) => {
          this.#take(status)
          // rows alone: an offset moves on with tables that are not captured, whatever the next change fails at
          report(status.state === 'snapshotting' ? 'snapshot' : 'stream', status.rows > 0)
        },
      })
    } finally {
      polling.abort()
      await lag
      this.#earlier = { rows: this.#earlier.rows + (this.#capture?.rows ?? 0), bytes: this.#earlier.bytes + (this.#capture?.bytes ?? 0) }
      if (this.#capture !== null) this.#capture = { ...this.#capture, rows: 0, bytes: 0 }
    }
  }

  /** Makes durable what is wanted, while nobody else has the source. @throws what leaves open whether somebody has; all is wanted still */
  async #readAnew(config: unknown, stop: AbortSignal): Promise<void> {
    const resume = offsetIn(await this.#context.log.progress(this.name))
    await using _ = await this.#open(config, resume, stop).catch((thrown: unknown) => {
      const error = asMillraceError(thrown)
      // who may not look, or has not looked yet, must not fence whoever captures it
      if (stop.aborted || !MENDED.has(error.category)) throw error
      return null
    })
    for (const table of this.#wanted) {
      try {
        await resnapshot(this.#context.log, { node: this.name, table })
      } catch (thrown) {
        const error = asMillraceError(thrown)
        // asked before the first capture, when no table was known
        if (error.code !== 'config.invalid') throw error
        this.#context.logger.error({ node: this.name, table, fix: error.fix }, error.message)
      }
      // first: what cannot be noted is done again by this process, not by the next one after all was read
      this.#context.folder.grant(this.name, table)
      this.#wanted.delete(table)
    }
  }

  #take(status: CaptureStatus): void {
    const before = this.#capture
    const rowsRead = (of: CaptureStatus) => of.snapshot.reduce((sum, { rows }) => sum + rows, 0)
    const moved = before === null || before.rows !== status.rows || rowsRead(before) !== rowsRead(status) || !isSame(before.offset, status.offset)
    if (moved) this.#progressedAt = performance.now()
    this.#capture = status
    this.#announce(status.parked)
    this.#context.onChange()
  }

  /** Once per table and process: what follows is counted. */
  #announce(parked: readonly ParkedStatus[]): void {
    for (const { table, code, message, fix, skipped } of parked) {
      if (this.#announced.has(table)) continue
      this.#context.logger.error({ node: this.name, table, code, fix, skipped }, `${table} is parked, its changes are left out: ${message}`)
    }
    this.#announced.clear()
    for (const { table } of parked) this.#announced.add(table)
  }

  async #pollLag(connector: SourceConnector, stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      try {
        this.#lag = await connector.lag()
        if (this.#lag.behindBytes === 0) this.#progressedAt = performance.now()
      } catch (error) {
        // the capture itself reports a lost source; this only leaves a figure out
        this.#lag = null
        this.#context.logger.debug({ node: this.name, err: asMillraceError(error).message }, 'the lag cannot be read')
      }
      this.#context.onChange()
      await pause(LAG_POLL_MS, stop)
    }
  }
}

function isSame(one: SourceOffset | null, other: SourceOffset | null): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

function offsetIn(progress: Progress): SourceOffset | null {
  return (progress.get('offset') as SourceOffset | undefined) ?? null
}

/** `source.db` of envelopes: the setting `database`, else the path of the setting `url`. */
function databaseOf(config: unknown): string {
  const { database, url } = config as { database?: unknown; url?: unknown }
  if (typeof database === 'string' && database !== '') return database
  // not by URL, which knows no list of hosts
  const path = typeof url === 'string' ? /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*\/([^?#]*)/i.exec(url)?.[1] : undefined
  return path === undefined ? '' : decodeURIComponent(path)
}

import type { LandedStream } from '../audit/continuous-audit.ts'
import { asMillraceError, MillraceError } from '../errors.ts'
import { type MaterializeStatus, materialize } from '../materialize/materialize.ts'
import type { MemoryBudget } from '../materialize/memory-budget.ts'
import type { SinkNode } from '../mesh/mesh.ts'
import type { StreamTarget } from '../plugin.ts'
import { DEFAULT_RETRY, pause } from '../retry.ts'
import { epochMs, isParked, type NodeStatus, type StreamStatus, statusError } from './mesh-status.ts'
import { worstState } from './node-lifecycle.ts'
import { pluginContext, type RunningNode, type RuntimeContext } from './runtime-context.ts'
import { describeStream, parkedStream } from './stream-target.ts'
import { SupervisedUnit, type UnitReport } from './supervised-unit.ts'

/** New streams are looked for this often; sooner while there is none. */
const DISCOVERY_MS = 1000
const FIRST_DISCOVERY_MS = 100

interface RunningStream {
  readonly target: StreamTarget
  readonly unit: SupervisedUnit
  status: MaterializeStatus | null
  /** Rows and rejections of drivers that ended before the present one. */
  earlier: { rows: number; rejected: number }
}

/** Runs one sink: a driver for each stream that its patterns take, also for streams that appear later. A failed stream stops no other. */
export class SinkRunner implements RunningNode {
  readonly name: string
  readonly finished: Promise<void>
  readonly #node: SinkNode
  readonly #context: RuntimeContext
  readonly #memory: MemoryBudget
  readonly #streams = new Map<string, RunningStream>()
  /** What is wrong with topics that the patterns take and that are no streams, by topic. They hold back no other. */
  #foreign: ReadonlyMap<string, MillraceError> = new Map()
  #pausedSince: string | null = null
  #discoveryError: MillraceError | null = null
  #progressedAt: number | null = null
  #streamsKnownAt = 0

  /** @param memory of all its drivers together, and of no other sink's */
  constructor(node: SinkNode, context: RuntimeContext, memory: MemoryBudget) {
    this.name = node.name
    this.#node = node
    this.#context = context
    this.#memory = memory
    this.finished = this.#discover().then(async () => {
      await Promise.all([...this.#streams.values()].map(({ unit }) => unit.finished))
    })
  }

  get streamsKnownAt(): number {
    return this.#streamsKnownAt
  }

  pause(since: string): void {
    this.#pausedSince = since
    for (const { unit } of this.#streams.values()) unit.pause()
  }

  resume(): void {
    this.#pausedSince = null
    for (const { unit } of this.#streams.values()) unit.resume()
  }

  /** What landed of its streams, for the audit. */
  landed(): LandedStream[] {
    return [...this.#streams.values()].map(({ target, status }) => ({ sink: this.name, topic: target.topic, held: status }))
  }

  status(): NodeStatus {
    const streams = [...this.#streams.values()].map((stream) => this.#streamStatus(stream))
    const foreign = [...this.#foreign].map(([topic, error]) => this.#foreignStatus(topic, error))
    const lags = streams.map(({ lagMs }) => lagMs).filter((lag) => lag !== null)
    const behind = streams.map((stream) => stream.behind)
    const known = behind.filter((records) => records !== null)
    const failed = [...[...this.#streams.values()].map(errorOf), ...this.#foreign.values()].find((error) => error !== null)
    const waiting = [...this.#streams.values()].map(({ unit }) => unit.retryAt).filter((at) => at !== null)
    const idle = this.#streamsKnownAt > 0 && known.length === behind.length && known.every((records) => records === 0) && this.#discoveryError === null
    return {
      node: this.name,
      role: 'sink',
      plugin: this.#node.plugin.name,
      state: this.#state(),
      pausedSince: this.#pausedSince,
      rows: sum(streams.map(({ rows }) => rows)),
      bytes: 0,
      rejected: sum(streams.map(({ rejected }) => rejected)),
      lagMs: lags.length === 0 ? null : Math.max(...lags),
      behind: known.length === behind.length ? sum(known) : null,
      retainedBytes: null,
      progressedAt: idle ? Date.now() : epochMs(this.#progressedAt),
      error: statusError(failed ?? this.#discoveryError, (text) => this.#context.secrets.redact(text)),
      retryAt: waiting.length === 0 ? null : Math.min(...waiting),
      snapshot: [],
      parked: [],
      streams: [...streams, ...foreign],
    }
  }

  #state(): NodeStatus['state'] {
    if (this.#context.signal.aborted && this.#streams.size === 0) return 'done'
    if (this.#pausedSince !== null) return 'paused'
    const units = [...this.#streams.values()].map(({ unit }) => unit)
    const going = units.filter((unit) => !isParked(unit)).map(({ state }) => state)
    if (this.#discoveryError !== null) return this.#discoveryError.category === 'unavailable' ? 'degraded' : 'failed'
    const isPartial = this.#foreign.size > 0 || going.length < units.length
    // what is wrong with one stream is not the sink's failure, unless it has no other
    if (isPartial && going.length === 0) return 'failed'
    const state = worstState(going)
    return isPartial && state === 'running' ? 'degraded' : state
  }

  #streamStatus(stream: RunningStream): StreamStatus {
    const { target, unit, status, earlier } = stream
    return {
      stream: target.topic,
      state: unit.state,
      rows: earlier.rows + (status?.rows ?? 0),
      rejected: earlier.rejected + (status?.rejected ?? 0),
      behind: status?.behindRecords ?? null,
      lagMs: status?.lagMs ?? null,
      error: statusError(errorOf(stream), (text) => this.#context.secrets.redact(text)),
    }
  }

  #foreignStatus(topic: string, error: MillraceError): StreamStatus {
    const shown = statusError(error, (text) => this.#context.secrets.redact(text))
    return { stream: topic, state: 'failed', rows: 0, rejected: 0, behind: null, lagMs: null, error: shown }
  }

  async #discover(): Promise<void> {
    const { signal } = this.#context
    while (!signal.aborted) {
      try {
        const lookedAt = performance.now()
        await this.#takeUpStreams()
        this.#streamsKnownAt = lookedAt
        this.#looked(null)
      } catch (thrown) {
        this.#looked(asMillraceError(thrown))
      }
      await pause(this.#streams.size === 0 ? FIRST_DISCOVERY_MS : DISCOVERY_MS, signal)
    }
  }

  async #takeUpStreams(): Promise<void> {
    const { log, registry, signal } = this.#context
    const foreign = new Map<string, MillraceError>()
    for (const { topic } of await log.topics()) {
      if (signal.aborted) return
      if (this.#streams.has(topic) || !this.#node.from.matches(topic)) continue
      try {
        const target = await describeStream(registry, topic)
        if (target !== null) this.#start(target)
      } catch (thrown) {
        const cause = asMillraceError(thrown)
        if (cause.category !== 'schema') throw cause
        const named = new MillraceError(cause.code, `the topic ${topic}: ${cause.message}`, cause.fix === undefined ? { cause } : { cause, fix: cause.fix })
        foreign.set(topic, parkedStream(topic, named))
      }
    }
    this.#foundForeign(foreign)
  }

  #foundForeign(foreign: ReadonlyMap<string, MillraceError>): void {
    const { onChange, logger } = this.#context
    for (const [topic, { code, message, fix }] of foreign) {
      if (this.#foreign.get(topic)?.code !== code) logger.warn({ node: this.name, stream: topic, code, fix }, `the stream cannot be taken up: ${message}`)
    }
    if (foreign.size > 0 || this.#foreign.size > 0) onChange()
    this.#foreign = foreign
  }

  #looked(error: MillraceError | null): void {
    const { onChange, logger } = this.#context
    if (error !== null && this.#discoveryError?.code !== error.code) {
      logger.warn({ node: this.name, code: error.code, fix: error.fix }, `streams cannot be taken up: ${error.message}`)
    }
    if (error !== null || this.#discoveryError !== null) onChange()
    this.#discoveryError = error
  }

  #start(target: StreamTarget): void {
    const { signal, onChange } = this.#context
    const logger = this.#context.logger.child({ node: this.name, stream: target.topic })
    const name = `${this.name} (${target.topic})`
    const stream: RunningStream = {
      target,
      status: null,
      earlier: { rows: 0, rejected: 0 },
      unit: new SupervisedUnit({ name, signal, logger, onChange, run: (stop, report) => this.#run(stream, stop, report) }),
    }
    this.#streams.set(target.topic, stream)
    if (this.#pausedSince !== null) stream.unit.pause()
    onChange()
  }

  async #run(stream: RunningStream, stop: AbortSignal, report: UnitReport): Promise<void> {
    const { log, registry, secrets, mesh } = this.#context
    const { plugin, settings, onRejected } = this.#node
    const config = settings.resolve(secrets, mesh.dir)
    const { topic } = stream.target
    try {
      await using sink = await plugin.open(config, pluginContext(this.#context, this.#node), stream.target)
      await materialize({
        node: this.name,
        topic,
        log,
        registry,
        sink,
        // a writer for each stream, so that one that is fenced or lost takes no other stream with it
        deadLetters: onRejected === 'halt' ? null : () => log.openWriter(`${this.name}.${topic}`),
        redact: (text) => secrets.redact(text),
        retry: DEFAULT_RETRY,
        memory: this.#memory,
        signal: stop,
        onStatus: (status) => {
          this.#take(stream, status)
          report(status.state === 'degraded' ? 'lost' : 'stream', status.rows + status.rejected > 0)
        },
      })
    } catch (thrown) {
      const error = asMillraceError(thrown)
      throw error.category === 'schema' ? parkedStream(topic, error) : thrown
    } finally {
      const { earlier, status } = stream
      stream.earlier = { rows: earlier.rows + (status?.rows ?? 0), rejected: earlier.rejected + (status?.rejected ?? 0) }
      if (status !== null) stream.status = { ...status, rows: 0, rejected: 0 }
    }
  }

  #take(stream: RunningStream, status: MaterializeStatus): void {
    if (stream.status?.rows !== status.rows || stream.status.rejected !== status.rejected) this.#progressedAt = performance.now()
    stream.status = status
    this.#context.onChange()
  }
}

/** Why the stream stands still: its unit failed, or its driver waits for something. */
function errorOf({ unit, status }: RunningStream): MillraceError | null {
  return unit.error ?? (unit.state === 'degraded' ? (status?.error ?? null) : null)
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

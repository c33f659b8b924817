import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { type CaptureStatus, capture } from '../../core/capture/capture.ts'
import type { CaptureOutput, SnapshotReader, SourceConnector } from '../../core/capture/source-connector.ts'
import { MillraceError } from '../../core/errors.ts'
import type { ChangeEvent } from '../../core/event/change-event.ts'
import type { Json, SourceOffset } from '../../core/event/offset.ts'
import { comparePositions } from '../../core/event/position.ts'
import { type TableSchema, UNCHANGED, type Value } from '../../core/event/table-schema.ts'
import type { PluginContext } from '../../core/plugin.ts'
import { type EmbeddedRegistry, openEmbeddedRegistry } from '../../core/schema/embedded-registry.ts'
import type { Item, ProvisionedSource, SourceCapabilities, Write } from './source-driver.ts'
import { type LogFaults, TestLog } from './test-log.ts'
import { Oracle, Workload } from './workload.ts'

const PATIENCE_MS = 120_000
const NODE = 'source'

/** Waits for progress. @throws when `condition` does not hold in time */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = PATIENCE_MS): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`)
    await delay(5)
  }
}

/** What a source yielded, and how many changes it had ended by then; one that changes the key counts once. */
export interface Yielded {
  readonly offset: SourceOffset
  readonly written: number
}

export interface RunOptions {
  readonly snapshot?: 'initial' | 'never'
  readonly chunkRows?: number
  readonly faults?: LogFaults
  /** False: the source is told nothing, and keeps all that followed its start. */
  readonly acknowledge?: boolean
  /** Awaited before a chunk of the table is read, while the stream goes on. */
  readonly beforeChunk?: (table: TableSchema) => Promise<void>
}

/** One life of a source under the real capture loop, into the bench's log. */
export class SourceRun implements AsyncDisposable {
  readonly connector: SourceConnector
  readonly yields: Yielded[] = []
  /** What the source was told last to be durable. */
  acknowledged: SourceOffset | null = null
  failure: unknown = null
  status: CaptureStatus | null = null
  /** The next change of this table cannot be written. */
  unwritable: string | null = null
  readonly #abort = new AbortController()
  readonly #done: Promise<unknown>
  #closed: Promise<void> | null = null

  constructor(
    connector: SourceConnector,
    { acknowledge = true, beforeChunk }: Pick<RunOptions, 'acknowledge' | 'beforeChunk'>,
    run: (connector: SourceConnector, signal: AbortSignal, onStatus: (status: CaptureStatus) => void) => Promise<unknown>,
  ) {
    this.connector = connector
    const onStatus = (status: CaptureStatus) => {
      this.status = status
    }
    this.#done = run(this.#observed(connector, acknowledge, beforeChunk), this.#abort.signal, onStatus).catch((error: unknown) => {
      this.failure = error
    })
  }

  /** The connector as capture sees it, with what passes written down. */
  #observed(connector: SourceConnector, acknowledge: boolean, beforeChunk: RunOptions['beforeChunk']): SourceConnector {
    const { yields } = this
    const told = (offset: SourceOffset) => {
      this.acknowledged = offset
    }
    const counted = new WeakSet<object>()
    let written = 0
    const isUnwritable = (table: string) => {
      if (this.unwritable !== table) return false
      this.unwritable = null
      return true
    }
    const counting = (output: CaptureOutput): CaptureOutput => ({
      chunks: output.chunks,
      transaction: (start) => output.transaction(start),
      shape: (table) => output.shape(table),
      get tablesVersion() {
        return output.tablesVersion
      },
      park: (table, error) => output.park(table, error),
      skip: (table) => output.skip(table),
      reread: (table) => output.reread(table),
      async table(schema) {
        const writer = await output.table(schema)
        if (writer !== null && !counted.has(writer)) {
          counted.add(writer)
          const { end, truncate } = writer
          writer.end = () => {
            if (isUnwritable(schema.name)) {
              output.park(schema, new MillraceError('record.unrepresentable', 'the test refuses this change'))
              return
            }
            end.call(writer)
            written++
          }
          writer.truncate = (ordinal) => {
            truncate.call(writer, ordinal)
            written++
          }
        }
        return writer
      },
    })
    return {
      start: connector.start,
      snapshot: beforeChunk === undefined ? connector.snapshot : delayed(connector.snapshot, beforeChunk),
      tables: () => connector.tables(),
      whyAbsent: (table) => connector.whyAbsent(table),
      ...(connector.unfit === undefined ? {} : { unfit: () => connector.unfit!() }),
      isRewritten: (before, now) => connector.isRewritten(before, now),
      ...(connector.parts === undefined ? {} : { parts: (table: TableSchema, before: Json | null) => connector.parts!(table, before) }),
      async *changes(from, output, signal) {
        for await (const offset of connector.changes(from, counting(output), signal)) {
          if (JSON.stringify(yields.at(-1)?.offset) !== JSON.stringify(offset)) yields.push({ offset, written })
          yield offset
        }
      },
      acknowledge(offset) {
        if (!acknowledge) return
        connector.acknowledge(offset)
        told(offset)
      },
      lag: () => connector.lag(),
      [Symbol.asyncDispose]: () => connector[Symbol.asyncDispose](),
    }
  }

  /** Waits for something in the log or the status; a failure of the source ends the wait. */
  async until(what: string, condition: () => boolean): Promise<void> {
    await until(what, () => {
      if (this.failure !== null) throw this.failure
      return condition()
    })
  }

  /** Ends the capture and closes the connector. @returns milliseconds until the capture had ended */
  async stop(): Promise<number> {
    const from = performance.now()
    this.#abort.abort()
    await this.#done
    const ms = performance.now() - from
    await (this.#closed ??= Promise.resolve(this.connector[Symbol.asyncDispose]()))
    return ms
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** A source of its own for one test: provisioned, with a log that outlives runs, and the oracle of what was written to it. */
export class SourceBench implements AsyncDisposable {
  readonly source: ProvisionedSource
  readonly can: SourceCapabilities
  readonly log: TestLog
  readonly oracle: Oracle
  readonly work: Workload
  readonly context: PluginContext
  readonly #registry: EmbeddedRegistry
  readonly #dir: string
  readonly #runs: SourceRun[] = []

  private constructor(source: ProvisionedSource, can: SourceCapabilities, registry: EmbeddedRegistry, dir: string, seed: number) {
    this.source = source
    this.can = can
    this.oracle = new Oracle(can)
    this.#registry = registry
    this.#dir = dir
    this.log = new TestLog(registry)
    this.work = new Workload(this.oracle, can, seed)
    // slots and the like live per server: the folder's random name tells the tests of a run apart
    const mesh = path
      .basename(dir)
      .replaceAll(/[^a-z0-9]/gi, '')
      .toLowerCase()
    this.context = { mesh, node: NODE, dataDir: dir, logger: pino({ level: 'silent' }), metric: () => {} }
  }

  static async open(provision: () => Promise<ProvisionedSource>, can: SourceCapabilities, seed = 7): Promise<SourceBench> {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'mc-'))
    const registry = await openEmbeddedRegistry({ file: path.join(dir, 'registry.db') })
    const source = await provision()
    if ((source.lockTable !== undefined) !== (can.locksReaders === true))
      throw new Error('a driver has lockTable when the capability locksReaders is said, and only then')
    return new SourceBench(source, can, registry, dir, seed)
  }

  config(settings: Readonly<Record<string, unknown>> = this.source.settings): unknown {
    return this.source.plugin.config.parse(settings)
  }

  /** A log that a test starts with besides the bench's own. */
  newLog(): TestLog {
    return new TestLog(this.#registry)
  }

  open(resume: SourceOffset | null): Promise<SourceConnector> {
    return this.source.plugin.open(this.config(), this.context, resume)
  }

  /** Opens the source where the log's progress says, and captures. */
  async start(options: RunOptions = {}, log: TestLog = this.log): Promise<SourceRun> {
    const { plugin } = this.source
    log.faults = options.faults ?? {}
    const writer = await log.openWriter(NODE)
    const connector = await this.open((writer.progress.get('offset') as SourceOffset | undefined) ?? null)
    const run = new SourceRun(connector, options, (observed, signal, onStatus) =>
      capture({
        node: NODE,
        connector: observed,
        plugin: { name: plugin.name, version: '0', sourceFields: plugin.sourceFields },
        database: '',
        log,
        writer,
        registry: this.#registry,
        topics: { partitions: 1, retentionMs: null, compacted: false, replicationFactor: null },
        snapshot: { mode: options.snapshot ?? 'never', chunkRows: options.chunkRows ?? 100, chunkBytes: 1 << 20, parallel: 2 },
        onStatus,
        signal,
      }),
    )
    this.#runs.push(run)
    return run
  }

  async createTable(...tables: readonly string[]): Promise<void> {
    for (const table of tables) {
      await this.source.createTable(table)
      this.oracle.rows(table)
    }
  }

  /** Writes what the oracle knows already. */
  async write(writes: readonly Write[]): Promise<void> {
    await this.source.transact(writes)
  }

  /** Writes a last row to each of the tables and waits until the log has them: whatever came before is there then. */
  async caughtUp(run: SourceRun, log: TestLog = this.log, tables: readonly string[] = this.oracle.tables): Promise<void> {
    const last = tables.map((table) => ({ table, write: this.work.fill(table, 1) }))
    for (const { write } of last) await this.write(write)
    const ids = new Map(last.map(({ table, write }) => [table, (write[0] as { row: Item }).row.id]))
    await run.until('the last rows are in the log', () => {
      const seen = new Set<string>()
      // the newest are at the end
      for (let i = log.changes.length - 1; i >= 0 && seen.size < ids.size; i--) {
        const change = log.changes[i]!
        if (change.kind === 'row' && change.after !== null && idOf(change) === ids.get(change.table.name)) seen.add(change.table.name)
      }
      return seen.size === ids.size
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const run of this.#runs.splice(0)) await run.stop()
    await this.source.dispose()
    await this.#registry[Symbol.asyncDispose]()
    rmSync(this.#dir, { recursive: true, force: true })
  }
}

function delayed(reader: SnapshotReader, before: (table: TableSchema) => Promise<void>): SnapshotReader {
  const read: SnapshotReader['read'] = (...of) => reader.read(...of)
  return {
    estimate: (table) => reader.estimate(table),
    ...(reader.isReady === undefined ? {} : { isReady: (table: TableSchema, cursor: Json | null) => reader.isReady!(table, cursor) }),
    async prepare(table, signal) {
      await before(table)
      return (await reader.prepare?.(table, signal)) ?? { read, async [Symbol.asyncDispose]() {} }
    },
    read,
    sees: (fence, commit) => reader.sees(fence, commit),
  }
}

const plain = (value: Value | undefined): unknown => (typeof value === 'bigint' ? Number(value) : value)

export function columnOf(table: TableSchema, row: readonly Value[], name: string): unknown {
  return plain(row[table.columns.findIndex((column) => column.name === name)])
}

/** The key of a change of one of the suite's tables. */
export function idOf(change: ChangeEvent): number | null {
  if (change.kind !== 'row') return null
  if (change.key !== null) return plain(change.key[0]) as number
  return columnOf(change.table, (change.after ?? change.before)!, 'id') as number
}

/** A row as the suite's tables have it; UNCHANGED where the source left a column out. */
export function itemOf(table: TableSchema, row: readonly Value[]): Record<string, unknown> {
  return Object.fromEntries(table.columns.map(({ name }, i) => [name, plain(row[i])]))
}

/** The state of a table as the log tells it. */
export function replay(changes: readonly ChangeEvent[], table: string): Map<number, Record<string, unknown>> {
  const rows = new Map<number, Record<string, unknown>>()
  for (const change of changes) {
    if (change.kind === 'message' || change.table.name !== table) continue
    if (change.kind === 'truncate') rows.clear()
    else if (change.after === null) rows.delete(idOf(change)!)
    else {
      const id = idOf(change)!
      const base = rows.get(id)
      const row = itemOf(change.table, change.after)
      for (const [name, value] of Object.entries(row)) if (value === UNCHANGED && base !== undefined && base[name] !== undefined) row[name] = base[name]
      rows.set(id, row)
    }
  }
  return rows
}

export function inPositionOrder(changes: readonly ChangeEvent[]): readonly ChangeEvent[] {
  return [...changes].sort((a, b) => comparePositions(a.position, b.position))
}

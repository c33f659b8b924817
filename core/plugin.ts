/**
 * The front door: all that a connector author imports. A connector is a folder whose `index.ts` has a {@link Plugin} as its default export.
 */
import type { Logger } from 'pino'
import type { z } from 'zod'
import type { SourceConnector, SourceReader } from './capture/source-connector.ts'
import type { SourceOffset } from './event/offset.ts'
import type { SinkConnector } from './materialize/sink-connector.ts'

export { ChunkSizes } from './capture/chunk-sizes.ts'
export { diskError } from './capture/disk-error.ts'
export { LockedTables } from './capture/locked-tables.ts'
export { ScratchFile } from './capture/scratch-file.ts'
export type {
  CaptureOutput,
  ChangeWriter,
  ChunkLimits,
  PendingChunks,
  PreparedRead,
  ScanTarget,
  SnapshotChunk,
  SnapshotFence,
  SnapshotReader,
  SourceConnector,
  SourceReader,
  TableParts,
  TransactionStart,
} from './capture/source-connector.ts'
export { sslSetting, tablesSetting, tlsSettings, unrepresentableSetting } from './capture/source-settings.ts'
export { TableList } from './capture/table-list.ts'
export { TablePatterns } from './capture/table-patterns.ts'
export { Waker } from './capture/waker.ts'
export { writeRows } from './capture/write-rows.ts'
export { asMillraceError, type ErrorCategory, type ErrorCode, invariant, MillraceError } from './errors.ts'
export type { ChangeEvent, LogicalMessage, OpLetter, RowChange, Truncation } from './event/change-event.ts'
export { ipv6Text } from './event/ipv6-text.ts'
export { foreignOffset, type Json, type SourceOffset } from './event/offset.ts'
export { comparePositions, type Position, packPosition, unpackPosition } from './event/position.ts'
export { decompressSnappyBlock } from './event/snappy-block.ts'
export { type Column, type ColumnType, type ScalarKind, Special, type TableSchema, type Tuple, tableId, UNCHANGED, type Value } from './event/table-schema.ts'
export { SingleValue } from './event/value-writer.ts'
export { viewOf } from './event/view-of.ts'
export type { LogPosition } from './log/log.ts'
export type { Compaction, Rejection, SinkBatch, SinkConnector, SinkLimits, TargetFiles } from './materialize/sink-connector.ts'
export { openSqliteReader, sqliteError } from './materialize/sqlite-file.ts'
export { http } from './node-http.ts'

export type Plugin<Config = unknown> = SourcePlugin<Config> | SinkPlugin<Config>

interface PluginFacts<Config> {
  /** The noun that YAML names: `postgres`, `iceberg`. */
  readonly name: string
  /** One sentence for `millrace plugins` and the reference page. */
  readonly summary: string
  /** The only declaration of the plugin's settings: parses, lints YAML and prints the reference. Strict objects; every field has `.describe()`. */
  readonly config: z.ZodType<Config>
  /** Preflight against the real system, without changing it. Findings come all at once, each with its fix. */
  check(config: Config, context: PluginContext): Promise<readonly Finding[]>
}

export interface SourcePlugin<Config = unknown> extends PluginFacts<Config> {
  readonly kind: 'source'
  /** Avro fields that the source adds to the envelope's `source` record; their values come with each `TransactionStart`. */
  readonly sourceFields: readonly { readonly name: string; readonly type: 'long' | 'string' }[]
  /**
   * Connects, provisions what is missing (slot, publication) and claims the source. `resume` is the node's durable offset, null on its first run. Only errors of
   * the categories `history`, `schema` and `data` say that it cannot go on from there and that nobody else does: a source that was asked to is then read anew.
   * Once `signal` aborts it is wanted no more: it gives up soon, with any error, whatever the server does. Absent: it is not given up.
   */
  open(config: Config, context: PluginContext, resume: SourceOffset | null, signal?: AbortSignal): Promise<SourceConnector>
  /** Opens the source for reading only, for the audit. */
  openReader(config: Config, context: PluginContext): Promise<SourceReader>
  /**
   * Beside the database, until `signal` aborts: gives the same source, which runs elsewhere, what only that machine has. Absent: it needs nothing there.
   * @throws when it cannot begin
   */
  serve?(config: Config, context: PluginContext, address: { readonly host: string; readonly port: number }, signal: AbortSignal): Promise<void>
  /** What `open` leaves on the server and how it goes away; absent: it leaves nothing there. */
  readonly provisions?: SourceProvisions<Config>
}

/** Both work without an open source, and whatever part of it is there. */
export interface SourceProvisions<Config> {
  /** Reads only; empty: nothing is there. */
  list(config: Config, context: PluginContext): Promise<readonly Provision[]>
  /** Removes all that `list` does not say stays. Again is no error. @throws source.in_use while something captures the source */
  drop(config: Config, context: PluginContext): Promise<void>
}

export interface Provision {
  /** `replication slot`, `publication` */
  readonly kind: string
  readonly name: string
  /** What it costs or who uses it, for whoever decides; null: nothing to say. */
  readonly note: string | null
  /** Why `drop` leaves it alone; null: it does not. */
  readonly stays: string | null
}

export interface SinkPlugin<Config = unknown> extends PluginFacts<Config> {
  readonly kind: 'sink'
  /** Its connectors have `compact`. Absent: they are not opened for it. */
  readonly compacts?: true
  /** Opens the target of one stream. Called once per stream and runtime. */
  open(config: Config, context: PluginContext, stream: StreamTarget): Promise<SinkConnector>
}

export interface StreamTarget {
  readonly topic: string
  /** The source table behind the stream. */
  readonly namespace: string
  readonly table: string
}

export interface PluginContext {
  /** Name of the mesh and of the node in it; unique together, stable, fit for slot names after lower-casing. */
  readonly mesh: string
  readonly node: string
  /** A folder of the node's own for scratch and spill files. */
  readonly dataDir: string
  readonly logger: Logger
  /** The node runs elsewhere, or not at all, and is only looked at: a sink changes nothing, see `SinkConnector.prepare`. */
  readonly readOnly?: boolean
  /** Adds to a counter or sets a gauge; `millrace_` and the node label are added. */
  readonly metric: (name: string, value: number, kind: 'count' | 'gauge') => void
}

export interface Finding {
  readonly level: 'error' | 'warning' | 'ok'
  /** What was looked at: `wal_level`, `replica identity of public.orders`. */
  readonly subject: string
  readonly message: string
  readonly fix?: string
}

/** Types a plugin: `export default definePlugin({ kind: 'source', … })`. */
export function definePlugin<Config>(plugin: SourcePlugin<Config>): SourcePlugin<Config>
export function definePlugin<Config>(plugin: SinkPlugin<Config>): SinkPlugin<Config>
export function definePlugin<Config>(plugin: Plugin<Config>): Plugin<Config> {
  return plugin
}

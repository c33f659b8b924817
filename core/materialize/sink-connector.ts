import type { RowChange, Truncation } from '../event/change-event.ts'
import type { TableSchema, Tuple } from '../event/table-schema.ts'
import type { LogPosition } from '../log/log.ts'

/**
 * A sink: keeps one target (an Iceberg table, a search index) equal to one stream. The materialize driver calls it from one loop: `prepare` before
 * the first batch and whenever the schema changes, then `apply` batch by batch; never two calls at once.
 *
 * The target itself holds how far it has come: positions land in the same commit as the rows. Applying a batch again changes nothing.
 */
export interface SinkConnector extends AsyncDisposable {
  /** How the sink likes its batches; the driver closes a batch at whichever comes first. */
  readonly limits: SinkLimits
  /**
   * Creates or evolves the target: add, drop, rename (same column id), widen. Idempotent. With `PluginContext.readOnly` the target stays as it is, or is
   * not there, and `rows` gives this shape all the same: null where the target lacks the column.
   * @throws sink.schema_unsupported when the target cannot follow; the driver parks this stream, others go on
   */
  prepare(table: TableSchema): Promise<void>
  /** Positions that the target holds, of this stream's partitions; a partition that is missing was never applied. */
  committed(): Promise<readonly LogPosition[]>
  /**
   * Makes the target as if every change had been applied in order, and stores `batch.positions`, in one commit. Changes with UNCHANGED
   * columns keep the target's value for them. An empty batch only moves the positions. A batch whose positions are all covered changes nothing.
   *
   * Records that the target can't hold are handed to `batch.onRejected`, awaited before the commit: a dead letter is durable before the positions
   * move past it. When that throws, nothing lands and the error is thrown on. The neighbours of a rejected record land.
   * @returns the rejections, the same that `onRejected` got
   * @throws sink.unreachable (the driver retries the same batch), sink.conflict, sink.forbidden
   */
  apply(batch: SinkBatch, signal: AbortSignal): Promise<readonly Rejection[]>
  /**
   * The memo that landed with the last batch; null when there is none. A sink that cannot keep one (a few KB of text in the commit of the positions) leaves
   * this out: the audit then does not count its streams by window.
   */
  recall?(): Promise<string | null>
  /**
   * Puts the target's files into the form that every reader of its format takes: what only says which rows of others are gone is applied, and small files
   * are merged. Rows, positions and memo stay, and so does the shape, also where the stream has a newer one: it needs no `prepare`. Null: there is no target
   * yet. A sink whose target has no such form leaves this out; one that has it says so by `compacts` of its plugin.
   * @throws sink.unreachable, sink.conflict, sink.forbidden, config.unsupported; the reason of `signal`. The target is as it was then, or compacted.
   */
  compact?(signal: AbortSignal): Promise<Compaction | null>
  /**
   * The rows of the target, for the audit, in any order, decoded to the table's own values: all of one view, also while another instance commits.
   * Calls `onView` once, before the first rows, with the positions that this very view has.
   * @throws config.unsupported when the target cannot be read back
   */
  rows(onView: (positions: readonly LogPosition[]) => void, signal: AbortSignal): AsyncIterable<readonly Tuple[]>
}

/** The files of a target before a compaction and after it; the same when there was nothing to do. */
export interface Compaction {
  readonly before: TargetFiles
  readonly after: TargetFiles
}

export interface TargetFiles {
  readonly files: number
  /** Those among `files` that only say which rows of others are gone. */
  readonly deleteFiles: number
  readonly bytes: number
}

export interface SinkLimits {
  readonly rows: number
  readonly bytes: number
  readonly ageMs: number
}

export interface SinkBatch {
  readonly table: TableSchema
  /** In log order per partition; several changes of one key may be among them. All have the shape of `table`. */
  readonly changes: readonly (RowChange | Truncation)[]
  /** Where the target stands once this batch is applied. */
  readonly positions: readonly LogPosition[]
  /** Text to store in the commit of the positions, in place of the one before; null: none. Call it for each commit, after `onRejected` was awaited. */
  readonly memo: () => string | null
  /** Call once, when there are rejections, with all of them, before the commit. */
  readonly onRejected: (rejections: readonly Rejection[]) => Promise<void>
}

export interface Rejection {
  /** Index into `changes`. */
  readonly index: number
  /** Why, without any value of the row. */
  readonly reason: string
  /** The change leaves columns out (UNCHANGED) and the target has no row to take them from. During a table's snapshot that is no loss: its chunk follows. */
  readonly missingBase?: true
}

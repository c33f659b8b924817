import type { MillraceError } from '../errors.ts'
import type { Json, SourceOffset } from '../event/offset.ts'
import type { TableSchema, Value } from '../event/table-schema.ts'

/**
 * A source: reads a database's log of committed changes and drives writers with them. One instance is driven by one capture loop;
 * `changes` runs once; `acknowledge` may be called while `changes` waits; chunks may be read in parallel with it.
 *
 * `open` of the plugin has connected, checked that the history after `offset` still exists (else `source.history_lost`) and claimed the
 * source (else `source.in_use`; `source.occupied` while whoever has it may be gone). Nothing is skipped silently: what cannot be captured is an error that names table, position and repair.
 */
export interface SourceConnector extends AsyncDisposable {
  /** Where the stream starts when there is no progress yet: the offset of a new slot. Known once the plugin has opened. */
  readonly start: SourceOffset
  /**
   * Set when the source's history is another one from this commit on than it was when captured before (a standby was promoted): what was captured of
   * such commits has been undone. Core compares it with the last change in the log, which may lie after the offset.
   */
  readonly forkedAt?: bigint
  /** The captured tables as they are now. Tables without a key have an empty `key`. */
  tables(): Promise<readonly TableSchema[]>
  /**
   * Tables that the settings take and that cannot be captured as they are, as of the last `tables()`, which leaves them out. Core names them among the parked
   * ones: with `source.no_identity` until they are in `tables()`, else until somebody has them read. Absent: there are none.
   */
  unfit?(): readonly { readonly table: Pick<TableSchema, 'namespace' | 'name'>; readonly error: MillraceError }[]
  /** Why a table that was captured is not among `tables()`, as `was dropped`; null: the settings leave it out now. */
  whyAbsent(table: Pick<TableSchema, 'namespace' | 'name'>): Promise<string | null>
  /**
   * Whether rows that existed when a table was `before` may read differently now that it is `now`, without changes in the stream: as when a column was added
   * with a default, or has another type. Then the table is read again, in chunks, while it streams; not one without a key, whose rows would come twice.
   */
  isRewritten(before: TableSchema, now: TableSchema): Promise<boolean>
  /**
   * The parts of a table (partitions) with which rows come and go as a whole, without changes in the stream. Absent, or null: it has none, or they cannot be
   * followed yet. Asked after `tables()`, with what the last answer that core made durable had as `now`; null: there is none.
   */
  parts?(table: TableSchema, before: Json | null): Promise<TableParts | null>
  /**
   * Streams changes after `from` (a complete transaction's offset) into `output`, in commit order, until `signal` aborts.
   *
   * Yields after each piece of input (a socket read) with the offset of the last transaction whose changes have all been written; no work is
   * done between yields, so a slow log slows the source. The pieces may end within a transaction. Yields on an idle source too, as the
   * server's log advances, so that the slot can follow.
   *
   * After a crash `from` may lie before changes that are already in the log: the writer's `begin` returns false for those, and chunks come after them.
   */
  changes(from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncIterable<SourceOffset>
  /** Everything up to `offset` is durable in the log; the database may forget it. Cheap, may be called often; never throws for an old offset. */
  acknowledge(offset: SourceOffset): void
  readonly snapshot: SnapshotReader
  /** Bytes of the database's log that it holds back for us, and how far behind its head we are; for status and alarms. */
  lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }>
}

/** See `SourceConnector.parts`. What moved is read in views that are taken after the answer, and streamed from then on. */
export interface TableParts {
  /** Describes all parts; opaque to core. */
  readonly now: Json
  /** A cursor for `SnapshotReader.read` with which the parts that came since `before` are read, alone and to their end; null: none came. */
  readonly came: Json | null
  /** Rows may be gone with a part: the table is read anew, after a truncation. */
  readonly left: boolean
}

/** What a source writes into. Synchronous but for `table`, which may register schemas. */
export interface CaptureOutput {
  /**
   * The writer for this version of the table. Call before the first change that has this shape, and whenever the shape changes. When the rows in the log are
   * of another shape, also one of before a restart, the table may be read again, see `isRewritten`. Null: the table is parked, or waits to be read anew; call `skip` for its changes.
   */
  table(schema: TableSchema): Promise<ChangeWriter | null>
  /** Rises when a table is left out, or no longer is: ask `table` again for every table before its next change. */
  readonly tablesVersion: number
  /** This table cannot go on, the others can. @throws `error` itself unless it is of one table: of category `schema`, or of a record */
  park(table: Pick<TableSchema, 'namespace' | 'name'>, error: unknown): void
  /** A change of a table without writer came and is left out. */
  skip(table: Pick<TableSchema, 'namespace' | 'name'>): void
  /** The shape of the table's rows in the log, also of before a restart; null: it has none there. */
  shape(table: Pick<TableSchema, 'namespace' | 'name'>): TableSchema | null
  /**
   * Rows of the table that exist may read differently from here on, without changes in the stream, and its shape need not tell (see `isRewritten`): it is read
   * again while it streams, by views that are taken from now on. Lands with the next offset. Nothing happens to a table that is parked, or has no key.
   */
  reread(table: Pick<TableSchema, 'namespace' | 'name'>): void
  /** A transaction begins: all changes until the next call belong to it. */
  transaction(start: TransactionStart): void
  /** Chunks that were read and wait for their place in the stream. */
  readonly chunks: PendingChunks
}

export interface TransactionStart {
  /** Rises with every transaction: Postgres commit LSN. One that is sent again after a restart has the commit that it had. */
  readonly commit: bigint
  /** Microseconds since epoch. */
  readonly committedAt: bigint
  /** Values for the plugin's `sourceFields`, in their order. */
  readonly source: readonly (bigint | string | null)[]
}

/**
 * Takes one change at a time, column by column in table order, straight from wire bytes, and encodes it in one pass. Compiled by core for one
 * version of a table. Not reentrant; no promise, no object per row.
 *
 * A change is: `begin`, one or more images, `end`. An image is `before()`, `after()` or `key()` followed by exactly one call per column (for
 * `key()`: per key column). Which images belong to which change:
 *
 * - insert, read: `after`.
 * - update: `after`; before it `before` when the source sent the whole old row, or `key` when it sent the old key only because it changed.
 * - delete: `before` when the source sent the whole row, else `key`.
 *
 * An update that changes the key is written as a delete of the old key and an insert of the new one; the writer does that.
 *
 * A value that cannot be written (`record.null_key`, `record.unrepresentable`) parks the table; the calls that complete the change are taken, and nothing comes
 * of them.
 *
 * @throws MillraceError `invariant.broken` when the calls do not fit the table.
 */
export interface ChangeWriter {
  readonly table: TableSchema
  /**
   * Starts a change. `ordinal` is the change's place in its transaction, counted over all changes that the source sees, captured or not, so
   * that it is the same after a restart. Leave room: an update takes two ordinals (2n for its delete half, 2n+1), so pass 2n+1 for the n-th change.
   * @returns false when this change is in the log already, or its table is parked: skip its columns, do not call `end`.
   */
  begin(op: 'c' | 'u' | 'd', ordinal: number): boolean
  before(): void
  after(): void
  key(): void
  end(): void
  /** All rows of the table are gone. */
  truncate(ordinal: number): void

  null(): void
  /** The source did not send this column. Only for columns with `mayBeUnchanged`. */
  unchanged(): void
  /** A value that the Avro type can't hold, as text. Only for columns with `maybeSpecial`; for others it parks the table. */
  special(text: string): void
  /** boolean */
  boolean(value: boolean): void
  /** int32, date */
  int(value: number): void
  /** int64, time, timestamp, timestamptz: a whole number, |value| <= 2^53 - 1 */
  long(value: number): void
  /** int64, time, timestamp, timestamptz: `high * 2^32 + low`; high signed, low unsigned 32 bits */
  long64(high: number, low: number): void
  bigint(value: bigint): void
  float(value: number): void
  double(value: number): void
  /** decimal: the unscaled value, |value| <= 2^53 - 1 */
  decimal(unscaled: number): void
  decimalBig(unscaled: bigint): void
  /** string, uuid, json, enum: UTF-8 bytes [from, to) of `bytes`, copied */
  text(bytes: Buffer, from: number, to: number): void
  string(value: string): void
  /** bytes: [from, to) of `bytes`, copied */
  bytes(bytes: Buffer, from: number, to: number): void
  /** Any value of the column's type, arrays, records and maps included: the general, slower way. */
  value(value: Value): void
}

/** Chunks that are being read or wait for their place in the stream: asked by the source, filled by core. */
export interface PendingChunks {
  /** 0 nearly always: test it before anything else. */
  readonly size: number
  /** Set by the source: called when a chunk is there or begins to be read, so that a source that waits for its server can look for the chunk's place. */
  onWaiting: (() => void) | null
  /**
   * Call between two transactions: before a transaction's first change, with an `isDue` that is true for views which do not see that transaction, and when
   * the source has nothing to stream, true for views at or before where it stands. Writes the rows of every due chunk.
   * @returns null when the source may go on at once; else a promise to await before any further change is written: a view is being taken, or a due chunk
   * is still being read (a fraction of a second). A stream that went on would overwrite newer rows with the chunk's.
   */
  emit(isDue: (fence: SnapshotFence) => boolean): Promise<void> | null
}

/** What a source needs to place a chunk in its stream: for Postgres the chunk's `pg_current_snapshot()` and LSN. Opaque to core. */
export type SnapshotFence = unknown

/** About how much one chunk holds: whichever comes first ends it, after a row at the least. */
export interface ChunkLimits {
  readonly maxRows: number
  /** Of the rows' values. */
  readonly maxBytes: number
}

/** Reads tables in chunks. Core drives it: which table, how large, in parallel, resumed where; and places each chunk in the stream. */
export interface SnapshotReader {
  /** Estimated rows of a table, for progress and ETA; null when the source cannot tell. */
  estimate(table: TableSchema): Promise<number | null>
  /** Whether a view may be taken for the chunk after `cursor`; asked before a table is read, and again a moment later. Always, when absent. */
  isReady?(table: TableSchema, cursor: Json | null): Promise<boolean>
  /**
   * Reads rows up to about `limits` after `cursor` in key order (null: from the start) in one consistent view, without
   * locks and writes, into memory. Tables without a key are read in one chunk per call as the source can order them.
   * May be called for several tables at once, and is while `changes` runs. Calls `onView` once, as soon as the view is taken and before rows are read:
   * until then core holds the stream, and soon after, until the chunk is read. What may take long (a connection, somebody's lock) belongs into `prepare`.
   * A source may take the place at which its stream stands for the view: one that is too old for the log is refused, see `sees`.
   * @throws source.locked when the rows cannot be had now: nothing is read; the table is prepared and read again a moment later, and other tables meanwhile
   */
  read(table: TableSchema, cursor: Json | null, limits: ChunkLimits, onView: (fence: SnapshotFence) => void, signal: AbortSignal): Promise<SnapshotChunk>
  /**
   * Does what has to be waited for before the table's next chunk can be read at once, while the stream goes on: called before each `read`, which is then called
   * on what it returns, once or, when the table is not read any more, never. Absent: `read` waits for nothing.
   * @throws source.locked, as `read`, after a second or so: others wait for their turn
   */
  prepare?(table: TableSchema, signal: AbortSignal): Promise<PreparedRead>
  /**
   * Whether a view shows all that the transaction with this `TransactionStart.commit` changed, and with it all before. After a restart the log may have changes
   * from behind the offset; core asks this of the last of them in `onView`, aborts a reading that shows less, and repeats it when the stream has gone on.
   */
  sees(fence: SnapshotFence, commit: bigint): boolean
}

/** Reads one chunk of the table that was prepared; disposed of afterwards. */
export type PreparedRead = Pick<SnapshotReader, 'read'> & AsyncDisposable

export interface SnapshotChunk {
  readonly rows: number
  /** Where the next chunk starts; null when the table is read to its end. */
  readonly next: Json | null
  readonly fence: SnapshotFence
  /** When the view was taken, microseconds since epoch. */
  readonly readAt: bigint
  /** The shape that the rows have; core opens the writer for it. */
  readonly table: TableSchema
  /** Writes every row: `beginRow`, then one call per column on `writer`, then `endRow`. Synchronous. */
  write(writer: ChangeWriter, beginRow: () => void, endRow: () => void): void
}

/** A source as the audit reads it, beside a running capture: claims nothing, provisions nothing, writes nothing. */
export interface SourceReader extends AsyncDisposable {
  /** The tables that are captured as they are now, and those that will be: a table of which nobody has read a row yet is none that may be left out. */
  tables(): Promise<readonly TableSchema[]>
  /**
   * Reads a whole table in one consistent view: `open` is asked once for the writer of the shape that the view has, then every row is `beginRow`, one call
   * per column, `endRow`. Memory stays bounded.
   * @returns the view's place: changes whose `position.commit` is below it are in the view, later ones are not
   */
  scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint>
  /** Everything below `commit` lies at or before `offset`. */
  reached(offset: SourceOffset, commit: bigint): boolean
}

export interface ScanTarget {
  readonly writer: ChangeWriter
  beginRow(): void
  endRow(): void
}

/**
 * What is read from a commit log of Cassandra: mutations, as they lie there. Values stay bytes; `cql-value.ts` reads them.
 *
 * All of these are plain objects of their own, never used again by the decoder, so they may be kept; ranges [from, to) are places in `bytes` of their
 * {@link PartitionUpdate}, which is memory of its block of entries (at most 1 MB, or one entry): copy what is to be kept for long.
 */
import type { CqlType } from './cql-type.ts'

/** A table as `system_schema` describes it: what the log lacks. Give all tables of the cluster, since a batch can be walked only over tables that are known. */
export interface TableDescription {
  /** `system_schema.tables.id`, lower case with dashes. */
  readonly id: string
  readonly keyspace: string
  readonly name: string
  /** Updates of the others are walked and left out. */
  readonly captured: boolean
  readonly columns: readonly ColumnDescription[]
}

export interface ColumnDescription {
  readonly name: string
  readonly kind: 'partition_key' | 'clustering' | 'regular' | 'static'
  /** Place among the columns of its kind; -1 for regular and static ones. */
  readonly position: number
  readonly type: CqlType
  /** `clustering_order = desc`: bounds of ranges come in this order. */
  readonly reversed: boolean
  /** From `system_schema.dropped_columns`: entries from before have it still. One of the same name that exists now counts before it. */
  readonly dropped: boolean
}

/**
 * Microseconds since epoch as the client or the coordinator set them, any signed 64-bit number: a number when that is exact (|n| < 2^53), else a bigint.
 * Compare with `<` and `===`, which are exact for these.
 */
export type WriteTime = number | bigint

/** Seconds since epoch when a deletion was made, or when what has a time to live ends. For garbage collection only; write times decide. */
export type LocalTime = number

export interface Deletion {
  /** Deletes what was written then or before. */
  readonly writtenAt: WriteTime
  readonly deletedAt: LocalTime
}

/** A range of bytes; `from` is -1 where there is no value (null); an empty value has `from === to`. */
export interface Slice {
  readonly from: number
  readonly to: number
}

/** One entry of the log. */
export interface Mutation {
  /** Of captured tables only, in the order of the entry. Several: a batch within one partition key and keyspace. */
  readonly updates: readonly PartitionUpdate[]
  /** What could not be read since its description is missing, null when everything was. Nothing of `updates` is wrong then, but something may be missing. */
  readonly unread: Unread | null
}

/** The table may be new: describe it as it is now and decode the entry again; when that does not help, see `mayHoldCaptured`. */
export interface Unread {
  readonly table: string
  /** A column that the description lacks; null: the table is not known at all. */
  readonly column: string | null
  /** false: it is certain that nothing of a table that is described as captured was missed; what was dropped long ago is like that. */
  readonly mayHoldCaptured: boolean
}

/** The changes of one table in one partition, made by one statement or batch. */
export interface PartitionUpdate {
  readonly table: TableDescription
  readonly bytes: Buffer
  /** The update as it lies in the log: the same on every replica that logged it. */
  readonly from: number
  readonly to: number
  /** The partition key in serialized form, of which the token is computed; see `partitionKey` of `mutation-decoder.ts` for its components. */
  readonly key: Slice
  /** The partition was deleted. */
  readonly deletion: Deletion | null
  /** Static columns that were written; has no clustering. */
  readonly staticRow: RowUpdate | null
  /** In clustering order. */
  readonly rows: readonly RowUpdate[]
  /** In clustering order, not overlapping. */
  readonly ranges: readonly RangeDeletion[]
}

export interface RowUpdate {
  /** One per clustering column, in their order. */
  readonly clustering: readonly Slice[]
  /** Set by an INSERT only (CQL's row marker): the row exists even when all its columns are null. Null for an UPDATE. */
  readonly liveness: Liveness | null
  readonly deletion: Deletion | null
  /** Written columns only. Cells of one column lie side by side. */
  readonly cells: readonly Cell[]
  /** Collections and user types that were emptied as a whole before their cells in this row, as by `SET tags = {…}` or `tags = null`. */
  readonly complexDeletions: readonly ComplexDeletion[]
}

export interface Liveness {
  readonly writtenAt: WriteTime
  /** Seconds; 0: lives for ever. */
  readonly ttl: number
  /** With a `ttl` only, else 0. */
  readonly expiresAt: LocalTime
}

export interface Cell {
  /** Index into `columns` of the table. */
  readonly column: number
  readonly writtenAt: WriteTime
  /** Seconds; 0: lives for ever. */
  readonly ttl: number
  /** With a `ttl`: when it ends. Of a tombstone: when it was made. Else 0. */
  readonly localTime: LocalTime
  /** The column, or the element, was set to null. */
  readonly tombstone: boolean
  /** A cell of a non-frozen collection or user type: set element, map key, list's timeuuid, number of the field (16 bits). Else -1, -1. */
  readonly pathFrom: number
  readonly pathTo: number
  /** The value; of a tombstone and of a set's element empty. */
  readonly from: number
  readonly to: number
}

export interface ComplexDeletion extends Deletion {
  /** Index into `columns` of the table. */
  readonly column: number
}

/** All rows between two bounds were deleted. Bounds are in clustering order: with a reversed column `start` is the greater value. */
export interface RangeDeletion extends Deletion {
  /** Values of the first clustering columns; empty: from the start of the partition. */
  readonly start: readonly Slice[]
  readonly startInclusive: boolean
  /** Values of the first clustering columns; empty: to the end of the partition. */
  readonly end: readonly Slice[]
  readonly endInclusive: boolean
}

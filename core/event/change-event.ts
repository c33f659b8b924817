import type { Position } from './position.ts'
import type { TableSchema, Tuple } from './table-schema.ts'

/**
 * The decoded side of a change: what tap, sinks, processors and tests see. On the way in, a source drives a
 * {@link ../capture/source-connector.ts ChangeWriter} instead and no such object exists.
 */
export type ChangeEvent = RowChange | Truncation | LogicalMessage

/** Debezium's letters: r read by a snapshot, c created, u updated, d deleted, t truncated, m logical message. */
export type OpLetter = 'r' | 'c' | 'u' | 'd' | 't' | 'm'

export interface RowChange {
  readonly kind: 'row'
  readonly op: 'r' | 'c' | 'u' | 'd'
  readonly table: TableSchema
  /** Values of the key columns in `table.key` order; null when the table has no key. */
  readonly key: Tuple | null
  /** The whole row before the change when the source sent it (replica identity full), else null. */
  readonly before: Tuple | null
  /** The row after the change, with UNCHANGED where the source did not send a column; null for a delete. */
  readonly after: Tuple | null
  readonly position: Position
  /** Microseconds since epoch: the source's commit time; for a snapshot row, when its chunk was read. */
  readonly committedAt: bigint
  /** A delete as its tombstone says it, which outlives the delete's own record in a compacted topic: the same change, at the same position. */
  readonly isTombstone?: true
}

export interface Truncation {
  readonly kind: 'truncate'
  readonly table: TableSchema
  readonly position: Position
  readonly committedAt: bigint
  /** It has a key, as in compacted topics: a later truncation supersedes it, in one partition sooner than in another. */
  readonly isKeyed?: true
}

export interface LogicalMessage {
  readonly kind: 'message'
  readonly prefix: string
  readonly content: Uint8Array
  readonly position: Position
  readonly committedAt: bigint
}

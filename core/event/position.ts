/**
 * Where a change lies in its source's log. Ordered first by `commit`, then by `ordinal`; two changes of one source never tie.
 *
 * `commit` is an unsigned 64-bit number that rises with the source's commits (Postgres: the commit LSN). `ordinal` is the change's
 * place in its transaction, from 0, unsigned 32 bits. Rows of a snapshot chunk take the commit of the transaction they follow and
 * ordinals from {@link SNAPSHOT_ORDINAL} on, so that they sort after it and before the next.
 */
export interface Position {
  readonly commit: bigint
  readonly ordinal: number
}

/** The first ordinal of a snapshot row; changes of a transaction stay below it. */
export const SNAPSHOT_ORDINAL = 0x8000_0000

/** Bytes of a packed position: `commit` then `ordinal`, big-endian, so that bytes compare as positions do. */
export const POSITION_BYTES = 12

/** Name of the record header that carries the packed position. Equal position, equal id: consumers may dedupe by it. */
export const POSITION_HEADER = 'pos'

/**
 * Name of the header that a tombstone has beside its position, so that it tells a delete whose own record compaction took: the id of the schema that
 * record's value has (int32), and the commit time in microseconds (int64), big-endian.
 */
export const DELETE_HEADER = 'del'
export const DELETE_BYTES = 12

/** Negative, zero or positive as `a` is before, at or after `b`. */
export function comparePositions(a: Position, b: Position): number {
  if (a.commit !== b.commit) return a.commit < b.commit ? -1 : 1
  return a.ordinal - b.ordinal
}

export function packPosition(position: Position, into: Buffer = Buffer.alloc(POSITION_BYTES), at = 0): Buffer {
  into.writeBigUInt64BE(position.commit, at)
  into.writeUInt32BE(position.ordinal, at + 8)
  return into
}

export function unpackPosition(bytes: Buffer, at = 0): Position {
  return { commit: bytes.readBigUInt64BE(at), ordinal: bytes.readUInt32BE(at + 8) }
}

import type { ChangeWriter, ColumnType } from '../../core/plugin.ts'

/**
 * Writes one column from its wire form at [at, at+length) of `bytes` (`view` is a DataView over the same memory with the same origin as `bytes`).
 * Makes exactly one call on `writer`.
 */
export type WireReader = (bytes: Buffer, view: DataView, at: number, length: number, writer: ChangeWriter) => void

/** How a type is read: both wire forms give the same calls. */
export interface TypeReader {
  readonly type: ColumnType
  /** A value in a row event. */
  readonly binlog: WireReader
  /** A value in a row of the binary protocol; temporal values without their length byte. */
  readonly result: WireReader
  /** Some values are written with `special`. */
  readonly canBeSpecial: boolean
}

/** A value of one size: bytes behind it are of the next column. @throws RangeError, which who reads the row places */
export function expectLength(length: number, size: number): void {
  if (length !== size) throw new RangeError(`a value of ${length} bytes instead of ${size}`)
}

export function reader(type: ColumnType, binlog: WireReader, result: WireReader = binlog, canBeSpecial = false): TypeReader {
  return { type, binlog, result, canBeSpecial }
}

import type { RangeDeletion } from './commit-log-events.ts'
import type { CqlType } from './cql-type.ts'

/** A clustering as it is kept: each value's length (32 bits, -1: null) and bytes, one after another. */
export function packClustering(bytes: Buffer, slices: readonly { readonly from: number; readonly to: number }[]): Buffer {
  let length = 0
  for (const { from, to } of slices) length += 4 + (from < 0 ? 0 : to - from)
  const packed = Buffer.allocUnsafeSlow(length)
  let at = 0
  for (const { from, to } of slices) {
    at = packed.writeInt32BE(from < 0 ? -1 : to - from, at)
    if (from >= 0) at += bytes.copy(packed, at, from, to)
  }
  return packed
}

export function packValues(values: readonly (Buffer | null)[]): Buffer {
  return Buffer.concat(
    values.flatMap((value) => {
      const length = Buffer.alloc(4)
      length.writeInt32BE(value === null ? -1 : value.length)
      return value === null ? [length] : [length, value]
    }),
  )
}

export function unpackClustering(packed: Buffer): (Buffer | null)[] {
  const values: (Buffer | null)[] = []
  for (let at = 0; at < packed.length; ) {
    const length = packed.readInt32BE(at)
    at += 4
    values.push(length < 0 ? null : packed.subarray(at, at + length))
    at += Math.max(0, length)
  }
  return values
}

/** The components of a partition key. */
export function unpackPartition(key: Buffer, components: number): Buffer[] {
  if (components === 1) return [key]
  const values: Buffer[] = []
  for (let at = 0; at + 3 <= key.length; ) {
    const length = key.readUInt16BE(at)
    values.push(key.subarray(at + 2, at + 2 + length))
    at += 3 + length
  }
  return values
}

/**
 * Whether a clustering lies in a range that was deleted; null: its types have an order that is not known here.
 * @param columns of the clustering, in order
 */
export function isWithin(
  range: RangeDeletion,
  bytes: Buffer,
  clustering: readonly (Buffer | null)[],
  columns: readonly { readonly type: CqlType; readonly reversed: boolean }[],
): boolean | null {
  const start = compareBound(range.start, bytes, clustering, columns)
  const end = compareBound(range.end, bytes, clustering, columns)
  if (start === null || end === null) return null
  const after = start > 0 || (start === 0 && (range.startInclusive || range.start.length === 0))
  const before = end < 0 || (end === 0 && (range.endInclusive || range.end.length === 0))
  return after && before
}

/** The clustering against a bound of its first columns. */
function compareBound(
  bound: RangeDeletion['start'],
  bytes: Buffer,
  clustering: readonly (Buffer | null)[],
  columns: readonly { readonly type: CqlType; readonly reversed: boolean }[],
): number | null {
  for (const [i, { from, to }] of bound.entries()) {
    const value = clustering[i]
    if (value == null || from < 0) return null
    const order = compareValues(columns[i]!.type, value, bytes.subarray(from, to))
    if (order === null) return null
    if (order !== 0) return columns[i]!.reversed ? -order : order
  }
  return 0
}

/** As the type's `AbstractType.compare`; null: not known here. */
function compareValues(type: CqlType, a: Buffer, b: Buffer): number | null {
  if (type.kind !== 'native') return a.equals(b) ? 0 : null
  switch (type.name) {
    case 'tinyint':
    case 'smallint':
    case 'int':
    case 'bigint':
    case 'time':
    case 'timestamp':
      if (a.length !== b.length || a.length === 0) return a.length - b.length
      return signed(a) < signed(b) ? -1 : signed(a) > signed(b) ? 1 : 0
    case 'ascii':
    case 'text':
    case 'blob':
    case 'date':
    case 'inet':
    case 'boolean':
      return Buffer.compare(a, b)
    case 'timeuuid':
      if (a.length !== 16 || b.length !== 16) return null
      return Buffer.compare(clock(a), clock(b)) || signedBytes(a, b)
    default:
      return a.equals(b) ? 0 : null
  }
}

function signed(bytes: Buffer): bigint {
  return BigInt.asIntN(8 * bytes.length, BigInt(`0x${bytes.toString('hex')}`))
}

/** The time of a version 1 UUID, most significant byte first. */
function clock(uuid: Buffer): Buffer {
  return Buffer.concat([Buffer.from([uuid[6]! & 0x0f, uuid[7]!]), uuid.subarray(4, 6), uuid.subarray(0, 4)])
}

/** The rest of a version 1 UUID is compared by signed bytes. */
function signedBytes(a: Buffer, b: Buffer): number {
  for (let i = 8; i < 16; i++) {
    const order = a.readInt8(i) - b.readInt8(i)
    if (order !== 0) return order
  }
  return 0
}

/** Column bounds in Iceberg's single-value binary form. Source: Iceberg table spec, Appendix D "Binary single-value serialization". */
import { bigIntFromBytes } from './value-codec.ts'

const TRUNCATE_TO = 16

/**
 * `value` as a column chunk's statistics give it; null when the type has no useful bound, or a long value no short upper one. The bytes have memory of their
 * own: they are kept for as long as the file, and a slice of Node's pool would keep 64 KB.
 */
export function encodeBound(type: string, value: unknown, upper: boolean): Buffer | null {
  const bound = boundOf(type, value, upper)
  if (bound === null) return null
  const bytes = Buffer.alloc(bound.length)
  bytes.set(bound)
  return bytes
}

function boundOf(type: string, value: unknown, upper: boolean): Buffer | null {
  if (type === 'boolean') return Buffer.from([value ? 1 : 0])
  if (type === 'int' || type === 'date') {
    const bytes = Buffer.alloc(4)
    bytes.writeInt32LE(value as number)
    return bytes
  }
  if (type === 'long' || type === 'time' || type === 'timestamp' || type === 'timestamptz') {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(value as bigint)
    return bytes
  }
  if (type === 'float') {
    const bytes = Buffer.alloc(4)
    bytes.writeFloatLE(value as number)
    return bytes
  }
  if (type === 'double') {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleLE(value as number)
    return bytes
  }
  if (type === 'uuid') return Buffer.from(value as Uint8Array)
  if (type === 'string') return upper ? upperText(value as string) : Buffer.from(leadingCodePoints(value as string).join(''))
  if (type === 'binary') {
    const bytes = Buffer.from(value as Uint8Array)
    return upper ? upperBytes(bytes) : bytes.subarray(0, TRUNCATE_TO)
  }
  if (type.startsWith('decimal')) return decimalBound(value as bigint)
  return null
}

function leadingCodePoints(text: string): string[] {
  return Array.from(text.slice(0, TRUNCATE_TO * 2)).slice(0, TRUNCATE_TO)
}

function upperText(text: string): Buffer | null {
  const points = leadingCodePoints(text)
  if (points.join('') === text) return Buffer.from(text)
  for (let i = points.length - 1; i >= 0; i--) {
    const code = points[i]!.codePointAt(0)!
    if (code === 0x10ffff) continue
    return Buffer.from(points.slice(0, i).join('') + String.fromCodePoint(code === 0xd7ff ? 0xe000 : code + 1))
  }
  return null
}

function upperBytes(bytes: Buffer): Buffer | null {
  if (bytes.length <= TRUNCATE_TO) return bytes
  for (let i = TRUNCATE_TO - 1; i >= 0; i--) {
    if (bytes[i] === 0xff) continue
    const short = Buffer.from(bytes.subarray(0, i + 1))
    short[i]!++
    return short
  }
  return null
}

function decimalBound(value: bigint): Buffer {
  let length = 1
  while (BigInt.asIntN(length * 8, value) !== value) length++
  return Buffer.from(
    BigInt.asUintN(length * 8, value)
      .toString(16)
      .padStart(length * 2, '0'),
    'hex',
  )
}

/** What bounds and keys are compared as: bigint, or bytes in unsigned order. */
export type Comparable = bigint | Buffer

/** A key value (never null) as it compares in bounds, or null when the type is not compared. */
export function comparableKey(type: string, value: unknown): Comparable | null {
  if (type === 'string') return Buffer.from(value as string)
  if (type === 'uuid') return Buffer.from((value as string).replaceAll('-', ''), 'hex')
  if (type === 'binary') return Buffer.from(value as Uint8Array)
  if (type === 'boolean') return null
  return BigInt(value as number | bigint)
}

/** A bound of a file, written when the column may have been narrower, as it compares. */
export function comparableBound(type: string, bound: Buffer): Comparable | null {
  if (type === 'string' || type === 'uuid' || type === 'binary') return bound
  if (type.startsWith('decimal')) return bigIntFromBytes(bound)
  if (type === 'boolean') return null
  return bound.length === 4 ? BigInt(bound.readInt32LE()) : bound.readBigInt64LE()
}

export function compareComparables(a: Comparable, b: Comparable): number {
  if (typeof a === 'bigint') return a < (b as bigint) ? -1 : a > (b as bigint) ? 1 : 0
  return Buffer.compare(a, b as Buffer)
}

import { createHash } from 'node:crypto'
import type { Tuple, Value } from '../../core/plugin.ts'

/** A key as a Map key: equal keys of one table give equal values, and only those. */
export type RowKey = number | bigint | string

const LONG_TEXT = 32

function part(value: Value): string {
  const text = value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.length).toString('latin1') : String(value)
  return `${text.length}:${text}`
}

/** `key` in the order of the table's key columns. Long text becomes a digest of 128 bits. */
export function rowKey(key: Tuple): RowKey {
  const first = key[0]!
  if (key.length === 1) {
    if (typeof first === 'number') return first
    // a Map finds numbers faster
    if (typeof first === 'bigint') return BigInt.asIntN(53, first) === first ? Number(first) : first
  }
  const text = key.length === 1 && typeof first === 'string' ? first : key.map(part).join('')
  return text.length <= LONG_TEXT ? text : `#${createHash('sha256').update(text).digest().toString('latin1', 0, 16)}${text.length}`
}

import type { ChangeEvent } from '../../core/event/change-event.ts'
import type { Json } from '../../core/event/offset.ts'
import { type ColumnType, Special, type TableSchema, type Tuple, UNCHANGED, type Value } from '../../core/event/table-schema.ts'

/** A change as JSON for people and scripts. Numbers that JSON readers would round are text; bytes are base64; times are ISO 8601. */
export function changeJson(change: ChangeEvent, columns: ReadonlySet<string> | null): { readonly [key: string]: Json } {
  const at = new Date(Number(change.committedAt / 1000n)).toISOString()
  const position = `${change.position.commit}/${change.position.ordinal}`
  if (change.kind === 'message') return { op: 'm', at, position, prefix: change.prefix, content: Buffer.from(change.content).toString('base64') }
  if (change.kind === 'truncate') return { op: 't', at, position }
  const unchanged = (change.after ?? []).flatMap((value, i) => (value === UNCHANGED ? [change.table.columns[i]!.name] : []))
  return {
    op: change.op,
    at,
    position,
    key: change.key === null ? null : keyJson(change.table, change.key),
    ...(change.before === null ? {} : { before: rowJson(change.table, change.before, columns) }),
    ...(change.after === null ? {} : { after: rowJson(change.table, change.after, columns) }),
    ...(unchanged.length === 0 ? {} : { unchanged }),
  }
}

/** Columns by name; those that the source did not send are left out. */
function rowJson(table: TableSchema, row: Tuple, columns: ReadonlySet<string> | null): { readonly [key: string]: Json } {
  const entries: [string, Json][] = []
  table.columns.forEach((column, i) => {
    const value = row[i]!
    if (value !== UNCHANGED && (columns === null || columns.has(column.name))) entries.push([column.name, valueJson(column.type, value)])
  })
  return Object.fromEntries(entries)
}

function keyJson(table: TableSchema, key: Tuple): { readonly [key: string]: Json } {
  return Object.fromEntries(table.key.map((column, i) => [table.columns[column]!.name, valueJson(table.columns[column]!.type, key[i]!)]))
}

export function valueJson(type: ColumnType, value: Value): Json {
  if (value === null || value === UNCHANGED) return null
  if (value instanceof Special) return value.text
  switch (type.kind) {
    case 'decimal':
      return decimalText(value as bigint, type.scale)
    case 'bytes':
      return Buffer.from(value as Uint8Array).toString('base64')
    case 'date':
      return dateText(value as number)
    case 'time':
      return timeText(value as bigint)
    case 'timestamp':
      return timestampText(value as bigint, '')
    case 'timestamptz':
      return timestampText(value as bigint, 'Z')
    case 'array':
      return (value as readonly Value[]).map((item) => valueJson(type.element, item))
    case 'record':
      return Object.fromEntries(type.fields.map((field, i) => [field.name, valueJson(field.type, (value as readonly Value[])[i]!)]))
    case 'map':
      return Object.fromEntries(value as ReadonlyMap<string, string | null>)
    default:
      return scalarJson(value)
  }
}

function scalarJson(value: Value): Json {
  if (typeof value === 'bigint') return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString()
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  return typeof value === 'string' || typeof value === 'boolean' ? value : String(value)
}

function decimalText(unscaled: bigint, scale: number): string {
  if (scale <= 0) return (unscaled * 10n ** BigInt(-scale)).toString()
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString().padStart(scale + 1, '0')
  return `${unscaled < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}

const DAY_MS = 86_400_000
/** Beyond what Date can hold, the plain number says more than an error. */
function isoOf(ms: number): string | null {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : null
}

function dateText(days: number): Json {
  return isoOf(days * DAY_MS)?.split('T')[0] ?? days
}

function timeText(micros: bigint): string {
  const two = (value: bigint) => value.toString().padStart(2, '0')
  const seconds = micros / 1_000_000n
  return `${two(seconds / 3600n)}:${two((seconds / 60n) % 60n)}:${two(seconds % 60n)}.${(micros % 1_000_000n).toString().padStart(6, '0')}`
}

function timestampText(micros: bigint, zone: string): Json {
  const fraction = ((micros % 1_000_000n) + 1_000_000n) % 1_000_000n
  const iso = isoOf(Number((micros - fraction) / 1000n))
  return iso === null ? micros.toString() : `${iso.slice(0, -5)}.${fraction.toString().padStart(6, '0')}${zone}`
}

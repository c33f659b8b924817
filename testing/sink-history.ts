import type { RowChange, Truncation } from '../core/event/change-event.ts'
import { SNAPSHOT_ORDINAL } from '../core/event/position.ts'
import type { Column, ColumnType, TableSchema, Tuple, Value } from '../core/event/table-schema.ts'
import type { LogPosition } from '../core/log/log.ts'
import type { Rejection, SinkBatch, SinkConnector } from '../core/materialize/sink-connector.ts'

export const TOPIC = 'shop.public.items'

/** Nullable, always sent and never special, unless `more` says so. */
export const column = (name: string, id: number, type: ColumnType, more: Partial<Column> = {}): Column => ({
  name,
  id,
  type,
  sourceType: type.kind,
  nullable: true,
  mayBeUnchanged: false,
  maybeSpecial: false,
  ...more,
})

/** id int64 (key), name, body (may be unchanged), quantity int32, price decimal(12,2). */
export const ITEMS: TableSchema = {
  namespace: 'public',
  name: 'items',
  key: [0],
  columns: [
    column('id', 1, { kind: 'int64' }, { nullable: false }),
    column('name', 2, { kind: 'string' }),
    column('body', 3, { kind: 'string' }, { mayBeUnchanged: true }),
    column('quantity', 4, { kind: 'int32' }),
    column('price', 5, { kind: 'decimal', precision: 12, scale: 2 }),
  ],
}

/** Makes changes whose positions rise and batches whose offsets do. */
export class History {
  #ordinal = 0
  #commit = 1_000n
  #offset = 0n
  readonly table: TableSchema

  constructor(table: TableSchema = ITEMS) {
    this.table = table
  }

  #facts(keyChangeHalf = false) {
    this.#ordinal += keyChangeHalf ? 1 : 2 - (this.#ordinal % 2)
    return { table: this.table, position: { commit: this.#commit, ordinal: this.#ordinal - 1 }, committedAt: 1_700_000_000_000_000n + this.#commit }
  }

  commit(): this {
    this.#commit += 16n
    this.#ordinal = 0
    return this
  }

  with(table: TableSchema): History {
    const next = new History(table)
    next.#commit = this.#commit + 16n
    next.#offset = this.#offset
    return next
  }

  put(op: 'r' | 'c' | 'u', after: Tuple): RowChange {
    const facts = this.#facts()
    const position = op === 'r' ? { commit: this.#commit, ordinal: SNAPSHOT_ORDINAL + facts.position.ordinal } : facts.position
    if (op === 'r') this.commit()
    return { kind: 'row', op, ...facts, position, key: this.table.key.map((at) => after[at]!), before: null, after }
  }

  delete(...key: Value[]): RowChange {
    return { kind: 'row', op: 'd', ...this.#facts(), key, before: null, after: null }
  }

  /** The two halves of an update that changes the key: ordinals 2n and 2n + 1. */
  rekey(oldKey: Tuple, after: Tuple): [RowChange, RowChange] {
    this.commit()
    const gone: RowChange = { kind: 'row', op: 'd', ...this.#facts(true), key: oldKey, before: null, after: null }
    return [gone, { kind: 'row', op: 'c', ...this.#facts(true), key: this.table.key.map((at) => after[at]!), before: null, after }]
  }

  truncate(): Truncation {
    return { kind: 'truncate', ...this.#facts() }
  }

  /** `announced` collects what the sink says before it commits. */
  batch(changes: SinkBatch['changes'], announced: Rejection[] = []): SinkBatch {
    this.#offset += BigInt(changes.length) + 1n
    this.commit()
    const positions = [
      { topic: TOPIC, partition: 0, offset: this.#offset },
      { topic: TOPIC, partition: 1, offset: this.#offset * 2n },
    ]
    return {
      table: this.table,
      changes,
      positions,
      memo: () => null,
      onRejected: async (rejections) => {
        announced.push(...rejections)
      },
    }
  }
}

/** Text that is equal exactly when two values are, bit by bit. */
export function canonical(value: Value | undefined): string {
  if (value === undefined) return 'undefined'
  if (value === null) return 'null'
  if (typeof value === 'symbol') return 'UNCHANGED'
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'boolean') return String(value)
  if (value instanceof Uint8Array) return `x${Buffer.from(value).toString('hex')}`
  if (value instanceof Map) return `{${[...value].map(([k, v]) => `${JSON.stringify(k)}:${canonical(v)}`).sort()}}`
  if (Array.isArray(value)) return `[${value.map(canonical)}]`
  return `special ${JSON.stringify(value)}`
}

/** Rows as texts, in an order of their own. */
export const sorted = (rows: Iterable<Tuple>): string[] => [...rows].map((row) => row.map(canonical).join(' | ')).sort()

export async function targetRows(sink: SinkConnector): Promise<string[]> {
  const rows: Tuple[] = []
  for await (const part of sink.rows(() => {}, new AbortController().signal)) rows.push(...part)
  return sorted(rows)
}

export const positionsOf = (positions: readonly LogPosition[]): string[] => positions.map((p) => `${p.topic}/${p.partition}@${p.offset}`).sort()

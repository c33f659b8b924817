import { MillraceError } from '../../../../core/errors.ts'
import type { Position } from '../../../../core/event/position.ts'
import { type TableSchema, type Tuple, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'
import type { LogPosition } from '../../../../core/log/log.ts'
import type { Rejection, SinkBatch, SinkConnector, SinkLimits } from '../../../../core/materialize/sink-connector.ts'
import { canonical } from '../../../../testing/sink-history.ts'

type Row = ReadonlyMap<number, Value>

/** The insert half of a changed key right behind its delete half: the driver never parts them. */
function followsAtOnce(deleted: Position | undefined, inserted: Position): boolean {
  return deleted?.commit === inserted.commit && deleted.ordinal % 2 === 0 && inserted.ordinal === deleted.ordinal + 1
}

/** What a target holds durably: outlives the sinks that write to it. */
export class MemoryTarget {
  rows = new Map<string, Row>()
  readonly positions = new Map<string, LogPosition>()
  table: TableSchema | null = null
  memo: string | null = null
  applies = 0

  /** As a database would: a dropped column's values are gone. */
  reshape(table: TableSchema): void {
    const ids = new Set(table.columns.map((column) => column.id))
    this.rows = new Map([...this.rows].map(([key, row]) => [key, new Map([...row].filter(([id]) => ids.has(id)))]))
    this.table = table
  }

  /** False: the row can't be held. `old`: the row that a changed key moved away. */
  put(table: TableSchema, key: Tuple, after: Tuple, old?: Row): boolean {
    const name = key.map(canonical).join()
    const base = old ?? this.rows.get(name)
    if (after.includes('bad')) return false
    const row = new Map<number, Value>()
    for (const [at, column] of table.columns.entries()) {
      const value = after[at] === UNCHANGED ? base?.get(column.id) : after[at]
      if (value === undefined && after[at] === UNCHANGED && base === undefined) return false
      row.set(column.id, value ?? null)
    }
    this.rows.set(name, row)
    return true
  }

  delete(key: Tuple): Row | undefined {
    const name = key.map(canonical).join()
    const old = this.rows.get(name)
    this.rows.delete(name)
    return old
  }

  /** The rows in the shape of the table, as comparable text. */
  view(): string[] {
    const columns = this.table?.columns ?? []
    return [...this.rows].map(([key, row]) => `${key}: ${columns.map((column) => canonical(row.get(column.id) ?? null)).join(' | ')}`).sort()
  }
}

/** The sink's contract in memory; knows no versions, so it relies on the order that the driver gives it. */
export class MemorySink implements SinkConnector {
  readonly limits: SinkLimits
  readonly #target: MemoryTarget
  /** Called at every await of the sink; may throw. */
  readonly #fault: (point: string) => void
  #busy = false

  constructor(target: MemoryTarget, limits: SinkLimits, fault: (point: string) => void = () => {}) {
    this.#target = target
    this.limits = limits
    this.#fault = fault
  }

  async prepare(table: TableSchema): Promise<void> {
    this.#fault('prepare')
    this.#target.reshape(table)
    this.#fault('prepared')
  }

  async committed(): Promise<readonly LogPosition[]> {
    this.#fault('committed')
    return [...this.#target.positions.values()]
  }

  async apply(batch: SinkBatch): Promise<readonly Rejection[]> {
    if (this.#busy) throw new MillraceError('invariant.broken', 'two calls at once')
    this.#busy = true
    try {
      this.#fault('apply')
      const target = this.#target
      if (batch.table !== target.table) throw new MillraceError('invariant.broken', 'a batch of another shape than prepared')
      const covered = batch.positions.every((p) => (target.positions.get(`${p.partition}`)?.offset ?? 0n) >= p.offset)
      if (covered) return []
      const next = new MemoryTarget()
      next.rows = new Map(target.rows)
      const rejections: Rejection[] = []
      let moved: { readonly position: Position; readonly row: Row | undefined } | null = null
      for (const [index, change] of batch.changes.entries()) {
        if (change.table !== batch.table) throw new MillraceError('invariant.broken', 'shapes are mixed in a batch')
        if (change.kind === 'truncate') next.rows.clear()
        else if (change.after === null) moved = { position: change.position, row: next.delete(change.key!) }
        else if (!next.put(batch.table, change.key!, change.after, followsAtOnce(moved?.position, change.position) ? moved?.row : undefined))
          rejections.push({ index, reason: 'the target cannot hold it', ...(change.after.includes(UNCHANGED) ? { missingBase: true } : {}) })
      }
      await new Promise((resolve) => setImmediate(resolve))
      this.#fault('before onRejected')
      if (rejections.length > 0) await batch.onRejected(rejections)
      this.#fault('commit')
      target.memo = batch.memo()
      target.rows = next.rows
      target.applies++
      for (const position of batch.positions) {
        const held = target.positions.get(`${position.partition}`)?.offset ?? 0n
        if (position.offset < held) throw new MillraceError('invariant.broken', 'positions go back')
        target.positions.set(`${position.partition}`, position)
      }
      this.#fault('committed unknown')
      return rejections
    } finally {
      this.#busy = false
    }
  }

  async recall(): Promise<string | null> {
    return this.#target.memo
  }

  async *rows(onView: (positions: readonly LogPosition[]) => void): AsyncIterable<readonly Tuple[]> {
    const { table, rows, positions } = this.#target
    onView([...positions.values()])
    for (const row of rows.values()) yield [table!.columns.map(({ id }) => row.get(id) ?? null)]
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

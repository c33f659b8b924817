import { MillraceError } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'

interface Hold {
  readonly kind: 'truncate' | 'shape'
  readonly table: TableSchema
  readonly position: Position
  /** Of the record that waits. */
  readonly offset: bigint
}

export type Release =
  | { readonly kind: 'shape'; readonly table: TableSchema }
  /** The truncation, and the offset of its record in every partition. */
  | { readonly kind: 'truncate'; readonly table: TableSchema; readonly position: Position; readonly offsets: ReadonlyMap<number, bigint> }

/**
 * Brings the partitions of a stream to one point in the source's order. A truncation, or the first record of another shape, holds its partition until every
 * other has come to it as well, or to what was its end when the first hold began: capture's batches land whole, so what comes before in the source is
 * there by then. Without it a truncation would remove rows of faster partitions that are newer than it, and miss those of slower ones.
 */
export class Alignment {
  readonly #holds = new Map<number, Hold>()
  #ends: ReadonlyMap<number, bigint> = new Map()

  get active(): boolean {
    return this.#holds.size > 0
  }

  /** `ends`, asked for now, counts only when this is the first hold. */
  hold(partition: number, change: RowChange | Truncation, offset: bigint, ends: ReadonlyMap<number, bigint>): void {
    if (!this.active) this.#ends = ends
    this.#holds.set(partition, { kind: change.kind === 'truncate' ? 'truncate' : 'shape', table: change.table, position: change.position, offset })
  }

  /** Whether this partition must still be read while others wait. `next` is the offset that it is at. */
  runs(partition: number, next: bigint): boolean {
    return !this.active || (!this.#holds.has(partition) && next < (this.#ends.get(partition) ?? 0n))
  }

  /**
   * Call when no partition runs: what the earliest of the waiting records does; those that it lets through wait no longer.
   * @throws log.corrupt when a truncation is not in all partitions
   */
  release(): Release {
    const first = [...this.#holds.values()].reduce((a, b) => (comparePositions(b.position, a.position) < 0 ? b : a))
    if (first.kind === 'shape') {
      for (const [partition, hold] of this.#holds) if (hold.kind === 'shape' && hold.table === first.table) this.#holds.delete(partition)
      return { kind: 'shape', table: first.table }
    }
    const offsets = new Map<number, bigint>()
    for (const partition of this.#ends.keys()) {
      const hold = this.#holds.get(partition)
      if (hold?.kind !== 'truncate' || comparePositions(hold.position, first.position) !== 0) {
        throw new MillraceError('log.corrupt', `the truncation of ${tableId(first.table)} is not in partition ${partition} of its topic`, {
          fix: 'give the sink a new target and read the table again; use exactly-once delivery, or one partition, for tables that are truncated',
        })
      }
      offsets.set(partition, hold.offset)
    }
    this.#holds.clear()
    return { kind: 'truncate', table: first.table, position: first.position, offsets }
  }
}

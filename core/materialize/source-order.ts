import { comparePositions, type Position } from '../event/position.ts'

/**
 * How far a stream may be applied so that its target passes through states of the source only: up to the position that every partition has come to. So
 * both halves of a changed key, all parts of a truncation and the shapes of a table come in the source's order, however fast each partition is read.
 *
 * A partition that was read to its written end holds back nothing: what precedes a record in the source is written before that record can be seen.
 */
export class SourceOrder {
  /** Ends of the partitions, with what is written and not committed yet, at one moment. */
  #written: ReadonlyMap<number, bigint> = new Map()
  /** Greatest position read. */
  readonly #seen = new Map<number, Position>()

  set written(ends: ReadonlyMap<number, bigint>) {
    this.#written = ends
  }

  /** Whether the ends were asked for after this record could be seen. */
  covers(partition: number, offset: bigint): boolean {
    return offset < (this.#written.get(partition) ?? 0n)
  }

  saw(partition: number, position: Position): void {
    const last = this.#seen.get(partition)
    if (last === undefined || comparePositions(position, last) > 0) this.#seen.set(partition, position)
  }

  /** The last position that may be applied; `all`: every record that was read; null: none. `read` has the next offset of each partition. */
  limit(read: ReadonlyMap<number, bigint>): Position | 'all' | null {
    const slowest = this.slowest(read)
    return slowest === null ? 'all' : (this.#seen.get(slowest) ?? null)
  }

  /** The partition that holds the others back; null: none does. */
  slowest(read: ReadonlyMap<number, bigint>): number | null {
    let found: number | null = null
    let least: Position | null = null
    for (const [partition, next] of read) {
      if (!this.covers(partition, next)) continue
      const seen = this.#seen.get(partition)
      if (seen === undefined) return partition
      if (least === null || comparePositions(seen, least) < 0) [found, least] = [partition, seen]
    }
    return found
  }
}

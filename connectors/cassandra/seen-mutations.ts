import { crc32 } from 'node:zlib'
import type { PartitionUpdate, WriteTime } from './commit-log-events.ts'

const MOST = 100_000

/** The last updates that were taken, so that the copies of other replicas, and what a replica logged twice, are left out: they are the same bytes. */
export class SeenMutations {
  /** In the order in which they came. */
  readonly #seen = new Set<string>()

  has(update: PartitionUpdate, writtenAt: WriteTime): boolean {
    return this.#seen.has(nameOf(update, writtenAt))
  }

  add(update: PartitionUpdate, writtenAt: WriteTime): void {
    this.#seen.add(nameOf(update, writtenAt))
    if (this.#seen.size > MOST) this.#seen.delete(this.#seen.values().next().value!)
  }
}

/** A checksum alone would take two updates for one now and then; of one microsecond and length they never are. */
function nameOf({ bytes, from, to }: PartitionUpdate, writtenAt: WriteTime): string {
  return `${writtenAt} ${to - from} ${crc32(bytes.subarray(from, to))}`
}

import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { ChunkLimits } from './source-connector.ts'

/** How many rows to ask for, from what the rows of a table's last chunk took: so that a chunk rarely has to be cut by its bytes. */
export class ChunkSizes {
  readonly #rowBytes = new Map<string, number>()

  rows(table: TableSchema, limits: ChunkLimits): number {
    return Math.max(1, Math.min(limits.maxRows, Math.floor(limits.maxBytes / (this.#rowBytes.get(tableId(table)) ?? 1))))
  }

  /** A chunk of so many rows and bytes was read. */
  learn(table: TableSchema, rows: number, bytes: number): void {
    if (rows > 0) this.#rowBytes.set(tableId(table), bytes / rows)
  }
}

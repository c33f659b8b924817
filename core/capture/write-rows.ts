import type { Tuple } from '../event/table-schema.ts'
import type { ScanTarget } from './source-connector.ts'

/** Writes rows whose values are held, each in the order of the table's columns, into a chunk or a scan. Synchronous. */
export function writeRows(rows: readonly Tuple[], { writer, beginRow, endRow }: ScanTarget): void {
  for (const row of rows) {
    beginRow()
    for (const value of row) writer.value(value)
    endRow()
  }
}

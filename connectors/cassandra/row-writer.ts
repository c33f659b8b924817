import type { ChangeWriter } from '../../core/plugin.ts'
import { unpackClustering, unpackPartition } from './clustering-order.ts'
import type { RowKey } from './row-changes.ts'
import type { MappedTable } from './table-mapping.ts'

/** Calls for the key columns. */
export function writeKey(writer: ChangeWriter, table: MappedTable, { partition, clustering }: RowKey): void {
  const values = [...unpackPartition(partition, table.partitionColumns), ...unpackClustering(clustering!)]
  for (const [i, value] of values.entries()) writeValue(writer, table, i, value)
}

/** Calls for all columns; undefined outside the key: unchanged. */
export function writeRow(writer: ChangeWriter, table: MappedTable, key: RowKey, values: readonly (Buffer | null | undefined)[]): void {
  writeKey(writer, table, key)
  for (let i = table.partitionColumns + table.clustering.length; i < table.columns.length; i++) {
    const value = values[i]
    if (value === undefined) writer.unchanged()
    else writeValue(writer, table, i, value)
  }
}

function writeValue(writer: ChangeWriter, table: MappedTable, column: number, value: Buffer | null): void {
  if (value === null) writer.null()
  else table.columns[column]!.reader.write(value, 0, value.length, writer)
}

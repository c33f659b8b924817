import type { TableSchema } from '../../core/plugin.ts'
import type { CatalogTable } from './catalog.ts'
import type { Cell, ColumnDescription, TableDescription } from './commit-log-events.ts'
import type { CqlType } from './cql-type.ts'
import { type CqlReader, frozenForm } from './cql-value.ts'
import { mapTable, type TypeMappingOptions } from './type-mapping.ts'

export interface CapturedColumn {
  readonly name: string
  readonly type: CqlType
  readonly kind: ColumnDescription['kind']
  readonly isKey: boolean
  readonly reader: CqlReader
  /** Write times up to this (microseconds) are of a column of the same name that was dropped; -Infinity: there was none. */
  readonly droppedAt: number
  /** The whole value of a collection or user type that is not frozen, from all its cells. */
  readonly assemble: (bytes: Buffer, cells: readonly Cell[]) => Buffer | null
}

/** A captured table in one of its shapes, ready to be read from the log and from the cluster. */
export interface MappedTable {
  /** Of the table: it keeps it through all its shapes. */
  readonly id: string
  readonly table: TableSchema
  readonly description: TableDescription
  /** Aligned with `table.columns`: partition key, clustering, then the others. */
  readonly columns: readonly CapturedColumn[]
  /** Index into `columns` by index into the description's columns; -1: dropped. */
  readonly byColumn: Int32Array
  readonly partitionColumns: number
  readonly clustering: readonly ColumnDescription[]
  readonly hasStatics: boolean
  /** All columns outside the key were written. */
  isComplete(values: readonly (Buffer | null | undefined)[]): boolean
}

type DescribedTable = Pick<CatalogTable, 'description' | 'droppedAt' | 'truncatedAt'>

export function mapCaptured({ description, droppedAt, truncatedAt }: DescribedTable, options: TypeMappingOptions): MappedTable {
  const mapped = mapTable(description, options, truncatedAt)
  const byColumn = new Int32Array(description.columns.length).fill(-1)
  const columns = mapped.columns.map(({ index, reader }, i): CapturedColumn => {
    byColumn[index] = i
    const { name, kind, type } = description.columns[index]!
    const dropped = droppedAt.get(name)
    return {
      name,
      type,
      kind,
      isKey: kind === 'partition_key' || kind === 'clustering',
      reader,
      droppedAt: dropped === undefined ? Number.NEGATIVE_INFINITY : dropped * 1000,
      assemble: (bytes, cells) =>
        frozenForm(
          type,
          cells.map((cell) => ({ path: bytes.subarray(cell.pathFrom, cell.pathTo), value: bytes.subarray(cell.from, cell.to) })),
        ),
    }
  })
  return {
    id: description.id,
    table: mapped.table,
    description,
    columns,
    byColumn,
    partitionColumns: columns.filter(({ kind }) => kind === 'partition_key').length,
    clustering: columns
      .filter(({ kind }) => kind === 'clustering')
      .map(({ name }) => description.columns.find((column) => column.name === name && !column.dropped)!),
    hasStatics: columns.some(({ kind }) => kind === 'static'),
    isComplete: (values) => columns.every(({ isKey }, i) => isKey || values[i] !== undefined),
  }
}

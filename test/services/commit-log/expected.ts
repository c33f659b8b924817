import type { Deletion, Mutation, RowUpdate, Slice, TableDescription, Unread } from '../../../connectors/cassandra/commit-log-events.ts'
import { type CqlType, parseCqlType } from '../../../connectors/cassandra/cql-type.ts'
import { MutationDecoder } from '../../../connectors/cassandra/mutation-decoder.ts'
import { type SegmentIndex, SegmentReader } from '../../../connectors/cassandra/segment-reader.ts'
import type { RecordedSegment, Recording } from './commit-log.ts'

/** Tables from rows of system_schema; `captured` by keyspace and name. */
export function describeTables(schema: Recording['schema'], captured: (keyspace: string, name: string) => boolean): readonly TableDescription[] {
  const rows = (table: string) => schema.filter(([name]) => name === table).map(([, row]) => row)
  const types = new Map(rows('types').map((row) => [`${row.keyspace_name}.${row.type_name}`, row]))
  const columns = [...rows('columns').map((row) => ({ row, dropped: false })), ...rows('dropped_columns').map((row) => ({ row, dropped: true }))]
  return [...rows('tables'), ...rows('views').map((row): typeof row => ({ ...row, table_name: row.view_name }))].map((table) => {
    const keyspace = String(table.keyspace_name)
    const name = String(table.table_name)
    const typeOf = (text: unknown): CqlType =>
      parseCqlType(String(text), (type) => {
        const row = types.get(`${keyspace}.${type}`)
        return row === undefined ? undefined : { fieldNames: row.field_names as string[], fieldTypes: row.field_types as string[] }
      })
    return {
      id: String(table.id),
      keyspace,
      name,
      captured: captured(keyspace, name),
      columns: columns
        .filter(({ row }) => row.keyspace_name === keyspace && row.table_name === name)
        .map(({ row, dropped }) => ({
          name: String(row.column_name),
          kind: String(row.kind).toLowerCase() as TableDescription['columns'][number]['kind'],
          position: dropped ? -1 : Number(row.position),
          type: typeOf(row.type),
          reversed: String(row.clustering_order).toLowerCase() === 'desc',
          dropped,
        })),
    }
  })
}

/** A mutation as CommitLogLab.java writes its lines: Cassandra leaves out what is of dropped columns. */
export function mutationLine(position: number, { updates }: Mutation): unknown {
  return {
    position,
    updates: updates.map(({ table, bytes, key, deletion, staticRow, rows, ranges }) => {
      const hex = ({ from, to }: Slice) => (from < 0 ? null : bytes.toString('hex', from, to))
      const times = ({ writtenAt, deletedAt }: Deletion) => [String(writtenAt), deletedAt]
      const name = (column: number) => table.columns[column]!.name
      const row = (one: RowUpdate) => ({
        clustering: one.clustering.map(hex),
        liveness: one.liveness && [String(one.liveness.writtenAt), one.liveness.ttl, one.liveness.expiresAt],
        deletion: one.deletion && times(one.deletion),
        cells: one.cells
          .filter(({ column }) => !table.columns[column]!.dropped)
          .map((cell) => [
            name(cell.column),
            hex({ from: cell.pathFrom, to: cell.pathTo }),
            String(cell.writtenAt),
            cell.ttl,
            cell.localTime,
            cell.tombstone,
            hex(cell),
          ]),
        complex: one.complexDeletions.map((deleted) => [name(deleted.column), ...times(deleted)]),
      })
      return {
        table: table.id,
        key: hex(key),
        deletion: deletion && times(deletion),
        static: staticRow && row(staticRow),
        rows: rows.map(row),
        ranges: ranges.map((range) => [range.start.map(hex), range.startInclusive, range.end.map(hex), range.endInclusive, times(range)]),
      }
    }),
  }
}

/** Of `_cdc.idx`. */
export function indexOf(text: string): SegmentIndex {
  const [until, state] = text.split('\n')
  return { until: Number(until), completed: state === 'COMPLETED' }
}

/** Every mutation of a segment that has something of a captured table, as CommitLogLab.java writes its lines; and those that could not be read. */
export async function decodedLines(segment: RecordedSegment, tables: readonly TableDescription[]): Promise<{ lines: unknown[]; unread: Unread[] }> {
  const decoder = new MutationDecoder(tables)
  const lines: unknown[] = []
  const unread: Unread[] = []
  await using reader = await SegmentReader.open(segment.file)
  const index = indexOf(segment.index)
  for (let block = await reader.read(index); block !== null; block = await reader.read(index)) {
    for (const [i, start] of block.starts.entries()) {
      const mutation = decoder.decode(block.bytes, start, block.ends[i]!, segment.file, block.positions[i]!)
      if (mutation.unread !== null) unread.push(mutation.unread)
      if (mutation.updates.length > 0) lines.push(mutationLine(block.positions[i]!, mutation))
    }
  }
  return { lines, unread }
}

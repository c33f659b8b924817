import { createHash } from 'node:crypto'
import type { Column, TableSchema } from '../../core/plugin.ts'
import type { TableDescription } from './commit-log-events.ts'
import { cqlTypeText } from './cql-type.ts'
import { type CqlReader, cqlReader } from './cql-value.ts'

export interface TypeMappingOptions {
  /** `text`: values that their Avro type cannot hold travel as text in a branch of their own. */
  readonly unrepresentable: 'error' | 'text'
  /** Changes say only what was written: columns outside the key may be unchanged. */
  readonly partial: boolean
}

export interface MappedTable {
  readonly description: TableDescription
  readonly table: TableSchema
  /** Aligned with `table.columns`: index into the description's columns, and how the column is read. */
  readonly columns: readonly { readonly index: number; readonly reader: CqlReader }[]
}

/**
 * Dropped columns are left out; the others come in the order of the description. The key is of partition key and clustering columns. A table that was
 * truncated (milliseconds; 0: never) is another one, since all its rows went.
 */
export function mapTable(description: TableDescription, { unrepresentable, partial }: TypeMappingOptions, truncatedAt = 0): MappedTable {
  const present = description.columns.map((column, index) => ({ column, index })).filter(({ column }) => !column.dropped)
  const readers = present.map(({ column }) => cqlReader(column.type))
  const ids = columnIds(present.map(({ column }) => column.name))
  const isKey = present.map(({ column: { kind } }) => kind === 'partition_key' || kind === 'clustering')
  const columns = present.map(({ column }, i): Column => {
    const { type, canBeSpecial } = readers[i]!
    return {
      name: column.name,
      id: ids[i]!,
      type,
      sourceType: cqlTypeText(column.type),
      nullable: !isKey[i],
      mayBeUnchanged: partial && !isKey[i],
      maybeSpecial: unrepresentable === 'text' && canBeSpecial && !isKey[i],
    }
  })
  return {
    description,
    table: {
      namespace: description.keyspace,
      name: description.name,
      columns,
      key: isKey.flatMap((key, i) => (key ? [i] : [])),
      incarnation: truncatedAt === 0 ? description.id : `${description.id} ${truncatedAt}`,
    },
    columns: present.map(({ index }, i) => ({ index, reader: readers[i]! })),
  }
}

/**
 * Columns have no identity but their name: a renamed one (of the key) is another. Numbers of 30 bits from the name; the rare second name of a number is
 * hashed again.
 */
function columnIds(names: readonly string[]): readonly number[] {
  const taken = new Set<number>()
  return names.map((name) => {
    for (let round = 0; ; round++) {
      const id = (createHash('sha256').update(`${round}\0${name}`).digest().readUInt32BE(0) & 0x3fff_ffff) + 1
      if (taken.has(id)) continue
      taken.add(id)
      return id
    }
  })
}

import { MillraceError } from '../errors.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'

/**
 * Why the changes of a table cannot be in a compacted topic, where the last record of a key must say the whole row; null: they can. The error is of that
 * table alone.
 */
export function whyNotCompactable(table: TableSchema): MillraceError | null {
  const instead = 'set `topics: { compacted: false }` on the source'
  if (table.key.length === 0) {
    return new MillraceError('source.schema_unsupported', `${tableId(table)} has no key, and a compacted topic keeps one record for each key`, {
      fix: `give the table a primary key, or ${instead}`,
    })
  }
  const unsent = table.columns.filter(({ mayBeUnchanged }) => mayBeUnchanged).map(({ name }) => name)
  if (unsent.length === 0) return null
  const message = `updates of ${tableId(table)} may come without the values of ${unsent.join(', ')}, and in a compacted topic the row that has them goes`
  return new MillraceError('source.schema_unsupported', message, {
    fix: `have the source send whole rows (Postgres: ALTER TABLE ${tableId(table)} REPLICA IDENTITY FULL; MySQL: binlog_row_image = FULL), or ${instead}`,
  })
}

import { MillraceError } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { columnConversions } from '../event/row-conversion.ts'
import { type TableSchema, type Tuple, tableId, UNCHANGED } from '../event/table-schema.ts'

/**
 * Rewrites changes of an older shape of a table as the newer one has them, by column id: dropped columns go, added ones are NULL, widened ones are wider.
 * @throws sink.schema_unsupported when a column's values can't be read as its newer type, or the key is of other columns
 */
export function changeConverter(from: TableSchema, to: TableSchema): (change: RowChange | Truncation) => RowChange | Truncation {
  const columns = columnConversions(from, to)
  const ids = (table: TableSchema) => table.key.map((at) => table.columns[at]!.id).join()
  if (ids(from) !== ids(to)) {
    throw new MillraceError(
      'sink.schema_unsupported',
      `records of an older shape of ${tableId(from)} come after the newer one, and its key is now other columns`,
      {
        fix: 'give the sink a new target, so that the stream is read again in the order of its partitions',
      },
    )
  }
  const key = to.key.map((at) => columns[at]!.convert)
  const row = (tuple: Tuple): Tuple => columns.map(({ at, convert }) => (at < 0 ? null : convert(tuple[at]!)))
  return (change) =>
    change.kind === 'truncate'
      ? { ...change, table: to }
      : {
          ...change,
          table: to,
          key: change.key === null ? null : change.key.map((value, at) => key[at]!(value)),
          before: change.before === null ? null : row(change.before),
          after: change.after === null ? null : row(change.after),
        }
}

/** Fills UNCHANGED from the image before the change, where the source sent one. */
export function fillFromBefore(change: RowChange): RowChange {
  const { before, after } = change
  if (before === null || after === null || !after.includes(UNCHANGED)) return change
  return { ...change, after: after.map((value, at) => (value === UNCHANGED ? before[at]! : value)) }
}

import { MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import { SHAPE_ENTRY } from './start-over.ts'

/**
 * What a description of a table is to its rows in the log. `changed`: the source must say whether existing rows read differently. `replaced`: they are rows of
 * another table of this name, or have a key of another type; they have to go before it is read.
 */
export type ShapeChange = 'new' | 'same' | 'changed' | 'replaced'

/** What the rows in the log look like, by table, with what of it is not durable yet. */
export class LogShapes {
  readonly #shapes = new Map<string, TableSchema>()
  readonly #fresh = new Map<string, TableSchema>()

  constructor(progress: ReadonlyMap<string, Json>) {
    for (const [key, entry] of progress) if (key.startsWith(SHAPE_ENTRY)) this.#shapes.set(key.slice(SHAPE_ENTRY.length), entry as unknown as TableSchema)
  }

  get(id: string): TableSchema | undefined {
    return this.#shapes.get(id)
  }

  /**
   * The table with every branch that its columns have in the log: a value that came unchanged or special before must stay readable with the new schema,
   * although the source sends none any more (Postgres: replica identity full, storage plain).
   */
  widened(table: TableSchema): TableSchema {
    const before = this.#shapes.get(tableId(table))
    if (before === undefined) return table
    const columns = table.columns.map((column, at) => {
      const old = table.key.includes(at) ? undefined : before.columns.find(({ id }) => id === column.id)
      if (old === undefined || (column.mayBeUnchanged >= old.mayBeUnchanged && column.maybeSpecial >= old.maybeSpecial)) return column
      return { ...column, mayBeUnchanged: column.mayBeUnchanged || old.mayBeUnchanged, maybeSpecial: column.maybeSpecial || old.maybeSpecial }
    })
    return columns.some((column, at) => column !== table.columns[at]) ? { ...table, columns } : table
  }

  /**
   * @param emptied a truncation comes before the rows of this shape, so that their key may be any
   * @throws source.key_changed
   */
  change(table: TableSchema, emptied: boolean): ShapeChange {
    const before = this.#shapes.get(tableId(table))
    if (before === undefined) return 'new'
    if (JSON.stringify(before) === JSON.stringify(table)) return 'same'
    if (emptied) return 'replaced'
    const [was, is] = [keyOf(before), keyOf(table)]
    if (was.map(({ id }) => id).join() !== is.map(({ id }) => id).join()) throw keyChanged(before, table)
    if (before.incarnation !== undefined && table.incarnation !== undefined && before.incarnation !== table.incarnation) return 'replaced'
    return was.every(({ type }, at) => JSON.stringify(type) === JSON.stringify(is[at]!.type)) ? 'changed' : 'replaced'
  }

  /** The rows in the log are of this shape, or will be once the reading that was asked for is done. */
  adopt(table: TableSchema): void {
    const id = tableId(table)
    if (JSON.stringify(this.#shapes.get(id)) === JSON.stringify(table)) return
    this.#shapes.set(id, table)
    this.#fresh.set(id, table)
  }

  takeProgress(into: Map<string, Json | null>): void {
    if (this.#fresh.size === 0) return
    for (const [id, table] of this.#fresh) into.set(SHAPE_ENTRY + id, table as unknown as Json)
    this.#fresh.clear()
  }
}

function keyOf(table: TableSchema): TableSchema['columns'] {
  return table.key.map((at) => table.columns[at]!)
}

function keyChanged(before: TableSchema, now: TableSchema): MillraceError {
  const say = (table: TableSchema) =>
    table.key.length === 0
      ? 'none'
      : `(${keyOf(table)
          .map(({ name }) => name)
          .join(', ')})`
  return new MillraceError(
    'source.key_changed',
    `the key of ${tableId(now)} was ${say(before)} and is ${say(now)}: its rows in the log and in targets have the old one`,
    {
      fix: 'make the old key again, or drop its targets, so that they are made with the new one',
    },
  )
}

import { type Column, type ColumnType, MillraceError, type TableSchema, tableId } from '../../core/plugin.ts'

/** A column of the full-text table: a column of the source under a name that FTS5 takes. */
export interface TextColumn {
  readonly id: number
  /** Index into the table's columns. */
  readonly at: number
  readonly name: string
}

const TEXT_KINDS = new Set(['string', 'json', 'enum', 'uuid'])

function isText(type: ColumnType): boolean {
  return type.kind === 'array' ? isText(type.element) : type.kind === 'map' || TEXT_KINDS.has(type.kind)
}

/**
 * The columns to search in: those that `wanted` names, else all that hold text, else the key. Names that FTS5 can't tell apart or reserves get a number.
 * @throws sink.schema_unsupported when `wanted` names a column that the table lacks
 */
export function textColumns(table: TableSchema, wanted: readonly string[] | undefined): readonly TextColumn[] {
  const missing = wanted?.find((name) => !table.columns.some((column) => column.name === name))
  if (missing !== undefined) {
    throw new MillraceError('sink.schema_unsupported', `${tableId(table)} has no column ${missing} to index`, {
      fix: `change the sink's text setting; the table has ${table.columns.map((column) => column.name).join(', ')}`,
    })
  }
  const chosen = table.columns.map((column, at) => ({ column, at })).filter(({ column }) => wanted?.includes(column.name) ?? isText(column.type))
  const all = chosen.length > 0 ? chosen : table.key.map((at) => ({ column: table.columns[at]!, at }))
  const taken = new Set(['rank', 'rowid'])
  return all.map(({ column, at }) => {
    const plain = column.name.replaceAll(/[^\p{L}\p{N}_]/gu, '_') || '_'
    let name = plain
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `${plain}_${n}`
    taken.add(name.toLowerCase())
    return { id: column.id, at, name }
  })
}

/** Types by column id, of every column that stored rows may have. */
export type StoredTypes = Readonly<Record<string, ColumnType>>

/** @throws sink.schema_unsupported when stored rows can't be read as `table`, or its key is another */
export function checkEvolution(stored: StoredTypes, storedKey: readonly number[], table: TableSchema): void {
  const key = table.key.map((at) => table.columns[at]!.id)
  if (key.join() !== storedKey.join()) {
    throw new MillraceError('sink.schema_unsupported', `the key of ${tableId(table)} is now other columns; the index knows its rows by the old key`, {
      fix: reindex(table),
    })
  }
  const broken = table.columns.find((column) => stored[column.id] !== undefined && !readable(stored[column.id]!, column.type))
  if (broken === undefined) return
  throw new MillraceError(
    'sink.schema_unsupported',
    `column ${broken.name} of ${tableId(table)} changed from ${describe(stored[broken.id]!)} to ${describe(broken.type)}: rows in the index can't be read so`,
    { fix: reindex(table) },
  )
}

/** Stored types after `table` is in force: dropped columns stay known. */
export function mergeTypes(stored: StoredTypes, columns: readonly Column[]): StoredTypes {
  return { ...stored, ...Object.fromEntries(columns.map((column) => [column.id, column.type])) }
}

function reindex(table: TableSchema): string {
  return `give the sink another index or path, so that ${tableId(table)} is indexed again from the log`
}

function describe(type: ColumnType): string {
  return type.kind === 'decimal' ? `decimal(${type.precision},${type.scale})` : type.kind
}

/** Whether every value stored as `from` can be read as `to`, exactly. */
function readable(from: ColumnType, to: ColumnType): boolean {
  switch (to.kind) {
    case 'int64':
      return from.kind === 'int64' || from.kind === 'int32'
    case 'float64':
      return from.kind === 'float64' || from.kind === 'float32'
    case 'decimal':
      return from.kind === 'decimal' && to.scale >= from.scale && to.precision - to.scale >= from.precision - from.scale
    case 'string':
      return TEXT_KINDS.has(from.kind)
    case 'array':
      return from.kind === 'array' && readable(from.element, to.element)
    case 'record':
      return (
        from.kind === 'record' &&
        to.fields.length >= from.fields.length &&
        from.fields.every((field, at) => field.name === to.fields[at]!.name && readable(field.type, to.fields[at]!.type))
      )
    default:
      return from.kind === to.kind
  }
}

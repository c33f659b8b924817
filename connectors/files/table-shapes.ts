import { type Column, type ColumnType, MillraceError, Special, type TableSchema, type Value } from '../../core/plugin.ts'
import { type Cell, parseType, valueAs } from './column-types.ts'
import type { FilesConfig, TableRule } from './files-config.ts'
import { BadLine, csvCells, jsonMembers, textOf } from './line-format.ts'
import { linesOf, type TrackedFile } from './tracked-file.ts'

/** What an inferred table is inferred from. */
const HEAD_LINES = 100

/** Columns of tables as they were found in files, by table: name and type. They go with the offset, since the files may not stay. */
export type FoundColumns = Readonly<Record<string, readonly (readonly [name: string, type: string])[]>>

/** Reads the lines of one file as rows of its table. */
export interface LineReader {
  readonly table: TableSchema
  /** The first line is the header. */
  readonly hasHeader: boolean
  /** The row that a line is; null: an empty line. `at` is where it begins. @throws source.schema_unsupported, record.unrepresentable */
  row(line: Buffer, at: number): readonly Value[] | null
}

/** What the tables are: as declared, as headers name them, or as the first lines of the first file suggest. */
export class TableShapes {
  readonly #config: FilesConfig
  readonly #columns = new Map<string, readonly (readonly [string, string])[]>()
  readonly #schemas = new Map<string, TableSchema>()

  constructor(config: FilesConfig, found: FoundColumns) {
    this.#config = config
    for (const [table, columns] of Object.entries(found)) this.#columns.set(table, columns)
  }

  found(): FoundColumns {
    return Object.fromEntries(this.#columns)
  }

  /** The table as it is known; null: nothing tells its columns yet. @throws source.schema_unsupported */
  schema(table: string, rule: TableRule): TableSchema | null {
    const known = this.#schemas.get(table)
    if (known !== undefined) return known
    const declared = Object.entries(rule.columns ?? {})
    if (rule.columns !== undefined && !(rule.format === 'csv' && rule.header)) this.#columns.set(table, declared)
    const columns = this.#columns.get(table)
    if (columns === undefined) return null
    const schema = describe(table, rule, columns, this.#config)
    this.#schemas.set(table, schema)
    return schema
  }

  /** How lines of a file are read; null: it has no line that tells. @throws source.schema_unsupported */
  async reader(file: TrackedFile, rule: TableRule): Promise<LineReader | null> {
    const isCsv = rule.format === 'csv'
    let header: readonly string[] | null = null
    if (isCsv && rule.header) {
      const line = await file.firstLine()
      if (line === null) return null
      header = this.#guarded(file, 0, () => csvCells(textOf(withoutMark(line)), rule.separator, null) as string[])
      this.#widen(file, rule, header)
    } else if (!isCsv && this.schema(file.table, rule) === null) {
      const head = await file.lines(0, Number.POSITIVE_INFINITY)
      if (head === null) return null
      this.#infer(file, head.bytes)
    }
    const table = this.schema(file.table, rule)
    return table === null ? null : this.#lineReader(file, rule, table, header)
  }

  /** A header may bring columns that the table does not have yet. */
  #widen(file: TrackedFile, rule: TableRule, header: readonly string[]): void {
    const before = this.#columns.get(file.table) ?? []
    const twice = header.find((name, i) => header.indexOf(name) !== i)
    if (twice !== undefined) throw this.#unsupported(file, 0, `its header names ${JSON.stringify(twice)} twice`, 'correct the header')
    const fresh = header
      .filter((name) => !before.some(([known]) => known === name))
      .map((name) => {
        if (rule.columns !== undefined && !(name in rule.columns)) throw this.#undeclared(file, 0, name)
        return [name, rule.columns?.[name] ?? 'string'] as const
      })
    if (fresh.length === 0) return
    this.#columns.set(file.table, [...before, ...fresh])
    this.#schemas.delete(file.table)
  }

  #infer(file: TrackedFile, head: Buffer): void {
    const types = new Map<string, string>()
    let count = 0
    for (const { line, end } of linesOf(head)) {
      if (count++ === HEAD_LINES) break
      const text = this.#guarded(file, end - line.length - 1, () => textOf(count === 1 ? withoutMark(line) : line))
      if (text.trim() === '') continue
      for (const [name, cell] of this.#guarded(file, end - line.length - 1, () => jsonMembers(text))) types.set(name, merged(types.get(name), cell))
    }
    // what was always null says nothing, and json holds all
    this.#columns.set(
      file.table,
      [...types].map(([name, type]) => [name, type === '' ? 'json' : type]),
    )
  }

  #lineReader(file: TrackedFile, rule: TableRule, table: TableSchema, header: readonly string[] | null): LineReader {
    const own = rule.key === undefined ? 2 : 0
    const names = table.columns.slice(own).map(({ name }) => name)
    const known = new Set(names)
    const row = (values: (name: string, index: number) => Cell | null | undefined, at: number): readonly Value[] => {
      const filled = table.columns.slice(own).map((column, i) => this.#value(file, table, column, values(column.name, i) ?? null, at))
      return own === 0 ? filled : [file.key, BigInt(at), ...filled]
    }
    const csv = (text: string, at: number) => {
      const cells = this.#guarded(file, at, () => csvCells(text, rule.separator, rule.null))
      const width = (header ?? names).length
      if (cells.length !== width) throw this.#unsupported(file, at, `it has ${cells.length} cells and not ${width}`, 'correct the line')
      const place = header === null ? (_: string, i: number) => i : (name: string) => header.indexOf(name)
      return row((name, i) => {
        const cell = cells[place(name, i)]
        return cell === undefined || cell === null ? null : { kind: 'cell', text: cell }
      }, at)
    }
    const ndjson = (text: string, at: number) => {
      const members = this.#guarded(file, at, () => jsonMembers(text))
      for (const name of members.keys()) if (!known.has(name)) throw this.#undeclared(file, at, name)
      return row((name) => members.get(name), at)
    }
    return {
      table,
      hasHeader: header !== null,
      row: (line, at) => {
        const text = this.#guarded(file, at, () => textOf(at === 0 ? withoutMark(line) : line))
        return text.trim() === '' ? null : (rule.format === 'csv' ? csv : ndjson)(text, at)
      },
    }
  }

  #value(file: TrackedFile, table: TableSchema, column: Column, cell: Cell | null, at: number): Value {
    if (cell === null) return null
    const value = valueAs(column.type, cell)
    if (value !== undefined) return value
    // I6: as it stands in the file, in a branch of its own, or not at all
    if (column.maybeSpecial && cell.text.isWellFormed()) return new Special(cell.text)
    throw new MillraceError(
      'record.unrepresentable',
      `${table.namespace}.${table.name}.${column.name} (${column.sourceType}) cannot hold what ${file.name} has in the line at byte ${at}`,
      { fix: 'set `unrepresentable: text` on the source, or give the column another type and read the table again' },
    )
  }

  #guarded<T>(file: TrackedFile, at: number, read: () => T): T {
    try {
      return read()
    } catch (error) {
      if (error instanceof BadLine) throw this.#unsupported(file, at, error.message, 'correct the line')
      throw error
    }
  }

  #undeclared(file: TrackedFile, at: number, name: string): MillraceError {
    return this.#unsupported(file, at, `the table has no column ${JSON.stringify(name)}`, 'declare it in `columns` of the source')
  }

  #unsupported(file: TrackedFile, at: number, what: string, fix: string): MillraceError {
    return new MillraceError(
      'source.schema_unsupported',
      `the line of ${file.name} at byte ${at} is no row of ${this.#config.namespace}.${file.table}: ${what}`,
      {
        fix,
      },
    )
  }
}

function withoutMark(line: Buffer): Buffer {
  return line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf ? line.subarray(3) : line
}

/** The narrowest type of the values so far; '' for nothing but nulls. */
function merged(before = '', cell: Cell | null): string {
  if (cell === null || before === 'json') return before
  const fits = (type: string) => valueAs(parseType(type)!, cell) !== undefined
  const now = ['boolean', 'int64', 'float64', 'string'].find(fits) ?? 'json'
  if (before === '' || before === now) return now
  return [before, now].every((type) => type === 'int64' || type === 'float64') ? 'float64' : 'json'
}

function describe(name: string, rule: TableRule, found: readonly (readonly [string, string])[], config: FilesConfig): TableSchema {
  const unsupported = (what: string, fix: string) => new MillraceError('source.schema_unsupported', `${config.namespace}.${name} ${what}`, { fix })
  const columns: Column[] = rule.key === undefined ? [own('_file', { kind: 'string' }), own('_position', { kind: 'int64' })] : []
  for (const [column, sourceType] of found) {
    const type = parseType(rule.columns?.[column] ?? sourceType)!
    const isKey = rule.key?.includes(column) === true
    // strings hold all that text can be
    const maybeSpecial = config.unrepresentable === 'text' && !isKey && type.kind !== 'string' && type.kind !== 'json'
    columns.push({
      name: column,
      id: idOf(column),
      type,
      sourceType: rule.columns?.[column] ?? sourceType,
      nullable: !isKey,
      mayBeUnchanged: false,
      maybeSpecial,
    })
  }
  if (new Set(columns.map(({ name }) => name)).size !== columns.length) throw unsupported('has a column _file or _position of its own', 'declare a `key`')
  if (new Set(columns.map(({ id }) => id)).size !== columns.length) throw unsupported('has columns whose names cannot be told apart', 'rename one of them')
  const key = (rule.key ?? ['_file', '_position']).map((column) => {
    const at = columns.findIndex((one) => one.name === column)
    if (at < 0) throw unsupported(`has no column ${column}, which is to be its key`, 'correct `key`')
    return at
  })
  return { namespace: config.namespace, name, columns, key: key.sort((a, b) => a - b) }
}

const own = (name: string, type: ColumnType): Column => ({
  name,
  id: idOf(name),
  type,
  sourceType: type.kind,
  nullable: false,
  mayBeUnchanged: false,
  maybeSpecial: false,
})

/** Columns of files have nothing but their name: FNV-1a of it. */
function idOf(name: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash & 0x7fff_ffff
}

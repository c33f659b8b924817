import type { TablePatterns } from '../../core/plugin.ts'
import { type ColumnDefinition, defineColumn } from './column-definition.ts'
import { ServerError } from './mysql-error.ts'
import type { Flavor } from './server.ts'
import type { TableDefinition } from './type-mapping.ts'
import { identifier, literal, type Row, type WireConnection } from './wire-connection.ts'

const SYSTEM = new Set(['mysql', 'information_schema', 'performance_schema', 'sys'])

/** A table as information_schema has it now. */
export interface CatalogTable extends TableDefinition {
  /** The unique index that identifies rows, and its columns in its order; null: there is none. */
  readonly index: { readonly name: string; readonly columns: readonly string[] } | null
  /** Columns that existing rows may have a value in although none was written: those with a default, or computed ones. */
  readonly filled: ReadonlySet<string>
  readonly engine: string
  /** Of MariaDB: with system versioning the binlog has former rows among the table's; a sequence is no table, and has rows in the binlog. */
  readonly kind: 'table' | 'versioned' | 'sequence'
  /** Unique indexes of MariaDB over long text, each of which adds a hidden column at the end of the rows in the binlog. */
  readonly hashIndexes: number
  /** On MariaDB: nothing of it changed within the last seconds, so whatever changes of it from now on shows in `fingerprint`. */
  readonly isSettled: boolean
  /** Of all that was read of it: the same while nothing of it changes. */
  readonly fingerprint: string
}

/** By `catalogKey`. */
export type CatalogTables = ReadonlyMap<string, CatalogTable>

const NONE: CatalogTables = new Map()

/** MariaDB says to the second when a definition was made: what is younger may change without that. MySQL says when the statement that made it began. */
const SETTLED_S = 2

export function isCapturable(namespace: string, patterns: TablePatterns, name: string): boolean {
  return !SYSTEM.has(namespace.toLowerCase()) && patterns.matches(namespace, name)
}

/** Every table that the patterns take. One of `known` that did not change since is the same object. */
export async function listTables(connection: WireConnection, patterns: TablePatterns, known: CatalogTables = NONE): Promise<CatalogTables> {
  const rows = await connection.query(
    `select table_schema, table_name from information_schema.tables where table_type in ('BASE TABLE', 'SYSTEM VERSIONED')
       and table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys') order by table_schema, table_name`,
  )
  const names = rows
    .map(([namespace, name]) => ({ namespace: namespace!, name: name! }))
    .filter(({ namespace, name }) => isCapturable(namespace, patterns, name))
  return await describeTables(connection, names, known)
}

/** null: there is no such table. */
export async function describeTable(connection: WireConnection, namespace: string, name: string): Promise<CatalogTable | null> {
  return (await describeTables(connection, [{ namespace, name }], NONE)).get(catalogKey(namespace, name)) ?? null
}

export function catalogKey(namespace: string, name: string): string {
  return `${namespace}\0${name}`
}

const FOREIGN_KEY = /^\s*CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .*\sON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)\b/m
/** No such table, and one that the user may not read. */
const ABSENT: ReadonlySet<number> = new Set([1146, 1142])

/** What foreign keys do to a table's rows when their parent's are changed or deleted. */
const CASCADES = `('CASCADE', 'SET NULL', 'SET DEFAULT')`

/** Of MariaDB's tables that are settled, the name of a foreign key that changes or deletes their rows when its parent's are; empty: they have none. */
export type KnownCascades = WeakMap<CatalogTable, string>

/**
 * Those of the tables whose rows are changed or deleted by a foreign key when its parent is, with the name of one.
 * @param known is used, and added to
 */
export async function cascadesOf(
  connection: WireConnection,
  flavor: Flavor,
  tables: readonly CatalogTable[],
  known: KnownCascades,
): Promise<readonly Cascaded[]> {
  if (flavor === 'mysql') return await cascadesOfMysql(connection, tables)
  const found: Cascaded[] = []
  // one by one, as MariaDB shows referential_constraints to who may do more than read
  for (const table of tables) {
    const constraint = known.get(table) ?? (await cascadeOf(connection, table))
    if (table.isSettled && constraint !== undefined) known.set(table, constraint)
    if (constraint !== undefined && constraint !== '') found.push({ namespace: table.namespace, name: table.name, constraint })
  }
  return found
}

/** Also of a user who may only read. */
async function cascadesOfMysql(connection: WireConnection, tables: readonly CatalogTable[]): Promise<readonly Cascaded[]> {
  const rows = await connection.query(
    `select constraint_schema, table_name, constraint_name from information_schema.referential_constraints
       where update_rule in ${CASCADES} or delete_rule in ${CASCADES} order by constraint_name`,
  )
  const constraints = new Map(rows.map(([namespace, name, constraint]) => [catalogKey(namespace!, name!), constraint!]))
  return tables.flatMap(({ namespace, name }) => {
    const constraint = constraints.get(catalogKey(namespace, name))
    return constraint === undefined ? [] : [{ namespace, name, constraint }]
  })
}

/** undefined: it cannot be seen. */
async function cascadeOf(connection: WireConnection, { namespace, name }: Name): Promise<string | undefined> {
  try {
    const [row] = await connection.query(`show create table ${identifier(namespace)}.${identifier(name)}`)
    return FOREIGN_KEY.exec(row?.[1] ?? '')?.[1]?.replaceAll('``', '`') ?? ''
  } catch (error) {
    if (error instanceof ServerError && ABSENT.has(error.errno)) return undefined
    throw error
  }
}

interface Name {
  readonly namespace: string
  readonly name: string
}

interface Cascaded extends Name {
  readonly constraint: string
}

const KINDS: Readonly<Record<string, CatalogTable['kind']>> = { 'SYSTEM VERSIONED': 'versioned', SEQUENCE: 'sequence' }

/** In the order of `names`, without those that are not there. */
async function describeTables(connection: WireConnection, names: readonly Name[], known: CatalogTables): Promise<CatalogTables> {
  if (names.length === 0) return NONE
  const answers = await connection.queries([
    `select table_schema, table_name, column_name, column_type, character_set_name, is_nullable,
       (column_default is not null and not (column_default = 'NULL' and version() like '%mariadb%')) or extra <> '',
       coalesce(generation_expression, '') <> ''
       from information_schema.columns where ${among(names)} order by table_schema, table_name, ordinal_position`,
    `select table_schema, table_name, index_name, column_name, nullable, index_type from information_schema.statistics
       where ${among(names)} and non_unique = 0 order by table_schema, table_name, index_name, seq_in_index`,
    `select table_schema, table_name, engine, create_time, create_time < now() - interval ${SETTLED_S} second, table_type
       from information_schema.tables where ${among(names)}`,
  ])
  const [columns, indexes, tables] = answers.map((rows) => Map.groupBy(rows, ([namespace, name]) => catalogKey(namespace!, name!)))
  const described = new Map<string, CatalogTable>()
  for (const { namespace, name } of names) {
    const key = catalogKey(namespace, name)
    const own = columns!.get(key)
    if (own === undefined) continue
    const parts = indexes!.get(key) ?? []
    const [, , engine, madeAt, isSettled, type] = tables!.get(key)?.[0] ?? []
    const fingerprint = JSON.stringify([own, parts, engine, madeAt, isSettled, type])
    const before = known.get(key)
    if (before?.fingerprint === fingerprint) {
      described.set(key, before)
      continue
    }
    described.set(key, {
      ...describe(namespace, name, own, parts),
      engine: engine ?? '',
      kind: KINDS[type ?? ''] ?? 'table',
      hashIndexes: engine === 'MEMORY' ? 0 : new Set(parts.filter((row) => row[5] === 'HASH').map((row) => row[2])).size,
      isSettled: isSettled === '1',
      fingerprint,
    })
  }
  return described
}

type Described = Pick<CatalogTable, 'namespace' | 'name' | 'columns' | 'key' | 'index' | 'filled'>

function describe(namespace: string, name: string, columns: readonly Row[], parts: readonly Row[]): Described {
  const defined = columns.map(([, , column, type, charset, nullable, , generated]) =>
    defineColumn(column!, type!, charset ?? null, nullable === 'YES', generated === '1'),
  )
  const index = identity(
    defined,
    parts.map(([, , key, column, nullable]) => ({ key: key!, column: column ?? null, nullable: nullable === 'YES' })),
  )
  return {
    namespace,
    name,
    columns: defined,
    key: index === null ? [] : index.columns.map((column) => defined.findIndex((one) => one.name === column)).sort((a, b) => a - b),
    index,
    filled: new Set(columns.filter((row) => row[6] === '1').map((row) => row[2]!)),
  }
}

/** A condition on table_schema and table_name that these fulfil, at least one, and maybe others of their databases. */
export function among(names: readonly Name[]): string {
  const schemas = [...new Set(names.map(({ namespace }) => namespace))].map(literal).join(', ')
  const tables = names.length > 200 ? '' : ` and table_name in (${names.map(({ name }) => literal(name)).join(', ')})`
  return `table_schema in (${schemas})${tables}`
}

/** The primary key, else the shortest unique index without NULLs. A functional index has no column of its own. */
function identity(
  columns: readonly ColumnDefinition[],
  parts: readonly { readonly key: string; readonly column: string | null; readonly nullable: boolean }[],
): CatalogTable['index'] {
  const indexes = new Map<string, { columns: string[]; fits: boolean }>()
  for (const { key, column, nullable } of parts) {
    const index = indexes.get(key) ?? { columns: [], fits: true }
    index.fits &&= column !== null && !nullable && columns.some((one) => one.name === column)
    if (column !== null) index.columns.push(column)
    indexes.set(key, index)
  }
  const usable = [...indexes].filter(([, { fits }]) => fits)
  const chosen = usable.find(([name]) => name === 'PRIMARY') ?? usable.sort(([a, x], [b, y]) => x.columns.length - y.columns.length || (a < b ? -1 : 1))[0]
  return chosen === undefined ? null : { name: chosen[0], columns: chosen[1].columns }
}

import type { Logger } from 'pino'
import { MillraceError, TableList, type TableSchema, tableId } from '../../core/plugin.ts'
import { fileMark } from './binlog-place.ts'
import { type CatalogTable, catalogKey, describeTable } from './catalog.ts'
import { type Charsets, defineWireColumn, fits } from './column-definition.ts'
import { type FitTables, fitTables, mapCurrent, type TableSettings, type UnfitTable } from './fit-tables.ts'
import { binlogEnd, type Server } from './server.ts'
import { CATALOG_SILENCE_MS, type SqlConnections } from './sql-connection.ts'
import type { TableMap, WireColumn } from './table-map.ts'
import { type MappedTable, mapTable, type TableDefinition } from './type-mapping.ts'
import type { WireConnection } from './wire-connection.ts'

export interface CapturedTablesOptions {
  readonly connections: SqlConnections
  readonly server: Server
  readonly settings: TableSettings
  readonly charsets: Charsets
  readonly logger: Logger
  /** The catalog is looked at this often at most, in milliseconds. */
  readonly refreshMs: number
}

/** A table as rows with some table map have it. */
export interface DescribedTable {
  readonly mapped: MappedTable
  /** The map has no names, so rows from before later statements may have been of other columns: where the binlog ended then, see `DescribedAhead`. */
  readonly asOf: bigint | null
}

/** So many tables, or this part of all, are described one by one before all are listed again, which then costs no more than that did. */
const FEW = 8
const PART = 1 / 20

/** MariaDB opens every table of the server before it sends the first: minutes for ten thousands of them. */
const LIST_SILENCE_MS = 15 * 60_000

/** The columns of every sequence of MariaDB. */
const SEQUENCE = 'next_not_cached_value,minimum_value,maximum_value,start_value,increment,cache_size,cycle_option,cycle_count'

const NOTHING: FitTables = { listed: new Map(), fit: new Map(), unfit: [], cascades: new WeakMap() }

/** What the captured tables look like: now, and where the stream is. */
export class CapturedTables {
  readonly #options: CapturedTablesOptions
  readonly #list: TableList
  #bare = new Set<string>()
  /** See `SourceConnector.unfit`; of the last list. */
  unfit: readonly UnfitTable[] = []
  /** What was found last, and how often definitions had changed in the stream when that began. */
  #found: { readonly tables: FitTables; readonly changes: number } = { tables: NOTHING, changes: 0 }
  #changes = 0
  /** Tables that were described since. */
  readonly #described = new Set<string>()
  /** How many of them were described one by one. */
  #alone = 0

  constructor(options: CapturedTablesOptions) {
    this.#options = options
    this.#list = new TableList(options.refreshMs, () => this.#refresh())
  }

  list(): Promise<readonly TableSchema[]> {
    return this.#list.tables()
  }

  async #refresh(): Promise<readonly TableSchema[]> {
    const { fit, unfit } = await this.#look(this.#options.settings, LIST_SILENCE_MS)
    this.unfit = unfit
    const schemas = Array.from(fit.values(), ({ table }) => table)
    for (const table of schemas) {
      const id = tableId(table)
      if (table.key.length > 0 || this.#bare.has(id)) continue
      this.#bare.add(id)
      this.#options.logger.warn({ table: id }, 'the table has no key: it is captured into the log, and sinks refuse it')
    }
    return schemas
  }

  async #look(settings: TableSettings, silenceMs: number): Promise<FitTables> {
    const { connections, server } = this.#options
    const changes = this.#changes
    const look = (connection: WireConnection) => fitTables(connection, server, settings, this.#found.tables)
    const tables = await connections.run('to look at the tables', look, silenceMs)
    if (changes >= this.#found.changes) this.#found = { tables, changes }
    return tables
  }

  /** The stream has come to a statement that may have changed definitions: what was listed before says nothing about rows from here on. */
  changed(): void {
    this.#changes++
    // compared with the log, an older list would say that the log's new shapes are outdated
    this.#list.expire()
    this.#described.clear()
    this.#alone = 0
  }

  /** Why a table that is there is not among the captured ones; null: nothing is known of it. */
  whyLeftOut(table: Pick<TableSchema, 'namespace' | 'name'>): string | null {
    return this.unfit.find((one) => tableId(one.table) === tableId(table))?.why ?? null
  }

  /** The table as it is defined now; null: there is none. */
  async current(namespace: string, name: string): Promise<MappedTable | null> {
    const table = await this.#describe(namespace, name)
    return table === null || table.kind === 'sequence' ? null : mapCurrent(table, this.#options.settings)
  }

  /** Columns by name that existing rows may have a value in although none was written. */
  async filled(namespace: string, name: string): Promise<ReadonlySet<string>> {
    return (await this.#describe(namespace, name))?.filled ?? new Set()
  }

  /**
   * The table as rows with this map have it: as it is now when that fits, else as far as the map itself says; null: it is a sequence.
   * @throws source.schema_unsupported
   */
  async describe(map: TableMap): Promise<DescribedTable | null> {
    if (map.columns.map(({ name }) => name).join() === SEQUENCE) return null
    const { connections, server, charsets, settings } = this.#options
    const listed = await this.#lookUp(map)
    if (listed !== null) return { mapped: listed, asOf: null }
    const isNamed = map.columns.every(({ name }) => name !== null)
    const { now, asOf } = await connections.run('to describe a table', async (connection) => {
      const now = await describeTable(connection, map.namespace, map.name)
      if (isNamed) return { now, asOf: null }
      // not `gtid_executed`: a definition can be seen before its GTID is in there, but not before it is in the binlog
      const { file, position } = await binlogEnd(connection, server)
      return { now, asOf: fileMark(file, position) }
    })
    if (now?.kind === 'sequence') return null
    const mapped = now === null ? null : mapCurrent(now, settings)
    const columns = shownColumns(map, now)
    if (now !== null && now.columns.length === columns.length && now.columns.every((column, i) => fits(column, columns[i]!, charsets))) {
      return { mapped: mapped!, asOf }
    }
    if (!isNamed) {
      throw new MillraceError(
        'source.schema_unsupported',
        `rows of ${tableId(map)} are of an older definition than the table has now, and the binlog does not say which`,
        {
          fix: `SET GLOBAL binlog_row_metadata = 'FULL', and in the server configuration, so that it says so from now on`,
        },
      )
    }
    return { mapped: mapTable(fromMap({ ...map, columns }, now, charsets), settings), asOf }
  }

  /**
   * The table from a list that is no older than where the stream is; null: it is in none, or may have changed without a statement. A server may stream a statement
   * before its catalog shows it, so only a table of which the map says all that counts is taken from a list.
   */
  async #lookUp(map: TableMap): Promise<MappedTable | null> {
    const key = catalogKey(map.namespace, map.name)
    if (map.primaryKey === null || map.primaryKey.length === 0 || this.#described.has(key)) return null
    this.#described.add(key)
    if (this.#found.changes !== this.#changes) {
      if (this.#alone++ < Math.max(FEW, this.#found.tables.listed.size * PART)) return null
      // what is wrong with another table must not set this one aside; which are captured is not asked here, and the stream waits
      await this.#look({ ...this.#options.settings, cascades: 'ignore' }, CATALOG_SILENCE_MS).catch(() => {})
      if (this.#found.changes !== this.#changes) return null
    }
    const { listed, fit } = this.#found.tables
    const table = listed.get(key)
    return table !== undefined && isSaid(table, map, this.#options.charsets) ? (fit.get(key) ?? null) : null
  }

  #describe(namespace: string, name: string): Promise<CatalogTable | null> {
    return this.#options.connections.run('to describe a table', (connection) => describeTable(connection, namespace, name))
  }
}

/** A map with a primary key has names, too. */
function isSaid(table: CatalogTable, map: TableMap, charsets: Charsets): boolean {
  const { columns, index, key } = table
  const shown = shownColumns(map, table)
  if (index?.name !== 'PRIMARY' || map.primaryKey?.join() !== key.join() || shown.length !== columns.length) return false
  return columns.every((column, i) => shown[i]!.nullable === column.nullable && fits(column, shown[i]!, charsets))
}

const HASH_COLUMN = /^DB_ROW_HASH_\d+$/

/** The map's columns without those at its end that MariaDB hides: the hashes of unique indexes over long text. */
function shownColumns({ columns }: TableMap, now: CatalogTable | null): readonly WireColumn[] {
  let shown = columns.length
  const isHidden = (name: string) => HASH_COLUMN.test(name) && now?.columns.some((column) => column.name === name) !== true
  if (columns.at(-1)?.name != null) while (shown > 0 && isHidden(columns[shown - 1]!.name!)) shown--
  else if (now !== null && columns.length === now.columns.length + now.hashIndexes) shown = now.columns.length
  return columns.slice(0, shown)
}

/** A definition from a table map with names. A unique index that stands in for a primary key is known from the present definition only. */
function fromMap(map: TableMap, now: CatalogTable | null, charsets: Charsets): TableDefinition {
  const generated = new Set(now?.columns.filter((column) => column.generated).map(({ name }) => name))
  const columns = map.columns.map((column) => ({ ...defineWireColumn(column, charsets), generated: generated.has(column.name ?? '') }))
  const named = (now?.index?.columns ?? []).map((name) => columns.findIndex((column) => column.name === name))
  const key = map.primaryKey !== null && map.primaryKey.length > 0 ? map.primaryKey : named.includes(-1) ? [] : [...named].sort((a, b) => a - b)
  return { namespace: map.namespace, name: map.name, columns, key }
}

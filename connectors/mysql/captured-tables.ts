import type { Logger } from 'pino'
import { MillraceError, TableList, type TableSchema, tableId } from '../../core/plugin.ts'
import { type CatalogTable, describeTable } from './catalog.ts'
import { type Charsets, defineWireColumn, fits } from './column-definition.ts'
import { fitTables, type TableSettings, type UnfitTable } from './fit-tables.ts'
import { binlogEnd, fileMark, type Server } from './server.ts'
import type { SqlConnections } from './sql-connection.ts'
import type { TableMap } from './table-map.ts'
import { type MappedTable, mapTable, type TableDefinition } from './type-mapping.ts'

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
  readonly asOf: number | null
}

/** What the captured tables look like: now, and where the stream is. */
export class CapturedTables {
  readonly #options: CapturedTablesOptions
  readonly #list: TableList
  #bare = new Set<string>()
  /** See `SourceConnector.unfit`; of the last list. */
  unfit: readonly UnfitTable[] = []

  constructor(options: CapturedTablesOptions) {
    this.#options = options
    this.#list = new TableList(options.refreshMs, () => this.#refresh())
  }

  list(): Promise<readonly TableSchema[]> {
    return this.#list.tables()
  }

  async #refresh(): Promise<readonly TableSchema[]> {
    const { connections, server, settings, logger } = this.#options
    const { fit, unfit } = await connections.run('to look at the tables', (connection) => fitTables(connection, server, settings))
    this.unfit = unfit
    for (const table of fit) {
      const id = tableId(table)
      if (table.key.length > 0 || this.#bare.has(id)) continue
      this.#bare.add(id)
      logger.warn({ table: id }, 'the table has no key: it is captured into the log, and sinks refuse it')
    }
    return fit
  }

  /** Why a table that is there is not among the captured ones; null: nothing is known of it. */
  whyLeftOut(table: Pick<TableSchema, 'namespace' | 'name'>): string | null {
    return this.unfit.find((one) => tableId(one.table) === tableId(table))?.why ?? null
  }

  /** The table as it is defined now; null: there is none. */
  async current(namespace: string, name: string): Promise<MappedTable | null> {
    const table = await this.#describe(namespace, name)
    return table === null ? null : mapTable(table, this.#options.settings)
  }

  /** Columns by name that existing rows may have a value in although none was written. */
  async filled(namespace: string, name: string): Promise<ReadonlySet<string>> {
    return (await this.#describe(namespace, name))?.filled ?? new Set()
  }

  /** The table as rows with this map have it: as it is now when that fits, else as far as the map itself says. @throws source.schema_unsupported */
  async describe(map: TableMap): Promise<DescribedTable> {
    const { connections, server, charsets, settings } = this.#options
    const isNamed = map.columns.every(({ name }) => name !== null)
    const { now, asOf } = await connections.run('to describe a table', async (connection) => {
      const now = await describeTable(connection, map.namespace, map.name)
      if (isNamed) return { now, asOf: null }
      // not `gtid_executed`: a definition can be seen before its GTID is in there, but not before it is in the binlog
      const { file, position } = await binlogEnd(connection, server)
      return { now, asOf: fileMark(file, position) }
    })
    if (now !== null && now.columns.length === map.columns.length && now.columns.every((column, i) => fits(column, map.columns[i]!, charsets))) {
      return { mapped: mapTable(now, settings), asOf }
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
    return { mapped: mapTable(fromMap(map, now, charsets), settings), asOf }
  }

  #describe(namespace: string, name: string): Promise<CatalogTable | null> {
    return this.#options.connections.run('to describe a table', (connection) => describeTable(connection, namespace, name))
  }
}

/** A definition from a table map with names. A unique index that stands in for a primary key is known from the present definition only. */
function fromMap(map: TableMap, now: CatalogTable | null, charsets: Charsets): TableDefinition {
  const columns = map.columns.map((column) => defineWireColumn(column, charsets))
  const named = (now?.index?.columns ?? []).map((name) => columns.findIndex((column) => column.name === name))
  const key = map.primaryKey !== null && map.primaryKey.length > 0 ? map.primaryKey : named.includes(-1) ? [] : [...named].sort((a, b) => a - b)
  return { namespace: map.namespace, name: map.name, columns, key }
}

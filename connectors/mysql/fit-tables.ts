import { MillraceError, TablePatterns, tableId } from '../../core/plugin.ts'
import { type CatalogTable, type CatalogTables, cascadesOf, type KnownCascades, listTables } from './catalog.ts'
import type { MysqlConfig } from './mysql-config.ts'
import { binlogEnd, type Server } from './server.ts'
import { type MappedTable, mapTable, type TypeMappingOptions } from './type-mapping.ts'
import type { WireConnection } from './wire-connection.ts'

/** What decides which tables are captured. */
export type TableSettings = Pick<MysqlConfig, 'tables' | 'cascades' | 'unrepresentable'>

/** A table that the patterns take and that cannot be captured. */
export interface UnfitTable {
  readonly table: CatalogTable
  /** Reads on from the table's name. */
  readonly why: string
  readonly error: MillraceError
}

/** The tables that the patterns take, by `catalogKey`. */
export interface FitTables {
  readonly listed: CatalogTables
  /** Those that can be captured. */
  readonly fit: ReadonlyMap<string, MappedTable>
  /** The others, with what they lack. */
  readonly unfit: readonly UnfitTable[]
  readonly cascades: KnownCascades
}

/** @param before what an earlier look found: what did not change since is the same object */
export async function fitTables(connection: WireConnection, server: Server, settings: TableSettings, before?: FitTables): Promise<FitTables> {
  const listed = await listTables(connection, new TablePatterns(settings.tables), before?.listed)
  const cascades: KnownCascades = before?.cascades ?? new WeakMap()
  const unlogged = await unloggedTables(connection, server, [...listed.values()], { ...settings, known: cascades })
  const fit = new Map<string, MappedTable>()
  const unfit: UnfitTable[] = []
  for (const [key, table] of listed) {
    const id = tableId(table)
    const reason = unlogged.get(id)
    if (reason !== undefined) {
      const error = new MillraceError('source.schema_unsupported', `${id} ${reason.why}`, { fix: reason.fix })
      unfit.push({ table, why: reason.why, error })
      continue
    }
    try {
      const mapped = before?.fit.get(key)
      fit.set(key, mapped?.definition === table ? mapped : mapCurrent(table, settings))
    } catch (error) {
      if (!(error instanceof MillraceError) || error.category !== 'schema') throw error
      unfit.push({ table, why: `cannot be captured: ${error.message}`, error })
    }
  }
  return { listed, fit, unfit, cascades }
}

/** A table as it is now. @throws source.schema_unsupported when its rows cannot be captured */
export function mapCurrent(table: CatalogTable, settings: TypeMappingOptions): MappedTable {
  if (table.kind !== 'versioned') return mapTable(table, settings)
  throw new MillraceError(
    'source.schema_unsupported',
    `${tableId(table)} has system versioning: the binlog has its former rows as if they were rows of the table, and its deletes as changes of them`,
    { fix: `leave it out, '!${tableId(table)}' in tables, or ALTER TABLE … DROP SYSTEM VERSIONING` },
  )
}

/** Why the binlog does not have all changes of a table. */
interface Unlogged {
  readonly why: string
  readonly fix: string
}

/** Those of the tables whose changes are not all in the binlog, by id. */
export async function unloggedTables(
  connection: WireConnection,
  server: Server,
  tables: readonly CatalogTable[],
  { cascades, known = new WeakMap() }: Pick<TableSettings, 'cascades'> & { readonly known?: KnownCascades },
): Promise<ReadonlyMap<string, Unlogged>> {
  const found = new Map<string, Unlogged>()
  if (cascades === 'refuse' && !server.logsCascades) {
    for (const { constraint, ...table } of await cascadesOf(connection, server.flavor, tables, known)) {
      found.set(tableId(table), {
        why: `is changed by its foreign key ${constraint}, whose cascades the server does not write to its binlog`,
        fix: 'make the foreign key ON DELETE RESTRICT ON UPDATE RESTRICT and delete in the application, or set `cascades: ignore`: such rows then stay in the targets',
      })
    }
  }
  const { only, without } = await binlogEnd(connection, server)
  for (const table of tables) {
    const { namespace } = table
    if (only.length > 0 ? only.includes(namespace) : !without.includes(namespace)) continue
    found.set(tableId(table), {
      why: `is of the database ${namespace}, which the server leaves out of its binlog`,
      fix: 'take binlog-do-db and binlog-ignore-db out of the server configuration, and restart the server',
    })
  }
  return found
}

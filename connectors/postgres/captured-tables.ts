import type { Logger } from 'pino'
import { type Json, MillraceError, TableList, type TableParts, type TablePatterns, type TableSchema, tableId } from '../../core/plugin.ts'
import type { CatalogConnection } from './catalog-connection.ts'
import { type KnownPartition, movedPartitions, type Partition } from './partitions.ts'
import { addTable, findPublication, listTables, lookAgain, type Publication, type SourceTable, tableName } from './publication.ts'
import { historyLost } from './slot.ts'
import { partsCursor } from './snapshot-reader.ts'
import { describeTables, type TypeMappingOptions } from './type-mapping.ts'

/** Before, a walsender keeps what it once decided about a table that came to a partitioned one, or left it. */
const FOLLOWS_PARTITIONS_VERSION = 150_000

export interface CapturedTablesOptions {
  readonly catalog: CatalogConnection
  readonly publication: { readonly name: string; readonly oid: number }
  readonly patterns: TablePatterns
  readonly mapping: TypeMappingOptions
  readonly logger: Logger
  readonly node: string
  /** server_version_num */
  readonly version: number
  /** The tables were captured before: one that is not published when it is first looked may have been, and may have changed since. */
  readonly resumed: boolean
  /** The catalog is looked at this often at most, in milliseconds. */
  readonly refreshMs: number
}

interface KnownTable {
  readonly fingerprint: string
  readonly table: TableSchema
}

/** The tables in the publication that the patterns take; those that appear while it runs join the publication first. */
export class CapturedTables {
  readonly #options: CapturedTablesOptions
  #schemas: ReadonlyMap<number, KnownTable> = new Map()
  readonly #list: TableList
  #warned = new Set<number>()
  /** See `SourceConnector.unfit`; of the last list. */
  unfit: readonly { readonly table: SourceTable; readonly error: MillraceError }[] = []
  /** Those that were published when it was first looked, and since. */
  #first: Set<number> | null = null
  /** Those that were captured, or may have been, and are not published. */
  readonly #missed = new Set<number>()
  #partitions: ReadonlyMap<string, { readonly oid: number; readonly partitions: readonly Partition[] }> = new Map()

  constructor(options: CapturedTablesOptions) {
    this.#options = options
    this.#list = new TableList(options.refreshMs, () => this.#refresh())
  }

  /** @throws source.history_lost when the publication is gone or leaves something out, source.forbidden when a table may not join it */
  list(): Promise<readonly TableSchema[]> {
    return this.#list.tables()
  }

  /** Whether the table with this oid was published when the first list was made, and since. */
  wasFirst(oid: number): boolean {
    return this.#first?.has(oid) === true
  }

  #refresh(): Promise<readonly TableSchema[]> {
    const { catalog, publication, patterns, mapping, logger, resumed } = this.#options
    return catalog.run('to look at the tables', async (client) => {
      const found = await findPublication(client, publication.name)
      if (found === null || found.oid !== publication.oid) throw publicationLost(publication.name, this.#options.node)
      if (found.omits.length > 0) throw publicationLacks(found, this.#options.node)
      let tables = await listTables(client, publication.name, patterns)
      let added = 0
      const unfit: SourceTable[] = []
      for (const table of tables) {
        if (table.published || found.allTables) continue
        if (!table.identified) {
          // Publishing it would make the application's own updates fail, so it stays out, loudly.
          unfit.push(table)
          continue
        }
        // what changed while it was not published is in no stream: it joins again once it was missed, and so is read anew
        if ((this.#first === null ? resumed : this.#schemas.has(table.oid)) && !this.#missed.has(table.oid)) {
          this.#missed.add(table.oid)
          this.#first?.delete(table.oid)
        } else if (await addTable(client, publication.name, table, this.#options.version)) {
          added++
          this.#missed.delete(table.oid)
        } else logger.warn({ table: tableId(table) }, 'table could not join the publication yet: it is locked')
      }
      if (added > 0) tables = await listTables(client, publication.name, patterns)
      const listed: SourceTable[] = []
      const partitioned = new Map<string, { readonly oid: number; readonly partitions: readonly Partition[] }>()
      for (const table of tables) {
        if (!table.published) continue
        if (!table.identified) this.#warnOf(table, 'Postgres refuses its updates and deletes: it is published and lost its key or replica identity')
        if (table.partitions !== null) partitioned.set(tableId(table), { oid: table.oid, partitions: table.partitions })
        listed.push(table)
      }
      const known = ({ oid, fingerprint }: SourceTable) => (this.#schemas.get(oid)?.fingerprint === fingerprint ? this.#schemas.get(oid) : undefined)
      const fresh = listed.filter((table) => known(table) === undefined).map(({ oid }) => oid)
      const described = await describeTables(client, fresh, mapping)
      const schemas = new Map<number, KnownTable>()
      for (const table of listed) {
        // one that is gone by now is in no list any more
        const schema = known(table)?.table ?? described.get(table.oid)?.table
        if (schema !== undefined) schemas.set(table.oid, { fingerprint: table.fingerprint, table: schema })
      }
      this.#first ??= new Set(schemas.keys())
      this.#schemas = schemas
      this.unfit = unfit.map((table) => ({
        table,
        error: new MillraceError('source.no_identity', `${tableId(table)} has no key and no replica identity: it is not captured`, {
          fix: identityFix([table]),
        }),
      }))
      this.#partitions = partitioned
      return [...schemas.values()].map((entry) => entry.table)
    })
  }

  #warnOf(table: SourceTable, message: string): void {
    if (this.#warned.has(table.oid)) return
    this.#warned.add(table.oid)
    this.#options.logger.error({ table: tableId(table), fix: identityFix([table]) }, message)
  }

  /**
   * See `SourceConnector.parts`; of the last list.
   * @throws source.history_lost when a Postgres 14 could not be made to follow what moved
   */
  async parts(table: TableSchema, known: Json | null): Promise<TableParts | null> {
    const listed = this.#partitions.get(tableId(table))
    if (listed === undefined) return null
    const { oid, partitions } = listed
    const before = known as unknown as readonly KnownPartition[] | null
    const { came, left } = before === null ? { came: [], left: [] } : movedPartitions(before, partitions)
    const moved = [...left, ...came]
    if (moved.length > 0) {
      const { logger, version } = this.#options
      if (
        version < FOLLOWS_PARTITIONS_VERSION &&
        !(await this.#follow(
          table,
          moved.map(({ oid }) => oid),
        ))
      )
        return null
      logger.warn(
        { table: tableId(table), moved: moved.map(({ what }) => what) },
        left.length > 0 ? 'rows may have gone with partitions: the table is read anew' : 'rows may have come with partitions: they are read',
      )
    }
    const now = partitions.map(({ oid, name, state }) => ({ oid, name, state }))
    return { now, came: came.length === 0 ? null : partsCursor(oid, came), left: left.length > 0 }
  }

  #follow(table: TableSchema, partitions: readonly number[]): Promise<boolean> {
    const { catalog, publication, node } = this.#options
    return catalog.run('to follow the partitions', async (client) => {
      try {
        return await lookAgain(client, publication.name, partitions)
      } catch (cause) {
        if ((cause as { readonly code?: unknown }).code !== '42501') throw cause
        const message = `partitions of ${tableId(table)} came or went, which Postgres 14 follows only when the publication ${publication.name} changes; that is its owner's, who must own the partitions too`
        throw historyLost(message, { node }, cause)
      }
    })
  }
}

/** @throws source.unprepared when updates of a table could not be captured */
export function requireIdentity(tables: readonly SourceTable[]): void {
  const bare = tables.filter((table) => !table.identified)
  if (bare.length === 0) return
  throw new MillraceError(
    'source.unprepared',
    `no key and no replica identity: ${bare.map(tableId).join(', ')}; Postgres would refuse their updates once they are published`,
    {
      fix: identityFix(bare),
    },
  )
}

/** Sinks hold one row per key, so a key comes first. */
export function identityFix(bare: readonly SourceTable[]): string {
  const full = bare.map((table) => `ALTER TABLE ${tableName(table)} REPLICA IDENTITY FULL`).join('; ')
  return `add a primary key, which sinks need; or, for the log alone, ${full}; or leave out ${bare.map((table) => `'!${tableId(table)}'`).join(', ')} in tables`
}

/** Of a publication that tables were captured by. */
export function publicationLacks({ name, omits }: Publication, node: string): MillraceError {
  return historyLost(`the publication ${name} leaves out ${omits.join(', ')}: changes made meanwhile are in no stream`, { node })
}

export function publicationLost(name: string, node: string): MillraceError {
  return historyLost(`the publication ${name} was dropped since the capture began; changes made meanwhile are in no stream`, { node })
}

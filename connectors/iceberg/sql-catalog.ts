/** The SQL catalog that PyIceberg (`SqlCatalog`) and Java (`JdbcCatalog`, schema V1) share, in a SQLite file. */
import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { MillraceError, openSqliteReader, sqliteError } from '../../core/plugin.ts'
import type { Catalog, CommitOutcome, LoadedTable, TableIdentifier } from './catalog.ts'
import type { FileStore } from './file-store.ts'
import { parseLosslessJson, stringifyLosslessJson } from './lossless-json.ts'
import { applyUpdates, type IcebergSchema, newTableMetadata, type TableMetadata, type TableRequirement, type TableUpdate } from './table-metadata.ts'

/** Metadata files that stay for readers that have just opened one. */
const METADATA_FILES_KEPT = 20

/** Another process may hold the file for so long. */
const BUSY_MS = 10_000

const TABLES = `
  create table if not exists iceberg_tables (
    catalog_name varchar(255) not null, table_namespace varchar(255) not null, table_name varchar(255) not null,
    metadata_location varchar(1000), previous_metadata_location varchar(1000), iceberg_type varchar(5),
    primary key (catalog_name, table_namespace, table_name));
  create table if not exists iceberg_namespace_properties (
    catalog_name varchar(255) not null, namespace varchar(255) not null, property_key varchar(255) not null, property_value varchar(1000) not null,
    primary key (catalog_name, namespace, property_key))`

export interface SqlCatalogOptions {
  /** The SQLite file. */
  readonly path: string
  /** The catalog's name in it. */
  readonly name: string
  /** Location under which new tables are made: `<warehouse>/<namespace>/<table>`. */
  readonly warehouse: string
  /** Nothing is made: a file that is not there has no tables. */
  readonly readOnly: boolean
}

export class SqlCatalog implements Catalog {
  readonly files: FileStore
  readonly #options: SqlCatalogOptions
  #db: DatabaseSync
  /** Only read, and there is no catalog in the file yet. */
  #isAbsent = false

  /** @throws sink.forbidden, config.invalid when the file is something else, sink.unreachable */
  constructor(options: SqlCatalogOptions, files: FileStore) {
    this.files = files
    this.#options = options
    this.#db = this.#connect()
  }

  #connect(): DatabaseSync {
    const { path: file, readOnly } = this.#options
    let db: DatabaseSync | null = null
    try {
      if (!readOnly) mkdirSync(path.dirname(file), { recursive: true })
      db = readOnly ? openSqliteReader(file, BUSY_MS) : new DatabaseSync(file, { timeout: BUSY_MS })
      this.#isAbsent = readOnly && db.prepare("select 1 from sqlite_schema where name = 'iceberg_tables'").get() === undefined
      if (!readOnly || this.#isAbsent) db.exec(readOnly ? TABLES.replaceAll('create table if not exists', 'create temp table') : TABLES)
      if (readOnly) db.exec('pragma query_only = 1')
      return db
    } catch (error) {
      db?.close()
      throw this.#failure(error)
    }
  }

  async newTableLocation(): Promise<string> {
    this.#location({ namespace: [], name: '' })
    return this.#options.warehouse
  }

  async load(table: TableIdentifier): Promise<LoadedTable | null> {
    for (let location = this.#location(table), tries = 0; ; tries++) {
      if (location === null) return null
      try {
        return { metadata: parseLosslessJson((await this.files.read(location)).toString()) as TableMetadata, metadataLocation: location }
      } catch (error) {
        // a busy writer may have removed the file between the two reads
        const current = this.#location(table)
        if (current === location || tries > 20) throw error
        location = current
      }
    }
  }

  async create(table: TableIdentifier, schema: IcebergSchema, lastColumnId: number, properties: Readonly<Record<string, string>>): Promise<LoadedTable | null> {
    const { name } = this.#options
    const namespace = table.namespace.join('.')
    if (this.#location(table) !== null) return null
    const location = `${this.#options.warehouse}/${namespace}/${table.name}`
    const metadata = newTableMetadata(location, schema, lastColumnId, properties)
    const metadataLocation = await this.#write(metadata, 0)
    try {
      this.#db.prepare("insert or ignore into iceberg_namespace_properties values (?, ?, 'exists', 'true')").run(name, namespace)
      this.#db.prepare("insert into iceberg_tables values (?, ?, ?, ?, null, 'TABLE')").run(name, namespace, table.name, metadataLocation)
    } catch (error) {
      await this.files.remove([metadataLocation])
      if (this.#location(table) !== null) return null
      throw this.#failure(error)
    }
    await this.#hint(metadata, metadataLocation)
    return { metadata, metadataLocation }
  }

  async commit(table: TableIdentifier, base: LoadedTable, _requirements: readonly TableRequirement[], updates: readonly TableUpdate[]): Promise<CommitOutcome> {
    const previous = base.metadataLocation!
    const log = [...(base.metadata['metadata-log'] ?? []), { 'timestamp-ms': base.metadata['last-updated-ms'], 'metadata-file': previous }]
    const metadata = { ...applyUpdates(base.metadata, updates), 'metadata-log': log.slice(-METADATA_FILES_KEPT) }
    const metadataLocation = await this.#write(metadata, versionOf(previous) + 1)
    let changes: number | bigint
    try {
      ;({ changes } = this.#db
        .prepare(
          'update iceberg_tables set metadata_location = ?, previous_metadata_location = ? where catalog_name = ? and table_namespace = ? and table_name = ? and metadata_location = ?',
        )
        .run(metadataLocation, previous, this.#options.name, table.namespace.join('.'), table.name, previous))
    } catch (cause) {
      return { outcome: 'unknown', cause }
    }
    if (changes !== 1) {
      await this.files.remove([metadataLocation])
      return { outcome: 'conflict' }
    }
    await this.#hint(metadata, metadataLocation)
    await this.files.remove(log.slice(0, -METADATA_FILES_KEPT).map((entry) => entry['metadata-file']))
    return { outcome: 'committed', table: { metadata, metadataLocation } }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#db.isOpen) this.#db.close()
  }

  #location(table: TableIdentifier): string | null {
    // its writer may have made it since
    if (this.#isAbsent) {
      const before = this.#db
      this.#db = this.#connect()
      before.close()
    }
    try {
      const row = this.#db
        .prepare('select metadata_location from iceberg_tables where catalog_name = ? and table_namespace = ? and table_name = ?')
        .get(this.#options.name, table.namespace.join('.'), table.name)
      return (row?.metadata_location as string | undefined) ?? null
    } catch (error) {
      throw this.#failure(error)
    }
  }

  #failure(error: unknown): MillraceError {
    const { path: file } = this.#options
    const known = sqliteError(file, error, 'bring back a copy of the catalog: without it nothing says which files are of its tables')
    if (known instanceof MillraceError) return known
    return new MillraceError('sink.unreachable', `the catalog ${file} does not answer: ${(error as Error).message}`, { cause: error })
  }

  async #write(metadata: TableMetadata, version: number): Promise<string> {
    const location = `${metadata.location}/metadata/${String(version).padStart(5, '0')}-${randomUUID()}.metadata.json`
    await this.files.write(location, Buffer.from(stringifyLosslessJson(metadata)))
    await this.files.syncFolder(`${metadata.location}/metadata`)
    return location
  }

  /** Lets readers without the catalog (DuckDB on the table's folder) find the current metadata. Best effort. */
  async #hint(metadata: TableMetadata, metadataLocation: string): Promise<void> {
    const version = path.posix.basename(metadataLocation).replace(/\.metadata\.json$/, '')
    await this.files.replace(`${metadata.location}/metadata/version-hint.text`, version).catch(() => {})
  }
}

function versionOf(location: string): number {
  return Number(/\/v?(\d+)[^/]*$/.exec(location)?.[1] ?? 0)
}

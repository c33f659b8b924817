import type { FileStore } from './file-store.ts'
import type { IcebergSchema, TableMetadata, TableRequirement, TableUpdate } from './table-metadata.ts'

export interface TableIdentifier {
  readonly namespace: readonly string[]
  readonly name: string
}

export interface LoadedTable {
  readonly metadata: TableMetadata
  /** Location of the metadata file; null when the catalog does not say. */
  readonly metadataLocation: string | null
}

export type CommitOutcome =
  | { readonly outcome: 'committed'; readonly table: LoadedTable }
  /** Somebody else changed the table since `base`. */
  | { readonly outcome: 'conflict' }
  /** The catalog may have committed or not: load the table and look. */
  | { readonly outcome: 'unknown'; readonly cause: unknown }

/** Keeps which metadata of a table is current, and swaps it atomically. */
export interface Catalog extends AsyncDisposable {
  /** Where the files of its tables lie. */
  readonly files: FileStore
  /** Where a new table would lie, without making it; null when that cannot be known yet. @throws sink.unreachable, sink.forbidden */
  newTableLocation(namespace: readonly string[] | null): Promise<string | null>
  /** Null when there is no such table. @throws sink.unreachable, sink.forbidden */
  load(table: TableIdentifier): Promise<LoadedTable | null>
  /** Null when the table is there already. Makes the namespace when it is missing. */
  create(table: TableIdentifier, schema: IcebergSchema, lastColumnId: number, properties: Readonly<Record<string, string>>): Promise<LoadedTable | null>
  /** All updates or none, and only when `base` is still current as far as `requirements` say. */
  commit(table: TableIdentifier, base: LoadedTable, requirements: readonly TableRequirement[], updates: readonly TableUpdate[]): Promise<CommitOutcome>
}

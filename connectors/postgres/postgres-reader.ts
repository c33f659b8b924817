import type pg from 'pg'
import { type PluginContext, type ScanTarget, type SourceOffset, type SourceReader, TablePatterns, type TableSchema } from '../../core/plugin.ts'
import { CatalogConnection, connectClient } from './catalog-connection.ts'
import { parseLsn } from './lsn.ts'
import { objectName, type PostgresConfig } from './postgres-config.ts'
import { reachServer } from './postgres-hosts.ts'
import { listTables } from './publication.ts'
import { PostgresSnapshotReader } from './snapshot-reader.ts'
import { describeTables } from './type-mapping.ts'

/** Opens the database for the audit: ordinary connections that read, beside whatever captures it. */
export async function openPostgresReader(config: PostgresConfig, context: PluginContext): Promise<SourceReader> {
  return new PostgresReader(config, config.publication ?? objectName(context.mesh, context.node), await reachServer(config))
}

class PostgresReader implements SourceReader {
  readonly #config: PostgresConfig
  readonly #publication: string
  readonly #catalog: CatalogConnection
  readonly #snapshot: PostgresSnapshotReader

  constructor(config: PostgresConfig, publication: string, connect: pg.ClientConfig) {
    this.#config = config
    this.#publication = publication
    this.#catalog = new CatalogConnection(connect, config.silenceMs)
    this.#snapshot = new PostgresSnapshotReader({ connect: () => connectClient(connect), mapping: { unrepresentable: config.unrepresentable } })
  }

  /** The tables that are captured, or will be: also those that have not joined the publication yet, so that the audit waits for them. */
  tables(): Promise<readonly TableSchema[]> {
    return this.#catalog.run('to look at the tables', async (client) => {
      const listed = await listTables(client, this.#publication, new TablePatterns(this.#config.tables))
      const oids = listed.filter(({ published, identified }) => published || identified).map(({ oid }) => oid)
      const described = await describeTables(client, oids, { unrepresentable: this.#config.unrepresentable })
      return oids.flatMap((oid) => described.get(oid)?.table ?? [])
    })
  }

  scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint> {
    return this.#snapshot.scan(table, open, signal)
  }

  reached(offset: SourceOffset, commit: bigint): boolean {
    // just after a page's header the insert LSN exceeds all that the server reports of an idle log
    const slack = 40n
    return parseLsn(String(offset.lsn)) + slack >= commit
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#snapshot[Symbol.asyncDispose]()
    await this.#catalog[Symbol.asyncDispose]()
  }
}

import type { PluginContext, ScanTarget, SourceOffset, SourceReader, TableSchema } from '../../core/plugin.ts'
import { fitTables } from './fit-tables.ts'
import { connectOptions, type MysqlConfig } from './mysql-config.ts'
import { lastCommit, readOffset, requireForm } from './mysql-offset.ts'
import { readServer, SESSION, type Server } from './server.ts'
import { MysqlSnapshotReader, SNAPSHOT_SESSION } from './snapshot-reader.ts'
import { SqlConnections } from './sql-connection.ts'

/** Opens the server for the audit: ordinary connections that read, beside whatever captures it. */
export async function openMysqlReader(config: MysqlConfig, { node }: PluginContext): Promise<SourceReader> {
  const options = connectOptions(config)
  const connections = new SqlConnections(options, SESSION)
  const snapshots = new SqlConnections(options, SNAPSHOT_SESSION)
  const mapping = { unrepresentable: config.unrepresentable }
  try {
    const server = await connections.run('to look at the server', readServer)
    return new MysqlReader(connections, snapshots, server, config, node, new MysqlSnapshotReader({ connections: snapshots, server, mapping }))
  } catch (error) {
    await connections[Symbol.asyncDispose]()
    throw error
  }
}

class MysqlReader implements SourceReader {
  readonly #connections: SqlConnections
  readonly #snapshots: SqlConnections
  readonly #server: Server
  readonly #config: MysqlConfig
  readonly #node: string
  readonly #reader: MysqlSnapshotReader

  constructor(connections: SqlConnections, snapshots: SqlConnections, server: Server, config: MysqlConfig, node: string, reader: MysqlSnapshotReader) {
    this.#connections = connections
    this.#snapshots = snapshots
    this.#server = server
    this.#config = config
    this.#node = node
    this.#reader = reader
  }

  async tables(): Promise<readonly TableSchema[]> {
    const { fit } = await this.#connections.run('to look at the tables', (connection) => fitTables(connection, this.#server, this.#config))
    return Array.from(fit.values(), ({ table }) => table)
  }

  scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint> {
    return this.#reader.scan(table, open, signal)
  }

  reached(offset: SourceOffset, commit: bigint): boolean {
    const reached = readOffset(offset)
    requireForm(reached, this.#server, this.#node)
    return lastCommit(reached) + 1n >= commit
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#snapshots[Symbol.asyncDispose]()
    await this.#connections[Symbol.asyncDispose]()
  }
}

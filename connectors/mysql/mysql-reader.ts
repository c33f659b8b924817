import { type PluginContext, type ScanTarget, type SourceOffset, type SourceReader, TablePatterns, type TableSchema } from '../../core/plugin.ts'
import { listTables } from './catalog.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { connectOptions, type MysqlConfig } from './mysql-config.ts'
import { readOffset } from './mysql-offset.ts'
import { readServer, SESSION } from './server.ts'
import { MysqlSnapshotReader, SNAPSHOT_SESSION } from './snapshot-reader.ts'
import { SqlConnections } from './sql-connection.ts'
import { mapTable, type TypeMappingOptions } from './type-mapping.ts'

/** Opens the server for the audit: ordinary connections that read, beside whatever captures it. */
export async function openMysqlReader(config: MysqlConfig, _context: PluginContext): Promise<SourceReader> {
  const options = connectOptions(config)
  const connections = new SqlConnections(options, SESSION)
  const snapshots = new SqlConnections(options, SNAPSHOT_SESSION)
  const mapping = { unrepresentable: config.unrepresentable }
  try {
    const server = await connections.run('to look at the server', readServer)
    return new MysqlReader(
      connections,
      snapshots,
      new TablePatterns(config.tables),
      mapping,
      new MysqlSnapshotReader({ connections: snapshots, server, mapping }),
    )
  } catch (error) {
    await connections[Symbol.asyncDispose]()
    throw error
  }
}

class MysqlReader implements SourceReader {
  readonly #connections: SqlConnections
  readonly #snapshots: SqlConnections
  readonly #patterns: TablePatterns
  readonly #mapping: TypeMappingOptions
  readonly #reader: MysqlSnapshotReader

  constructor(connections: SqlConnections, snapshots: SqlConnections, patterns: TablePatterns, mapping: TypeMappingOptions, reader: MysqlSnapshotReader) {
    this.#connections = connections
    this.#snapshots = snapshots
    this.#patterns = patterns
    this.#mapping = mapping
    this.#reader = reader
  }

  async tables(): Promise<readonly TableSchema[]> {
    const tables = await this.#connections.run('to look at the tables', (connection) => listTables(connection, this.#patterns))
    return tables.map((table) => mapTable(table, this.#mapping).table)
  }

  scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint> {
    return this.#reader.scan(table, open, signal)
  }

  reached(offset: SourceOffset, commit: bigint): boolean {
    const { flavor, gtids } = readOffset(offset)
    const last = flavor === 'mysql' ? GtidSet.parse(gtids).size : MariadbPosition.parse(gtids).sum
    return BigInt(last) + 1n >= commit
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#snapshots[Symbol.asyncDispose]()
    await this.#connections[Symbol.asyncDispose]()
  }
}

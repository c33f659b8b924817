import { createHash, type Hash } from 'node:crypto'
import {
  MillraceError,
  type PluginContext,
  type ScanTarget,
  type SourceOffset,
  type SourceReader,
  TablePatterns,
  type TableSchema,
  tableId,
} from '../../core/plugin.ts'
import type { CassandraConfig } from './cassandra-config.ts'
import { readOffset } from './cassandra-offset.ts'
import { type CatalogTable, readCatalog } from './catalog.ts'
import { CqlClient } from './cql-client.ts'
import { mappingOf } from './open-cassandra.ts'
import { keyOf, type QueriedRow, RowQuery } from './row-query.ts'
import { writeRow } from './row-writer.ts'
import { type MappedTable, mapCaptured } from './table-mapping.ts'

/** Rows of a page. */
const PAGE_ROWS = 1000
/** Passes over a table until two are the same. */
const MOST_PASSES = 8

/** Opens the cluster for the audit. */
export async function openCassandraReader(config: CassandraConfig, _context: PluginContext): Promise<SourceReader> {
  return new CassandraReader(await CqlClient.connect(config), config)
}

/**
 * Cassandra has no view of a whole table. A table is read again and again until two passes in a row have the same rows: then all rows were so at once,
 * between the two. The rows are given out in one pass more, which must be the same.
 */
class CassandraReader implements SourceReader {
  readonly #client: CqlClient
  readonly #config: CassandraConfig
  readonly #patterns: TablePatterns

  constructor(client: CqlClient, config: CassandraConfig) {
    this.#client = client
    this.#config = config
    this.#patterns = new TablePatterns(config.tables)
  }

  async tables(): Promise<readonly TableSchema[]> {
    return (await this.#captured()).map((table) => this.#map(table).table)
  }

  async #captured(): Promise<readonly CatalogTable[]> {
    return (await readCatalog(this.#client, this.#patterns)).filter(({ description }) => description.captured)
  }

  #map(table: CatalogTable): MappedTable {
    return mapCaptured(table, mappingOf(this.#config))
  }

  async scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal): Promise<bigint> {
    const found = (await this.#captured()).find(({ description: { keyspace, name } }) => keyspace === table.namespace && name === table.name)
    if (found === undefined) throw new MillraceError('source.table_gone', `${tableId(table)} cannot be read any more`, { fix: 'leave it out in `tables`' })
    const mapped = this.#map(found)
    const query = new RowQuery(this.#client, mapped, this.#config.consistency)
    let before = await this.#pass(query, () => {}, signal)
    for (let passes = 1; ; passes++) {
      const view = BigInt(Date.now()) * 1000n
      const after = await this.#pass(query, () => {}, signal)
      if (after === before) {
        const { writer, beginRow, endRow } = open(mapped.table)
        const given = await this.#pass(
          query,
          (row) => {
            const key = keyOf(mapped, row.values)
            if (key === null) return
            beginRow()
            writeRow(writer, mapped, key, row.values)
            endRow()
          },
          signal,
        )
        if (given === after) return view
      }
      if (after === before || passes >= MOST_PASSES) {
        throw new MillraceError('audit.unequal', `${tableId(table)} was written whenever it was read, and Cassandra has no view of a whole table`, {
          fix: 'audit it when nothing is written to it',
        })
      }
      before = after
    }
  }

  /** @returns what tells this pass from another with other rows */
  async #pass(query: RowQuery, each: (row: QueriedRow) => void, signal: AbortSignal): Promise<string> {
    const hash = createHash('sha256')
    let page: string | null = null
    do {
      signal.throwIfAborted()
      const read = await query.after(null, PAGE_ROWS, page)
      for (const row of read.rows) {
        addTo(hash, row)
        each(row)
      }
      page = read.next
    } while (page !== null)
    return hash.digest('hex')
  }

  reached(offset: SourceOffset, commit: bigint): boolean {
    return BigInt(readOffset(offset).through) >= commit
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#client[Symbol.asyncDispose]()
  }
}

function addTo(hash: Hash, { values, writtenAt }: QueriedRow): void {
  hash.update(`${writtenAt}`)
  for (const value of values) {
    hash.update(value === null ? 'null' : `${value.length}`)
    if (value !== null) hash.update(value)
  }
}

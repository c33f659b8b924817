import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import {
  type CaptureOutput,
  invariant,
  type Json,
  MillraceError,
  type PluginContext,
  type SnapshotReader,
  type SourceConnector,
  type SourceOffset,
  type TableParts,
  type TablePatterns,
  type TableSchema,
} from '../../core/plugin.ts'
import type { AppliedTransactions } from './applied-transactions.ts'
import type { CapturedTables } from './captured-tables.ts'
import type { CatalogConnection } from './catalog-connection.ts'
import { ChangeStream } from './change-stream.ts'
import { sees } from './fence.ts'
import { formatLsn, parseLsn } from './lsn.ts'
import type { ReplicationConnection } from './replication-connection.ts'
import { isRewritten } from './rewritten.ts'
import { historyLost, type PostgresOffset, readOffset, writeOffset } from './slot.ts'
import { parseFence } from './snapshot-reader.ts'
import type { StreamForm } from './stream-form.ts'
import { describeTable, type MappedTable, type TypeMappingOptions } from './type-mapping.ts'

export interface PostgresSourceParts {
  readonly context: PluginContext
  /** Streaming since `start`. */
  readonly connection: ReplicationConnection
  /** For the stream's own questions, which must not wait behind others. */
  readonly streamCatalog: CatalogConnection
  readonly catalog: CatalogConnection
  readonly tables: CapturedTables
  readonly patterns: TablePatterns
  readonly mapping: TypeMappingOptions
  /** Of `connection`. */
  readonly form: StreamForm
  readonly snapshot: SnapshotReader & AsyncDisposable
  /** Shared with `snapshot`. */
  readonly applied: AppliedTransactions
  readonly slot: string
  readonly publication: string
  /** server_version_num */
  readonly version: number
  readonly start: PostgresOffset
  /** Where the server left the timeline that was captured before; null: it is still on it. */
  readonly fork: bigint | null
}

/** See `SourceConnector`; made by `openPostgres`. */
export class PostgresSource implements SourceConnector {
  readonly start: SourceOffset
  readonly forkedAt?: bigint
  readonly snapshot: SnapshotReader
  readonly #parts: PostgresSourceParts

  constructor(parts: PostgresSourceParts) {
    this.#parts = parts
    this.start = writeOffset(parts.start)
    if (parts.fork !== null) this.forkedAt = parts.fork
    this.snapshot = parts.snapshot
  }

  tables(): Promise<readonly TableSchema[]> {
    return this.#parts.tables.list()
  }

  unfit(): ReturnType<NonNullable<SourceConnector['unfit']>> {
    return this.#parts.tables.unfit
  }

  isRewritten(before: TableSchema, now: TableSchema): Promise<boolean> {
    return this.#parts.streamCatalog.run('to describe a table', (client) => isRewritten(client, before, now))
  }

  parts(table: TableSchema, before: Json | null): Promise<TableParts | null> {
    return this.#parts.tables.parts(table, before)
  }

  async whyAbsent({ namespace, name }: Pick<TableSchema, 'namespace' | 'name'>): Promise<string | null> {
    const { catalog, patterns } = this.#parts
    if (!patterns.matches(namespace, name)) return null
    const { rows } = await catalog.run('to look for a table', (client) =>
      client.query<{ partition: boolean }>(
        `select c.relispartition as partition from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2`,
        [namespace, name],
      ),
    )
    if (rows[0] === undefined) return 'was dropped or renamed'
    return rows[0].partition ? 'became a partition of another table' : 'is not published any more'
  }

  async *changes(from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const { connection, context, streamCatalog, patterns, mapping, form, start } = this.#parts
    const { lsn } = readOffset(from)
    // a server that does not answer must not hold a stop up
    const close = () => {
      this.#parts.catalog.close()
      streamCatalog.close()
    }
    signal.addEventListener('abort', close, { once: true })
    if (signal.aborted) close()
    invariant(lsn === start.lsn, `the slot streams from ${formatLsn(start.lsn)}, not from ${formatLsn(lsn)}`)
    const stream = new ChangeStream({
      connection,
      output,
      start: lsn,
      spillDir: path.join(context.dataDir, 'spill'),
      node: context.node,
      applied: this.#parts.applied,
      isCaptured: (namespace, name) => patterns.matches(namespace, name),
      describe: (oid, streamed, xid) =>
        streamCatalog.run('to describe a table', async (client) => {
          await untilVisible(client, xid, signal)
          const mapped = await describeTable(client, oid, mapping, streamed)
          form.requireReadable(mapped)
          return mapped
        }),
      select: (table, columns, key, xid) =>
        streamCatalog.run('to read columns that were not sent', async (client) => {
          await untilVisible(client, xid, signal)
          return await selectColumns(client, table, columns, key)
        }),
    })
    let complete = lsn
    let offset = from
    for await (const reached of stream.run(signal)) {
      if (reached !== complete) {
        complete = reached
        offset = writeOffset({ ...start, lsn: reached })
      }
      yield offset
    }
  }

  acknowledge(offset: SourceOffset): void {
    const { connection } = this.#parts
    const { lsn } = readOffset(offset)
    if (lsn > connection.confirmed) connection.confirmed = lsn
  }

  async lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }> {
    const { catalog, context, slot } = this.#parts
    const { rows } = await catalog.run('to look at its WAL', (client) =>
      client.query<{ head: string; restart: string | null; confirmed: string | null }>(
        `select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text as head,
                restart_lsn::text as restart, confirmed_flush_lsn::text as confirmed
           from pg_replication_slots where slot_name = $1`,
        [slot],
      ),
    )
    const row = rows[0]
    if (row === undefined) throw historyLost(`the slot ${slot} is gone`, context)
    const head = parseLsn(row.head)
    const since = (lsn: string | null) => (lsn === null ? 0 : Math.max(0, Number(head - parseLsn(lsn))))
    return { retainedBytes: since(row.restart), behindBytes: since(row.confirmed) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { connection, catalog, streamCatalog, snapshot } = this.#parts
    await connection[Symbol.asyncDispose]()
    await snapshot[Symbol.asyncDispose]()
    await streamCatalog[Symbol.asyncDispose]()
    await catalog[Symbol.asyncDispose]()
  }
}

/** A commit reaches the stream when it is in the WAL, a moment before others can see its rows. */
async function untilVisible(client: pg.ClientBase, xid: number, signal: AbortSignal): Promise<void> {
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
    if (signal.aborted) throw new MillraceError('source.unreachable', `stopped before transaction ${xid} could be seen`)
    const { rows } = await client.query<{ snapshot: string }>('select pg_current_snapshot()::text as snapshot')
    if (sees(parseFence(rows[0]!.snapshot, '0'), xid)) return
    await delay(waitMs)
  }
}

/** Text forms of some columns of the row with this key; null: there is no such row. */
async function selectColumns(
  client: pg.ClientBase,
  { table, oid }: MappedTable,
  columns: readonly number[],
  key: readonly (string | Buffer)[],
): Promise<readonly (string | null)[] | null> {
  // table and columns may have other names by now; one that was dropped has no values any more
  const { rows: names } = await client.query<{ id: number; name: string; relation: string }>(
    `select attnum::int as id, quote_ident(attname) as name, attrelid::regclass::text as relation from pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped`,
    [oid],
  )
  const present = new Map(names.map(({ id, name }) => [id, name]))
  const nameOf = (i: number) => present.get(table.columns[i]!.id)
  if ([...columns, ...table.key].some((i) => nameOf(i) === undefined)) return null
  const { rows } = await client.query<(string | null)[]>({
    text: `select ${columns.map((i) => nameOf(i)).join(', ')} from ${names[0]!.relation} where ${table.key.map((i, n) => `${nameOf(i)} = $${n + 1}`).join(' and ')}`,
    values: [...key],
    rowMode: 'array',
    types: { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig,
  })
  return rows[0] ?? null
}

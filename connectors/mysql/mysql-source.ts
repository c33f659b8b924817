import { addAbortListener } from 'node:events'
import path from 'node:path'
import {
  asMillraceError,
  type CaptureOutput,
  invariant,
  type MillraceError,
  type PluginContext,
  type SourceConnector,
  type SourceOffset,
  type TablePatterns,
  type TableSchema,
  tableId,
} from '../../core/plugin.ts'
import { fileMark } from './binlog-place.ts'
import type { CapturedTables } from './captured-tables.ts'
import { isCapturable } from './catalog.ts'
import { ChangeStream } from './change-stream.ts'
import type { Charsets } from './column-definition.ts'
import { mayConcern } from './ddl-reader.ts'
import { DescribedAhead } from './described-ahead.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { historyLost } from './mysql-error.ts'
import { isByFile, isSameOffset, type MysqlOffset, readOffset, resumeGtids, writeOffset } from './mysql-offset.ts'
import { binlogEnd, type Server } from './server.ts'
import { type AppliedMark, MysqlSnapshotReader } from './snapshot-reader.ts'
import type { SqlConnections } from './sql-connection.ts'
import type { TypeMappingOptions } from './type-mapping.ts'
import type { WireConnection } from './wire-connection.ts'

export interface MysqlSourceParts {
  readonly context: PluginContext
  readonly connections: SqlConnections
  readonly snapshots: SqlConnections
  /** Streaming since `start`. */
  readonly stream: WireConnection
  readonly server: Server
  readonly charsets: Charsets
  readonly tables: CapturedTables
  readonly patterns: TablePatterns
  readonly mapping: TypeMappingOptions
  readonly start: MysqlOffset
  /** See `ChangeStreamOptions`. */
  readonly settled: bigint | null
  /** Aborts when the source is wanted no more, before its changes are asked for too. */
  readonly signal: AbortSignal
}

/** See `SourceConnector`; made by `openMysql`. */
export class MysqlSource implements SourceConnector {
  readonly start: SourceOffset
  readonly snapshot: MysqlSnapshotReader
  readonly #parts: MysqlSourceParts
  readonly #listening: Disposable
  #stream: ChangeStream | null = null
  /** The binlog ends before the stream. */
  #lost: MillraceError | null = null

  constructor(parts: MysqlSourceParts) {
    this.#parts = parts
    this.start = writeOffset(parts.start)
    this.#listening = addAbortListener(parts.signal, () => this.#giveUp())
    const applied: AppliedMark = {
      isSeenBy: (mark) => {
        // no view would ever see what was streamed
        if (this.#lost !== null) throw this.#lost
        return this.#stream?.isSeenBy(mark) ?? false
      },
    }
    const { snapshots: connections, server, mapping, context } = parts
    this.snapshot = new MysqlSnapshotReader({ connections, server, mapping, applied, logger: context.logger })
  }

  tables(): Promise<readonly TableSchema[]> {
    return this.#parts.tables.list()
  }

  unfit(): ReturnType<NonNullable<SourceConnector['unfit']>> {
    return this.#parts.tables.unfit
  }

  /** Statements of the stream tell it by themselves; this is for those that were not written to the binlog, which nothing but the shapes tells of. */
  async isRewritten(before: TableSchema, now: TableSchema): Promise<boolean> {
    const old = now.columns.map((column) => before.columns.find(({ id }) => id === column.id))
    const kept = old.filter((column) => column !== undefined)
    const hasNew = kept.length < now.columns.length
    // renamed, or swapped by their names
    if (hasNew && kept.length < before.columns.length) return true
    if (kept.some((column, i) => i > 0 && before.columns.indexOf(column) < before.columns.indexOf(kept[i - 1]!))) return true
    const filled = hasNew ? await this.#parts.tables.filled(now.namespace, now.name) : new Set()
    return now.columns.some((column, i) => {
      const was = old[i]
      // without a default, NOT NULL fills old rows with zeros and empty strings, and those that had NULL unless the session was strict
      return was === undefined ? filled.has(column.name) || !column.nullable : was.sourceType !== column.sourceType || (was.nullable && !column.nullable)
    })
  }

  async whyAbsent({ namespace, name }: Pick<TableSchema, 'namespace' | 'name'>): Promise<string | null> {
    const { tables, patterns } = this.#parts
    if (!isCapturable(namespace, patterns, name)) return null
    const why = tables.whyLeftOut({ namespace, name })
    if (why !== null) return why
    return (await tables.current(namespace, name)) === null ? 'was dropped or renamed' : 'is no table that can be captured any more'
  }

  async *changes(from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const { stream, server, charsets, context, tables, patterns, start, settled } = this.#parts
    const { flavor } = start
    invariant(isSameOffset(readOffset(from), start), 'the stream starts where the source was opened')
    const gtids = isByFile(start) ? null : resumeGtids(start)
    const changes = new ChangeStream({
      connection: stream,
      output,
      flavor,
      gtids: gtids === null ? null : flavor === 'mysql' ? GtidSet.parse(gtids) : MariadbPosition.parse(gtids),
      from: start,
      settled,
      node: context.node,
      checksums: server.checksum !== 'NONE',
      charsets,
      lowerCase: server.lowerCase,
      scratchDir: path.join(context.dataDir, 'scratch'),
      isCaptured: (namespace, name) => isCapturable(namespace, patterns, name),
      describe: (map) => tables.describe(map),
      ahead: await this.#describedAhead(start),
      current: (namespace, name) => tables.current(namespace, name),
      find: (mapped, columns, key) => this.snapshot.find(mapped, columns, key),
      onChanged: (namespace) => {
        tables.changed()
        context.logger.debug({ namespace }, 'a definition may have changed')
      },
      onMisread: (table, place) =>
        context.logger.warn({ table: tableId(table), place }, 'rows from before an ALTER TABLE were read by its names after it: the table is read anew'),
      listed: () => tables.list(),
      onUnreadable: (opening, place) =>
        context.logger.warn({ statement: opening, place }, 'a statement does not say readably which table it is about: all captured tables are read anew'),
      concerns: (text, session) => mayConcern(text, session, (namespace, name) => isCapturable(namespace, patterns, name)),
    })
    this.#stream = changes
    let complete = start
    let offset = from
    // neither a stop nor the end of a stream that failed waits for an answer about the catalog
    addAbortListener(signal, () => this.#giveUp())
    try {
      for await (const reached of changes.run(signal)) {
        if (reached !== complete) {
          complete = reached
          offset = writeOffset(reached)
        }
        yield offset
      }
    } catch (error) {
      if (!signal.aborted || asMillraceError(error).code !== 'source.unreachable') throw error
    }
  }

  /** They were described by now at the latest. */
  async #describedAhead({ ahead = [] }: MysqlOffset): Promise<DescribedAhead> {
    if (ahead.length === 0) return new DescribedAhead()
    const { connections, server } = this.#parts
    const { file, position } = await connections.run('to look at the binlog', (connection) => binlogEnd(connection, server))
    return new DescribedAhead(ahead.map((id) => [id, fileMark(file, position)]))
  }

  /** The server keeps its binlogs by age, whoever reads them. */
  acknowledge(): void {}

  async lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }> {
    const { connections, server, start } = this.#parts
    const place = this.#stream?.place
    if (place === undefined || place.file === '') return { retainedBytes: 0, behindBytes: 0 }
    const { end, logs } = await connections.run('to look at its binlogs', async (connection) => ({
      end: await binlogEnd(connection, server),
      logs: await connection.query('show binary logs'),
    }))
    if (isByFile(start) && fileMark(end.file, end.position) < fileMark(place.file, place.position)) this.#lose(place, end)
    if (end.file === place.file) return { retainedBytes: 0, behindBytes: Math.max(0, end.position - place.position) }
    const from = fileMark(place.file, 0)
    const between = logs.filter(([file]) => fileMark(file!, 0) >= from && file !== end.file).reduce((sum, [, size]) => sum + Number(size), 0)
    return { retainedBytes: 0, behindBytes: Math.max(0, between - place.position + end.position) }
  }

  /** The server itself goes on with heartbeats, and waits until the binlog is as long as it was. */
  #lose(place: { readonly file: string; readonly position: number }, end: { readonly file: string; readonly position: number }): void {
    const { stream, context } = this.#parts
    const [ours, theirs] = [place, end].map(({ file, position }) => `${file}:${position}`)
    this.#lost = historyLost(`the binlog ends at ${theirs}, before ${ours}, up to where it was streamed: it was reset`, context.node)
    stream.destroy(this.#lost)
  }

  #giveUp(): void {
    const { connections, snapshots } = this.#parts
    connections.close()
    snapshots.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { stream, connections, snapshots } = this.#parts
    this.#listening[Symbol.dispose]()
    stream.destroy()
    await snapshots[Symbol.asyncDispose]()
    await connections[Symbol.asyncDispose]()
  }
}

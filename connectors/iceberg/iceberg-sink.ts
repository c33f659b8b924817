/** Keeps one Iceberg table equal to one stream: one snapshot per batch, positions in its summary. */
import {
  type Compaction,
  invariant,
  type LogPosition,
  MillraceError,
  type PluginContext,
  type Rejection,
  type SinkBatch,
  type SinkConnector,
  type SinkLimits,
  type StreamTarget,
  type TableSchema,
  type TargetFiles,
  type Tuple,
  UNCHANGED,
} from '../../core/plugin.ts'
import type { Catalog, TableIdentifier } from './catalog.ts'
import { IcebergTable } from './iceberg-table.ts'
import { KeyRanges } from './key-ranges.ts'
import { DATA, type DataFile } from './manifest.ts'
import { orphans } from './orphan-files.ts'
import { keyColumns, type TableColumn, tableColumns, writeParquetFile } from './parquet-file.ts'
import { collapse, NO_BASE_ROW, type PendingRows } from './pending-rows.ts'
import { rowKey } from './row-key.ts'
import type { IcebergSettings } from './settings.ts'
import { formatState, MEMO_PROPERTY, parsePositions, STREAM_PROPERTY } from './sink-state.ts'
import { COLUMNS_PROPERTY, evolvedLayout, formatFieldIds, newLayout, parseFieldIds, sameFields, type TableLayout } from './table-layout.ts'
import { currentSchema } from './table-metadata.ts'
import { rewriteFiles } from './table-rewrite.ts'
import { fillUnchanged, scanRows, type TableView } from './table-scan.ts'

/** Rows of a rewritten file, held in memory; files of half as many are never merged again. */
const REWRITTEN_ROWS = 200_000
const SMALL_FILE_BYTES = 16n * 1024n * 1024n

interface Prepared {
  readonly layout: TableLayout
  readonly columns: readonly TableColumn[]
  readonly key: readonly TableColumn[]
  readonly view: TableView
}

export class IcebergSink implements SinkConnector {
  readonly limits: SinkLimits
  readonly #settings: IcebergSettings
  readonly #catalog: Catalog
  readonly #context: PluginContext
  readonly #stream: StreamTarget
  readonly #identifier: TableIdentifier
  #table: IcebergTable | null = null
  #prepared: Prepared | null = null
  #positions = new Map<string, LogPosition>()
  /** The last commit may have landed without our knowing. */
  #uncertain = false
  #orphansRemoved = false

  constructor(settings: IcebergSettings, catalog: Catalog, context: PluginContext, stream: StreamTarget) {
    this.#settings = settings
    this.#catalog = catalog
    this.#context = context
    this.#stream = stream
    this.#identifier = { namespace: (settings.namespace ?? stream.namespace).split('.'), name: stream.table }
    this.limits = { rows: settings.commitRows, bytes: settings.commitBytes, ageMs: settings.commitMs }
  }

  /** Where the current metadata file lies, for readers without a catalog; null before `prepare`. */
  get metadataLocation(): string | null {
    return this.#table?.metadataLocation ?? null
  }

  async prepare(table: TableSchema): Promise<void> {
    if (this.#prepared !== null && JSON.stringify(this.#prepared.layout.table) === JSON.stringify(table)) return
    const open = await this.#open()
    if (open === null) {
      const layout = newLayout(table)
      if (this.#context.readOnly) this.#use(layout)
      else await this.#create(layout)
      return
    }
    await open.refresh()
    const current = this.#layoutOf(open, table)
    const layout = evolvedLayout(table, current)
    const isSame = layout.schema === current.schema && layout.fieldIds.size === current.fieldIds.size
    if (!isSame && !this.#context.readOnly) await this.#evolve(open, current, layout)
    this.#use(layout)
  }

  async committed(): Promise<readonly LogPosition[]> {
    const table = await this.#open()
    if (table === null) return []
    await this.#reload(table, !table.writes)
    return [...this.#positions.values()]
  }

  async apply(batch: SinkBatch, signal: AbortSignal): Promise<readonly Rejection[]> {
    const { prepared, table } = this.#ready()
    invariant(
      batch.table === prepared.layout.table || JSON.stringify(batch.table) === JSON.stringify(prepared.layout.table),
      'a batch came with another schema than was prepared',
    )
    if (this.#uncertain && table.writes) await this.#reload(table)
    if (batch.positions.length > 0 && batch.positions.every((position) => this.#covers(position))) return []
    this.#uncertain = true
    const merged = this.#merge(batch.positions)
    const pending = collapse(batch, prepared.columns)
    const rejections = [...pending.rejections, ...(await this.#fill(pending, prepared, table))].sort((a, b) => a.index - b.index)
    if (rejections.length > 0) await batch.onRejected(rejections)
    const files = await this.#write(pending, prepared, table)
    try {
      signal.throwIfAborted()
    } catch (error) {
      await table.files.remove(files.map((file) => file.file_path))
      throw error
    }
    const memo = batch.memo()
    await table.commit({
      operation: pending.truncated || files.some((file) => file.content !== DATA) ? 'overwrite' : 'append',
      added: files,
      removed: pending.truncated ? 'all' : new Set(),
      state: formatState(merged.values()),
      ...(memo === null ? {} : { properties: { [MEMO_PROPERTY]: memo } }),
    })
    this.#positions = merged
    this.#uncertain = false
    await this.#tidy(table, signal)
    return rejections
  }

  async recall(): Promise<string | null> {
    const table = await this.#open()
    if (table === null) return null
    await this.#reload(table, !table.writes)
    return table.metadata.properties[MEMO_PROPERTY] ?? null
  }

  async *rows(onView: (positions: readonly LogPosition[]) => void, signal: AbortSignal): AsyncIterable<readonly Tuple[]> {
    if (this.#context.readOnly && (await this.#open()) === null) {
      onView([])
      return
    }
    const { prepared, table } = this.#ready()
    await table.refresh(true)
    // its writer may have evolved it since, and given ids that a column has here which it lacked
    if (this.#context.readOnly) this.#use(evolvedLayout(prepared.layout.table, this.#layoutOf(table, prepared.layout.table)))
    // both of the snapshot that was just loaded
    const { state, live } = table
    onView(parsePositions(state))
    yield* scanRows(live, this.#ready().prepared.view, signal)
  }

  /** Rewrites the table into files without equality deletes, which every reader can read; without any, merges its small files. */
  async compact(signal: AbortSignal): Promise<Compaction | null> {
    const table = await this.#open()
    if (table === null) return null
    await table.refresh()
    requireUnpartitioned(table)
    const before = filesOf(table)
    const small = smallFiles(table)
    if (before.deleteFiles > 0) await this.#rewrite(table, null, signal)
    else if (small.size > 1) await this.#rewrite(table, small, signal)
    return { before, after: filesOf(table) }
  }

  async #rewrite(table: IcebergTable, chosen: ReadonlySet<string> | null, signal: AbortSignal): Promise<void> {
    if (this.#uncertain && table.writes) await this.#reload(table)
    this.#uncertain = true
    await rewriteFiles(table, chosen, {
      compression: this.#settings.compression,
      rowsPerFile: REWRITTEN_ROWS,
      state: formatState(this.#positions.values()),
      signal,
    })
    this.#uncertain = false
  }

  /** Upkeep once a batch has landed: whatever goes wrong here waits for the next call. */
  async #tidy(table: IcebergTable, signal: AbortSignal): Promise<void> {
    const { compactAfterDeleteFiles: deletesAtMost, compactAfterSmallFiles: smallAtMost } = this.#settings
    try {
      if (!this.#orphansRemoved) {
        this.#orphansRemoved = true
        await table.files.remove(await orphans(table))
      }
      if (deletesAtMost > 0 && filesOf(table).deleteFiles >= deletesAtMost) await this.#rewrite(table, null, signal)
      const small = smallFiles(table)
      if (smallAtMost > 0 && small.size >= smallAtMost) await this.#rewrite(table, small, signal)
    } catch (error) {
      this.#context.logger.warn({ err: error, topic: this.#stream.topic }, 'the upkeep of the Iceberg table failed')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#catalog[Symbol.asyncDispose]()
  }

  #ready(): { readonly prepared: Prepared; readonly table: IcebergTable } {
    invariant(this.#prepared !== null && this.#table !== null, 'apply or rows came before prepare')
    return { prepared: this.#prepared, table: this.#table }
  }

  /** The table, or null when there is none yet. */
  async #open(): Promise<IcebergTable | null> {
    if (this.#table !== null) return this.#table
    const loaded = await this.#catalog.load(this.#identifier)
    if (loaded === null) return null
    const name = [...this.#identifier.namespace, this.#identifier.name].join('.')
    const owner = loaded.metadata.properties[STREAM_PROPERTY]
    if (owner !== this.#stream.topic) {
      throw new MillraceError(
        'sink.schema_unsupported',
        owner === undefined ? `the Iceberg table ${name} was not made by Millrace` : `the Iceberg table ${name} belongs to the stream ${owner}`,
        { fix: 'set another namespace on the sink, or drop the table' },
      )
    }
    const { keepSnapshots, keepSnapshotsMs } = this.#settings
    const table = new IcebergTable(this.#catalog, this.#identifier, loaded, { snapshots: keepSnapshots, ageMs: keepSnapshotsMs })
    await this.#reload(table, true)
    this.#table = table
    return table
  }

  async #create(layout: TableLayout): Promise<void> {
    const created = await this.#catalog.create(this.#identifier, layout.schema, layout.lastColumnId, {
      [STREAM_PROPERTY]: this.#stream.topic,
      [COLUMNS_PROPERTY]: formatFieldIds(layout.fieldIds),
      'write.format.default': 'parquet',
      'write.metadata.delete-after-commit.enabled': 'true',
      'write.metadata.previous-versions-max': '20',
      'write.delete.mode': 'merge-on-read',
      'write.update.mode': 'merge-on-read',
      'write.merge.mode': 'merge-on-read',
    })
    if (created === null) {
      throw new MillraceError('sink.conflict', `another process has just created the Iceberg table of ${this.#stream.topic}`, {
        fix: 'run one sink node per table',
      })
    }
    const table = await this.#open()
    invariant(table !== null, 'a table vanished after it was created')
    const ids = new Map(layout.table.columns.map((column, index) => [column.id, currentSchema(table.metadata).fields[index]!.id]))
    if (formatFieldIds(ids) !== formatFieldIds(layout.fieldIds))
      await table.update([], [{ action: 'set-properties', updates: { [COLUMNS_PROPERTY]: formatFieldIds(ids) } }])
    await this.prepare(layout.table)
  }

  /** What the table's own metadata says of its columns; `table` lends its type descriptions where they have the same shape. */
  #layoutOf(open: IcebergTable, table: TableSchema): TableLayout {
    const { metadata } = open
    requireUnpartitioned(open)
    return {
      table,
      schema: currentSchema(metadata),
      fieldIds: parseFieldIds(metadata.properties[COLUMNS_PROPERTY] ?? '{}'),
      lastColumnId: metadata['last-column-id'],
    }
  }

  async #evolve(open: IcebergTable, current: TableLayout, layout: TableLayout): Promise<void> {
    const properties = { action: 'set-properties', updates: { [COLUMNS_PROPERTY]: formatFieldIds(layout.fieldIds) } } as const
    if (layout.schema === current.schema) {
      await open.update([], [properties])
      return
    }
    const { metadata } = open
    const twin = metadata.schemas.find((schema) => sameFields(schema, layout.schema))
    const highest = Math.max(...metadata.schemas.map((schema) => schema['schema-id']))
    await open.update(
      [
        { type: 'assert-current-schema-id', 'current-schema-id': metadata['current-schema-id'] },
        { type: 'assert-last-assigned-field-id', 'last-assigned-field-id': metadata['last-column-id'] },
      ],
      twin === undefined
        ? [
            { action: 'add-schema', schema: { ...layout.schema, 'schema-id': highest + 1 }, 'last-column-id': layout.lastColumnId },
            { action: 'set-current-schema', 'schema-id': -1 },
            properties,
          ]
        : [{ action: 'set-current-schema', 'schema-id': twin['schema-id'] }, properties],
    )
    this.#context.logger.info({ topic: this.#stream.topic, schemaId: currentSchema(open.metadata)['schema-id'] }, 'changed the schema of the Iceberg table')
  }

  #use(layout: TableLayout): void {
    const columns = tableColumns(layout)
    const key = keyColumns(layout.table, columns)
    this.#prepared = { layout, columns, key, view: { files: this.#catalog.files, fields: layout.schema.fields, columns, key } }
  }

  async #reload(table: IcebergTable, force = false): Promise<void> {
    await table.refresh(force)
    if (!table.writes) table.trust()
    this.#positions = new Map(parsePositions(table.state).map((position) => [positionKey(position), position]))
    this.#uncertain = false
  }

  #covers(position: LogPosition): boolean {
    const held = this.#positions.get(positionKey(position))
    return held !== undefined && held.offset >= position.offset
  }

  #merge(positions: readonly LogPosition[]): Map<string, LogPosition> {
    const merged = new Map(this.#positions)
    for (const position of positions) if (!this.#covers(position)) merged.set(positionKey(position), position)
    return merged
  }

  /** Fills UNCHANGED columns from the table; rows without one there leave `pending.rows` and are rejected. */
  async #fill(pending: PendingRows, prepared: Prepared, table: IcebergTable): Promise<readonly Rejection[]> {
    const waiting = [...pending.replaced]
    for (const row of pending.rows.values()) if (row.waiting !== null) waiting.push(row)
    if (waiting.length === 0) return []
    await fillUnchanged(waiting, table.live, prepared.view)
    const rejected = new Set<number>()
    for (const row of waiting) {
      if (!row.row!.includes(UNCHANGED)) continue
      for (const index of row.waiting!.indexes) rejected.add(index)
      const id = rowKey(row.key)
      if (pending.rows.get(id) === row) pending.rows.delete(id)
    }
    return Array.from(rejected, (index) => ({ index, reason: NO_BASE_ROW, missingBase: true }))
  }

  async #write(pending: PendingRows, prepared: Prepared, table: IcebergTable): Promise<readonly DataFile[]> {
    const { columns, key } = prepared
    const rows: Tuple[] = []
    const deletes: Tuple[] = []
    const first = key[0]!.field
    const held = pending.truncated
      ? null
      : new KeyRanges(
          table.live.flatMap(({ file }) => (file.content === DATA ? [file] : [])),
          first.id,
          first.type as string,
        )
    for (const { key: tuple, row } of pending.rows.values()) {
      if (row !== null) rows.push(row)
      if (held?.mayHold(tuple[0])) deletes.push(tuple)
    }
    const { compression } = this.#settings
    const files: Promise<DataFile>[] = []
    if (rows.length > 0)
      files.push(writeParquetFile(table.files, columns, rows, { location: table.newFileLocation('data'), content: 0, equalityIds: null, compression }))
    if (deletes.length > 0) {
      const equalityIds = key.map(({ field }) => field.id)
      files.push(writeParquetFile(table.files, key, deletes, { location: table.newFileLocation('deletes'), content: 2, equalityIds, compression }))
    }
    return await Promise.all(files)
  }
}

function requireUnpartitioned({ metadata, identifier }: IcebergTable): void {
  if (metadata['partition-specs'].find((spec) => spec['spec-id'] === metadata['default-spec-id'])!.fields.length === 0) return
  const name = [...identifier.namespace, identifier.name].join('.')
  throw new MillraceError('sink.schema_unsupported', `the Iceberg table ${name} was partitioned by another engine`, { fix: 'remove its partition fields' })
}

/** Of the current snapshot. */
function filesOf({ live }: IcebergTable): TargetFiles {
  const deleteFiles = live.filter(({ file }) => file.content !== DATA).length
  return { files: live.length, deleteFiles, bytes: live.reduce((sum, { file }) => sum + Number(file.file_size_in_bytes), 0) }
}

function smallFiles({ live }: IcebergTable): ReadonlySet<string> {
  return new Set(live.flatMap(({ file }) => (isSmall(file) ? [file.file_path] : [])))
}

function isSmall(file: DataFile): boolean {
  return file.content === DATA && file.file_size_in_bytes < SMALL_FILE_BYTES && file.record_count * 2n < BigInt(REWRITTEN_ROWS)
}

function positionKey(position: LogPosition): string {
  return `${position.topic}/${position.partition}`
}

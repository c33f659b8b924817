/** Reading the table's current rows: equality deletes applied by sequence number. Source: Iceberg table spec, "Scan Planning". */
import { MillraceError, type Tuple, UNCHANGED, type Value } from '../../core/plugin.ts'
import type { FileStore } from './file-store.ts'
import type { LiveFile } from './iceberg-table.ts'
import { KeyRanges } from './key-ranges.ts'
import { DATA, EQUALITY_DELETES } from './manifest.ts'
import { openParquetFile, type TableColumn } from './parquet-file.ts'
import type { PendingRow } from './pending-rows.ts'
import { type RowKey, rowKey } from './row-key.ts'
import { storedType } from './table-layout.ts'
import type { IcebergField, IcebergSchema } from './table-metadata.ts'
import { valueCodec } from './value-codec.ts'

/** What it takes to read a table's files. */
export interface TableView {
  readonly files: FileStore
  readonly fields: readonly IcebergField[]
  readonly columns: readonly TableColumn[]
  readonly key: readonly TableColumn[]
}

/** The view that a table has by itself, whatever the shape of its stream is now: all of its columns. @throws config.unsupported */
export function storedView(files: FileStore, schema: IcebergSchema): TableView {
  const columns = schema.fields.map((field, index): TableColumn => ({ field, index, codec: valueCodec(storedType(field.type), false) }))
  const ids = schema['identifier-field-ids'] ?? []
  return { files, fields: schema.fields, columns, key: columns.filter(({ field }) => ids.includes(field.id)) }
}

/** Newest first; in one snapshot data comes before deletes, which spare it. */
function newestFirst(live: readonly LiveFile[], key: readonly TableColumn[]): readonly LiveFile[] {
  const ids = sortedIds(key.map(({ field }) => field.id))
  for (const { file } of live) {
    if (file.content === EQUALITY_DELETES && sortedIds(file.equality_ids ?? []) !== ids) {
      throw new MillraceError('config.unsupported', 'another engine wrote deletes by other columns than the key into this table, or changed its key', {
        fix: 'compact the table with that engine, and let only Millrace change it',
      })
    }
    if (file.content !== DATA && file.content !== EQUALITY_DELETES) {
      throw new MillraceError('config.unsupported', 'another engine wrote position deletes into this table, which Millrace does not read', {
        fix: 'compact the table (Spark: CALL system.rewrite_data_files with delete-file-threshold 1), and let only Millrace change it',
      })
    }
  }
  return [...live].sort((a, b) => (a.sequenceNumber === b.sequenceNumber ? a.file.content - b.file.content : a.sequenceNumber < b.sequenceNumber ? 1 : -1))
}

function sortedIds(ids: readonly number[]): string {
  return String([...ids].sort((a, b) => a - b))
}

function keyAt(columns: readonly (readonly Value[])[], row: number): RowKey {
  return rowKey(columns.map((values) => values[row]!))
}

/**
 * All current rows, one row group at a time. Holds the keys of the delete files, nothing else.
 * @throws config.unsupported when the table has deletes of another engine
 */
export async function* scanRows(
  live: readonly LiveFile[],
  { files: store, fields, columns, key }: TableView,
  signal: AbortSignal,
): AsyncGenerator<readonly Tuple[], void, void> {
  const deleted = new Set<RowKey>()
  const files = newestFirst(live, key)
  const keyIndexes = key.map((column) => columns.indexOf(column))
  for (const { file } of files) {
    const isData = file.content === DATA
    await using reader = await openParquetFile(store, file.file_path, fields)
    for (let group = 0; group < reader.groups.length; group++) {
      signal.throwIfAborted()
      if (!isData) {
        const keys = await reader.read(key, group)
        for (let row = 0; row < reader.groups[group]!; row++) deleted.add(keyAt(keys, row))
        continue
      }
      const values = await reader.read(columns, group)
      const keys = keyIndexes.map((index) => values[index]!)
      const rows: Tuple[] = []
      for (let row = 0; row < reader.groups[group]!; row++) {
        if (deleted.size === 0 || !deleted.has(keyAt(keys, row))) rows.push(values.map((column) => column[row]!))
      }
      yield rows
    }
  }
}

/**
 * Fills the UNCHANGED columns of `waiting` rows from the table's rows of their base keys. A row without one there keeps them.
 * @throws config.unsupported when the table has deletes of another engine
 */
export async function fillUnchanged(
  waiting: readonly PendingRow[],
  live: readonly LiveFile[],
  { files: store, fields, columns, key }: TableView,
): Promise<void> {
  const open = new Map<RowKey, PendingRow[]>()
  for (const pending of waiting) {
    const id = rowKey(pending.waiting!.base)
    const others = open.get(id)
    if (others === undefined) open.set(id, [pending])
    else others.push(pending)
  }
  const needed = columns.filter((column) => waiting.some(({ row }) => row![column.index] === UNCHANGED))
  const first = key[0]!.field
  for (const { file } of newestFirst(live, key)) {
    if (open.size === 0) return
    const ranges = new KeyRanges([file], first.id, first.type as string)
    if (![...open.values()].some(([pending]) => ranges.mayHold(pending!.waiting!.base[0]))) continue
    await using reader = await openParquetFile(store, file.file_path, fields)
    for (let group = 0; group < reader.groups.length; group++) {
      const keys = await reader.read(key, group)
      const hits: (readonly [number, readonly PendingRow[]])[] = []
      for (let row = 0; row < reader.groups[group]!; row++) {
        const id = keyAt(keys, row)
        const found = open.get(id)
        if (found === undefined) continue
        open.delete(id)
        if (file.content === DATA) hits.push([row, found])
      }
      if (hits.length === 0) continue
      const values = await reader.read(needed, group)
      for (const [row, found] of hits) for (const pending of found) pending.row = filled(pending.row!, needed, values, row)
    }
  }
}

function filled(row: Tuple, needed: readonly TableColumn[], values: readonly (readonly Value[])[], at: number): Tuple {
  const whole = [...row]
  needed.forEach(({ index }, i) => {
    if (whole[index] === UNCHANGED) whole[index] = values[i]![at]!
  })
  return whole
}

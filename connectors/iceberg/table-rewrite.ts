/** Compaction: the table's current rows in new files, without equality deletes. */
import type { Tuple } from '../../core/plugin.ts'
import type { IcebergTable } from './iceberg-table.ts'
import { DATA, type DataFile } from './manifest.ts'
import { type Compression, ParquetFileWriter } from './parquet-file.ts'
import { currentSchema, currentSnapshotId } from './table-metadata.ts'
import { scanRows, storedView } from './table-scan.ts'

/** Rows of one row group, which are held in memory. */
const GROUP_ROWS = 16_384

export interface RewriteOptions {
  readonly compression: Compression
  /** A new file ends with the row group that reaches it. */
  readonly rowsPerFile: number
  readonly state: Readonly<Record<string, string>>
  readonly signal: AbortSignal
}

/**
 * Reads the current rows of some data files, all of them when `chosen` is null, and replaces those files in one snapshot, on top of the one that was
 * read, so that the new files may be newer than every delete.
 * @throws sink.unreachable when another engine committed meanwhile, config.unsupported
 */
export async function rewriteFiles(table: IcebergTable, chosen: ReadonlySet<string> | null, options: RewriteOptions): Promise<void> {
  await table.refresh()
  const view = storedView(table.files, currentSchema(table.metadata))
  const old = chosen === null ? table.live : table.live.filter(({ file }) => file.content !== DATA || chosen.has(file.file_path))
  if (old.length === 0) return
  const madeFrom = currentSnapshotId(table.metadata)
  const added: DataFile[] = []
  const open = () =>
    new ParquetFileWriter(view.columns, { location: table.newFileLocation('data'), content: 0, equalityIds: null, compression: options.compression })
  let held: Tuple[] = []
  let file: ParquetFileWriter | null = null
  const flush = async (isLast: boolean) => {
    file ??= open()
    if (held.length > 0) await file.add(held)
    held = []
    if (file.rows === 0 || (!isLast && file.rows < options.rowsPerFile)) return
    added.push(await file.finish(view.files))
    file = null
  }
  try {
    for await (const rows of scanRows(old, view, options.signal)) {
      for (const row of rows) {
        held.push(row)
        if (held.length >= GROUP_ROWS) await flush(false)
      }
    }
    await flush(true)
  } catch (error) {
    await view.files.remove(added.map((file) => file.file_path))
    throw error
  }
  await table.commit({ operation: 'replace', added, removed: chosen ?? new Set(old.map(({ file }) => file.file_path)), madeFrom, state: options.state })
}

/** Compaction: the table's current rows in new files, without equality deletes. */
import type { Tuple } from '../../core/plugin.ts'
import type { IcebergTable } from './iceberg-table.ts'
import { DATA, type DataFile } from './manifest.ts'
import { type Compression, writeParquetFile } from './parquet-file.ts'
import { currentSnapshotId } from './table-metadata.ts'
import { scanRows, type TableView } from './table-scan.ts'

export interface RewriteOptions {
  readonly compression: Compression
  /** Rows per new file at most, and held in memory. */
  readonly rowsPerFile: number
  readonly state: Readonly<Record<string, string>>
  readonly signal: AbortSignal
}

/**
 * Reads the current rows of some data files, all of them when `chosen` is null, and replaces those files in one snapshot, on top of the one that was
 * read, so that the new files may be newer than every delete.
 * @throws sink.unreachable when another engine committed meanwhile
 */
export async function rewriteFiles(table: IcebergTable, chosen: ReadonlySet<string> | null, view: TableView, options: RewriteOptions): Promise<void> {
  await table.refresh()
  const old = chosen === null ? table.live : table.live.filter(({ file }) => file.content !== DATA || chosen.has(file.file_path))
  if (old.length === 0) return
  const madeFrom = currentSnapshotId(table.metadata)
  const added: DataFile[] = []
  let held: Tuple[] = []
  const flush = async () => {
    if (held.length === 0) return
    added.push(
      await writeParquetFile(view.files, view.columns, held, {
        location: table.newFileLocation('data'),
        content: 0,
        equalityIds: null,
        compression: options.compression,
      }),
    )
    held = []
  }
  try {
    for await (const rows of scanRows(old, view, options.signal)) {
      for (const row of rows) {
        held.push(row)
        if (held.length >= options.rowsPerFile) await flush()
      }
    }
    await flush()
  } catch (error) {
    await view.files.remove(added.map((file) => file.file_path))
    throw error
  }
  await table.commit({ operation: 'replace', added, removed: chosen ?? new Set(old.map(({ file }) => file.file_path)), madeFrom, state: options.state })
}

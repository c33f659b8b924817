import { DatabaseSync } from 'node:sqlite'
import {
  MillraceError,
  type PluginContext,
  type ScanTarget,
  type SourceOffset,
  type SourceReader,
  type TableSchema,
  tableId,
  type Value,
} from '../../core/plugin.ts'
import { FileSet } from './file-set.ts'
import type { FilesConfig } from './files-config.ts'
import { totalOf } from './files-source.ts'
import { TableShapes } from './table-shapes.ts'
import { linesOf } from './tracked-file.ts'

/** Opens the folder for the audit, beside whatever captures it. */
export async function openFilesReader(config: FilesConfig, context: PluginContext): Promise<SourceReader> {
  const shapes = new TableShapes(config, {})
  /** The folder as it is now; each file is taken to be captured up to its last complete line. */
  const view = async () => {
    const files = new FileSet(config, context)
    await files.begin()
    for (const file of files.files) await shapes.reader(file, files.rules.get(file.table)!)
    return files
  }
  async function* rows(files: FileSet, table: string, signal: AbortSignal): AsyncGenerator<readonly Value[]> {
    for (const file of files.files) {
      if (file.table !== table) continue
      const reader = await shapes.reader(file, files.rules.get(table)!)
      for (let at = 0; reader !== null && at < file.at; ) {
        signal.throwIfAborted()
        const piece = await file.lines(at, file.at)
        if (piece === null) break
        for (const { line, end } of linesOf(piece.bytes)) {
          const row = at === 0 && reader.hasHeader ? null : reader.row(line, at)
          at = piece.at + end
          if (row !== null) yield row
        }
      }
    }
  }
  return {
    async tables() {
      await using files = await view()
      return [...files.rules].map(([table, rule]) => shapes.schema(table, rule)).filter((table) => table !== null)
    },
    async scan(table: TableSchema, open: (shape: TableSchema) => ScanTarget, signal: AbortSignal) {
      await using files = await view()
      const rule = files.rules.get(table.name)
      const shape = rule === undefined ? null : shapes.schema(table.name, rule)
      if (shape === null) throw new MillraceError('source.table_gone', `${tableId(table)} has no files any more`)
      // a row's place is a key that does not come again
      const last = rule!.key === undefined ? null : await lastRows(rows(files, table.name, signal), shape.key)
      const { writer, beginRow, endRow } = open(shape)
      let n = 0
      for await (const row of rows(files, table.name, signal)) {
        if (last?.(n++) === false) continue
        beginRow()
        for (const value of row) writer.value(value)
        endRow()
      }
      return BigInt(files.total) + 1n
    },
    reached: (offset: SourceOffset, commit: bigint) => BigInt(totalOf(offset)) + 1n >= commit,
    async [Symbol.asyncDispose]() {},
  }
}

/** Which rows no later one has the key of, by their number. Keys lie in a temporary file of SQLite, so that memory does not grow with them. */
async function lastRows(rows: AsyncIterable<readonly Value[]>, key: readonly number[]): Promise<(n: number) => boolean> {
  const db = new DatabaseSync('')
  try {
    db.exec('pragma journal_mode = off; create table last (key text primary key, n integer) without rowid; begin')
    const put = db.prepare('insert or replace into last values (?, ?)')
    let count = 0
    for await (const row of rows) put.run(JSON.stringify(key.map((i) => String(row[i]))), count++)
    const bits = new Uint8Array((count >> 3) + 1)
    for (const { n } of db.prepare('select n from last').iterate() as Iterable<{ n: number }>) bits[n >> 3]! |= 1 << (n & 7)
    return (n) => (bits[n >> 3]! & (1 << (n & 7))) !== 0
  } finally {
    db.close()
  }
}

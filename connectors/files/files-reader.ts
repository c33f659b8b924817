import { MillraceError, type PluginContext, type ScanTarget, type SourceOffset, type SourceReader, type TableSchema, tableId } from '../../core/plugin.ts'
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
      const { writer, beginRow, endRow } = open(shape)
      for (const file of files.files) {
        if (file.table !== table.name) continue
        const reader = await shapes.reader(file, rule!)
        for (let at = 0; reader !== null && at < file.at; ) {
          signal.throwIfAborted()
          const piece = await file.lines(at, file.at)
          if (piece === null) break
          for (const { line, end } of linesOf(piece.bytes)) {
            const row = at === 0 && reader.hasHeader ? null : reader.row(line, at)
            at = piece.at + end
            if (row === null) continue
            beginRow()
            for (const value of row) writer.value(value)
            endRow()
          }
        }
      }
      return BigInt(files.total) + 1n
    },
    reached: (offset: SourceOffset, commit: bigint) => BigInt(totalOf(offset)) + 1n >= commit,
    async [Symbol.asyncDispose]() {},
  }
}

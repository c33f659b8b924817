import {
  type ChunkLimits,
  type Json,
  type PluginContext,
  type SnapshotChunk,
  type SnapshotFence,
  type SnapshotReader,
  type TableSchema,
  type Tuple,
  writeRows,
} from '../../core/plugin.ts'
import type { FileSet } from './file-set.ts'
import type { TableShapes } from './table-shapes.ts'
import { linesOf } from './tracked-file.ts'

/** Where the next chunk starts: files with the bytes that the stream had of them when they were last looked at, and how far it is. */
interface Cursor {
  readonly files: readonly (readonly [key: string, to: number])[]
  readonly file: number
  readonly at: number
}

/**
 * Reads the lines that lie before the stream's place in each file of a table, as it was when the reading began; all later ones come by the stream. Of a table
 * with a key of its own it also reads again what was streamed meanwhile: a line must not stay behind an older one of its key that a later chunk has.
 */
export class FilesSnapshotReader implements SnapshotReader {
  readonly #files: FileSet
  readonly #shapes: TableShapes
  readonly #context: Pick<PluginContext, 'logger'>

  constructor(files: FileSet, shapes: TableShapes, context: Pick<PluginContext, 'logger'>) {
    this.#files = files
    this.#shapes = shapes
    this.#context = context
  }

  /** Lines are not counted before they are read. */
  async estimate(): Promise<null> {
    return null
  }

  async read(
    table: TableSchema,
    cursor: Json | null,
    limits: ChunkLimits,
    onView: (fence: SnapshotFence) => void,
    signal: AbortSignal,
  ): Promise<SnapshotChunk> {
    const own = this.#files.files.filter((file) => file.table === table.name)
    const from = (cursor as unknown as Cursor | null) ?? { files: [], file: 0, at: 0 }
    const comesAgain = this.#files.rules.get(table.name)?.key !== undefined
    const files = from.files.map(([key, to]) => [key, comesAgain ? Math.max(to, own.find((one) => one.key === key)?.at ?? 0) : to] as const)
    if (cursor === null || comesAgain) {
      files.push(...own.filter(({ key }) => !files.some(([known]) => known === key)).map(({ key, at }) => [key, at] as const))
    }
    const readAt = BigInt(Date.now()) * 1000n
    // the stream stands where its files are captured to, and waits
    onView(null)
    const rows: Tuple[] = []
    let { file: index, at } = from
    let bytes = 0
    let shape = table
    for (; index < files.length; index++, at = 0) {
      signal.throwIfAborted()
      const [key, to] = files[index]!
      const file = this.#files.files.find((one) => one.key === key)
      const rule = this.#files.rules.get(table.name)
      const reader = file === undefined || rule === undefined ? null : await this.#shapes.reader(file, rule)
      if (file === undefined || reader === null) {
        if (to > at) this.#context.logger.warn({ table: table.name, file: key, at }, 'a file is gone before its lines were read')
        continue
      }
      // a later file may have more columns: its rows are a chunk of their own
      if (rows.length > 0 && reader.table !== shape) break
      shape = reader.table
      while (at < to && rows.length < limits.maxRows && bytes < limits.maxBytes) {
        signal.throwIfAborted()
        const piece = await file.lines(at, to)
        if (piece === null) {
          at = to
          break
        }
        for (const { line, end } of linesOf(piece.bytes)) {
          if (rows.length >= limits.maxRows || bytes >= limits.maxBytes) break
          const row = at === 0 && reader.hasHeader ? null : reader.row(line, at)
          at = piece.at + end
          bytes += line.length
          if (row !== null) rows.push(row)
        }
      }
      if (at < to) break
    }
    const next: Cursor | null = index < files.length ? { files, file: index, at } : null
    return {
      rows: rows.length,
      next: next as unknown as Json,
      fence: null,
      readAt,
      table: shape,
      write: (writer, beginRow, endRow) => writeRows(rows, { writer, beginRow, endRow }),
    }
  }

  /** A line never changes. */
  sees(): boolean {
    return true
  }
}

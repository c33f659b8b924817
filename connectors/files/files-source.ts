import {
  type CaptureOutput,
  type ChangeWriter,
  foreignOffset,
  type Json,
  MillraceError,
  type PluginContext,
  type SourceConnector,
  type SourceOffset,
  type TableSchema,
  type Value,
  Waker,
} from '../../core/plugin.ts'
import { FileSet } from './file-set.ts'
import type { FilesConfig } from './files-config.ts'
import { FilesSnapshotReader } from './snapshot-reader.ts'
import { type FoundColumns, type LineReader, TableShapes } from './table-shapes.ts'
import { type FileMark, hashOf, linesOf, type NextPiece, type Piece } from './tracked-file.ts'

export interface FilesOffset {
  readonly files: readonly FileMark[]
  /** Bytes of files that are gone. */
  readonly forgotten: number
  readonly columns: FoundColumns
  /** What is captured next: after a crash the same, whatever else has come, since lines of several files have no order of their own. */
  readonly next: NextPiece | null
}

/** @throws source.identity_changed when this source did not write it */
export function readOffset(offset: SourceOffset): FilesOffset {
  const { files, forgotten } = offset
  if (!Array.isArray(files) || typeof forgotten !== 'number') throw foreignOffset('files')
  return offset as unknown as FilesOffset
}

/** Opens the folder at an offset, or with all its lines behind it. */
export async function openFiles(config: FilesConfig, context: PluginContext, resume: SourceOffset | null): Promise<SourceConnector> {
  const files = new FileSet(config, context)
  const offset = resume === null ? null : readOffset(resume)
  try {
    if (offset === null) await files.begin()
    else await files.resume(offset.files, offset.forgotten, offset.next)
    const planned = offset === null || offset.next === null ? null : await pieceOf(offset.next, files, context)
    return new FilesSource(config, context, files, new TableShapes(config, offset?.columns ?? {}), planned)
  } catch (error) {
    await files[Symbol.asyncDispose]()
    throw error
  }
}

async function pieceOf({ key, to, hash }: NextPiece, files: FileSet, context: PluginContext): Promise<Piece> {
  const file = files.files.find((one) => one.key === key)
  const bytes = await file?.read(file.at, to)
  if (file === undefined || bytes === undefined || bytes.length !== to - file.at || (hash !== undefined && hash !== hashOf(bytes))) {
    throw new MillraceError('source.history_lost', `the file ${key} is gone or rewritten while its lines up to byte ${to} were being captured`, {
      fix: `millrace run FILE --resnapshot ${context.node}`,
    })
  }
  return { file, at: file.at, to, bytes }
}

/** Bytes captured of all files there were up to an offset. */
export function totalOf(offset: SourceOffset): number {
  const { files, forgotten } = readOffset(offset)
  return files.reduce((sum, { at }) => sum + at, forgotten)
}

/** See `SourceConnector`; made by {@link openFiles}. */
class FilesSource implements SourceConnector {
  readonly start: SourceOffset
  readonly snapshot: FilesSnapshotReader
  readonly #config: FilesConfig
  readonly #files: FileSet
  readonly #shapes: TableShapes
  /** What a run before this one would have captured next. */
  #planned: Piece | null
  #turn = 0
  #scanned = performance.now()
  #scanning: Promise<void> | null = null

  constructor(config: FilesConfig, context: PluginContext, files: FileSet, shapes: TableShapes, planned: Piece | null) {
    this.#config = config
    this.#files = files
    this.#shapes = shapes
    this.#planned = planned
    this.start = this.#offset(planned)
    this.snapshot = new FilesSnapshotReader(files, shapes, context)
  }

  async tables(): Promise<readonly TableSchema[]> {
    await this.#scan()
    const tables: TableSchema[] = []
    for (const [table, rule] of this.#files.rules) {
      try {
        const first = this.#files.files.find((file) => file.table === table)
        if (this.#shapes.schema(table, rule) === null && first !== undefined) await this.#shapes.reader(first, rule)
        const schema = this.#shapes.schema(table, rule)
        if (schema !== null) tables.push(schema)
      } catch (error) {
        // the stream parks it, with the place
        if (!(error instanceof MillraceError) || error.category !== 'schema') throw error
      }
    }
    return tables
  }

  async isRewritten(before: TableSchema, now: TableSchema): Promise<boolean> {
    return now.columns.some(({ id, sourceType }) => before.columns.some((old) => old.id === id && old.sourceType !== sourceType))
  }

  /** A table outlives its files. */
  async whyAbsent(): Promise<string | null> {
    return null
  }

  async *changes(_from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    const waker = new Waker(signal)
    output.chunks.onWaiting = () => waker.wake()
    while (!signal.aborted) {
      if (performance.now() - this.#scanned >= this.#config.pollMs) await this.#scan()
      const piece = await this.#next()
      yield this.#offset(piece)
      if (signal.aborted) return
      if (piece !== null) {
        await this.#write(piece, output, signal)
        continue
      }
      const chunks = output.chunks.emit(() => true)
      if (chunks !== null) await chunks
      else await waker.sleep(this.#config.pollMs)
    }
  }

  async #next(): Promise<Piece | null> {
    if (this.#planned !== null) {
      const planned = this.#planned
      this.#planned = null
      return planned
    }
    const tables = [...this.#files.rules.keys()]
    for (let n = 0; n < tables.length; n++) {
      const piece = await this.#files.next(tables[(this.#turn + n) % tables.length]!)
      if (piece === null) continue
      this.#turn = (this.#turn + n + 1) % tables.length
      return piece
    }
    return null
  }

  async #write(piece: Piece, output: CaptureOutput, signal: AbortSignal): Promise<void> {
    const { file } = piece
    const named = { namespace: this.#config.namespace, name: file.table }
    let reader: LineReader | null = null
    let writer: ChangeWriter | null = null
    for (;;) {
      const version = output.tablesVersion
      try {
        reader = await this.#shapes.reader(file, this.#files.rules.get(file.table)!)
        writer = reader === null ? null : await output.table(reader.table)
      } catch (error) {
        output.park(named, error)
        reader = null
        writer = null
      }
      const chunks = output.chunks.emit(() => true)
      if (chunks !== null) await chunks
      else if (output.tablesVersion === version) break
      if (signal.aborted) return
    }
    // no promise from here on: what a chunk sees is before this piece or after it, as a whole
    const before = this.#files.total - piece.at
    const committedAt = BigInt(Date.now()) * 1000n
    let from = piece.at
    for (const { line, end } of linesOf(piece.bytes)) {
      const at = from
      from = end + piece.at
      if (at === 0 && reader?.hasHeader === true) continue
      let row: readonly Value[] | null = null
      try {
        if (writer !== null) row = reader!.row(line, at)
      } catch (error) {
        output.park(named, error)
        writer = null
      }
      if (writer === null) output.skip(named)
      else if (row !== null) {
        output.transaction({ commit: BigInt(before + from), committedAt, source: [file.name, BigInt(at)] })
        writeRow(writer, row)
      }
    }
    file.advance(piece)
  }

  #offset(next: Piece | null): SourceOffset {
    const offset: FilesOffset = {
      files: this.#files.files.map((file) => file.mark()),
      forgotten: this.#files.forgotten,
      columns: this.#shapes.found(),
      next: next === null ? null : { key: next.file.key, to: next.to, hash: hashOf(next.bytes) },
    }
    return offset as unknown as { [key: string]: Json }
  }

  /** One at a time: the list of tables is asked for while the stream runs. */
  #scan(): Promise<void> {
    this.#scanning ??= this.#files.scan().finally(() => {
      this.#scanned = performance.now()
      this.#scanning = null
    })
    return this.#scanning
  }

  /** Nothing is held back for us. */
  acknowledge(): void {}

  async lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }> {
    return { retainedBytes: 0, behindBytes: this.#files.files.reduce((sum, { size, at }) => sum + Math.max(0, size - at), 0) }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#files[Symbol.asyncDispose]()
  }
}

function writeRow(writer: ChangeWriter, row: readonly Value[]): void {
  if (!writer.begin('c', 1)) return
  writer.after()
  for (const value of row) writer.value(value)
  writer.end()
}

import type { Json } from '../event/offset.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { ChangeWriter, PendingChunks, SnapshotChunk, SnapshotFence, SnapshotReader } from './source-connector.ts'

export interface SnapshotSettings {
  readonly mode: 'initial' | 'never'
  /** Rows and bytes of a chunk, about. */
  readonly chunkRows: number
  readonly chunkBytes: number
  /** Tables read at the same time. */
  readonly parallel: number
}

export interface TableSnapshotStatus {
  readonly table: string
  readonly rows: number
  /** Rows that the source expects; null when it can't tell. */
  readonly estimate: number | null
  readonly done: boolean
}

/** The durable state of a table's snapshot: where the next chunk starts, or that it is done. */
type TableProgress = { readonly done: true; readonly rows: number } | { readonly done: false; readonly next: Json; readonly rows: number }

interface TableState {
  readonly table: TableSchema
  readonly id: string
  cursor: Json | null
  rows: number
  estimate: number | null
  done: boolean
  /** Read again from the start once the current pass is done. */
  again: boolean
}

/** A change writer that takes rows of a snapshot too. */
export type RowReadWriter = ChangeWriter & { beginRead(): void }

interface WaitingChunk {
  readonly state: TableState
  readonly chunk: SnapshotChunk
  readonly writer: RowReadWriter
  readonly written: () => void
}

/** Prefix of the progress entries; followed by the table's id. */
const ENTRY = 'snapshot/'
/** Chunks of one table read ahead of the one that waits for its place. */
const READ_AHEAD = 2

/**
 * Reads tables in chunks beside the stream and hands each chunk to the stream at its place (ARCHITECTURE.md, "Snapshots"). A table's chunks are read and
 * written in key order; its durable cursor moves when a chunk is written, so that kill -9 resumes at the chunk after.
 */
export class ChunkedSnapshot implements PendingChunks {
  onWaiting: (() => void) | null = null
  readonly #reader: SnapshotReader
  readonly #settings: SnapshotSettings
  readonly #tables = new Map<string, TableState>()
  readonly #queue: TableState[] = []
  readonly #changed = new Set<TableState>()
  readonly #beforeChunk: (readAt: bigint) => void
  readonly #openWriter: (table: TableSchema) => Promise<RowReadWriter>
  readonly #blocked = new Set<() => void>()
  #waiting: WaitingChunk[] = []
  #running = 0
  #signal: AbortSignal | null = null
  #fail: ((error: unknown) => void) | null = null

  /**
   * @param openWriter the writer for a chunk's shape; may register schemas
   * @param beforeChunk called before the rows of a chunk are written, with the time of their view in microseconds
   */
  constructor(
    reader: SnapshotReader,
    settings: SnapshotSettings,
    openWriter: (table: TableSchema) => Promise<RowReadWriter>,
    beforeChunk: (readAt: bigint) => void,
  ) {
    this.#beforeChunk = beforeChunk
    this.#reader = reader
    this.#settings = settings
    this.#openWriter = openWriter
  }

  get size(): number {
    return this.#waiting.length
  }

  /** All tables known are read to their end and written. */
  get done(): boolean {
    for (const state of this.#tables.values()) if (!state.done) return false
    return true
  }

  status(): readonly TableSnapshotStatus[] {
    return [...this.#tables.values()].map(({ id, rows, estimate, done }) => ({ table: id, rows, estimate, done }))
  }

  /** Takes up a table that is not known yet: resumes it from its progress entry, or starts it, or leaves it when it is done or mode is `never`. */
  add(table: TableSchema, progress: ReadonlyMap<string, Json>): void {
    const id = tableId(table)
    if (this.#tables.has(id)) return
    const entry = progress.get(ENTRY + id) as TableProgress | undefined
    const done = entry?.done === true || (entry === undefined && this.#settings.mode === 'never')
    const state: TableState = {
      table,
      id,
      cursor: entry === undefined || entry.done ? null : entry.next,
      rows: entry?.rows ?? 0,
      estimate: null,
      done,
      again: false,
    }
    this.#tables.set(id, state)
    if (entry === undefined) this.#changed.add(state)
    if (!done) this.#enqueue(state)
  }

  /** Reads a table again from its start. */
  reread(table: TableSchema): void {
    const state = this.#tables.get(tableId(table))
    if (state === undefined) return
    if (!state.done) {
      state.again = true
      return
    }
    this.#restart(state)
  }

  #restart(state: TableState): void {
    state.again = false
    state.done = false
    state.cursor = null
    state.rows = 0
    this.#changed.add(state)
    this.#enqueue(state)
  }

  /** Starts reading; errors of readers go to `fail`. Reading ends when `signal` aborts. */
  start(signal: AbortSignal, fail: (error: unknown) => void): void {
    this.#signal = signal
    this.#fail = fail
    signal.addEventListener('abort', () => this.#release(), { once: true })
    this.#fill()
  }

  emit(isDue: (fence: SnapshotFence) => boolean): void {
    const waiting = this.#waiting
    const kept: WaitingChunk[] = []
    const held = new Set<TableState>()
    this.#waiting = kept
    for (const item of waiting) {
      // a table's chunks keep their order
      if (held.has(item.state) || !isDue(item.chunk.fence)) {
        held.add(item.state)
        kept.push(item)
        continue
      }
      this.#beforeChunk(item.chunk.readAt)
      writeChunk(item.chunk, item.writer)
      item.written()
    }
  }

  /** Progress entries that changed since the last call, to land with the batch that holds the chunks' rows. */
  takeProgress(into: Map<string, Json | null>): void {
    for (const state of this.#changed) {
      const entry: TableProgress = state.done ? { done: true, rows: state.rows } : { done: false, next: state.cursor, rows: state.rows }
      into.set(ENTRY + state.id, entry as unknown as Json)
    }
    this.#changed.clear()
  }

  #enqueue(state: TableState): void {
    this.#queue.push(state)
    this.#fill()
  }

  #fill(): void {
    if (this.#signal === null) return
    while (this.#running < this.#settings.parallel && this.#queue.length > 0 && !this.#signal.aborted) {
      const state = this.#queue.shift()!
      this.#running++
      this.#readTable(state, this.#signal)
        .catch((error: unknown) => {
          if (!this.#signal?.aborted) this.#fail?.(error)
        })
        .finally(() => {
          this.#running--
          if (state.again && !this.#signal?.aborted) this.#restart(state)
          this.#fill()
        })
    }
  }

  async #readTable(state: TableState, signal: AbortSignal): Promise<void> {
    state.estimate = await this.#reader.estimate(state.table)
    let cursor = state.cursor
    let ahead: Promise<void>[] = []
    for (;;) {
      const chunk = await this.#reader.read(state.table, cursor, { maxRows: this.#settings.chunkRows, maxBytes: this.#settings.chunkBytes }, signal)
      if (signal.aborted) return
      ahead.push(this.#place(state, chunk))
      if (chunk.next === null) break
      cursor = chunk.next
      if (ahead.length >= READ_AHEAD) {
        await ahead[0]
        ahead = ahead.slice(1)
      }
      if (signal.aborted) return
    }
    await Promise.all(ahead)
  }

  #release(): void {
    for (const free of this.#blocked) free()
    this.#blocked.clear()
  }

  /** Resolves when the chunk is written into the frames, or reading is aborted. */
  async #place(state: TableState, chunk: SnapshotChunk): Promise<void> {
    const writer = await this.#openWriter(chunk.table)
    if (this.#signal?.aborted) return
    await new Promise<void>((resolve) => {
      this.#blocked.add(resolve)
      const written = () => {
        state.cursor = chunk.next
        state.rows += chunk.rows
        state.done = chunk.next === null
        this.#changed.add(state)
        this.#blocked.delete(resolve)
        resolve()
      }
      this.#waiting.push({ state, chunk, writer, written })
      this.onWaiting?.()
    })
  }
}

/** Writes all rows of a chunk through the table's writer. */
function writeChunk(chunk: SnapshotChunk, writer: RowReadWriter): void {
  chunk.write(
    writer,
    () => {
      writer.beginRead()
      writer.after()
    },
    () => writer.end(),
  )
}

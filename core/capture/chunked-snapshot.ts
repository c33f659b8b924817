import { MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import type { Position } from '../event/position.ts'
import { SNAPSHOT_ENTRY, type SnapshotProgress, UNREAD } from '../event/snapshot-progress.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import { pause } from '../retry.ts'
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

interface TableState {
  readonly table: TableSchema
  readonly id: string
  cursor: Json | null
  rows: number
  estimate: number | null
  done: boolean
  /** Read again from the start once the current pass is done. */
  again: boolean
  /** The current pass is of a part of the table alone. */
  part: boolean
  /** Cursors at which parts of the table begin that are read once the current pass is done. */
  later: readonly Json[]
  /** Position of the last row of the last pass over the whole table; null before its end. */
  at: { readonly commit: string; readonly ordinal: number } | null
  /** The first chunk is preceded by a truncation: rows of an earlier capture may be gone from the source. */
  clear: boolean
  /** A chunk of this pass is written. Until then all of it will come after whatever is streamed meanwhile. */
  begun: boolean
  /** Its table is not read any more. */
  dropped: boolean
}

/** A change writer that takes rows of a snapshot too, and can say that the table starts from nothing. */
export type RowReadWriter = ChangeWriter & { beginRead(): void; clear(): void }

/** A chunk from the moment its view is asked for until its rows are written. */
interface Pending {
  readonly state: TableState
  /** It starts the table. */
  readonly first: boolean
  /** undefined while the view is being taken. */
  fence: SnapshotFence | undefined
  viewed: boolean
  /** null while its rows are being read. */
  ready: { readonly chunk: SnapshotChunk; readonly writer: RowReadWriter } | null
  readonly written: () => void
  /** Lets go of who waits for `written`. */
  release: () => void
}

/** Chunks of one table read ahead of the one that waits for its place. */
const READ_AHEAD = 2
/** A table that cannot be read yet, or is locked, is asked for again after this time. */
const NOT_READY_MS = 500

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
  /** Tables to be read from nothing when they are added again; those whose entry is not durable yet. */
  readonly #unread = new Set<string>()
  readonly #newlyUnread = new Set<string>()
  readonly #beforeChunk: (readAt: bigint, first: TableSchema | null) => boolean
  readonly #position: () => Position
  readonly #seesLog: (fence: SnapshotFence) => boolean
  readonly #openWriter: (table: TableSchema) => Promise<RowReadWriter>
  readonly #blocked = new Set<() => void>()
  /** In the order in which their reading began. */
  readonly #pending = new Set<Pending>()
  #moved: (() => void)[] = []
  /** Readers whose view was too old, until the stream has gone on. */
  #behind: (() => void)[] = []
  #running = 0
  #signal: AbortSignal | null = null
  #fail: ((error: unknown, table: TableSchema) => void) | null = null

  /**
   * @param openWriter the writer for a chunk's shape; may register schemas
   * @param position of the last row that was written
   * @param seesLog whether a view shows all that the log had when this capture began
   * @param beforeChunk called before the rows of a chunk are written, with the time of their view in microseconds, and their shape when they are the first of a table;
   * returns whether what the log has of the table has to go first
   */
  constructor(
    reader: SnapshotReader,
    settings: SnapshotSettings,
    openWriter: (table: TableSchema) => Promise<RowReadWriter>,
    beforeChunk: (readAt: bigint, first: TableSchema | null) => boolean,
    position: () => Position,
    seesLog: (fence: SnapshotFence) => boolean,
  ) {
    this.#position = position
    this.#seesLog = seesLog
    this.#beforeChunk = beforeChunk
    this.#reader = reader
    this.#settings = settings
    this.#openWriter = openWriter
  }

  get size(): number {
    return this.#pending.size
  }

  /** All tables known are read to their end and written. */
  get done(): boolean {
    for (const state of this.#tables.values()) if (!isThrough(state)) return false
    return true
  }

  status(): readonly TableSnapshotStatus[] {
    return [...this.#tables.values()].map((state) => ({ table: state.id, rows: state.rows, estimate: state.estimate, done: isThrough(state) }))
  }

  /** Rows that exist are wanted. */
  get readsRows(): boolean {
    return this.#settings.mode !== 'never'
  }

  /** Takes up a table that is not known yet: resumes it from its progress entry, or starts it, or leaves it when it is done or mode is `never`. */
  add(table: TableSchema, progress: ReadonlyMap<string, Json>): void {
    const id = tableId(table)
    if (this.#tables.has(id)) return
    const entry = (this.#unread.has(id) ? UNREAD : progress.get(SNAPSHOT_ENTRY + id)) as SnapshotProgress | undefined
    const done = entry?.done === true || (entry === undefined && this.#settings.mode === 'never')
    const part = entry?.done === false && entry.part === true
    const state: TableState = {
      table,
      id,
      cursor: entry === undefined || entry.done ? null : entry.next,
      rows: entry?.rows ?? 0,
      estimate: null,
      done,
      again: false,
      part,
      later: entry?.done === false ? (entry.later ?? []) : [],
      at: entry?.done === true || part ? (entry.at ?? null) : null,
      clear: entry?.done === false && entry.clear === true,
      begun: entry?.done === false && entry.next !== null,
      dropped: false,
    }
    this.#tables.set(id, state)
    if (entry === undefined || this.#unread.delete(id)) this.#changed.add(state)
    if (!done) this.#enqueue(state)
  }

  /** Reads a table again from its start; `clear`: after a truncation. Without one a table that has no key stays as it is. */
  reread(table: Pick<TableSchema, 'namespace' | 'name'>, clear: boolean): void {
    const state = this.#tables.get(tableId(table))
    // rows without a key would come beside those that the log has
    if (state === undefined || (!clear && state.table.key.length === 0)) return
    state.clear ||= clear
    this.#changed.add(state)
    if (state.done || state.begun) state.again = true
    if (state.done) this.#restart(state)
  }

  /** Reads rows of a table that came with a part of it, from a cursor of the source's on: those that it had stay as they are. */
  readPart(table: TableSchema, from: Json): void {
    const state = this.#tables.get(tableId(table))
    // a pass of which no view was taken yet has them
    if (state === undefined || state.again || !(state.done || state.begun || this.#isViewed(state))) return
    state.later = [...state.later, from]
    this.#changed.add(state)
    if (state.done) this.#restart(state)
  }

  #isViewed(state: TableState): boolean {
    for (const item of this.#pending) if (item.state === state) return true
    return false
  }

  /** Leaves a table alone; when it is added again, it is read from nothing. */
  drop(id: string): void {
    const state = this.#tables.get(id)
    this.#unread.add(id)
    this.#newlyUnread.add(id)
    if (state === undefined) return
    state.dropped = true
    this.#tables.delete(id)
    this.#changed.delete(state)
    for (const item of this.#pending) {
      if (item.state !== state) continue
      this.#pending.delete(item)
      item.release()
    }
    this.#move()
  }

  /** A truncation comes before the next rows that are read of the table. */
  isEmptied(id: string): boolean {
    const state = this.#tables.get(id)
    return state?.clear === true && !state.begun
  }

  has(id: string): boolean {
    return this.#tables.has(id)
  }

  /** Rows of the table are being read, and none of them is written yet. */
  isUnbegun(id: string): boolean {
    const state = this.#tables.get(id)
    return state !== undefined && !state.done && !state.begun
  }

  #restart(state: TableState): void {
    const [part = null, ...later] = state.again ? [] : state.later
    state.again = false
    state.done = false
    state.cursor = part
    state.part = part !== null
    state.later = later
    // a part adds to what was read
    if (part === null) {
      state.rows = 0
      state.at = null
      state.begun = false
    }
    this.#changed.add(state)
    this.#enqueue(state)
  }

  /** Starts reading; errors of readers go to `fail`. Reading ends when `signal` aborts. */
  start(signal: AbortSignal, fail: (error: unknown, table: TableSchema) => void): void {
    this.#signal = signal
    this.#fail = fail
    signal.addEventListener('abort', () => this.#release(), { once: true })
    this.#fill()
  }

  emit(isDue: (fence: SnapshotFence) => boolean): Promise<void> | null {
    return this.#place(isDue) ? null : this.#settle(isDue)
  }

  async #settle(isDue: (fence: SnapshotFence) => boolean): Promise<void> {
    do {
      await new Promise<void>((resolve) => this.#moved.push(resolve))
    } while (!this.#signal?.aborted && !this.#place(isDue))
  }

  /** Writes the chunks that are due and read; false when one that may be due is not. */
  #place(isDue: (fence: SnapshotFence) => boolean): boolean {
    const held = new Set<TableState>()
    let complete = true
    for (const item of [...this.#pending]) {
      // its table was parked by the chunk before
      if (item.state.dropped) continue
      if (!item.viewed) complete = false
      // a table's chunks keep their order
      else if (held.has(item.state) || !isDue(item.fence)) held.add(item.state)
      else if (item.ready === null) {
        held.add(item.state)
        complete = false
      } else {
        this.#pending.delete(item)
        const replaced = this.#beforeChunk(item.ready.chunk.readAt, item.first ? item.ready.chunk.table : null)
        if (item.first) {
          if (item.state.clear || replaced) item.ready.writer.clear()
          item.state.clear = false
          item.state.begun = true
        }
        writeChunk(item.ready.chunk, item.ready.writer)
        if (item.state.dropped) item.release()
        else item.written()
      }
    }
    return complete
  }

  /** Something changed that a waiting stream may go on for. */
  #move(): void {
    const moved = this.#moved
    this.#moved = []
    for (const resolve of moved) resolve()
  }

  /** The stream went on: views that are taken now may show more. */
  streamed(): void {
    if (this.#behind.length === 0) return
    const behind = this.#behind
    this.#behind = []
    for (const resolve of behind) resolve()
  }

  get hasProgress(): boolean {
    return this.#changed.size + this.#newlyUnread.size > 0
  }

  /** Progress entries that changed since the last call, to land with the batch that holds the chunks' rows. */
  takeProgress(into: Map<string, Json | null>): void {
    // clearing a set, even an empty one, makes garbage of the long-lived kind: not for each batch
    if (!this.hasProgress) return
    for (const state of this.#changed) {
      const { rows, again, clear, at } = state
      const done = isThrough(state)
      // a pass that will be repeated is worth nothing after a restart
      const [next = null, ...later] = again ? [] : state.done ? state.later : [state.cursor, ...state.later]
      const part = !again && (state.part || state.done)
      const whole = at === null ? {} : { at }
      const entry: SnapshotProgress = done
        ? { done, rows, ...whole }
        : { done, next, rows: again ? 0 : rows, ...(clear ? { clear } : {}), ...(part ? { part, ...whole } : {}), ...(later.length > 0 ? { later } : {}) }
      into.set(SNAPSHOT_ENTRY + state.id, entry as unknown as Json)
    }
    this.#changed.clear()
    for (const id of this.#newlyUnread) if (!this.#tables.has(id)) into.set(SNAPSHOT_ENTRY + id, UNREAD)
    this.#newlyUnread.clear()
  }

  #enqueue(state: TableState): void {
    this.#queue.push(state)
    this.#fill()
  }

  #fill(): void {
    if (this.#signal === null) return
    while (this.#running < this.#settings.parallel && this.#queue.length > 0 && !this.#signal.aborted) {
      const state = this.#queue.shift()!
      if (state.dropped) continue
      this.#running++
      this.#readTable(state, this.#signal)
        .catch((error: unknown) => {
          if (!this.#signal?.aborted && !state.dropped) this.#fail?.(error, state.table)
        })
        .finally(() => {
          this.#running--
          if (state.done && !isThrough(state) && !this.#signal?.aborted && !state.dropped) this.#restart(state)
          this.#fill()
        })
    }
  }

  async #readTable(state: TableState, signal: AbortSignal): Promise<void> {
    state.estimate = await this.#reader.estimate(state.table)
    if (state.dropped) return
    if ((await this.#reader.isReady?.(state.table, state.cursor)) === false) return this.#postpone(state, signal)
    if (state.dropped) return
    let cursor = state.cursor
    let ahead: Promise<void>[] = []
    for (;;) {
      let chunk: { readonly next: Json | null; readonly written: Promise<void> }
      try {
        chunk = await this.#readChunk(state, cursor, signal)
      } catch (error) {
        if (!(error instanceof MillraceError) || error.code !== 'source.locked') throw error
        // it goes on from its cursor, which moves as they are written
        await Promise.all(ahead)
        return this.#postpone(state, signal)
      }
      const { next, written } = chunk
      if (signal.aborted || state.dropped) return
      ahead.push(written)
      if (next === null) break
      cursor = next
      if (ahead.length >= READ_AHEAD) {
        await ahead[0]
        ahead = ahead.slice(1)
      }
      if (signal.aborted || state.dropped) return
    }
    await Promise.all(ahead)
  }

  /** Has the table read a moment later: others take their turn meanwhile. */
  #postpone(state: TableState, signal: AbortSignal): void {
    void pause(NOT_READY_MS, signal).then(() => this.#enqueue(state))
  }

  /** Reads one chunk and leaves it pending; `written` resolves when its rows are in the frames, or reading is aborted. */
  async #readChunk(state: TableState, cursor: Json | null, signal: AbortSignal): Promise<{ next: Json | null; written: Promise<void> }> {
    let release = () => {}
    const written = new Promise<void>((resolve) => {
      release = resolve
    })
    this.#blocked.add(release)
    const item: Pending = {
      state,
      first: cursor === null,
      fence: undefined,
      viewed: false,
      ready: null,
      release: () => {
        this.#blocked.delete(release)
        release()
      },
      written: () => {
        const chunk = item.ready!.chunk
        state.cursor = chunk.next
        state.rows += chunk.rows
        state.done = chunk.next === null
        if (state.done && !state.part) {
          const { commit, ordinal } = this.#position()
          state.at = { commit: commit.toString(), ordinal }
        }
        this.#changed.add(state)
        item.release()
      },
    }
    try {
      let chunk: SnapshotChunk | null = null
      while (chunk === null) {
        if (signal.aborted || state.dropped) {
          item.release()
          return { next: null, written }
        }
        chunk = await this.#readInView(item, cursor, signal)
      }
      const writer = await this.#openWriter(chunk.table)
      item.ready = { chunk, writer }
      this.#move()
      this.onWaiting?.()
      return { next: chunk.next, written }
    } catch (error) {
      this.#pending.delete(item)
      this.#blocked.delete(release)
      this.#move()
      throw error
    }
  }

  /** Null: the view showed less than the log has, and the stream has gone on since; or nobody wants the chunk any more. */
  async #readInView(item: Pending, cursor: Json | null, signal: AbortSignal): Promise<SnapshotChunk | null> {
    const limits = { maxRows: this.#settings.chunkRows, maxBytes: this.#settings.chunkBytes }
    const stale = new AbortController()
    const stop = () => stale.abort()
    let wentOn: Promise<void> | null = null
    const onView = (fence: SnapshotFence) => {
      item.fence = fence
      item.viewed = true
      // I12: rows of an older view would come after newer ones, which the stream brings again and the writers refuse
      if (wentOn === null && !this.#seesLog(fence)) {
        wentOn = new Promise((resolve) => this.#behind.push(resolve))
        this.#pending.delete(item)
        stop()
      }
      this.#move()
    }
    signal.addEventListener('abort', stop, { once: true })
    try {
      await using prepared = await this.#reader.prepare?.(item.state.table, stale.signal)
      if (signal.aborted || item.state.dropped) return null
      // from here on the stream waits for the view
      item.viewed = false
      this.#pending.add(item)
      this.onWaiting?.()
      const chunk = await (prepared ?? this.#reader).read(item.state.table, cursor, limits, onView, stale.signal)
      if (wentOn === null) return chunk
    } catch (error) {
      if (wentOn === null) throw error
    } finally {
      signal.removeEventListener('abort', stop)
    }
    await wentOn
    return null
  }

  #release(): void {
    for (const free of this.#blocked) free()
    this.#blocked.clear()
    this.#move()
    this.streamed()
  }
}

/** Its rows are read, and none of them again. */
function isThrough({ done, again, later }: TableState): boolean {
  return done && !again && later.length === 0
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

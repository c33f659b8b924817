import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { setImmediate as turn } from 'node:timers/promises'
import {
  comparePositions,
  type LogPosition,
  MillraceError,
  type Position,
  packPosition,
  type Rejection,
  type RowChange,
  type SinkBatch,
  type SinkConnector,
  type SinkLimits,
  type TableSchema,
  type Tuple,
  tableId,
  UNCHANGED,
  unpackPosition,
} from '../../core/plugin.ts'
import { beginWriting, guarded, type IndexDescription, inTurn, lackedTables, openIndexFile, readIndexFile, sinkError } from './index-file.ts'
import { checkEvolution, mergeTypes, type TextColumn, textColumns } from './index-schema.ts'
import { type RowCodec, rowCodec, searchText } from './row-codec.ts'

export interface SearchSinkOptions {
  readonly file: string
  readonly index: string
  readonly topic: string
  /** Columns to search in; all that hold text when missing. */
  readonly text?: readonly string[] | undefined
  /** See `PluginContext.readOnly`. */
  readonly readOnly?: boolean
  readonly limits: SinkLimits
}

/** A delete is remembered this long, so that a change that the log delivers again does not bring the row back. */
const TOMBSTONE_MS = 7 * 86_400_000
/** So many that are older go with a batch at least, so that no commit takes long. */
const TOMBSTONES_AT_ONCE = 1000
/** Rows between two turns of the event loop. */
const ROWS_PER_TURN = 250
const ROWS_PER_READ = 500
/** The id that no index has: one that is only read may not be there. */
const NO_INDEX = 0

/** The state of one key after a batch. */
interface Pending {
  readonly position: Position
  /** Null: deleted. */
  readonly row: Tuple | null
  /** The row is most likely in the target: worth a look whether its text is the same. */
  readonly isUpdate: boolean
}

interface Statements {
  readonly base: StatementSync
  readonly upsert: StatementSync
  readonly putText: StatementSync
  readonly dropText: StatementSync
}

interface Shape {
  readonly codec: RowCodec
  readonly text: readonly TextColumn[]
  readonly statements: Statements
  readonly mayBeUnchanged: boolean
}

/**
 * One index in a SQLite file: rows by key with their source position as version, a contentless FTS5 table over their text, and the log positions, all in
 * one transaction. An older or equal position never overwrites.
 */
export class SearchSink implements SinkConnector {
  readonly limits: SinkLimits
  readonly #options: SearchSinkOptions
  #db: DatabaseSync
  #id: number
  /** Ours since the first apply; null: only read so far. */
  #epoch: number | null = null
  #shape: Shape | null = null
  /** The shape that is read, whatever the index has; null: that of the index. */
  #readAs: RowCodec | null = null

  /** The first apply takes the index over: an earlier writer's next one fails with sink.conflict. Readers disturb none. @throws config.invalid, sink.forbidden, sink.unreachable */
  static async open(options: SearchSinkOptions): Promise<SearchSink> {
    const db = options.readOnly ? readIndexFile(options.file) : openIndexFile(options.file)
    const open = () => guarded(options.file, () => new SearchSink(options, db))
    try {
      return options.readOnly ? open() : await inTurn(options.file, async () => open())
    } catch (error) {
      db.close()
      throw error
    }
  }

  private constructor(options: SearchSinkOptions, db: DatabaseSync) {
    this.#options = options
    this.#db = db
    this.limits = options.limits
    this.#id = this.#find()
    if (options.readOnly || this.#id !== NO_INDEX) return
    db.prepare('INSERT INTO millrace_index(name, topic, epoch) VALUES(?, ?, 0) ON CONFLICT(name) DO NOTHING').run(options.index, options.topic)
    this.#id = this.#find()
  }

  /** @throws config.invalid when the index is of another stream */
  #find(): number {
    const { file, index, topic } = this.#options
    const row = this.#db.prepare('SELECT id, topic FROM millrace_index WHERE name = ?').get(index) as { id: number; topic: string } | undefined
    if (row !== undefined && row.topic !== topic) {
      throw new MillraceError('config.invalid', `index ${index} in ${file} is of ${row.topic}, not of ${topic}`, {
        fix: "set the sink's index to '{namespace}.{table}', or give the streams sinks of their own",
      })
    }
    return row?.id ?? NO_INDEX
  }

  /** Its writer may have made the index, or the table, that was not there. */
  #lookAgain(): void {
    if (!this.#options.readOnly || (this.#id !== NO_INDEX && !lackedTables(this.#db))) return
    const before = this.#db
    this.#db = readIndexFile(this.#options.file)
    before.close()
    this.#id = this.#find()
  }

  async prepare(table: TableSchema): Promise<void> {
    if (table.key.length === 0) {
      throw new MillraceError('sink.schema_unsupported', `${tableId(table)} has no key, so its rows cannot be kept equal in an index`, {
        fix: `add a primary key to ${tableId(table)} (or set its replica identity to a unique index)`,
      })
    }
    const text = textColumns(table, this.#options.text)
    const describe = () => {
      const stored = this.#description()
      const types = stored?.types ?? {}
      if (stored !== null) {
        checkEvolution(
          types,
          stored.table.key.map((at) => stored.table.columns[at]!.id),
          table,
        )
      }
      const described: IndexDescription = { table, types: mergeTypes(types, table.columns), text: text.map(({ id, name }) => ({ id, name })) }
      return { stored, described, isSame: JSON.stringify(described) === JSON.stringify(stored) }
    }
    const { isSame } = guarded(this.#options.file, describe)
    if (this.#options.readOnly) {
      this.#readAs = rowCodec(table)
      return
    }
    if (!isSame) {
      await this.#transaction(false, async () => {
        const { stored, described } = describe()
        if (stored === null) {
          this.#db.exec(`CREATE TABLE doc_${this.#id}(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, version BLOB NOT NULL, row TEXT, deleted_at INTEGER) STRICT;
            CREATE INDEX doc_${this.#id}_deleted ON doc_${this.#id}(deleted_at) WHERE deleted_at IS NOT NULL`)
        }
        this.#db.prepare('UPDATE millrace_index SET description = ? WHERE id = ?').run(JSON.stringify(described), this.#id)
        if (JSON.stringify(described.text) !== JSON.stringify(stored?.text)) await this.#indexText(rowCodec(table), text)
      })
    }
    this.#shape = {
      codec: rowCodec(table),
      text,
      mayBeUnchanged: table.columns.some((column) => column.mayBeUnchanged),
      statements: this.#statements(text),
    }
  }

  async committed(): Promise<readonly LogPosition[]> {
    return guarded(this.#options.file, () => {
      this.#lookAgain()
      return positionsOf(this.#db, this.#id)
    })
  }

  async apply(batch: SinkBatch, _signal: AbortSignal): Promise<readonly Rejection[]> {
    const shape = this.#shape
    if (shape === null) throw new MillraceError('invariant.broken', 'apply before prepare')
    return this.#transaction(true, async () => {
      const held = positionsOf(this.#db, this.#id)
      const covered = batch.positions.every((p) => held.some((h) => h.topic === p.topic && h.partition === p.partition && h.offset >= p.offset))
      if (covered && batch.positions.length > 0) return []
      const { rejections, pending, floor } = await this.#collapse(batch, shape)
      if (rejections.length > 0) await batch.onRejected(rejections)
      if (floor !== null) this.#truncate(floor)
      await this.#write(pending, shape)
      const old = `SELECT id FROM doc_${this.#id} WHERE deleted_at < ? ORDER BY deleted_at LIMIT ?`
      this.#db.prepare(`DELETE FROM doc_${this.#id} WHERE id IN (${old})`).run(Date.now() - TOMBSTONE_MS, Math.max(TOMBSTONES_AT_ONCE, batch.changes.length))
      const set = this.#db.prepare('INSERT INTO millrace_position VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET offset = max(offset, excluded.offset)')
      for (const position of batch.positions) set.run(this.#id, position.topic, position.partition, position.offset)
      const memo = batch.memo()
      if (memo !== null) this.#db.prepare('INSERT INTO millrace_memo VALUES(?, ?) ON CONFLICT DO UPDATE SET memo = excluded.memo').run(this.#id, memo)
      return rejections
    })
  }

  async recall(): Promise<string | null> {
    return guarded(this.#options.file, () => {
      this.#lookAgain()
      const found = this.#db.prepare('SELECT memo FROM millrace_memo WHERE index_id = ?').get(this.#id) as { memo: string } | undefined
      return found?.memo ?? null
    })
  }

  async *rows(onView: (positions: readonly LogPosition[]) => void, signal: AbortSignal): AsyncIterable<readonly Tuple[]> {
    const db = readIndexFile(this.#options.file)
    try {
      // one view: it is taken by the first statement
      db.exec('BEGIN')
      onView(positionsOf(db, this.#id))
      const description = describedIndex(db, this.#id)
      if (description === null) return
      const codec = this.#readAs ?? rowCodec(description.table)
      for (const rows of documents(db, this.#id)) {
        if (signal.aborted) return
        yield rows.map(({ row }) => codec.decode(row))
        await turn()
      }
    } finally {
      db.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#db.isOpen) return
    if (this.#options.readOnly) this.#db.close()
    else await inTurn(this.#options.file, async () => this.#db.close())
  }

  /** One write transaction of this index, for as long as nobody took it over; `claims` takes it over itself. */
  #transaction<T>(claims: boolean, work: () => Promise<T>): Promise<T> {
    const { file, index } = this.#options
    return inTurn(file, async () => {
      try {
        await beginWriting(this.#db)
        const { epoch } = this.#db.prepare('SELECT epoch FROM millrace_index WHERE id = ?').get(this.#id) as { epoch: number }
        if (this.#epoch !== null && epoch !== this.#epoch) {
          throw new MillraceError('sink.conflict', `another process took over index ${index} in ${file}`, {
            fix: 'run one sink per index, or set another index',
          })
        }
        const takesOver = claims && this.#epoch === null
        if (takesOver) this.#db.prepare('UPDATE millrace_index SET epoch = ? WHERE id = ?').run(epoch + 1, this.#id)
        const result = await work()
        this.#db.exec('COMMIT')
        if (takesOver) this.#epoch = epoch + 1
        return result
      } catch (error) {
        if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
        throw sinkError(file, error)
      }
    })
  }

  #description(): IndexDescription | null {
    return describedIndex(this.#db, this.#id)
  }

  #statements(text: readonly TextColumn[]): Statements {
    const [doc, fts] = [`doc_${this.#id}`, `fts_${this.#id}`]
    return {
      base: this.#db.prepare(`SELECT version, row FROM ${doc} WHERE key = ?`),
      upsert: this.#db.prepare(
        `INSERT INTO ${doc}(key, version, row, deleted_at) VALUES(?, ?, ?, ?) ON CONFLICT(key) DO UPDATE
         SET version = excluded.version, row = excluded.row, deleted_at = excluded.deleted_at WHERE excluded.version > version RETURNING id`,
      ),
      putText: this.#db.prepare(`INSERT OR REPLACE INTO ${fts}(rowid, ${text.map((c) => `"${c.name}"`).join()}) VALUES(?${',?'.repeat(text.length)})`),
      dropText: this.#db.prepare(`DELETE FROM ${fts} WHERE rowid = ?`),
    }
  }

  /** Makes the full-text table anew from the rows, under the columns' names of now. */
  async #indexText(codec: RowCodec, text: readonly TextColumn[]): Promise<void> {
    const fts = `fts_${this.#id}`
    this.#db.exec(`DROP TABLE IF EXISTS ${fts};
      CREATE VIRTUAL TABLE ${fts} USING fts5(${text.map((c) => `"${c.name}"`).join()}, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2')`)
    const { putText } = this.#statements(text)
    for (const rows of documents(this.#db, this.#id)) {
      for (const { id, row } of rows) putText.run(id, ...texts(codec, text, codec.decode(row)))
      await turn()
    }
  }

  /** The last state of every key that the batch touches, with UNCHANGED filled in. */
  async #collapse(batch: SinkBatch, shape: Shape) {
    const pending = new Map<string, Pending>()
    const rejections: Rejection[] = []
    let floor = this.#floor()
    let truncated = false
    let moved: { readonly position: Position; readonly row: Tuple | null } | null = null
    for (let index = 0; index < batch.changes.length; index++) {
      if (index % (ROWS_PER_TURN * 8) === ROWS_PER_TURN * 8 - 1) await turn()
      const change = batch.changes[index]!
      if (floor !== null && comparePositions(change.position, floor) <= 0) continue
      if (change.kind === 'truncate') {
        floor = change.position
        truncated = true
        for (const [key, state] of pending) if (comparePositions(state.position, floor) < 0) pending.delete(key)
        continue
      }
      const key = keyOf(shape.codec, change)
      const known = pending.get(key)
      if (known !== undefined && comparePositions(change.position, known.position) <= 0) continue
      if (change.after === null) {
        moved = shape.mayBeUnchanged ? { position: change.position, row: (known ?? this.#base(shape, key, floor))?.row ?? null } : null
        pending.set(key, { position: change.position, row: null, isUpdate: false })
        continue
      }
      let row: Tuple = change.after
      if (shape.mayBeUnchanged && row.includes(UNCHANGED)) {
        const base = known ?? this.#base(shape, key, floor)
        if (known === undefined && base !== null && comparePositions(change.position, base.position) <= 0) continue
        const source = base?.row ?? (moved !== null && followsAtOnce(moved.position, change.position) ? moved.row : null)
        const merged = source === null ? null : row.map((value, at) => (value === UNCHANGED ? source[at]! : value))
        if (merged === null || merged.includes(UNCHANGED)) {
          rejections.push({ index, reason: 'the source did not send all columns of this row, and the index does not have the row', missingBase: true })
          continue
        }
        row = merged
      }
      pending.set(key, { position: change.position, row, isUpdate: change.op === 'u' && known === undefined })
    }
    return { pending, rejections, floor: truncated ? floor : null }
  }

  #floor(): Position | null {
    const { floor } = this.#db.prepare('SELECT floor FROM millrace_index WHERE id = ?').get(this.#id) as { floor: Uint8Array }
    return floor.length === 0 ? null : unpackPosition(Buffer.from(floor))
  }

  #base(shape: Shape, key: string, floor: Position | null): Pending | null {
    const found = shape.statements.base.get(key) as { version: Uint8Array; row: string | null } | undefined
    if (found === undefined) return null
    const position = unpackPosition(Buffer.from(found.version))
    if (floor !== null && comparePositions(position, floor) < 0) return null
    return { position, row: found.row === null ? null : shape.codec.decode(found.row), isUpdate: false }
  }

  /** Rows in other partitions may be newer than the truncation and stay. */
  #truncate(at: Position): void {
    const version = packPosition(at)
    const [doc, fts] = [`doc_${this.#id}`, `fts_${this.#id}`]
    this.#db.prepare('UPDATE millrace_index SET floor = ? WHERE id = ?').run(version, this.#id)
    const newer = this.#db.prepare(`SELECT 1 FROM ${doc} WHERE version >= ? LIMIT 1`).get(version)
    if (newer === undefined) this.#db.exec(`INSERT INTO ${fts}(${fts}) VALUES('delete-all')`)
    else this.#db.prepare(`DELETE FROM ${fts} WHERE rowid IN (SELECT id FROM ${doc} WHERE version < ? AND row IS NOT NULL)`).run(version)
    this.#db.prepare(`DELETE FROM ${doc} WHERE version < ?`).run(version)
  }

  /** All rows first, then all text: a statement with RETURNING between text writes makes FTS5 flush its buffer each time (a savepoint does that). */
  async #write(pending: ReadonlyMap<string, Pending>, shape: Shape): Promise<void> {
    const { upsert, putText, dropText } = shape.statements
    const version = Buffer.alloc(12)
    const now = Date.now()
    const landed: { readonly id: number; readonly row: Tuple | null }[] = []
    let done = 0
    for (const [key, { position, row, isUpdate }] of pending) {
      if (++done % ROWS_PER_TURN === 0) await turn()
      const old = isUpdate ? (this.#base(shape, key, null)?.row ?? null) : null
      const sameText = old !== null && row !== null && isSameText(shape, old, row)
      packPosition(position, version)
      const found = upsert.get(key, version, row === null ? null : shape.codec.encode(row), row === null ? now : null) as { id: number } | undefined
      if (found !== undefined && !sameText) landed.push({ id: found.id, row })
    }
    for (const { id, row } of landed) {
      if (++done % ROWS_PER_TURN === 0) await turn()
      if (row === null) dropText.run(id)
      else putText.run(id, ...texts(shape.codec, shape.text, row))
    }
  }
}

function positionsOf(db: DatabaseSync, id: number): readonly LogPosition[] {
  const select = db.prepare('SELECT topic, partition, offset FROM millrace_position WHERE index_id = ?')
  select.setReadBigInts(true)
  return (select.all(id) as { topic: string; partition: bigint; offset: bigint }[]).map((p) => ({ ...p, partition: Number(p.partition) }))
}

function describedIndex(db: DatabaseSync, id: number): IndexDescription | null {
  const found = db.prepare('SELECT description FROM millrace_index WHERE id = ?').get(id) as { description: string | null } | undefined
  return found === undefined || found.description === null ? null : (JSON.parse(found.description) as IndexDescription)
}

function* documents(db: DatabaseSync, id: number): Generator<readonly { readonly id: number; readonly row: string }[]> {
  const select = db.prepare(`SELECT id, row FROM doc_${id} WHERE id > ? AND row IS NOT NULL ORDER BY id LIMIT ${ROWS_PER_READ}`)
  for (let after = 0; ; ) {
    const rows = select.all(after) as { id: number; row: string }[]
    if (rows.length === 0) return
    yield rows
    after = rows.at(-1)!.id
  }
}

function texts(codec: RowCodec, text: readonly TextColumn[], row: Tuple): string[] {
  return text.map(({ at }) => searchText(codec.table.columns[at]!.type, row[at]!))
}

function isSameText({ codec, text }: Shape, a: Tuple, b: Tuple): boolean {
  return text.every(({ at }) => a[at] === b[at] || searchText(codec.table.columns[at]!.type, a[at]!) === searchText(codec.table.columns[at]!.type, b[at]!))
}

function keyOf(codec: RowCodec, change: RowChange): string {
  if (change.key === null) throw new MillraceError('invariant.broken', `a change of ${tableId(change.table)} has no key`)
  return codec.key(change.key)
}

/** The halves of an update that changes the key: ordinals 2n and 2n + 1 of one commit. */
function followsAtOnce(deleted: Position, inserted: Position): boolean {
  return deleted.commit === inserted.commit && deleted.ordinal % 2 === 0 && inserted.ordinal === deleted.ordinal + 1
}

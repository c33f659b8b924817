import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { invariant, type Json, MillraceError, type PluginContext } from '../../core/plugin.ts'
import type { WriteTime } from './commit-log-events.ts'

const FILE = 'known-rows.sqlite'
const VERSION = '1'
/** A deletion is remembered for this long in write time, so that a write that is older and comes later stays deleted. */
const DELETED_KEPT_US = 600_000_000
/** Of bytes that no clustering has: the partition's own entry, for its static columns. */
const STATIC = Buffer.alloc(0)

export interface KnownRow {
  /** Of the newest write that was streamed, or that a chunk had and the stream will not bring. */
  readonly writtenAt: WriteTime
  readonly alive: boolean
  /** It has a row marker without end: it exists even with all columns null. */
  readonly marked: boolean
  /** When to look whether it is still there (microseconds): a time to live ends, or its last column may have been taken; 0: never. */
  readonly due: number
  /**
   * The log may have been told something else, so whether its row is there is not known: a start found it in a change that the log has already, or only a chunk had it
   * that may not have come into the log.
   */
  readonly unsure?: boolean
}

export interface DueRow {
  readonly tableId: string
  readonly partition: Buffer
  readonly clustering: Buffer
}

/** How far a table's rows that existed were read: keys up to this token are known, if they exist. */
export interface ReadUpTo {
  readonly token: bigint
  readonly done: boolean
}

interface Noted {
  readonly commit: bigint
  readonly table: number
  readonly partition: string
  readonly clustering: string
  readonly row: KnownRow
}

/**
 * The keys that the log has rows of, with the newest write time of each. A commit log says that a range or a partition was deleted, not which rows that were,
 * and an UPDATE does not say whether its row is new: both are looked up here.
 *
 * What the stream changes is kept in memory until its changes are durable in the log, then written with the offset in one transaction: so the file is
 * always of one offset, at or before the log's, and a start streams again from there. Keys of chunks are written before the chunk itself is in the log.
 */
export class KnownRows implements Disposable {
  readonly #database: DatabaseSync
  /** By table and partition, by clustering: not in the file yet. */
  readonly #fresh = new Map<string, Map<string, KnownRow>>()
  #noted: Noted[] = []
  #commit = 0n
  readonly #tables = new Map<string, { readonly number: number; upTo: ReadUpTo | null }>()
  readonly #find: StatementSync
  readonly #findAll: StatementSync
  readonly #put: StatementSync
  readonly #due: StatementSync
  readonly #forget: StatementSync
  readonly #setMeta: StatementSync
  #newest: WriteTime = 0
  #forgotten: WriteTime = 0

  private constructor(database: DatabaseSync) {
    this.#database = database
    const prepare = (text: string): StatementSync => {
      const statement = database.prepare(text)
      statement.setReadBigInts(true)
      return statement
    }
    this.#find = prepare('SELECT written, state, due FROM known WHERE tab = ? AND partition = ? AND clustering = ?')
    this.#findAll = prepare('SELECT clustering, written, state, due FROM known WHERE tab = ? AND partition = ? AND clustering <> zeroblob(0) AND state & 1')
    this.#put = prepare(`INSERT INTO known (tab, partition, clustering, written, state, due) VALUES (?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET written = excluded.written, state = excluded.state, due = excluded.due WHERE excluded.written >= written`)
    this.#due = prepare('SELECT tab, partition, clustering FROM known WHERE due > 0 AND due <= ? ORDER BY due LIMIT ?')
    this.#forget = prepare('DELETE FROM known WHERE state = 0 AND written < ?')
    this.#setMeta = prepare('INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value')
    for (const row of database.prepare('SELECT id, number, token, done FROM tables').all()) {
      const { id, number, token, done } = row as { id: string; number: number; token: string | null; done: number }
      this.#tables.set(id, { number, upTo: token === null ? null : { token: BigInt(token), done: done === 1 } })
    }
  }

  /**
   * @param fresh the node starts from nothing: what there is goes
   * @throws source.in_use while another process has it; source.history_lost when there is none though the node was captured before
   */
  static open(context: PluginContext, fresh: boolean): KnownRows {
    const dir = path.join(context.dataDir, 'cassandra')
    mkdirSync(dir, { recursive: true })
    const file = path.join(dir, FILE)
    const database = new DatabaseSync(file)
    try {
      database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; COMMIT')
      database.exec(`
        CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS tables (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, token TEXT, done INTEGER NOT NULL DEFAULT 0);
        CREATE TABLE IF NOT EXISTS descriptions (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS known (tab INTEGER NOT NULL, partition BLOB NOT NULL, clustering BLOB NOT NULL, written INTEGER NOT NULL, state INTEGER NOT NULL, due INTEGER NOT NULL,
          PRIMARY KEY (tab, partition, clustering)) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS deleted ON known (written) WHERE state = 0;
        CREATE INDEX IF NOT EXISTS due ON known (due) WHERE due > 0`)
      if (fresh) database.exec('DELETE FROM meta; DELETE FROM tables; DELETE FROM known')
      const version = database.prepare("SELECT value FROM meta WHERE name = 'version'").get() as { value: string } | undefined
      if (!fresh && version?.value !== VERSION) {
        throw new MillraceError('source.history_lost', `${file} does not have the rows that were captured before: deletions of ranges could not be followed`, {
          fix: `bring the data folder back, or \`millrace run FILE --resnapshot ${context.node}\``,
        })
      }
      database.prepare("INSERT OR REPLACE INTO meta (name, value) VALUES ('version', ?)").run(VERSION)
      return new KnownRows(database)
    } catch (error) {
      database.close()
      const code = (error as { errcode?: number }).errcode
      if (code !== 5 && code !== 6) throw error
      throw new MillraceError('source.in_use', `another process captures ${context.node}: it holds ${file}`, {
        cause: error,
        fix: 'stop the other process of this node',
      })
    }
  }

  /** The offset that the file is of; null: none was stored yet. */
  get offset(): Json | null {
    const row = this.#database.prepare("SELECT value FROM meta WHERE name = 'offset'").get() as { value: string } | undefined
    return row === undefined ? null : (JSON.parse(row.value) as Json)
  }

  /** Texts by id that outlive their tables. */
  descriptions(): ReadonlyMap<string, string> {
    return new Map((this.#database.prepare('SELECT id, text FROM descriptions').all() as { id: string; text: string }[]).map(({ id, text }) => [id, text]))
  }

  /** @param emptied ids of tables all of whose rows are gone: nothing is known of them any more */
  describe(texts: ReadonlyMap<string, string>, emptied: readonly string[]): void {
    const put = this.#database.prepare('INSERT OR REPLACE INTO descriptions (id, text) VALUES (?, ?)')
    const numbers = emptied.flatMap((id) => this.#tables.get(id)?.number ?? [])
    this.#transaction(() => {
      for (const [id, text] of texts) put.run(id, text)
      for (const number of numbers) {
        this.#database.prepare('DELETE FROM known WHERE tab = ?').run(number)
        this.#database.prepare('UPDATE tables SET token = NULL, done = 0 WHERE number = ?').run(number)
      }
    })
    for (const id of emptied) if (this.#tables.has(id)) this.#tables.get(id)!.upTo = null
    if (numbers.length === 0) return
    this.#noted = this.#noted.filter(({ table }) => !numbers.includes(table))
    for (const name of [...this.#fresh.keys()]) if (numbers.includes(tableOf(name))) this.#fresh.delete(name)
  }

  upTo(tableId: string): ReadUpTo | null {
    return this.#tables.get(tableId)?.upTo ?? null
  }

  find(tableId: string, partition: Buffer, clustering: Buffer | null): KnownRow | null {
    const table = this.#number(tableId)
    const at = clustering ?? STATIC
    const fresh = this.#fresh.get(partitionName(table, partition))?.get(at.toString('latin1'))
    if (fresh !== undefined) return fresh
    const row = this.#find.get(table, partition, at) as FileRow | undefined
    return row === undefined ? null : fromFile(row)
  }

  /** Rows of the partition that are there, by clustering. */
  partition(tableId: string, partition: Buffer): { readonly clustering: Buffer; readonly row: KnownRow }[] {
    const table = this.#number(tableId)
    const found = new Map<string, KnownRow>()
    for (const row of this.#findAll.iterate(table, partition) as IterableIterator<FileRow & { clustering: Uint8Array }>) {
      found.set(Buffer.from(row.clustering).toString('latin1'), fromFile(row))
    }
    for (const [clustering, row] of this.#fresh.get(partitionName(table, partition)) ?? []) {
      if (clustering === '') continue
      if (row.alive) found.set(clustering, row)
      else found.delete(clustering)
    }
    return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([clustering, row]) => ({ clustering: Buffer.from(clustering, 'latin1'), row }))
  }

  /** Rows that are to be looked at by this time (microseconds). */
  due(time: number, most: number): readonly DueRow[] {
    const ids = new Map([...this.#tables].map(([id, { number }]) => [number, id]))
    const found: DueRow[] = []
    for (const [name, rows] of this.#fresh) {
      for (const [clustering, { alive, due }] of rows) {
        if (!alive || due === 0 || due > time) continue
        found.push({ tableId: ids.get(tableOf(name))!, partition: partitionOf(name), clustering: Buffer.from(clustering, 'latin1') })
      }
    }
    const stored = this.#due.all(time, most) as unknown as { tab: bigint; partition: Uint8Array; clustering: Uint8Array }[]
    for (const { tab, ...row } of stored) {
      const partition = Buffer.from(row.partition)
      const clustering = Buffer.from(row.clustering)
      const isNewer = this.#fresh.get(partitionName(Number(tab), partition))?.has(clustering.toString('latin1')) === true
      if (!isNewer) found.push({ tableId: ids.get(Number(tab))!, partition, clustering })
    }
    return found.slice(0, most)
  }

  /** Changes that are noted from here on belong to this commit of the stream. */
  begin(commit: bigint): void {
    this.#commit = commit
  }

  note(tableId: string, partition: Buffer, clustering: Buffer | null, row: KnownRow): void {
    const table = this.#number(tableId)
    const name = partitionName(table, partition)
    let rows = this.#fresh.get(name)
    if (rows === undefined) this.#fresh.set(name, (rows = new Map()))
    const at = (clustering ?? STATIC).toString('latin1')
    rows.set(at, row)
    this.#noted.push({ commit: this.#commit, table, partition: name, clustering: at, row })
    if (row.writtenAt > this.#newest) this.#newest = row.writtenAt
  }

  /** All up to this commit is durable in the log, whose offset this is. */
  flush(commit: bigint, offset: Json): void {
    let count = this.#noted.findIndex((noted) => noted.commit > commit)
    if (count < 0) count = this.#noted.length
    const done = this.#noted.slice(0, count)
    this.#noted = this.#noted.slice(count)
    this.#transaction(() => {
      for (const { table, partition, clustering, row } of done) this.#write(table, partitionOf(partition), Buffer.from(clustering, 'latin1'), row)
      // no later than commits, which a start takes for the newest write
      const old = Math.min(Number(this.#newest), Number(commit)) - DELETED_KEPT_US
      if (old > this.#forgotten) {
        this.#forget.run(old)
        this.#forgotten = old + 60_000_000
      }
      this.#setMeta.run('offset', JSON.stringify(offset))
    })
    for (const { partition, clustering, row } of done) {
      const rows = this.#fresh.get(partition)
      if (rows?.get(clustering) !== row) continue
      rows.delete(clustering)
      if (rows.size === 0) this.#fresh.delete(partition)
    }
  }

  /** Rows of a chunk, before the chunk itself is written. */
  addRead(tableId: string, rows: Iterable<{ readonly partition: Buffer; readonly clustering: Buffer; readonly row: KnownRow }>, upTo: ReadUpTo): void {
    const table = this.#number(tableId)
    this.#transaction(() => {
      for (const { partition, clustering, row } of rows) this.#write(table, partition, clustering, row)
      this.#database.prepare('UPDATE tables SET token = ?, done = ? WHERE number = ?').run(upTo.token.toString(), upTo.done ? 1 : 0, table)
    })
    this.#tables.get(tableId)!.upTo = upTo
  }

  /** The reading of a table is taken up again: of the rows that it had found, the log may lack the last ones. */
  doubt(tableId: string): void {
    if (this.upTo(tableId) !== null) this.#database.prepare('UPDATE known SET state = state | 4 WHERE tab = ? AND state & 1').run(this.#number(tableId))
  }

  #write(table: number, partition: Buffer, clustering: Buffer, row: KnownRow): void {
    this.#put.run(
      table,
      partition,
      clustering,
      row.writtenAt,
      (row.alive ? 1 : 0) + (row.alive && row.marked ? 2 : 0) + (row.alive && row.unsure === true ? 4 : 0),
      row.due,
    )
  }

  #number(tableId: string): number {
    const known = this.#tables.get(tableId)
    if (known !== undefined) return known.number
    const { lastInsertRowid } = this.#database.prepare('INSERT INTO tables (id) VALUES (?)').run(tableId)
    const number = Number(lastInsertRowid)
    this.#tables.set(tableId, { number, upTo: null })
    return number
  }

  #transaction(work: () => void): void {
    this.#database.exec('BEGIN')
    try {
      work()
      this.#database.exec('COMMIT')
    } catch (error) {
      this.#database.exec('ROLLBACK')
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }
}

interface FileRow {
  readonly written: bigint
  readonly state: bigint
  readonly due: bigint
}

function fromFile({ written, state, due }: FileRow): KnownRow {
  const exact = written >= BigInt(Number.MIN_SAFE_INTEGER) && written <= BigInt(Number.MAX_SAFE_INTEGER)
  const row = { writtenAt: exact ? Number(written) : written, alive: (state & 1n) === 1n, marked: (state & 2n) === 2n, due: Number(due) }
  return (state & 4n) === 0n ? row : { ...row, unsure: true }
}

function partitionName(table: number, partition: Buffer): string {
  return `${table} ${partition.toString('latin1')}`
}

function tableOf(name: string): number {
  return Number.parseInt(name, 10)
}

function partitionOf(name: string): Buffer {
  invariant(name.includes(' '), 'a partition has a table')
  return Buffer.from(name.slice(name.indexOf(' ') + 1), 'latin1')
}

/** The SQLite file of search indexes: its tables, how it is opened, and what its errors mean. */
import { mkdirSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError, openSqliteReader, sqliteError } from '../../core/plugin.ts'
import type { StoredTypes } from './index-schema.ts'

const TABLES = {
  millrace_index: `(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, topic TEXT NOT NULL, epoch INTEGER NOT NULL, description TEXT,
    floor BLOB NOT NULL DEFAULT x'') STRICT`,
  millrace_position: `(index_id INTEGER NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY(index_id, topic, partition)) STRICT, WITHOUT ROWID`,
  millrace_memo: '(index_id INTEGER PRIMARY KEY, memo TEXT NOT NULL) STRICT',
}

/** Marks the file as ours: "mill". */
const APPLICATION_ID = 0x6d696c6c

/** What is known of an index beside its rows; JSON in `millrace_index.description`. */
export interface IndexDescription {
  readonly table: import('../../core/plugin.ts').TableSchema
  readonly types: StoredTypes
  readonly text: readonly { readonly id: number; readonly name: string }[]
}

/**
 * Opens the file, made when missing.
 * @throws sink.forbidden, sink.unreachable, config.invalid when the file is something else
 */
export function openIndexFile(file: string): DatabaseSync {
  return guarded(file, () => {
    mkdirSync(path.dirname(file), { recursive: true })
    const db = new DatabaseSync(file, { timeout: 1_000 })
    try {
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -1000')
      if (!isMarked(db, file)) db.exec(`PRAGMA application_id = ${APPLICATION_ID}`)
      for (const [name, columns] of Object.entries(TABLES)) db.exec(`CREATE TABLE IF NOT EXISTS ${name}${columns}`)
      // from here on a locked file is waited for beside everything else, see `beginWriting`
      db.exec('PRAGMA busy_timeout = 5')
      return db
    } catch (error) {
      db.close()
      throw error
    }
  })
}

/** Whether the file bears our mark; one of ours that is being made may not yet. @throws config.invalid when it is something else */
function isMarked(db: DatabaseSync, file: string): boolean {
  const owner = db.prepare('PRAGMA application_id').get() as { application_id: number }
  if (owner.application_id === APPLICATION_ID) return true
  const foreign = db.prepare("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'millrace_%' LIMIT 1").get()
  if (owner.application_id === 0 && foreign === undefined) return false
  throw new MillraceError('config.invalid', `${file} is a database of something else`, { fix: "set the sink's path to a file of its own" })
}

/** Whether there is something of that name. @throws sink.forbidden when that may not be seen */
export function isThere(file: string): boolean {
  return guarded(file, () => statSync(file, { throwIfNoEntry: false }) !== undefined)
}

/**
 * Opens the file to read it; what it lacks, or all when there is none, is empty, and no file is made. While it is open, SQLite keeps `-wal` and `-shm` beside
 * it, of this process's user when no writer has made them. Who closes it last removes them and first brings in what a killed writer left there; without the
 * right to write the file they stay.
 * @throws sink.forbidden, sink.unreachable, config.invalid when the file is something else
 */
export function readIndexFile(file: string): DatabaseSync {
  return guarded(file, () => {
    // not read-only, which would never remove -wal and -shm: another user's writer may not write these
    const db = openSqliteReader(file, 1_000)
    try {
      isMarked(db, file)
      const found = new Set(
        db
          .prepare('SELECT name FROM sqlite_schema')
          .all()
          .map(({ name }) => name),
      )
      for (const [name, columns] of Object.entries(TABLES)) if (!found.has(name)) db.exec(`CREATE TEMP TABLE ${name}${columns}`)
      db.exec('PRAGMA query_only = 1')
      return db
    } catch (error) {
      db.close()
      throw error
    }
  })
}

/** Whether a file that was opened to read it lacked a table then; a table that its writer makes since is not seen through `db`. */
export function lackedTables(db: DatabaseSync): boolean {
  return db.prepare('SELECT 1 FROM sqlite_temp_schema LIMIT 1').get() !== undefined
}

const SQLITE_BUSY = 5
/** Another process may hold the file for so long, and is asked about it so often, in milliseconds. */
const BUSY_MS = 1000
const BUSY_POLL_MS = 50

/** Begins a write transaction. SQLite's own waiting would hold up the whole process. @throws SQLite's error when the file stays locked */
export async function beginWriting(db: DatabaseSync): Promise<void> {
  for (const deadline = performance.now() + BUSY_MS; ; await delay(BUSY_POLL_MS)) {
    try {
      db.exec('BEGIN IMMEDIATE')
      return
    } catch (error) {
      const { errcode } = error as { readonly errcode?: number }
      if (errcode === undefined || (errcode & 0xff) !== SQLITE_BUSY || performance.now() > deadline) throw error
    }
  }
}

/** Runs `work` and turns SQLite's and the file system's errors into ours. */
export function guarded<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw sinkError(file, error)
  }
}

/** See `sqliteError`. */
export function sinkError(file: string, error: unknown): unknown {
  return sqliteError(file, error, 'delete the file; the index is made again from the log')
}

const turns = new Map<string, Promise<unknown>>()

/** One writer at a time per file in this process: SQLite would block the whole event loop while it waits for another connection of ours. */
export async function inTurn<T>(file: string, work: () => Promise<T>): Promise<T> {
  const key = realpathSync(file)
  const before = turns.get(key) ?? Promise.resolve()
  const mine = before.then(work, work)
  const settled = mine.catch(() => {})
  turns.set(key, settled)
  try {
    return await mine
  } finally {
    if (turns.get(key) === settled) turns.delete(key)
  }
}

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { MillraceError } from '../../errors.ts'

/**
 * The right to write to a folder, held by one process at most. It is the operating system's file lock, which Node has no call for, but SQLite
 * takes one for an exclusive transaction: it ends with the process however that ends, so a lock is never stale.
 */
export class FolderLock implements Disposable {
  readonly #database: DatabaseSync

  private constructor(database: DatabaseSync) {
    this.#database = database
  }

  /** @throws log.locked, naming the pid that holds it */
  static acquire(dir: string): FolderLock {
    const holder = path.join(dir, 'writer.pid')
    const database = new DatabaseSync(path.join(dir, 'lock.sqlite'))
    try {
      database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
    } catch (cause) {
      database.close()
      if (!isBusy(cause)) throw cause
      throw new MillraceError('log.locked', `${dir} is written by process ${readHolder(holder)}`, {
        cause,
        fix: 'Stop that process, or give this one a data folder of its own.',
        retryAfterMs: 1000,
      })
    }
    try {
      writeFileSync(holder, `${process.pid}\n`)
    } catch (error) {
      // no room: the next try must not find this one in its way
      database.close()
      throw error
    }
    return new FolderLock(database)
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }
}

/** SQLITE_BUSY or SQLITE_LOCKED. */
function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && (error.errcode === 5 || error.errcode === 6)
}

function readHolder(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return 'unknown'
  }
}

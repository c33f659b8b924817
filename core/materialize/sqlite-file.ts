/** SQLite files that a sink writes, and that others read beside it. */
import { statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { MillraceError } from '../errors.ts'

const SQLITE_ERROR = 1
const SQLITE_PERM = 3
const SQLITE_READONLY = 8
const SQLITE_CORRUPT = 11
const SQLITE_CANTOPEN = 14
const SQLITE_MISUSE = 21
const SQLITE_NOTADB = 26

/**
 * Opens the file to read it. It may be written, too, where the user may: SQLite's own read-only mode cannot take back what a killed writer left half done.
 * @param busyMs for so long a locked file is waited for, which holds up the process
 * @returns an empty database where there is no file, and none is made
 * @throws what `sqliteError` takes
 */
export function openSqliteReader(file: string, busyMs: number): DatabaseSync {
  const url = pathToFileURL(file)
  url.searchParams.set('mode', 'rw')
  try {
    return new DatabaseSync(url, { timeout: busyMs })
  } catch (error) {
    // asked after, so that a file which goes meanwhile is not made anew; one that may not be seen says so by what this throws
    if (resultOf(error) !== SQLITE_CANTOPEN || statSync(file, { throwIfNoEntry: false }) !== undefined) throw error
    return new DatabaseSync(':memory:')
  }
}

/**
 * What is thrown for what SQLite or the file system throws, told apart by result code (sqlite.org/rescode.html) and errno. An error of ours stays what it is,
 * and so does one that says nothing of the file: a wrong statement.
 * @param repair what to do about a damaged file
 * @returns sink.forbidden, config.invalid when the file is none of SQLite's, sink.unreachable
 */
export function sqliteError(file: string, error: unknown, repair: string): unknown {
  if (error instanceof MillraceError || !(error instanceof Error)) return error
  const { code } = error as NodeJS.ErrnoException
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return forbidden(file, error)
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EIO') return new MillraceError('sink.unreachable', `${file}: ${error.message}`, { cause: error })
  switch (resultOf(error)) {
    case null:
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
      return error
    case SQLITE_NOTADB:
      return new MillraceError('config.invalid', `${file} is not an SQLite file`, { fix: "set the sink's path to a file of its own", cause: error })
    case SQLITE_CORRUPT:
      return new MillraceError('sink.forbidden', `${file} is damaged: ${error.message}`, { fix: repair, cause: error })
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return forbidden(file, error)
    default:
      return new MillraceError('sink.unreachable', `${file}: ${error.message}`, { cause: error })
  }
}

/** The primary result code; null: it is no error of SQLite's. */
function resultOf(error: unknown): number | null {
  const { code, errcode } = error as { readonly code?: unknown; readonly errcode?: unknown }
  return code === 'ERR_SQLITE_ERROR' && typeof errcode === 'number' ? errcode & 0xff : null
}

function forbidden(file: string, cause: Error): MillraceError {
  return new MillraceError('sink.forbidden', `${file} may not be opened: ${cause.message}`, {
    fix: 'let this user read and write the file and its folder, or set another path',
    cause,
  })
}

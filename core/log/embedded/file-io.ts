import fs from 'node:fs'
import { promisify } from 'node:util'
import { MillraceError } from '../../errors.ts'

const read = promisify(fs.read) as (fd: number, buffer: Buffer, offset: number, length: number, position: number) => Promise<{ bytesRead: number }>
const writev = promisify(fs.writev) as (fd: number, buffers: readonly Buffer[], position: number) => Promise<{ bytesWritten: number }>
export const fdatasync = promisify(fs.fdatasync)
const fsync = promisify(fs.fsync)
const open = promisify(fs.open)
const close = promisify(fs.close)

/** Up to this many bytes go into the page cache, or come from it, faster than another thread could be asked to do it. */
const SMALL_BYTES = 64 * 1024

/** Writes all of `buffers` at `at`, without copying them; a short write goes on until it is whole or an error says why not. */
export async function writeAll(fd: number, buffers: readonly Buffer[], at: number): Promise<void> {
  let rest = buffers
  let position = at
  for (;;) {
    const isSmall = rest.reduce((bytes, { length }) => bytes + length, 0) <= SMALL_BYTES
    let bytesWritten = isSmall ? fs.writevSync(fd, rest, position) : (await writev(fd, rest, position)).bytesWritten
    position += bytesWritten
    let i = 0
    while (i < rest.length && bytesWritten >= rest[i]!.length) bytesWritten -= rest[i++]!.length
    if (i === rest.length) return
    rest = [rest[i]!.subarray(bytesWritten), ...rest.slice(i + 1)]
  }
}

/** Fills `into` from `at`; returns the bytes read, fewer only when the file ends there. `warm`: it was written a moment ago, so no disk is waited for. */
export async function readInto(fd: number, into: Buffer, at: number, warm = false): Promise<number> {
  let done = 0
  while (done < into.length) {
    const isSmall = warm && into.length <= SMALL_BYTES
    const bytesRead = isSmall
      ? fs.readSync(fd, into, done, into.length - done, at + done)
      : (await read(fd, into, done, into.length - done, at + done)).bytesRead
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

/** Makes names in a folder durable: files made, renamed or removed. */
export async function syncFolder(dir: string): Promise<void> {
  if (process.platform === 'win32') return
  const fd = await open(dir, 'r')
  try {
    await fsync(fd)
  } finally {
    await close(fd)
  }
}

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** An error of the file system as one of ours: `log.full` when there is no room, else `log.unreachable`. */
export function asLogError(error: unknown, doing: string, path: string): MillraceError {
  if (error instanceof MillraceError) return error
  const errno = errnoOf(error)
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG') {
    return new MillraceError('log.full', `no room for ${doing} ${path} (${errno})`, {
      cause: error,
      fix: 'Free disk space, raise the quota, or shorten retentionMs; the append can then be retried.',
      retryAfterMs: 1000,
    })
  }
  const message = error instanceof Error ? error.message : String(error)
  return new MillraceError('log.unreachable', `${doing} ${path}: ${message}`, { cause: error, fix: 'Check the disk and the rights of the data folder.' })
}

export function corrupt(path: string, at: number, what: string): MillraceError {
  return new MillraceError('log.corrupt', `${path}, byte ${at}: ${what}`, {
    fix: 'Restore this file from a copy; or remove the data folder and take new snapshots of its sources.',
  })
}

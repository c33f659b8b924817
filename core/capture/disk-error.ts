import { MillraceError } from '../errors.ts'

/**
 * What is thrown when a file or folder of the data folder cannot be made, written or read. An error of ours stays what it is.
 * @param what the file and what it is for, as `the scratch file /data/x of a large transaction`
 * @returns log.full when the disk is; else config.invalid
 */
export function diskError(cause: unknown, what: string, fix = 'make room in the data folder, and let Millrace write there'): MillraceError {
  if (cause instanceof MillraceError) return cause
  const { code, message } = cause as NodeJS.ErrnoException
  const isFull = code === 'ENOSPC' || code === 'EDQUOT'
  return new MillraceError(isFull ? 'log.full' : 'config.invalid', `${what}: ${message}`, { fix, cause })
}

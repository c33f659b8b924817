import type pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'

/** The bytes of a COPY … TO STDOUT (FORMAT binary), rows found. */
export interface CopiedRows {
  readonly bytes: Buffer
  /** Bytes of `bytes` that are filled. */
  readonly length: number
  readonly rows: number
  /** Where the first and the last row begin in `bytes`. */
  readonly first: number
  readonly last: number
  /** Ended because of `maxBytes`, before the end of the data; the connection is of no use afterwards. */
  readonly stopped: boolean
}

const FIRST_CAPACITY = 64 * 1024
/** Signature, flags and extension length. */
const HEADER_BYTES = 19
const TRAILER = -1
const CUT_FACTOR = 1.25

/** What `pg` calls on a query object. */
interface Submitted {
  submit(connection: pg.Connection): void
  handleCopyData(message: { readonly chunk: Buffer }): void
  handleError(error: Error): void
  handleReadyForQuery(): void
  handleCommandComplete(): void
  handleCopyInResponse(): void
  handleRowDescription(): void
  handleDataRow(): void
  handleEmptyQuery(): void
  handlePortalSuspended(): void
}

/**
 * Runs one COPY … TO STDOUT (FORMAT binary) and holds its rows in memory, up to about `maxBytes`: then, at least one row read, the connection is cut, since
 * that alone stops the server at once.
 * @throws what `pg` throws; source.protocol
 */
export async function copyRows(client: pg.Client, sql: string, maxBytes: number, signal: AbortSignal): Promise<CopiedRows> {
  signal.throwIfAborted()
  let bytes = Buffer.allocUnsafeSlow(FIRST_CAPACITY)
  let length = 0
  let messages = 0
  let stopped = false
  // callers limit the rows so that they fit on average: a little more than that is no reason to cut
  const cutBytes = maxBytes * CUT_FACTOR
  const socket = (client as pg.Client & { readonly connection: pg.Connection }).connection.stream
  const abort = () => socket.destroy()
  signal.addEventListener('abort', abort, { once: true })
  try {
    await new Promise<void>((resolve, reject) => {
      let failure: Error | null = null
      const nothing = () => {}
      const query: Submitted = {
        submit: (connection) => connection.query(sql),
        handleCopyData({ chunk }) {
          if (stopped) return
          if (length + chunk.length > bytes.length) {
            const grown = Buffer.allocUnsafeSlow(Math.max(bytes.length * 2, length + chunk.length))
            bytes.copy(grown, 0, 0, length)
            bytes = grown
          }
          chunk.copy(bytes, length)
          length += chunk.length
          messages++
          // two messages: one row at least, even when the header comes on its own
          if (length > cutBytes && messages > 1) {
            stopped = true
            resolve()
            socket.destroy()
          }
        },
        handleError(error) {
          // the server's own errors are followed by ReadyForQuery, those of the connection by nothing
          failure = error
          reject(error)
        },
        handleReadyForQuery: () => (failure === null ? resolve() : reject(failure)),
        handleCommandComplete: nothing,
        handleCopyInResponse: nothing,
        handleRowDescription: nothing,
        handleDataRow: nothing,
        handleEmptyQuery: nothing,
        handlePortalSuspended: nothing,
      }
      client.query(query)
    })
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', abort)
  }
  return { ...findRows(bytes, length, stopped), bytes, length, stopped }
}

function findRows(bytes: Buffer, length: number, stopped: boolean): { readonly rows: number; readonly first: number; readonly last: number } {
  const first = length < HEADER_BYTES ? length : HEADER_BYTES + bytes.readInt32BE(HEADER_BYTES - 4)
  let rows = 0
  let last = first
  let at = first
  for (;;) {
    if (at + 2 > length) break
    const columns = bytes.readInt16BE(at)
    if (columns === TRAILER) return { rows, first, last }
    let next = at + 2
    for (let i = 0; i < columns && next + 4 <= length; i++) {
      const size = bytes.readInt32BE(next)
      if (size < -1) throw new MillraceError('source.protocol', `a binary COPY with a column of ${size} bytes`)
      next += 4 + Math.max(0, size)
    }
    if (next > length || (columns > 0 && next === at + 2)) break
    last = at
    rows++
    at = next
  }
  // cut off between or within rows, which must be our doing
  if (!stopped || rows === 0) throw new MillraceError('source.protocol', 'a binary COPY ended before its trailer')
  return { rows, first, last }
}

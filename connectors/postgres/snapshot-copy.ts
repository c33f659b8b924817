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
  /** Ended because of its bytes, before the end of the data; the connection is of no use afterwards. */
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
  const held = new HeldBytes()
  let messages = 0
  let stopped = false
  // callers limit the rows so that they fit on average: a little more than that is no reason to cut
  const cutBytes = maxBytes * CUT_FACTOR
  await copy(client, sql, signal, (chunk, stop) => {
    held.append(chunk)
    messages++
    // two messages: one row at least, even when the header comes on its own
    stopped = held.length > cutBytes && messages > 1
    if (stopped) stop()
  })
  const found = findRows(held.bytes, firstRow(held.bytes, held.length), held.length)
  // cut off between or within rows, which must be our doing
  if (!found.isEnd && (!stopped || found.rows === 0)) throw cutOff()
  return { ...found, bytes: held.bytes, length: held.length, stopped }
}

/**
 * Runs one COPY … TO STDOUT (FORMAT binary) to its end and hands its rows to `take`, about `pieceBytes` at a time, or one row that is larger. A piece is gone when
 * `take` returns.
 * @throws what `pg` and `take` throw; source.protocol
 */
export async function copyPieces(client: pg.Client, sql: string, pieceBytes: number, take: (piece: CopiedRows) => void, signal: AbortSignal): Promise<void> {
  const held = new HeldBytes()
  let first = -1
  let isEnd = false
  const taken = () => {
    if (first < 0) first = firstRow(held.bytes, held.length)
    const found = findRows(held.bytes, first, held.length)
    isEnd = found.isEnd
    if (found.rows > 0) take({ ...found, bytes: held.bytes, length: held.length, stopped: false })
    held.keepFrom(found.end)
    first = 0
  }
  let failure: { readonly error: unknown } | null = null
  await copy(client, sql, signal, (chunk, stop) => {
    try {
      held.append(chunk)
      if (held.length >= pieceBytes) taken()
    } catch (error) {
      failure = { error }
      stop()
    }
  })
  if (failure !== null) throw (failure as { readonly error: unknown }).error
  if (!isEnd) taken()
  if (!isEnd) throw cutOff()
}

/** The bytes of a COPY that are held, in one piece of memory. */
class HeldBytes {
  bytes = Buffer.allocUnsafeSlow(FIRST_CAPACITY)
  length = 0

  append(chunk: Buffer): void {
    if (this.length + chunk.length > this.bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(this.bytes.length * 2, this.length + chunk.length))
      this.bytes.copy(grown, 0, 0, this.length)
      this.bytes = grown
    }
    chunk.copy(this.bytes, this.length)
    this.length += chunk.length
  }

  /** Those before `at` are needed no more. */
  keepFrom(at: number): void {
    this.bytes.copyWithin(0, at, this.length)
    this.length -= at
  }
}

/** Runs a COPY and calls `take` with each message, until it calls `stop`: then the connection is cut. */
async function copy(client: pg.Client, sql: string, signal: AbortSignal, take: (chunk: Buffer, stop: () => void) => void): Promise<void> {
  signal.throwIfAborted()
  const socket = (client as pg.Client & { readonly connection: pg.Connection }).connection.stream
  const abort = () => socket.destroy()
  signal.addEventListener('abort', abort, { once: true })
  try {
    await new Promise<void>((resolve, reject) => {
      let failure: Error | null = null
      let stopped = false
      const stop = () => {
        stopped = true
        resolve()
        socket.destroy()
      }
      const nothing = () => {}
      const query: Submitted = {
        submit: (connection) => connection.query(sql),
        handleCopyData({ chunk }) {
          if (!stopped) take(chunk, stop)
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
}

function firstRow(bytes: Buffer, length: number): number {
  return length < HEADER_BYTES ? length : HEADER_BYTES + bytes.readInt32BE(HEADER_BYTES - 4)
}

function cutOff(): MillraceError {
  return new MillraceError('source.protocol', 'a binary COPY ended before its trailer')
}

/** The whole rows of [first, length), where they end, and whether the trailer follows there. */
function findRows(bytes: Buffer, first: number, length: number) {
  let rows = 0
  let last = first
  let at = first
  for (;;) {
    if (at + 2 > length) break
    const columns = bytes.readInt16BE(at)
    if (columns === TRAILER) return { rows, first, last, end: at, isEnd: true }
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
  return { rows, first, last, end: at, isEnd: false }
}

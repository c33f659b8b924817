import { type ChangeWriter, MillraceError, tableId } from '../../core/plugin.ts'
import { TYPE } from './table-map.ts'
import type { MappedTable } from './type-mapping.ts'
import { COMMAND, readLength, type WireConnection } from './wire-connection.ts'

/** Types of the binary protocol by how their values are laid out: so many bytes, or -1: a length byte, -2: a length-encoded string. */
const LAYOUT: Readonly<Record<number, number>> = {
  [TYPE.tiny]: 1,
  [TYPE.short]: 2,
  [TYPE.year]: 2,
  [TYPE.long]: 4,
  [TYPE.int24]: 4,
  [TYPE.float]: 4,
  [TYPE.longlong]: 8,
  [TYPE.double]: 8,
  [TYPE.date]: -1,
  [TYPE.time]: -1,
  [TYPE.datetime]: -1,
  [TYPE.timestamp]: -1,
}
const STRING = -2

/** How the columns of a result are laid out. */
export type RowLayout = readonly number[]

/**
 * Runs a SELECT in the binary protocol, which is exact for every type, and hands each row's packet to `onRow` in the connection's buffer.
 * `onRow` returns false to stop: the rest is left unread, so that the connection is of no use any more.
 * @throws ServerError, source.unreachable
 */
export async function readRows(
  connection: WireConnection,
  sql: string,
  onRow: (bytes: Buffer, view: DataView, at: number, end: number, layout: RowLayout) => boolean,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  const abort = () => connection.destroy()
  signal.addEventListener('abort', abort, { once: true })
  try {
    connection.send(COMMAND.prepare, Buffer.from(sql))
    await connection.packet()
    const statement = connection.bytes.readUInt32LE(connection.packetAt + 1)
    const columns = connection.bytes.readUInt16LE(connection.packetAt + 5)
    for (let i = 0; i <= columns; i++) await connection.packet()
    const request = Buffer.alloc(9)
    request.writeUInt32LE(statement, 0)
    request.writeUInt32LE(1, 5)
    connection.send(COMMAND.execute, request)
    await connection.packet()
    const layout: number[] = []
    for (let i = 0; i < columns; i++) {
      await connection.packet()
      // the type stands before flags, decimals and two bytes of nothing
      layout.push(LAYOUT[connection.bytes[connection.packetEnd - 6]!] ?? STRING)
    }
    await connection.packet()
    for (;;) {
      if (!connection.next()) {
        await connection.read()
        continue
      }
      if (connection.bytes[connection.packetAt] === 0xff) throw connection.serverError()
      if (connection.isEof) break
      if (!onRow(connection.bytes, connection.view, connection.packetAt, connection.packetEnd, layout)) return
    }
    const close = Buffer.alloc(4)
    close.writeUInt32LE(statement)
    connection.send(COMMAND.closeStatement, close)
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Writes every column of the row whose packet lies at [at, end). @throws source.protocol when they do not fill it */
export function writeRow(mapped: MappedTable, layout: RowLayout, bytes: Buffer, view: DataView, at: number, end: number, writer: ChangeWriter): void {
  const { readers } = mapped
  const nullsAt = at + 1
  let next = nullsAt + ((readers.length + 9) >> 3)
  for (let i = 0; i < readers.length; i++) {
    if ((bytes[nullsAt + ((i + 2) >> 3)]! & (1 << ((i + 2) & 7))) !== 0) {
      writer.null()
      continue
    }
    let length = layout[i]!
    if (length === -1) length = bytes[next++]!
    else if (length === STRING) {
      const first = bytes[next]!
      if (first < 0xfb) {
        length = first
        next++
      } else {
        const long = readLength(bytes, next)
        length = long.value
        next = long.next
      }
    }
    if (length > end - next) unreadable(mapped, i)
    try {
      readers[i]!.result(bytes, view, next, length, writer)
    } catch (error) {
      if (error instanceof MillraceError) throw error
      unreadable(mapped, i, error)
    }
    next += length
  }
  if (next !== end) unreadable(mapped, readers.length - 1)
}

function unreadable({ table }: MappedTable, column: number, cause?: unknown): never {
  const what = `column ${table.columns[column]?.name} of a row of ${tableId(table)}`
  throw new MillraceError('source.protocol', `${what} does not read as its type`, {
    fix: 'report this with the server version',
    ...(cause === undefined ? {} : { cause }),
  })
}

/** Where the value of column `index` lies in the row at `at`; null when it is NULL. */
export function fieldOf(layout: RowLayout, bytes: Buffer, at: number, index: number): { readonly from: number; readonly length: number } | null {
  const nullsAt = at + 1
  const isNull = (i: number) => (bytes[nullsAt + ((i + 2) >> 3)]! & (1 << ((i + 2) & 7))) !== 0
  let next = nullsAt + ((layout.length + 9) >> 3)
  for (let i = 0; ; i++) {
    if (isNull(i)) {
      if (i === index) return null
      continue
    }
    let length = layout[i]!
    if (length === -1) length = bytes[next++]!
    else if (length === STRING) ({ value: length, next } = readLength(bytes, next))
    if (i === index) return { from: next, length }
    next += length
  }
}

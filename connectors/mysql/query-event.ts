import type { BinlogEvent } from './binlog-event.ts'
import { EVENT } from './binlog-event.ts'
import type { Charsets } from './column-definition.ts'
import type { StatementSession } from './ddl-reader.ts'
import { inflate } from './mariadb-compressed.ts'
import { protocolError } from './mysql-error.ts'
import { decoderOf } from './type-text.ts'

/** A statement, as its event has it. */
export interface Query {
  readonly text: string
  readonly session: Omit<StatementSession, 'lowerCase'>
}

/** The event's body: thread 4, seconds 4, length of the database's name 1, error 2, length of the variables 2; then these, the name, a zero, the text. */
const HEAD_BYTES = 13
/** EXECUTE_LOAD_QUERY says a file, too. */
const LOAD_HEAD_BYTES = 26
const ANSI_QUOTES = 4
/** Character sets with characters of more than one byte, and binary, which is taken as UTF-8. */
const SEVERAL_BYTES = /^(utf|ucs|gb|big5|sjis|cp932|ujis|eucjpms|euckr|binary)/
const NO_BACKSLASH_ESCAPES = 1 << 20

/** Reads a query event: its text is in the character set that its session sent it in. @throws source.protocol */
export function readQuery(event: BinlogEvent, bytes: Buffer, charsets: Charsets): Query {
  const { at, end, type, place } = event
  const variablesAt = at + (type === EVENT.executeLoadQuery ? LOAD_HEAD_BYTES : HEAD_BYTES)
  const schemaAt = variablesAt + bytes.readUInt16LE(at + 11)
  const textAt = schemaAt + bytes[at + 8]! + 1
  if (textAt > end) throw protocolError('a statement that is cut off', place)
  const text = type === EVENT.mariadbQueryCompressed ? inflate(bytes, textAt, end, event) : bytes.subarray(textAt, end)
  const { mode, collation } = readVariables(bytes, variablesAt, schemaAt)
  const charset = collation === null ? undefined : charsets.ofCollation.get(collation)
  // names that are sent as binary are taken as they are, which is UTF-8
  const decode = charset === undefined || charset === 'binary' ? null : decoderOf(charset)
  return {
    text: decode == null ? text.toString('utf8') : decode(text, 0, text.length),
    session: {
      namespace: bytes.toString('utf8', schemaAt, textAt - 1),
      ansiQuotes: (mode & ANSI_QUOTES) !== 0,
      noBackslashEscapes: (mode & NO_BACKSLASH_ESCAPES) !== 0,
      nbspIsSpace: charset !== undefined && !SEVERAL_BYTES.test(charset),
    },
  }
}

/** Bytes of each variable's value, by its code; a negative one begins with its length, and has so many more. They come in another order than that of their codes. */
const SIZES: ReadonlyMap<number, number> = new Map([
  [0, 4],
  [1, 8],
  [2, -2],
  [3, 4],
  [4, 6],
  [5, -1],
  [6, -1],
  [7, 2],
  [8, 2],
  [9, 8],
])

/** Of the session's variables (log_event.h, Query_log_event): the SQL mode, and the collation of what the client sends. Both come before any that is not known. */
function readVariables(bytes: Buffer, from: number, to: number): { readonly mode: number; readonly collation: number | null } {
  let mode = 0
  let collation: number | null = null
  for (let at = from; at < to; ) {
    const code = bytes[at++]!
    const size = SIZES.get(code)
    if (size === undefined) break
    if (code === 1) mode = bytes.readUInt32LE(at)
    else if (code === 4) collation = bytes.readUInt16LE(at)
    at += size < 0 ? bytes[at]! - size : size
  }
  return { mode, collation }
}

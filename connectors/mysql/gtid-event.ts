import { type BinlogEvent, EVENT } from './binlog-event.ts'
import { protocolError } from './mysql-error.ts'

/** Of MariaDB's GTID events: one statement and no end. */
const FLAG_STANDALONE = 1
/** The transaction ends with an XA PREPARE. */
const FLAG_PREPARED_XA = 0x40

/** What a GTID event of MySQL names. */
export interface Gtid {
  readonly uuid: string
  readonly tag: string
  readonly number: number
  /** Microseconds since epoch; null: the server is too old to say. */
  readonly committedAt: bigint | null
}

/** The GTID event with which a transaction of MySQL begins. @throws source.protocol */
export function readGtid(bytes: Buffer, view: DataView, event: BinlogEvent): Gtid {
  return event.type === EVENT.gtidTagged ? taggedGtid(bytes, event) : plainGtid(bytes, view, event)
}

/** The GTID event with which a transaction of MariaDB begins; the server's id is in the event's header. */
export function readMariadbGtid(bytes: Buffer, view: DataView, { at }: BinlogEvent) {
  const flags = bytes[at + 12]!
  return {
    sequence: Number(view.getBigUint64(at, true)),
    domain: view.getUint32(at + 8, true),
    isStandalone: (flags & FLAG_STANDALONE) !== 0,
    isPrepared: (flags & FLAG_PREPARED_XA) !== 0,
  }
}

function uuidText(bytes: Buffer, at: number): string {
  const hex = bytes.toString('hex', at, at + 16)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

/** Flags, uuid, number, then since 5.7 a type byte and the logical clock, since 8.0 the commit's microseconds in 55 bits. */
function plainGtid(bytes: Buffer, view: DataView, event: BinlogEvent): Gtid {
  const { at, end } = event
  if (end - at < 25) throw protocolError('a GTID that is cut off', event.place)
  const clockAt = at + 42
  const committedAt = end - clockAt >= 7 ? BigInt(bytes.readUIntLE(clockAt, 6)) | (BigInt(bytes[clockAt + 6]! & 0x7f) << 48n) : null
  return { uuid: uuidText(bytes, at + 1), tag: '', number: Number(view.getBigUint64(at + 17, true)), committedAt }
}

/** Fields with numbers before each, in rising order: 0 flags, 1 uuid (16 numbers), 2 number (signed), 3 tag, 4 and 5 logical clock, 6 microseconds. */
function taggedGtid(bytes: Buffer, event: BinlogEvent): Gtid {
  const { end, place } = event
  let at = event.at
  const integer = () => {
    const { value, next } = serializedInteger(bytes, at, end, place)
    at = next
    return value
  }
  if (integer() !== 1n) throw protocolError('a tagged GTID in an unknown version', place)
  integer()
  integer()
  const uuid = Buffer.alloc(16)
  let number = 0
  let tag = ''
  let committedAt: bigint | null = null
  for (let field = -1n; at < end && field < 6n; ) {
    field = integer()
    if (field === 1n) for (let i = 0; i < 16; i++) uuid[i] = Number(integer())
    else if (field === 2n) number = Number(integer() >> 1n)
    else if (field === 3n) {
      const length = Number(integer())
      tag = bytes.toString('utf8', at, at + length)
      at += length
    } else if (field === 4n || field === 5n) integer()
    else if (field === 6n) committedAt = integer()
    else if (field === 0n) integer()
  }
  if (number < 1) throw protocolError('a tagged GTID without a number', place)
  return { uuid: uuidText(uuid, 0), tag, number, committedAt }
}

/** The variable-length integer of MySQL's `mysql::serialization`: as many more bytes as the first has low bits set. */
function serializedInteger(bytes: Buffer, at: number, end: number, place: string): { readonly value: bigint; readonly next: number } {
  const first = at < end ? bytes[at]! : 0
  let more = 0
  while (more < 8 && (first >> more) & 1) more++
  const next = at + 1 + more
  if (next > end) throw protocolError('a number that is cut off', place)
  let rest = 0n
  for (let i = more; i > 0; i--) rest = (rest << 8n) | BigInt(bytes[at + i]!)
  if (more === 8) return { value: rest, next }
  return { value: BigInt(first >> (more + 1)) | (rest << BigInt(7 - more)), next }
}

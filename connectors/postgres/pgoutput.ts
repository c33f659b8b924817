import { MillraceError } from '../../core/plugin.ts'
import { formatLsn } from './lsn.ts'

/** Microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from. */
export const POSTGRES_EPOCH_US = 946_684_800_000_000n

export const TAG = {
  begin: 66,
  commit: 67,
  origin: 79,
  relation: 82,
  type: 89,
  insert: 73,
  update: 85,
  delete: 68,
  truncate: 84,
  message: 77,
  streamStart: 83,
  streamStop: 69,
  streamCommit: 99,
  streamAbort: 65,
  beginPrepare: 98,
  prepare: 80,
  commitPrepared: 75,
  rollbackPrepared: 114,
  streamPrepare: 112,
} as const

/** Kinds of a column in a tuple. */
export const KIND = { null: 110, unchanged: 117, text: 116, binary: 98 } as const

export const OLD_KEY = 75
export const OLD_ROW = 79
const NEW_ROW = 78

export interface RelationMessage {
  readonly oid: number
  readonly namespace: string
  readonly name: string
  readonly replicaIdentity: string
  readonly columns: readonly { readonly name: string; readonly typeOid: number; readonly typeModifier: number; readonly key: boolean }[]
}

/**
 * Decodes one pgoutput message at a time, protocol versions 1 to 4, in place: `decode` sets the fields that the message has, and rows stay bytes
 * whose every length has been checked, so that who walks a tuple afterwards needs no checks. No object is made per row.
 *
 * Source: PostgreSQL, "Logical Replication Message Formats". Not reentrant.
 */
export class PgoutputDecoder {
  tag = 0
  /** Transaction of begin, stream and prepare messages; (sub)transaction of messages inside a stream block. Unsigned. */
  xid = 0
  /** Stream abort: the (sub)transaction that ended; equal to `xid` when all of it did. */
  subXid = 0
  firstSegment = false
  /** Begin: final; commit and its kin: commit; prepare: prepare; message, origin: its own. */
  lsn = 0n
  endLsn = 0n
  /** Microseconds since 1970-01-01T00:00Z. */
  timestamp = 0n
  gid = ''
  /** Rows: OID of the table. */
  relationOid = 0
  /** Rows: OLD_KEY, OLD_ROW or 0. */
  oldKind = 0
  /** Rows: where the tuples' column counts lie, -1: there is none. */
  oldAt = -1
  newAt = -1
  relation: RelationMessage | null = null
  truncated: readonly number[] = []
  transactional = false
  prefix = ''
  contentAt = 0
  contentEnd = 0

  #bytes: Buffer = Buffer.alloc(0)
  #view: DataView = new DataView(new ArrayBuffer(0))
  #at = 0
  #end = 0
  #walStart = 0

  /**
   * Decodes the message at [at, end) of `bytes`, over which `view` lies with the same origin. `inStream`: it comes from a stream block, where
   * messages carry an xid. `walStart` is only for error messages.
   * @returns its tag
   * @throws source.protocol
   */
  decode(bytes: Buffer, view: DataView, at: number, end: number, inStream: boolean, walStart: number): number {
    this.#bytes = bytes
    this.#view = view
    this.#at = at
    this.#end = end
    this.#walStart = walStart
    this.tag = 0
    this.tag = this.#uint8()
    switch (this.tag) {
      case TAG.insert:
        if (inStream) this.xid = this.#uint32()
        this.relationOid = this.#uint32()
        this.oldKind = 0
        this.oldAt = -1
        if (this.#uint8() !== NEW_ROW) this.#fail('an insert without a new row')
        this.newAt = this.#at
        this.#tuple()
        break
      case TAG.update:
        if (inStream) this.xid = this.#uint32()
        this.relationOid = this.#uint32()
        this.#oldTuple(this.#uint8(), true)
        this.newAt = this.#at
        this.#tuple()
        break
      case TAG.delete:
        if (inStream) this.xid = this.#uint32()
        this.relationOid = this.#uint32()
        this.#oldTuple(this.#uint8(), false)
        this.newAt = -1
        break
      case TAG.begin:
        this.lsn = this.#uint64()
        this.timestamp = this.#timestamp()
        this.xid = this.#uint32()
        break
      case TAG.commit:
        this.#uint8()
        this.lsn = this.#uint64()
        this.endLsn = this.#uint64()
        this.timestamp = this.#timestamp()
        break
      case TAG.relation:
        if (inStream) this.xid = this.#uint32()
        this.#relation()
        break
      case TAG.type:
        if (inStream) this.xid = this.#uint32()
        this.#uint32()
        this.#string()
        this.#string()
        break
      case TAG.origin:
        this.lsn = this.#uint64()
        this.#string()
        break
      case TAG.truncate: {
        if (inStream) this.xid = this.#uint32()
        const count = this.#uint32()
        this.#uint8()
        if (count > (this.#end - this.#at) / 4) this.#fail(`a truncate of ${count} tables`)
        const oids: number[] = []
        for (let i = 0; i < count; i++) oids.push(this.#uint32())
        this.truncated = oids
        break
      }
      case TAG.message:
        this.xid = inStream ? this.#uint32() : 0
        this.transactional = (this.#uint8() & 1) === 1
        this.lsn = this.#uint64()
        this.prefix = this.#string()
        this.contentEnd = this.#uint32()
        this.contentAt = this.#at
        this.#skip(this.contentEnd)
        this.contentEnd = this.#at
        break
      case TAG.streamStart:
        this.xid = this.#uint32()
        this.firstSegment = this.#uint8() === 1
        break
      case TAG.streamStop:
        break
      case TAG.streamCommit:
        this.xid = this.#uint32()
        this.#uint8()
        this.lsn = this.#uint64()
        this.endLsn = this.#uint64()
        this.timestamp = this.#timestamp()
        break
      case TAG.streamAbort:
        this.xid = this.#uint32()
        this.subXid = this.#uint32()
        // Version 4 with streaming 'parallel' adds where and when it was aborted.
        if (this.#end - this.#at === 16) this.#skip(16)
        break
      case TAG.beginPrepare:
        this.lsn = this.#uint64()
        this.endLsn = this.#uint64()
        this.timestamp = this.#timestamp()
        this.xid = this.#uint32()
        this.gid = this.#string()
        break
      case TAG.prepare:
      case TAG.commitPrepared:
      case TAG.streamPrepare:
        this.#uint8()
        this.lsn = this.#uint64()
        this.endLsn = this.#uint64()
        this.timestamp = this.#timestamp()
        this.xid = this.#uint32()
        this.gid = this.#string()
        break
      case TAG.rollbackPrepared:
        this.#uint8()
        this.lsn = this.#uint64()
        this.endLsn = this.#uint64()
        this.#uint64()
        this.timestamp = this.#timestamp()
        this.xid = this.#uint32()
        this.gid = this.#string()
        break
      default:
        this.#fail('a message of an unknown kind')
    }
    if (this.#at !== this.#end) this.#fail(`${this.#end - this.#at} bytes too many`)
    return this.tag
  }

  #oldTuple(kind: number, optional: boolean): void {
    if (optional && kind === NEW_ROW) {
      this.oldKind = 0
      this.oldAt = -1
      return
    }
    if (kind !== OLD_KEY && kind !== OLD_ROW) this.#fail(`a tuple of kind ${kind}`)
    this.oldKind = kind
    this.oldAt = this.#at
    this.#tuple()
    if (optional && this.#uint8() !== NEW_ROW) this.#fail('an update without a new row')
  }

  #tuple(): void {
    const bytes = this.#bytes
    const view = this.#view
    const end = this.#end
    let at = this.#at
    if (at + 2 > end) this.#fail('a tuple that ends too early')
    const count = view.getInt16(at)
    if (count < 0) this.#fail(`a tuple of ${count} columns`)
    at += 2
    for (let i = 0; i < count; i++) {
      if (at >= end) this.#fail('a tuple that ends too early')
      const kind = bytes[at++]
      if (kind === KIND.null || kind === KIND.unchanged) continue
      if (kind !== KIND.text && kind !== KIND.binary) this.#fail(`a column of kind ${kind}`)
      if (at + 4 > end) this.#fail('a column that ends too early')
      const length = view.getInt32(at)
      at += 4
      if (length < 0 || length > end - at) this.#fail(`a column of ${length} bytes`)
      at += length
    }
    this.#at = at
  }

  #relation(): void {
    const oid = this.#uint32()
    const namespace = this.#string()
    const name = this.#string()
    const replicaIdentity = String.fromCharCode(this.#uint8())
    const count = this.#uint16()
    const columns: RelationMessage['columns'][number][] = []
    for (let i = 0; i < count; i++) {
      const key = (this.#uint8() & 1) === 1
      const column = this.#string()
      const typeOid = this.#uint32()
      columns.push({ name: column, typeOid, typeModifier: this.#uint32() | 0, key })
    }
    this.relation = { oid, namespace: namespace === '' ? 'pg_catalog' : namespace, name, replicaIdentity, columns }
  }

  #skip(length: number): void {
    if (length > this.#end - this.#at) this.#fail('a message that ends too early')
    this.#at += length
  }

  #uint8(): number {
    const at = this.#at
    this.#skip(1)
    return this.#bytes[at]!
  }

  #uint16(): number {
    const at = this.#at
    this.#skip(2)
    return this.#view.getUint16(at)
  }

  #uint32(): number {
    const at = this.#at
    this.#skip(4)
    return this.#view.getUint32(at)
  }

  #uint64(): bigint {
    const at = this.#at
    this.#skip(8)
    return this.#view.getBigUint64(at)
  }

  #timestamp(): bigint {
    const at = this.#at
    this.#skip(8)
    return this.#view.getBigInt64(at) + POSTGRES_EPOCH_US
  }

  #string(): string {
    const bytes = this.#bytes
    let at = this.#at
    while (at < this.#end && bytes[at] !== 0) at++
    if (at === this.#end) this.#fail('a string without an end')
    const text = bytes.toString('utf8', this.#at, at)
    this.#at = at + 1
    return text
  }

  #fail(what: string): never {
    throw protocolError(what, this.tag, this.#walStart)
  }
}

/** `source.protocol` that names the message's tag and where in the WAL it lies. */
export function protocolError(what: string, tag: number, walStart: number): MillraceError {
  const name = tag > 32 && tag < 127 ? `'${String.fromCharCode(tag)}'` : `${tag}`
  return new MillraceError('source.protocol', `Postgres sent ${what} in message ${name} at ${formatLsn(BigInt(Math.trunc(walStart)))}`, {
    fix: 'restart the node: it streams again from the last durable offset; if it fails at the same place, report this with the server version',
  })
}

import path from 'node:path'
import { type CaptureOutput, ScratchFile } from '../../core/plugin.ts'
import type { AppliedTransactions } from './applied-transactions.ts'
import { ChangeApplier, type ChangeApplierOptions } from './change-applier.ts'
import { hasReached, sees } from './fence.ts'
import { formatLsn } from './lsn.ts'
import { PgoutputDecoder, POSTGRES_EPOCH_US, protocolError, TAG } from './pgoutput.ts'
import { KEEPALIVE, type ReplicationConnection } from './replication-connection.ts'
import { historyLost } from './slot.ts'
import type { PostgresFence } from './snapshot-reader.ts'
import { RECORD_HEADER_BYTES, TransactionSpill } from './transaction-spill.ts'

const ASK_MS = 20

export interface ChangeStreamOptions extends ChangeApplierOptions {
  readonly connection: ReplicationConnection
  readonly output: CaptureOutput
  /** The stream starts after this LSN. */
  readonly start: bigint
  /** Scratch folder of this stream alone; emptied. */
  readonly spillDir: string
  readonly node: string
  readonly applied: AppliedTransactions
}

/**
 * The stream of one slot: follows transactions, whether they come whole, in pieces while they run, or prepared, and has each applied at its commit
 * and each waiting chunk emitted where its fence says. Runs once.
 */
export class ChangeStream {
  readonly #options: ChangeStreamOptions
  readonly #connection: ReplicationConnection
  readonly #output: CaptureOutput
  readonly #decoder = new PgoutputDecoder()
  readonly #applier: ChangeApplier
  /** Transactions in progress that were sent in part, by xid. */
  readonly #streamed = new Map<number, TransactionSpill>()
  /** Prepared transactions, by xid. */
  readonly #prepared = new Map<number, TransactionSpill>()
  /** Where messages of an open stream block or of a transaction being prepared go. */
  #block: TransactionSpill | null = null
  #open = false
  #replay: { readonly spill: TransactionSpill; readonly commit: bigint; readonly committedAt: bigint; readonly end: bigint } | null = null
  /** All that committed up to here was applied. */
  #position: bigint
  /** The resume point: `#position`, but not past a prepared transaction that is held, since it is not sent again once it is confirmed. */
  #complete: bigint
  /** Commit LSN of the last transaction that began. */
  #commit = 0n
  #waiting = false
  #asked = false

  constructor(options: ChangeStreamOptions) {
    this.#options = options
    this.#connection = options.connection
    this.#output = options.output
    this.#applier = new ChangeApplier(this.#decoder, options)
    this.#position = options.start
    this.#complete = options.start
  }

  /** Yields the resume point after each piece of input. Ends when `signal` aborts. */
  async *run(signal: AbortSignal): AsyncGenerator<bigint> {
    ScratchFile.emptyFolder(this.#options.spillDir)
    const connection = this.#connection
    const interrupt = () => connection.interrupt()
    signal.addEventListener('abort', interrupt)
    // Chunks wait for the stream; on an idle one only an answer to our question says how far it has come, and it may take a few.
    this.#output.chunks.onWaiting = () => this.#ask()
    const asking = setInterval(() => this.#ask(), ASK_MS).unref()
    try {
      while (!signal.aborted) {
        for (let kind = connection.next(); kind !== 0; kind = connection.next()) {
          const pause = kind === KEEPALIVE ? this.#keepalive() : this.#data()
          if (pause != null) await pause
          if (this.#replay !== null) yield* this.#replayHeld(signal)
          if (signal.aborted) return
        }
        yield this.#complete
        this.#waiting = true
        const more = await connection.read()
        this.#waiting = false
        if (!more) return
      }
    } finally {
      clearInterval(asking)
      this.#output.chunks.onWaiting = null
      signal.removeEventListener('abort', interrupt)
      for (const spill of [...this.#streamed.values(), ...this.#prepared.values()]) spill.discard()
    }
  }

  #ask(): void {
    if (!this.#waiting || this.#asked || this.#output.chunks.size === 0) return
    this.#asked = true
    this.#connection.sendStatus(true)
  }

  #keepalive(): Promise<void> | null {
    const { messageAt, view, bytes } = this.#connection
    const walEnd = view.getBigUint64(messageAt + 1)
    this.#asked = false
    this.#received(walEnd)
    if (bytes[messageAt + 17] === 1) this.#connection.sendStatus(false)
    // The server reports the end of what it has decoded and sent: all that committed before has been applied, unless we are inside one.
    if (this.#open || this.#block !== null) return null
    this.#advance(walEnd)
    if (this.#output.chunks.size === 0) return null
    const position = this.#position
    return this.#output.chunks.emit((fence) => hasReached(fence as PostgresFence, position))
  }

  #received(lsn: bigint): void {
    if (lsn > this.#connection.received) this.#connection.received = lsn
  }

  #advance(lsn: bigint): void {
    if (lsn > this.#position) this.#position = lsn
    if (this.#prepared.size === 0) this.#complete = this.#position
  }

  /** Positions in the log rise with commits: one that came out of order would be taken for one that is there already. */
  #begin(commit: bigint, committedAt: bigint, xid: number, replayed: boolean): void {
    if (commit <= this.#commit)
      throw protocolError(`a transaction that does not follow the one at ${formatLsn(this.#commit)}`, this.#decoder.tag, Number(commit))
    this.#commit = commit
    this.#applier.begin(commit, committedAt, xid, replayed)
  }

  /** Before the first change of a transaction: chunks that do not see it belong here. */
  #placeChunks(xid: number): Promise<void> | null {
    if (this.#output.chunks.size === 0) return null
    return this.#output.chunks.emit((fence) => !sees(fence as PostgresFence, xid))
  }

  #data(): Promise<void> | null | undefined {
    const { bytes, view, messageAt, messageEnd: end } = this.#connection
    const at = messageAt + 25
    const walStart = view.getUint32(messageAt + 1) * 0x1_0000_0000 + view.getUint32(messageAt + 5)
    const decoder = this.#decoder
    const block = this.#block
    if (block !== null) {
      this.#hold(block, at, end, walStart)
      return undefined
    }
    const tag = decoder.decode(bytes, view, at, end, false, walStart)
    switch (tag) {
      case TAG.insert:
      case TAG.update:
      case TAG.delete:
      case TAG.truncate:
        if (!this.#open) throw protocolError('a change outside of a transaction', tag, walStart)
        return this.#applier.apply(bytes, view)
      case TAG.message:
        return this.#message(walStart)
      case TAG.begin:
        if (this.#open) throw protocolError('a transaction within a transaction', tag, walStart)
        this.#open = true
        this.#begin(decoder.lsn, decoder.timestamp, decoder.xid, false)
        this.#options.applied.add(decoder.xid)
        return this.#placeChunks(decoder.xid)
      case TAG.commit:
        if (!this.#open) throw protocolError('the end of a transaction that did not begin', tag, walStart)
        if (decoder.lsn !== this.#commit) throw protocolError('the end of another transaction', tag, walStart)
        this.#open = false
        this.#applier.end()
        this.#received(decoder.endLsn)
        this.#advance(decoder.endLsn)
        return undefined
      case TAG.relation:
        this.#applier.relation(++this.#applier.arrivals)
        return undefined
      case TAG.type:
      case TAG.origin:
        return undefined
      default:
        if (this.#open) throw protocolError('a message of another transaction within a transaction', tag, walStart)
        this.#control(tag, walStart)
        return undefined
    }
  }

  /** Messages about transactions that are held back. */
  #control(tag: number, walStart: number): void {
    const decoder = this.#decoder
    const { xid } = decoder
    switch (tag) {
      case TAG.streamStart: {
        let spill = this.#streamed.get(xid)
        if (spill === undefined || decoder.firstSegment) {
          if (!decoder.firstSegment) throw protocolError(`a later piece of the unknown transaction ${xid}`, tag, walStart)
          spill?.discard()
          spill = this.#newSpill(xid, true)
          this.#streamed.set(xid, spill)
        }
        this.#block = spill
        return
      }
      case TAG.streamAbort:
        if (decoder.subXid !== xid) this.#streamed.get(xid)?.aborted.add(decoder.subXid)
        else {
          this.#streamed.get(xid)?.discard()
          this.#streamed.delete(xid)
        }
        return
      case TAG.streamCommit: {
        const spill = this.#streamed.get(xid)
        if (spill === undefined) throw protocolError(`the commit of the unknown transaction ${xid}`, tag, walStart)
        this.#streamed.delete(xid)
        this.#replay = { spill, commit: decoder.lsn, committedAt: decoder.timestamp, end: decoder.endLsn }
        return
      }
      case TAG.beginPrepare: {
        const spill = this.#newSpill(xid, false)
        this.#prepared.get(xid)?.discard()
        this.#prepared.set(xid, spill)
        this.#block = spill
        return
      }
      case TAG.streamPrepare: {
        const spill = this.#streamed.get(xid)
        if (spill === undefined) throw protocolError(`the prepare of the unknown transaction ${xid}`, tag, walStart)
        this.#streamed.delete(xid)
        this.#prepared.set(xid, spill)
        this.#position = maxLsn(this.#position, decoder.endLsn)
        return
      }
      case TAG.commitPrepared: {
        const spill = this.#prepared.get(xid)
        if (spill === undefined)
          throw historyLost(
            `the changes of the prepared transaction ${JSON.stringify(decoder.gid)} were sent before the offset and are not sent again`,
            this.#options,
          )
        this.#replay = { spill, commit: decoder.lsn, committedAt: decoder.timestamp, end: decoder.endLsn }
        return
      }
      case TAG.rollbackPrepared:
        this.#prepared.get(xid)?.discard()
        this.#prepared.delete(xid)
        this.#advance(decoder.endLsn)
        return
      default:
        throw protocolError('a message out of place', tag, walStart)
    }
  }

  #newSpill(xid: number, streamed: boolean): TransactionSpill {
    return new TransactionSpill(path.join(this.#options.spillDir, `${xid}.pgoutput`), xid, streamed)
  }

  /** A message inside a stream block or a transaction being prepared. */
  #hold(block: TransactionSpill, at: number, end: number, walStart: number): void {
    const { bytes, view } = this.#connection
    const tag = bytes[at]!
    if (tag === (block.streamed ? TAG.streamStop : TAG.prepare)) {
      this.#decoder.decode(bytes, view, at, end, false, walStart)
      if (!block.streamed && this.#decoder.xid !== block.xid) throw protocolError('the prepare of another transaction', tag, walStart)
      this.#block = null
      if (!block.streamed) this.#position = maxLsn(this.#position, this.#decoder.endLsn)
      return
    }
    if (tag === TAG.relation) {
      this.#applier.arrivals++
      // In a stream block the server sends a table's shape for this transaction alone, but while preparing it counts for all that follow.
      if (!block.streamed) {
        this.#decoder.decode(bytes, view, at, end, false, walStart)
        this.#applier.relation(this.#applier.arrivals)
      }
    }
    block.append(bytes, at, end, this.#applier.arrivals)
  }

  async *#replayHeld(signal: AbortSignal): AsyncGenerator<bigint> {
    const { spill, commit, committedAt, end } = this.#replay!
    this.#replay = null
    const applier = this.#applier
    const decoder = this.#decoder
    const walStart = Number(commit)
    try {
      this.#options.applied.add(spill.xid)
      const hold = this.#placeChunks(spill.xid)
      if (hold !== null) await hold
      if (signal.aborted) return
      this.#begin(commit, committedAt, spill.xid, true)
      for (const { bytes, view, end: pieceEnd } of spill.pieces()) {
        for (let at = 0; at < pieceEnd; ) {
          const arrival = view.getUint32(at + 4)
          const from = at + RECORD_HEADER_BYTES
          at = from + view.getUint32(at)
          const tag = decoder.decode(bytes, view, from, at, spill.streamed, walStart)
          if (tag === TAG.relation) {
            // Kept even when its subtransaction was aborted: the server takes it as sent.
            applier.relation(arrival)
          } else if (tag === TAG.insert || tag === TAG.update || tag === TAG.delete || tag === TAG.truncate || tag === TAG.message) {
            if (spill.streamed && spill.aborted.has(decoder.xid)) continue
            const pause = applier.apply(bytes, view)
            if (pause !== undefined) await pause
          } else if (tag !== TAG.type && tag !== TAG.origin) throw protocolError('a message out of place in a held transaction', tag, walStart)
        }
        yield this.#complete
        if (signal.aborted) return
      }
      applier.end()
      this.#prepared.delete(spill.xid)
      this.#received(end)
      this.#advance(end)
    } finally {
      spill.discard()
    }
  }

  #message(walStart: number): Promise<void> | undefined {
    const decoder = this.#decoder
    const { bytes, view, messageAt } = this.#connection
    if (decoder.transactional) {
      if (!this.#open) throw protocolError('a transactional message outside of a transaction', TAG.message, walStart)
      return this.#applier.apply(bytes, view)
    }
    if (this.#open) throw protocolError('a message without transaction within a transaction', TAG.message, walStart)
    // its LSN is the end of its record, where the commit record of another transaction may lie: the last byte before is its own
    this.#begin(decoder.lsn - 1n, view.getBigInt64(messageAt + 17) + POSTGRES_EPOCH_US, 0, false)
    const pause = this.#applier.apply(bytes, view)
    if (pause !== undefined) return pause.then(() => this.#applier.end())
    this.#applier.end()
    return undefined
  }
}

function maxLsn(a: bigint, b: bigint): bigint {
  return a > b ? a : b
}

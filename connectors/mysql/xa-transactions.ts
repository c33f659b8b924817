import type { ScratchFile } from '../../core/plugin.ts'
import type { BinlogEvent } from './binlog-event.ts'
import { protocolError } from './mysql-error.ts'
import { type PreparedTransaction, PreparedTransactions, readXaPrepare, readXaStatement } from './prepared-transactions.ts'

/**
 * What the stream does after an XA statement: `go on`: more of the transaction comes; `apply`: it ends with these rows; `end`: it ends without any;
 * `unknown`: it is committed, and its rows came before the stream began.
 */
export type XaStep = { readonly kind: 'go on' | 'end' | 'unknown' } | { readonly kind: 'apply'; readonly rows: ScratchFile }

/** The XA transactions of a stream: the rows of one are held from its start until it is known whether they count. */
export class XaTransactions {
  readonly #prepared: PreparedTransactions
  /** Not prepared yet. */
  #open: PreparedTransaction | null = null

  /** @param haveGaps see `PreparedTransactions` */
  constructor(dir: string, haveGaps: boolean) {
    this.#prepared = new PreparedTransactions(dir, haveGaps)
  }

  /** See `MysqlOffset.prepared`. */
  get prepared(): string | undefined {
    return this.#prepared.offset
  }

  /** Row events are to be held. */
  get isHolding(): boolean {
    return this.#open !== null
  }

  /** Takes an event with rows, as one without checksum. */
  hold(event: Buffer): void {
    this.#open!.rows.append(event)
  }

  /** The rows that come next are held. @param before the position before the transaction, which will be prepared; without meaning where offsets have gaps */
  begin(gtid: string, before: string): void {
    this.#open?.rows.discard()
    this.#open = this.#prepared.begin(gtid, before)
  }

  /**
   * An XA_PREPARE event ends the transaction.
   * @returns its rows when it is committed with that (one phase); null: they go on waiting
   * @throws source.protocol
   */
  prepare({ at, end, place }: BinlogEvent, bytes: Buffer): ScratchFile | null {
    const found = readXaPrepare(bytes, at, end)
    const transaction = this.#open
    if (found === null || transaction === null) throw protocolError('an XA PREPARE that does not fit what came before', place)
    this.#open = null
    if (found.isOnePhase) return transaction.rows
    this.#prepared.prepare(found.xid, transaction)
    return null
  }

  /** @param gtid of the transaction that the statement is in; `before` as in `begin`. @throws source.protocol */
  statement(text: string, gtid: string, before: string, place: string): XaStep {
    const statement = readXaStatement(text)
    if (statement === null) throw protocolError('an XA statement that cannot be read', place)
    const { verb, xid, isOnePhase } = statement
    if (verb === 'end') return { kind: 'go on' }
    if (verb === 'start') {
      if (this.#open === null) this.begin(gtid, before)
      return { kind: 'go on' }
    }
    const own = isOnePhase ? this.#open : null
    if (own !== null) this.#open = null
    const transaction = own ?? this.#prepared.end(xid)
    if (verb === 'rollback') {
      transaction?.rows.discard()
      return { kind: 'end' }
    }
    return transaction === undefined ? { kind: 'unknown' } : { kind: 'apply', rows: transaction.rows }
  }

  discard(): void {
    this.#open?.rows.discard()
    this.#open = null
    this.#prepared.discard()
  }
}

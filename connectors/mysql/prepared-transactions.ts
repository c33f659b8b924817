import path from 'node:path'
import { ScratchFile } from '../../core/plugin.ts'

/** Rows of an XA transaction, as whole events without checksums. */
export interface PreparedTransaction {
  readonly gtid: string
  /** Of a server whose offsets have no gaps: the position before it. */
  readonly after: string
  readonly rows: ScratchFile
}

/**
 * XA transactions that are prepared: their rows came, and whether they count comes later, maybe after a restart. Then the server sends them again, so
 * nothing here has to last; see `MysqlOffset.prepared`.
 */
export class PreparedTransactions {
  readonly #dir: string
  readonly #haveGaps: boolean
  readonly #held = new Map<string, PreparedTransaction>()
  #files = 0
  #text: string | undefined

  /** @param haveGaps offsets are sets of GTIDs, which can lack some */
  constructor(dir: string, haveGaps: boolean) {
    this.#dir = dir
    this.#haveGaps = haveGaps
  }

  /** A transaction whose rows come next. */
  begin(gtid: string, after: string): PreparedTransaction {
    return { gtid, after, rows: new ScratchFile(path.join(this.#dir, `xa-${this.#files++}`)) }
  }

  prepare(xid: string, transaction: PreparedTransaction): void {
    this.#held.get(xid)?.rows.discard()
    this.#held.set(xid, transaction)
    this.#text = undefined
  }

  /** Undefined: it was prepared before the stream began. */
  end(xid: string): PreparedTransaction | undefined {
    const transaction = this.#held.get(xid)
    this.#held.delete(xid)
    this.#text = undefined
    return transaction
  }

  /** See `MysqlOffset.prepared`. */
  get offset(): string | undefined {
    if (this.#held.size === 0) return undefined
    const [first] = this.#held.values()
    this.#text ??= this.#haveGaps ? [...this.#held.values()].map(({ gtid }) => gtid).join(',') : first!.after
    return this.#text
  }

  discard(): void {
    for (const { rows } of this.#held.values()) rows.discard()
    this.#held.clear()
  }
}

/** A transaction's id as XA statements in the binlog have it: `X'..',X'..',1`. Null: the text is no XA statement of one. */
export function readXaStatement(
  text: string,
): { readonly verb: 'start' | 'end' | 'commit' | 'rollback'; readonly xid: string; readonly isOnePhase: boolean } | null {
  const match = /^XA (START|BEGIN|END|COMMIT|ROLLBACK) X'([0-9a-f]*)',X'([0-9a-f]*)',(\d+)( ONE PHASE)?$/i.exec(text)
  if (match === null) return null
  const verb = match[1]!.toLowerCase()
  return {
    verb: verb === 'begin' ? 'start' : (verb as 'start' | 'end' | 'commit' | 'rollback'),
    xid: xidText(match[2]!, match[3]!, Number(match[4])),
    isOnePhase: match[5] !== undefined,
  }
}

/** The body of an XA_PREPARE event: one phase, format, lengths of both parts, the parts. Null: it is cut off. */
export function readXaPrepare(bytes: Buffer, at: number, end: number): { readonly xid: string; readonly isOnePhase: boolean } | null {
  if (end - at < 13) return null
  const first = at + 13
  const second = first + bytes.readUInt32LE(at + 5)
  const last = second + bytes.readUInt32LE(at + 9)
  if (last > end) return null
  return { xid: xidText(bytes.toString('hex', first, second), bytes.toString('hex', second, last), bytes.readUInt32LE(at + 1)), isOnePhase: bytes[at] !== 0 }
}

function xidText(first: string, second: string, format: number): string {
  return `${first.toLowerCase()},${second.toLowerCase()},${format}`
}

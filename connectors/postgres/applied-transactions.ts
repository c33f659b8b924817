import { sees } from './fence.ts'
import type { PostgresFence } from './snapshot-reader.ts'

/** A transaction is in the stream at most so many others before it can be seen; then the oldest is forgotten. */
const REMEMBERED = 8192

/**
 * The transactions that the stream came to last. A commit is streamed once it is in the WAL, but others see it only a moment later (with synchronous replication,
 * much later). A view taken in between would lack rows that are in the log already, and its chunk would put older ones after them.
 */
export class AppliedTransactions {
  readonly #xids = new Uint32Array(REMEMBERED)
  #count = 0

  add(xid: number): void {
    this.#xids[this.#count++ % REMEMBERED] = xid
  }

  /** Whether a view sees all that was streamed before it was taken. */
  allSeenBy(fence: PostgresFence): boolean {
    const known = Math.min(this.#count, REMEMBERED)
    for (let i = 0; i < known; i++) if (!sees(fence, this.#xids[i]!)) return false
    return true
  }
}

import type pg from 'pg'
import { sees } from './fence.ts'
import { partitionTree } from './partitions.ts'
import type { PostgresFence } from './snapshot-reader.ts'

/** A transaction is in the stream at most so many others before it can be seen; then the oldest is forgotten. */
const REMEMBERED = 8192

/**
 * The transactions that the stream came to last. A commit is streamed once it is in the WAL, but others see it only a moment later (with synchronous replication,
 * much later). A view taken in between would lack rows that are in the log already, and its chunk would put older ones after them.
 */
export class AppliedTransactions {
  /** Those that may have been streamed before this process. */
  readonly #earlier: readonly number[]
  readonly #xids = new Uint32Array(REMEMBERED)
  #count = 0

  /** @param earlier see {@link unseenCommits} */
  constructor(earlier: readonly number[]) {
    this.#earlier = earlier
  }

  add(xid: number): void {
    this.#xids[this.#count++ % REMEMBERED] = xid
  }

  /** Whether a view sees all that was streamed before it was taken. */
  allSeenBy(fence: PostgresFence): boolean {
    if (!this.#earlier.every((xid) => sees(fence, xid))) return false
    const known = Math.min(this.#count, REMEMBERED)
    for (let i = 0; i < known; i++) if (!sees(fence, this.#xids[i]!)) return false
    return true
  }
}

/**
 * Transactions (32 bits) that have written the table with this oid, or one of its partitions, and have not ended. What one of them wrote before the table was
 * published need not be in the stream.
 */
export async function openWriters(client: pg.ClientBase, table: number): Promise<readonly number[]> {
  const { rows } = await client.query<{ xid: string }>(
    `select l.transactionid::text as xid from pg_locks l
      where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
        and exists (select from pg_locks t where t.virtualtransaction = l.virtualtransaction and t.locktype = 'relation' and t.granted
          and t.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
          and t.database = (select oid from pg_database where datname = current_database())
          and t.relation in (${partitionTree('$1::oid')}))`,
    [table],
  )
  return rows.map(({ xid }) => Number(xid))
}

/**
 * Transactions (32 bits) that are committed and that nobody sees yet, since they wait for a standby: those streamed before a restart are not sent again. Where
 * the role may not see which of the others' do, every one that has written counts, until it ends.
 * @param table oid of the table, or of the root of partitions, that they wrote; all when absent
 */
export async function unseenCommits(client: pg.ClientBase, table: number | null = null): Promise<readonly number[]> {
  // COMMIT PREPARED waits without a transaction of its own: any that is prepared may be its. What a role may not see has no backend_type
  const { rows } = await client.query<{ xid: string }>(
    `select l.transactionid::text as xid from pg_locks l left join pg_stat_activity a on a.pid = l.pid
      cross join (select current_setting('synchronous_standby_names') <> '' as may) waiting
      where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
        and case when a.pid is not null then a.backend_type is null and may or a.wait_event = 'SyncRep'
            else exists (select from pg_stat_activity w where w.backend_xid is null and (w.backend_type is null and may or w.wait_event = 'SyncRep')) end
        and ($1::oid is null or exists (
          select from pg_locks t where t.virtualtransaction = l.virtualtransaction and t.locktype = 'relation' and t.mode like '%Exclusive%'
            and t.database = (select oid from pg_database where datname = current_database())
            and t.relation in (${partitionTree('$1::oid')})))`,
    [table],
  )
  return rows.map(({ xid }) => Number(xid))
}

import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { MillraceError, type SourceOffset } from '../../core/plugin.ts'
import { formatLsn, parseLsn } from './lsn.ts'

const IN_USE_PATIENCE_MS = 10_000
const POLL_MS = 100

/** A resume point: the end of the last complete transaction, and which server and publication it is of. */
export interface PostgresOffset {
  readonly lsn: bigint
  readonly system: string
  readonly timeline: number
  /** OID of the publication. */
  readonly publication: number
}

export function writeOffset(offset: PostgresOffset): SourceOffset {
  return { lsn: formatLsn(offset.lsn), system: offset.system, timeline: offset.timeline, publication: offset.publication }
}

/** @throws config.invalid when this source did not write it */
export function readOffset(offset: SourceOffset): PostgresOffset {
  const { lsn, system, timeline, publication } = offset
  if (typeof lsn === 'string' && typeof system === 'string' && typeof timeline === 'number' && typeof publication === 'number') {
    return { lsn: parseLsn(lsn), system, timeline, publication }
  }
  throw new MillraceError('config.invalid', `the stored offset ${JSON.stringify(offset)} is not one of a Postgres source`, {
    fix: 'give the node another name, or start it over: `millrace run FILE --resnapshot NODE`',
  })
}

export interface Slot {
  readonly plugin: string
  readonly database: string
  readonly activePid: number | null
  readonly restartLsn: bigint | null
  readonly confirmedLsn: bigint | null
  readonly walStatus: string | null
  readonly invalidation: string | null
  readonly twoPhase: boolean
}

/** `version` is server_version_num. */
export async function findSlot(client: pg.ClientBase, name: string, version: number): Promise<Slot | null> {
  const invalidation = version >= 170_000 ? 'invalidation_reason' : version >= 160_000 ? "case when conflicting then 'conflict with recovery' end" : 'null'
  const { rows } = await client.query<Record<string, string | number | boolean | null>>(
    `select plugin, database, active_pid, restart_lsn::text, confirmed_flush_lsn::text, wal_status, ${invalidation} as invalidation,
            two_phase
       from pg_replication_slots where slot_name = $1`,
    [name],
  )
  const row = rows[0]
  if (row === undefined) return null
  const lsn = (value: unknown) => (typeof value === 'string' ? parseLsn(value) : null)
  return {
    plugin: String(row.plugin),
    database: String(row.database),
    activePid: row.active_pid as number | null,
    restartLsn: lsn(row.restart_lsn),
    confirmedLsn: lsn(row.confirmed_flush_lsn),
    walStatus: row.wal_status as string | null,
    invalidation: row.invalidation as string | null,
    twoPhase: row.two_phase === true,
  }
}

/**
 * Creates the slot; waits for transactions that are running. The publication must exist already.
 * @returns where its stream starts
 */
export async function createSlot(client: pg.ClientBase, name: string, version: number, twoPhase: boolean): Promise<bigint> {
  const failover = version >= 170_000 && (await client.query<{ standby: boolean }>('select pg_is_in_recovery() as standby')).rows[0]?.standby === false
  const { rows } = await client.query<{ lsn: string }>(
    failover
      ? `select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput', false, $2, true)`
      : `select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput', false, $2)`,
    [name, twoPhase && version >= 150_000],
  )
  return parseLsn(rows[0]!.lsn)
}

export interface SlotClaim {
  readonly slot: string
  readonly database: string
  readonly node: string
}

/** Postgres has removed WAL that the slot needs. */
export function isInvalidated(slot: Slot): boolean {
  return slot.walStatus === 'lost' || slot.invalidation !== null
}

/** The slot is ours to use as far as the catalog knows: right plugin and database, not invalidated. @throws source.history_lost, source.unprepared */
export function checkSlot(slot: Slot, claim: SlotClaim): void {
  if (slot.plugin !== 'pgoutput' || slot.database !== claim.database) {
    throw new MillraceError(
      'source.unprepared',
      `the slot ${claim.slot} is for ${slot.plugin} in database ${slot.database}, not for pgoutput in ${claim.database}`,
      {
        fix: 'name another `slot` in the source',
      },
    )
  }
  if (isInvalidated(slot)) {
    throw historyLost(`Postgres invalidated the slot ${claim.slot} (${slot.invalidation ?? 'wal_status = lost'})`, claim)
  }
}

/** Nothing between `resume` and what the slot still sends may be missing. @throws source.history_lost, source.identity_changed */
export function checkHistory(
  slot: Slot | null,
  resume: PostgresOffset,
  claim: SlotClaim,
  server: { readonly system: string; readonly timeline: number; readonly walLsn: bigint },
): asserts slot {
  const repair = repairOf(claim)
  if (resume.system !== server.system) {
    throw new MillraceError(
      'source.identity_changed',
      `the server is another one (system ${server.system}) than was captured (system ${resume.system})`,
      repair,
    )
  }
  if (resume.timeline !== server.timeline) {
    throw new MillraceError(
      'source.identity_changed',
      `the server is on timeline ${server.timeline}, captured was timeline ${resume.timeline} up to ${formatLsn(resume.lsn)}: after a failover or restore its history may differ`,
      repair,
    )
  }
  if (resume.lsn > server.walLsn) {
    throw new MillraceError(
      'source.identity_changed',
      `captured is up to ${formatLsn(resume.lsn)}, the server's WAL ends at ${formatLsn(server.walLsn)}: it was set back`,
      repair,
    )
  }
  if (slot === null) throw historyLost(`the slot ${claim.slot} is gone; the changes after ${formatLsn(resume.lsn)} are not kept`, claim)
  checkSlot(slot, claim)
  if (slot.confirmedLsn !== null && slot.confirmedLsn > resume.lsn) {
    throw historyLost(
      `the slot ${claim.slot} stands at ${formatLsn(slot.confirmedLsn)}; the changes between ${formatLsn(resume.lsn)} and there were given to someone else`,
      claim,
    )
  }
}

export function historyLost(message: string, claim: Pick<SlotClaim, 'node'>, cause?: unknown): MillraceError {
  return new MillraceError('source.history_lost', message, { ...repairOf(claim), ...(cause === undefined ? {} : { cause }) })
}

function repairOf(claim: Pick<SlotClaim, 'node'>): { readonly fix: string } {
  return { fix: `millrace run FILE --resnapshot ${claim.node}` }
}

/** Waits a little for a walsender that has not yet noticed that its client is gone. @throws source.in_use */
export async function waitUntilFree(client: pg.ClientBase, name: string, version: number): Promise<void> {
  const deadline = performance.now() + IN_USE_PATIENCE_MS
  for (;;) {
    const slot = await findSlot(client, name, version)
    if (slot === null || slot.activePid === null) return
    if (performance.now() > deadline) throw inUse(name, slot.activePid)
    await delay(POLL_MS)
  }
}

export function inUse(slot: string, pid: number | null, cause?: unknown): MillraceError {
  return new MillraceError('source.in_use', `the slot ${slot} is in use${pid === null ? '' : ` by the server process ${pid}`}`, {
    fix: `stop the other Millrace, or name another \`slot\`; who it is: select * from pg_stat_activity where pid = ${pid ?? '…'}`,
    ...(cause === undefined ? {} : { cause }),
  })
}

export async function dropSlot(client: pg.ClientBase, name: string, version: number): Promise<void> {
  await waitUntilFree(client, name, version)
  await client.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1', [name])
}

import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { foreignOffset, MillraceError, type SourceOffset } from '../../core/plugin.ts'
import { formatLsn, parseLsn } from './lsn.ts'
import type { Ancestor } from './timeline.ts'

/** A client that is there answers the server at least this often: Millrace, and Postgres' own tools. */
export const ANSWER_MS = 10_000
/** What a connection sent before it was closed is read by then, and its end after that. */
const SETTLE_MS = 1000
const POLL_MS = 100
/** From here on standbys follow slots. */
export const FAILOVER_VERSION = 170_000

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

/** @throws source.identity_changed when this source did not write it */
export function readOffset(offset: SourceOffset): PostgresOffset {
  const { lsn, system, timeline, publication } = offset
  if (typeof lsn === 'string' && typeof system === 'string' && typeof timeline === 'number' && typeof publication === 'number') {
    return { lsn: parseLsn(lsn), system, timeline, publication }
  }
  throw foreignOffset('Postgres')
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
  /** Standbys follow it (Postgres 17 or later). */
  readonly failover: boolean
}

/** `version` is server_version_num. */
export async function findSlot(client: pg.ClientBase, name: string, version: number): Promise<Slot | null> {
  // `conflicting` of Postgres 16 is true of every slot that is lost, whatever for
  const invalidation = version >= 170_000 ? 'invalidation_reason' : 'null'
  const { rows } = await client.query<Record<string, string | number | boolean | null>>(
    `select plugin, database, active_pid, restart_lsn::text, confirmed_flush_lsn::text, wal_status, ${invalidation} as invalidation,
            two_phase, ${version >= FAILOVER_VERSION ? 'failover' : 'false'} as failover
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
    failover: row.failover === true,
  }
}

/**
 * Creates the slot; waits for transactions that are running. The publication must exist already.
 * @returns where its stream starts
 */
export async function createSlot(client: pg.ClientBase, name: string, version: number, twoPhase: boolean): Promise<bigint> {
  const { rows } = await client.query<{ lsn: string }>(
    version >= FAILOVER_VERSION
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

/** What a server says of its own place in history. */
export interface ServerHistory {
  readonly system: string
  readonly timeline: number
  /** The timelines that its own descends from. */
  readonly ancestors: readonly Ancestor[]
  readonly walLsn: bigint
}

/**
 * The server's history has all that was captured, and nothing between `resume` and what the slot still sends is missing.
 * @throws source.history_lost, source.identity_changed
 */
export function checkHistory(slot: Slot | null, resume: PostgresOffset, claim: SlotClaim, server: ServerHistory): asserts slot {
  checkDescent(resume, claim, server)
  const after = resume.timeline === server.timeline ? '' : ` on this server, which was promoted to timeline ${server.timeline}`
  if (slot === null) {
    const cause = after === '' ? '' : ': no standby had a synchronised copy of it'
    throw historyLost(`the slot ${claim.slot} is gone${after}; the changes after ${formatLsn(resume.lsn)} are not kept${cause}`, claim)
  }
  checkSlot(slot, claim)
  if (slot.confirmedLsn === null) throw historyLost(`the slot ${claim.slot} was never ready${after}: its creation did not finish`, claim)
  if (slot.confirmedLsn > resume.lsn) {
    throw historyLost(
      `the slot ${claim.slot} stands at ${formatLsn(slot.confirmedLsn)}${after}; the changes between ${formatLsn(resume.lsn)} and there were given to someone else`,
      claim,
    )
  }
}

/** Where the server's history left that of `resume`; null: it is on the same timeline. */
export function forkOf(resume: PostgresOffset, server: ServerHistory): bigint | null {
  return server.ancestors.find(({ timeline }) => timeline === resume.timeline)?.end ?? null
}

function checkDescent(resume: PostgresOffset, claim: SlotClaim, server: ServerHistory): void {
  const changed = (message: string) => new MillraceError('source.identity_changed', message, repairOf(claim))
  if (resume.system !== server.system) {
    throw changed(`the server is another one (system ${server.system}) than was captured (system ${resume.system})`)
  }
  if (resume.timeline !== server.timeline) {
    const fork = forkOf(resume, server)
    if (fork === null) {
      throw changed(
        `the server is on timeline ${server.timeline}, which does not descend from timeline ${resume.timeline} that was captured up to ${formatLsn(resume.lsn)}: it is not the promoted standby`,
      )
    }
    if (resume.lsn > fork) throw changed(undone(fork, resume.lsn, server.timeline))
  } else if (resume.lsn > server.walLsn) {
    throw changed(`captured is up to ${formatLsn(resume.lsn)}, the server's WAL ends at ${formatLsn(server.walLsn)}: it was set back`)
  }
}

/** The new primary was promoted without the last that was captured from the old one. */
function undone(fork: bigint, captured: bigint, timeline: number): string {
  return `the server was promoted to timeline ${timeline} at ${formatLsn(fork)}, captured is up to ${formatLsn(captured)}: it never had what came between, which is in the log`
}

export function historyLost(message: string, claim: Pick<SlotClaim, 'node'>, cause?: unknown): MillraceError {
  return new MillraceError('source.history_lost', message, { ...repairOf(claim), ...(cause === undefined ? {} : { cause }) })
}

function repairOf(claim: Pick<SlotClaim, 'node'>): { readonly fix: string } {
  return { fix: `millrace run FILE --resnapshot ${claim.node}` }
}

/**
 * Waits while a walsender may not have noticed that its client is gone. Of a host that died the server notices after `wal_sender_timeout` only, so a client
 * that is silent is no proof of a second process; one that answers is.
 * @param answerMs how often a client that is there answers at least
 * @throws source.in_use when somebody else has the slot; source.occupied when whoever has it is silent
 */
export async function waitUntilFree(client: pg.ClientBase, name: string, version: number, answerMs = ANSWER_MS): Promise<void> {
  const from = performance.now()
  let seen = ''
  let answeredAt: number | null = null
  for (;;) {
    const slot = await findSlot(client, name, version)
    if (slot === null || slot.activePid === null) return
    const holder = await findHolder(client, slot.activePid)
    const print = `${holder.pid} ${slot.confirmedLsn} ${holder.repliedAt}`
    const now = performance.now()
    if (now - from > SETTLE_MS && print !== seen) answeredAt ??= now
    seen = print
    if (answeredAt !== null && now - answeredAt > SETTLE_MS) throw inUse(name, holder)
    if (answeredAt === null && now - from > 2 * answerMs + 4 * SETTLE_MS) throw occupied(name, holder)
    await delay(POLL_MS)
  }
}

/** Who streams from a slot; what the role may not see is null. */
interface Holder {
  readonly pid: number
  readonly application: string | null
  readonly address: string | null
  readonly repliedAt: string | null
}

async function findHolder(client: pg.ClientBase, pid: number): Promise<Holder> {
  const { rows } = await client.query<Holder>(
    `select a.pid, a.application_name as application, host(a.client_addr) as address, r.reply_time::text as "repliedAt"
       from pg_stat_activity a left join pg_stat_replication r on r.pid = a.pid where a.pid = $1`,
    [pid],
  )
  return rows[0] ?? { pid, application: null, address: null, repliedAt: null }
}

function say({ pid, application, address }: Holder): string {
  return `the server process ${pid}${application ? `, of ${application}` : ''}${address === null ? '' : ` at ${address}`}`
}

function inUse(slot: string, holder: Holder): MillraceError {
  return new MillraceError('source.in_use', `the slot ${slot} is in use by ${say(holder)}`, {
    fix: `stop the other Millrace, or name another \`slot\`; who it is: select * from pg_stat_activity where pid = ${holder.pid}`,
  })
}

function occupied(slot: string, holder: Holder): MillraceError {
  return new MillraceError('source.occupied', `the slot ${slot} is held by ${say(holder)}, which is silent: its process may be gone`, {
    fix: `none, if it died: the server lets go after wal_sender_timeout; at once: select pg_terminate_backend(${holder.pid}); if it runs, stop this Millrace`,
  })
}

/** Somebody was faster. */
export function taken(slot: string, cause: unknown): MillraceError {
  return new MillraceError('source.occupied', `the slot ${slot} was taken a moment ago`, { fix: 'stop the other Millrace, or name another `slot`', cause })
}

/** @throws source.in_use */
export async function dropSlot(client: pg.ClientBase, name: string, version: number): Promise<void> {
  await waitUntilFree(client, name, version)
  await client.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1', [name])
}

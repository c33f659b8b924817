/** A primary and a streaming standby that follows its failover slots: two real servers of one history. */
import { execFileSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { freePorts } from './free-ports.ts'

export interface PostgresPair {
  readonly primary: PostgresServer
  readonly standby: PostgresServer
  /** Names both, the primary first. */
  readonly url: string
  /** Waits until the standby has a copy of the slot that survives a promotion. */
  synced(slot: string): Promise<void>
  /** Waits until the reader of the primary's slot has confirmed more than the primary has now. */
  confirmed(slot: string): Promise<void>
  /** The standby receives no more from the primary. */
  cutOff(): Promise<void>
  promote(): Promise<void>
  /** The old primary comes back as it was, on its port. */
  revive(): Promise<void>
  stop(): Promise<void>
}

export interface PairOptions {
  /** Empty; other users can reach into it. */
  readonly dir: string
  /** Folder of the servers' programs. */
  readonly bin: string
  /** The standby copies failover slots. */
  readonly syncSlots: boolean
  /** The primary holds changes back until the standby has them. */
  readonly holdBack: boolean
}

export async function startPair({ dir, bin, syncSlots, holdBack }: PairOptions): Promise<PostgresPair> {
  const [first, second] = [path.join(dir, 'primary'), path.join(dir, 'standby')]
  const [port, standbyPort] = (await freePorts(2)) as [number, number]
  await (await startPostgres({ dataDir: first, bin, port })).stop()
  // a cold copy is a base backup, and needs no pg_basebackup
  execFileSync('cp', ['-a', first, second])
  execFileSync('cp', ['-a', path.join(second, 'PG_VERSION'), path.join(second, 'standby.signal')])
  const started = { dataDir: first, bin, port, settings: holdBack ? { synchronized_standby_slots: 'standby' } : {} }
  const primary = await startPostgres(started)
  let revived: PostgresServer | null = null
  await query(primary, `select pg_create_physical_replication_slot('standby', true)`)
  const conninfo = `host=127.0.0.1 port=${primary.port} user=postgres dbname=postgres`
  const settings = `primary_conninfo = '${conninfo}'\nprimary_slot_name = 'standby'\nhot_standby_feedback = on\nsync_replication_slots = ${syncSlots ? 'on' : 'off'}\n`
  appendFileSync(path.join(second, 'postgresql.auto.conf'), settings)
  const following = { wal_retrieve_retry_interval: '100ms', wal_receiver_status_interval: '1s' }
  const standby = await startPostgres({ dataDir: second, bin, port: standbyPort, settings: following })
  return {
    primary,
    standby,
    url: `postgres://postgres@127.0.0.1:${primary.port},127.0.0.1:${standby.port}/postgres?target_session_attrs=read-write`,
    synced: (slot) => until(standby, `select from pg_replication_slots where slot_name = '${slot}' and synced and not temporary`),
    async confirmed(slot) {
      const { rows } = await query(primary, 'select pg_current_wal_lsn()::text as lsn')
      await until(primary, `select from pg_replication_slots where slot_name = '${slot}' and confirmed_flush_lsn > '${rows[0].lsn}'`)
    },
    async cutOff() {
      await query(standby, `alter system set primary_conninfo = ''`)
      await query(standby, 'select pg_reload_conf()')
      await until(standby, 'select where not exists (select from pg_stat_wal_receiver)')
    },
    async promote() {
      await query(standby, 'select pg_promote(true, 60)')
      await until(standby, 'select where not pg_is_in_recovery()')
    },
    async revive() {
      revived = await startPostgres(started)
    },
    async stop() {
      await revived?.stop('SIGQUIT')
      await standby.stop('SIGQUIT')
      await primary.stop('SIGQUIT')
    },
  }
}

async function query({ url }: PostgresServer, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end()
  }
}

/** Waits until the query has a row; a standby looks after its slots every half minute only when little happens. */
async function until(server: PostgresServer, text: string, ms = 180_000): Promise<void> {
  for (const deadline = performance.now() + ms; (await query(server, text)).rowCount === 0; await delay(50)) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${text}`)
  }
}

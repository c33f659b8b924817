import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { startPostgres } from '../../control/demo/postgres-server.ts'
import { sharedService } from './shared-service.ts'

/** A walsender notices in its own time that its client is gone. */
const DROP_MS = 180_000

export interface TestDatabase {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  readonly url: string
  sql(text: string, values?: unknown[]): Promise<pg.QueryResult>
  drop(): Promise<void>
}

/** A fresh database on the run's shared Postgres 18. Slots are per cluster: name them after the database. */
export async function testDatabase(): Promise<TestDatabase> {
  const { port } = await sharedService('postgres', async (dir) => {
    const server = await startPostgres({ dataDir: path.join(dir, 'data'), detached: true })
    return { port: server.port, pids: [server.pid] }
  })
  return databaseOn(port)
}

/** A fresh database on the server at this port, as the role `postgres`. */
export async function databaseOn(port: number): Promise<TestDatabase> {
  const database = `t_${randomBytes(5).toString('hex')}`
  const admin = new pg.Pool({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres', max: 1 })
  admin.on('error', () => {})
  await admin.query(`create database ${database}`)
  const pool = new pg.Pool({ host: '127.0.0.1', port, user: 'postgres', database, max: 4 })
  pool.on('error', () => {})
  return {
    host: '127.0.0.1',
    port,
    database,
    user: 'postgres',
    url: `postgres://postgres@127.0.0.1:${port}/${database}`,
    sql: (text, values) => pool.query(text, values),
    async drop() {
      await pool.end()
      const slots = 'from pg_replication_slots where database = $1'
      for (const deadline = performance.now() + DROP_MS; ; await delay(20)) {
        try {
          await admin.query(`select pg_terminate_backend(active_pid) ${slots} and active_pid is not null`, [database])
          await admin.query(`select pg_drop_replication_slot(slot_name) ${slots} and not active`, [database])
          await admin.query(`drop database if exists ${database} with (force)`)
          break
        } catch (error) {
          if (performance.now() > deadline) throw error
        }
      }
      await admin.end()
    },
  }
}

/** What a benchmark runs on: one Postgres, one Kafka broker, a scratch folder; ended together. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type PostgresServer, startPostgres } from '../control/demo/postgres-server.ts'
import { type KafkaServer, startKafka } from '../test/services/kafka.ts'

export class Lab implements AsyncDisposable {
  readonly dir: string
  #postgres: PostgresServer | null = null
  #kafka: KafkaServer | null = null
  #pool: pg.Pool | null = null
  readonly #more = new AsyncDisposableStack()

  constructor() {
    this.dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-bench-'))
    chmodSync(this.dir, 0o755)
  }

  /** A folder of its own below the lab's. */
  folder(name: string): string {
    const dir = path.join(this.dir, name)
    mkdirSync(dir, { recursive: true })
    return dir
  }

  /** Ends with the lab, before its folder goes. */
  own<T extends AsyncDisposable>(resource: T): T {
    return this.#more.use(resource)
  }

  async postgres(): Promise<PostgresServer> {
    this.#postgres ??= await startPostgres({ dataDir: path.join(this.dir, 'postgres'), settings: { shared_buffers: '512MB', track_commit_timestamp: 'on' } })
    return this.#postgres
  }

  async kafka(): Promise<KafkaServer> {
    this.#kafka ??= await startKafka({
      dir: path.join(this.dir, 'kafka'),
      // as Kafka's own start scripts run it: the peer's figures depend on its broker
      jvm: ['-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20', '-XX:InitiatingHeapOccupancyPercent=35', '-Xms1g', '-Xmx1g'],
      properties: { 'message.max.bytes': '16000000', 'log.message.timestamp.type': 'LogAppendTime' },
    })
    return this.#kafka
  }

  /** Bytes of a topic's records on the broker's disk, in all partitions; 0 before there are any. */
  topicBytes(topic: string): number {
    const data = path.join(this.dir, 'kafka', 'data')
    const folders = readdirSync(data).filter((name) => name.startsWith(`${topic}-`) && /^\d+$/.test(name.slice(topic.length + 1)))
    // not its indexes, whose room is taken ahead
    return folders.reduce((sum, name) => sum + folderBytes(path.join(data, name), (file) => file.endsWith('.log')), 0)
  }

  async sql<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]> {
    if (this.#pool === null) {
      this.#pool = new pg.Pool({ connectionString: (await this.postgres()).url, max: 3 })
      this.#pool.on('error', () => {})
    }
    return (await this.#pool.query<Row>(text, values)).rows
  }

  /** An empty bench table and its load procedures, no slots and publications. */
  async freshTable(): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      const slots = await this.sql<{ name: string; active: boolean }>('select slot_name as name, active from pg_replication_slots')
      if (slots.length === 0) break
      for (const { name } of slots.filter(({ active }) => !active)) await this.sql('select pg_drop_replication_slot($1)', [name])
      await delay(50)
    }
    for (const { name } of await this.sql<{ name: string }>('select pubname as name from pg_publication')) await this.sql(`drop publication "${name}"`)
    await this.sql(readFileSync(path.join(import.meta.dirname, 'load.sql'), 'utf8'))
  }

  /** Pid of the walsender that serves a slot other than `except`; 0 when there is none. */
  async walsender(): Promise<number> {
    return (await this.sql<{ pid: number }>('select active_pid as pid from pg_replication_slots where active_pid is not null'))[0]?.pid ?? 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#more.disposeAsync()
    await this.#pool?.end().catch(() => {})
    await this.#kafka?.kill()
    await this.#postgres?.stop('SIGQUIT')
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Bytes of the files below a folder, of those whose name `takes` likes. */
export function folderBytes(dir: string, takes: (file: string) => boolean = () => true): number {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile() && takes(entry.name))
  return files.reduce((sum, { parentPath, name }) => sum + statSync(path.join(parentPath, name)).size, 0)
}

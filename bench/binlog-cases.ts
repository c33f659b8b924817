/** The benchmarks that read a binlog, on a real MySQL or MariaDB. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { databaseOn, type Flavor, type MysqlDatabase, type MysqlServer, startMysql } from '../test/services/mysql.ts'
import type { CaseOptions } from './cases.ts'
import { drain } from './drain.ts'
import type { Lab } from './lab.ts'
import { type LogKind, MillraceRun } from './millrace-run.ts'

const PER_TRANSACTION = 1000

interface BinlogLab {
  readonly server: MysqlServer
  readonly db: MysqlDatabase
}

const labs = new Map<Flavor, BinlogLab>()

async function labOf(lab: Lab, flavor: Flavor): Promise<BinlogLab> {
  const known = labs.get(flavor)
  if (known !== undefined) return known
  process.env.MILLRACE_TEST_RUN ??= lab.folder('services')
  const server = await startMysql({ flavor, dir: lab.folder(flavor), settings: { 'innodb-buffer-pool-size': '512M', 'max-binlog-size': '1073741824' } })
  process.once('exit', () => process.kill(server.pid, 'SIGKILL'))
  const made = { server, db: await databaseOn(flavor, server.port, 'bench') }
  labs.set(flavor, made)
  return made
}

/** An empty table and its load procedures. */
async function freshTable(db: MysqlDatabase): Promise<void> {
  for (const statement of readFileSync(path.join(import.meta.dirname, 'load.mysql.sql'), 'utf8').split(/^-- next$/m)) await db.sql(statement)
}

const from = (db: MysqlDatabase) => ({ yaml: `    kind: mysql\n    url: ${db.url}\n    tables: ['bench.bench']\n`, topic: 'bench.bench.bench' })

const brokerPid = async (lab: Lab, log: LogKind) => (log === 'embedded' ? undefined : (await lab.kafka()).pid)

/** Drains a backlog of the binlog: `load` in transactions of a thousand rows, or in a single one. */
async function backlog(options: CaseOptions, flavor: Flavor, log: LogKind, label: string, load: string): Promise<void> {
  const { lab, rows, repetition } = options
  const { db, server } = await labOf(lab, flavor)
  await freshTable(db)
  await using run = await MillraceRun.prepare(lab, `${label}-${flavor}-${log}-${repetition}`, { log, from: from(db) })
  await run.provision()
  await db.sql(load)
  const before = await run.records()
  run.start()
  options.report(
    await drain({
      label: `${label} ${flavor} ${log}`,
      rows,
      before,
      expected: rows,
      records: () => run.records(),
      pid: () => run.pid,
      walsender: async () => server.pid,
      broker: await brokerPid(lab, log),
      launchedAt: run.startedAt,
    }),
  )
  await run.stop()
}

async function stream(options: CaseOptions, flavor: Flavor): Promise<void> {
  for (const log of options.logs) await backlog(options, flavor, log, 'stream', `call load_insert(1, ${options.rows}, ${PER_TRANSACTION})`)
}

async function bigTransaction(options: CaseOptions, flavor: Flavor): Promise<void> {
  for (const log of options.logs) await backlog(options, flavor, log, 'big-transaction', `call load_insert(1, ${options.rows}, ${options.rows + 1})`)
}

async function snapshot(options: CaseOptions, flavor: Flavor): Promise<void> {
  const { lab, rows, repetition } = options
  const { db, server } = await labOf(lab, flavor)
  for (const log of options.logs) {
    await freshTable(db)
    await db.sql(`call load_insert(1, ${rows}, 10000)`)
    await db.sql('analyze table bench')
    await using run = await MillraceRun.prepare(lab, `snapshot-${flavor}-${log}-${repetition}`, { log, snapshot: 'initial', from: from(db) })
    const before = await run.records()
    run.start()
    options.report(
      await drain({
        label: `snapshot ${flavor} ${log}`,
        rows,
        before,
        expected: rows,
        records: () => run.records(),
        pid: () => run.pid,
        walsender: async () => server.pid,
        broker: await brokerPid(lab, log),
        launchedAt: run.startedAt,
      }),
    )
    await run.stop()
  }
}

export const BINLOG: Readonly<Record<string, (options: CaseOptions, flavor: Flavor) => Promise<void>>> = { stream, snapshot, 'big-transaction': bigTransaction }

/** The benchmarks that read a binlog, on a real MySQL or MariaDB. */
import type { Flavor } from '../test/services/mysql.ts'
import { BinlogLab, PER_TRANSACTION } from './binlog-lab.ts'
import { brokerPid, type CaseOptions } from './cases.ts'
import { decode } from './decode.ts'
import { drain } from './drain.ts'
import { manyTables } from './many-tables.ts'
import { type LogKind, MillraceRun } from './millrace-run.ts'

export type BinlogCase = (options: CaseOptions, flavor: Flavor) => Promise<void>

const from = ({ db }: BinlogLab) => ({ yaml: `    kind: mysql\n    url: ${db.url}\n    tables: ['bench.bench']\n`, topic: 'bench.bench.bench' })

/** Drains a backlog of the binlog that `load` makes, of a table with the rows that `before` makes. */
async function backlog(options: CaseOptions, binlog: BinlogLab, log: LogKind, label: string, load: () => Promise<unknown>, before = async () => {}) {
  const { lab, rows, repetition } = options
  await binlog.freshTable()
  await before()
  await using run = await MillraceRun.prepare(lab, `${label.replaceAll(/[ ,]+/g, '-')}-${binlog.flavor}-${log}-${repetition}`, { log, from: from(binlog) })
  await run.provision()
  await load()
  const records = await run.records()
  run.start()
  options.report(
    await drain({
      label: `${label} ${binlog.flavor} ${log}`,
      rows,
      before: records,
      expected: rows,
      records: () => run.records(),
      bytes: () => run.bytes(),
      pid: () => run.pid,
      walsender: async () => binlog.server.pid,
      broker: await brokerPid(lab, log),
      launchedAt: run.startedAt,
    }),
  )
  await run.stop()
}

const stream: BinlogCase = async (options, flavor) => {
  const { lab, rows, logs } = options
  const binlog = await BinlogLab.of(lab, flavor)
  const { sql } = binlog.db
  for (const log of logs) await backlog(options, binlog, log, 'stream insert', () => sql(`call load_insert(1, ${rows}, ${PER_TRANSACTION})`))
  for (const log of logs) {
    const mixed = () => sql(`call load_mixed(${rows + 1}, ${rows}, ${PER_TRANSACTION})`)
    await backlog(options, binlog, log, 'stream mixed', mixed, async () => void (await sql(`call load_insert(1, ${rows}, 10000)`)))
  }
}

const bigTransaction: BinlogCase = async (options, flavor) => {
  const { lab, rows, logs } = options
  const binlog = await BinlogLab.of(lab, flavor)
  for (const log of logs) {
    for (const isCompressed of [false, true]) {
      await backlog(options, binlog, log, `big-transaction${isCompressed ? ', compressed' : ''}`, () => binlog.loadTransaction(1, rows, isCompressed))
    }
  }
}

const snapshot: BinlogCase = async (options, flavor) => {
  const { lab, rows, repetition, logs } = options
  const binlog = await BinlogLab.of(lab, flavor)
  for (const log of logs) {
    await binlog.freshTable()
    await binlog.db.sql(`call load_insert(1, ${rows}, 10000)`)
    await binlog.db.sql('analyze table bench')
    await using run = await MillraceRun.prepare(lab, `snapshot-${flavor}-${log}-${repetition}`, { log, snapshot: 'initial', from: from(binlog) })
    const before = await run.records()
    run.start()
    options.report(
      await drain({
        label: `snapshot ${flavor} ${log}`,
        rows,
        before,
        expected: rows,
        records: () => run.records(),
        bytes: () => run.bytes(),
        pid: () => run.pid,
        walsender: async () => binlog.server.pid,
        broker: await brokerPid(lab, log),
        launchedAt: run.startedAt,
      }),
    )
    await run.stop()
  }
}

const tables: BinlogCase = async (options, flavor) => {
  const binlog = await BinlogLab.of(options.lab, flavor)
  const { db, server } = binlog
  await manyTables(options, {
    name: flavor,
    from: { yaml: `    kind: mysql\n    url: ${db.url}\n    tables: ['bench.t_*']\n`, topic: 'bench.bench.t_0' },
    make: async (count) => {
      await binlog.freshTable()
      await db.sql(`call make_tables(${count})`)
    },
    load: (count, statements) => db.sql(`call load_tables(${count}, 1, ${statements})`),
    pid: async () => server.pid,
  })
}

export const BINLOG: Readonly<Record<string, BinlogCase>> = { stream, snapshot, 'big-transaction': bigTransaction, decode, tables }

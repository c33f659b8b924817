/** Debezium's MySQL and MariaDB connectors beside the benchmarks that read a binlog. */
import path from 'node:path'
import type { Flavor } from '../../test/services/mysql.ts'
import { BinlogLab, PER_TRANSACTION } from '../binlog-lab.ts'
import type { CaseOptions } from '../cases.ts'
import { drain, round } from '../drain.ts'
import type { Lab } from '../lab.ts'
import { resetPeakRss } from '../process-usage.ts'
import { Connect, type Settings, until } from './connect.ts'

/** The newest that Maven Central has whole. */
const CONNECTORS = {
  mysql: { artifact: 'debezium-connector-mysql', version: '3.6.1.Final', className: 'io.debezium.connector.mysql.MySqlConnector' },
  mariadb: { artifact: 'debezium-connector-mariadb', version: '3.5.0.Final', className: 'io.debezium.connector.mariadb.MariaDbConnector' },
} as const
const WARM_ROWS = 100_000

async function prepare(lab: Lab, { flavor, server }: BinlogLab, name: string, settings: Settings): Promise<Connect> {
  const { artifact, version, className } = CONNECTORS[flavor]
  return await Connect.prepare(
    lab,
    name,
    { artifact, version, table: 'bench.bench' },
    {
      'connector.class': className,
      'database.hostname': '127.0.0.1',
      'database.port': server.port,
      'database.user': 'root',
      'database.password': '',
      'database.server.id': 5400,
      'database.include.list': 'bench',
      ...(flavor === 'mysql' ? { 'database.ssl.mode': 'disabled' } : {}),
      'schema.history.internal': 'io.debezium.storage.file.history.FileSchemaHistory',
      'schema.history.internal.file.filename': path.join(lab.folder(`connect-${name}`), 'history'),
      // they go to a topic that the broker does not make by itself
      'include.schema.changes': false,
      'snapshot.mode': 'no_data',
      ...settings,
    },
  )
}

const nameOf = (prefix: string, repetition: number) => `${prefix}${repetition}_${Date.now() % 1e7}`

/** Starts it for the first time, and waits until a row came through. @returns records so far */
async function settle(connect: Connect, binlog: BinlogLab): Promise<number> {
  await connect.start()
  await connect.command('GET', 'status')
  await until('the peer reads the binlog', () => binlog.isStreamed())
  await binlog.db.sql('insert into bench (id) values (-1)')
  await until('the peer has a row', async () => (await connect.records()) > 0)
  return await connect.records()
}

async function stream(options: CaseOptions, flavor: Flavor): Promise<void> {
  const { lab, rows, repetition, report } = options
  const binlog = await BinlogLab.of(lab, flavor)
  await binlog.freshTable()
  await using connect = await prepare(lab, binlog, nameOf('dbz', repetition), {})
  let before = await settle(connect, binlog)
  let next = 1
  for (const run of ['insert, cold', 'insert, warm', 'mixed, warm']) {
    if (run === 'insert, cold') await connect.end()
    else await connect.command('PUT', 'stop')
    await until('the peer stopped', async () => !(await binlog.isStreamed()))
    await binlog.db.sql(`call load_${run.split(',')[0]}(${next}, ${rows}, ${PER_TRANSACTION})`)
    next += rows
    if (run === 'insert, cold') await connect.start()
    else {
      resetPeakRss(connect.pid)
      await connect.command('PUT', 'resume')
    }
    // a delete is followed by a tombstone
    const expected = run === 'mixed, warm' ? rows * 1.1 : rows
    report(
      await drain({
        label: `debezium ${flavor} stream ${run} (JSON, at-least-once)`,
        rows,
        before,
        expected,
        records: () => connect.records(),
        bytes: () => connect.bytes(),
        pid: () => connect.pid,
        walsender: async () => binlog.server.pid,
        broker: (await lab.kafka()).pid,
        launchedAt: run === 'insert, cold' ? connect.startedAt : null,
      }),
    )
    before += expected
  }
}

async function snapshot({ lab, rows, repetition, report }: CaseOptions, flavor: Flavor): Promise<void> {
  const binlog = await BinlogLab.of(lab, flavor)
  await binlog.freshTable()
  await binlog.db.sql(`call load_insert(1, ${rows}, 10000)`)
  await binlog.db.sql('analyze table bench')
  await using connect = await prepare(lab, binlog, nameOf('dbzsnap', repetition), { 'snapshot.mode': 'initial' })
  await connect.start()
  report(
    await drain({
      label: `debezium ${flavor} snapshot (JSON, at-least-once)`,
      rows,
      before: 0,
      expected: rows,
      records: () => connect.records(),
      bytes: () => connect.bytes(),
      pid: () => connect.pid,
      walsender: async () => binlog.server.pid,
      broker: (await lab.kafka()).pid,
      launchedAt: connect.startedAt,
    }),
  )
}

async function bigTransaction({ lab, rows, repetition, report }: CaseOptions, flavor: Flavor): Promise<void> {
  const binlog = await BinlogLab.of(lab, flavor)
  await binlog.freshTable()
  await using connect = await prepare(lab, binlog, nameOf('dbzbig', repetition), {})
  const before = await settle(connect, binlog)
  await binlog.db.sql(`call load_insert(1, ${WARM_ROWS}, ${PER_TRANSACTION})`)
  await until('the peer is warm', async () => (await connect.records()) === before + WARM_ROWS)
  const loading = binlog.loadTransaction(WARM_ROWS + 1, rows, false).then(() => performance.now())
  const measured = await drain({
    label: `debezium ${flavor} big-transaction, warm (JSON, at-least-once)`,
    rows,
    before: before + WARM_ROWS,
    expected: rows,
    records: () => connect.records(),
    bytes: () => connect.bytes(),
    pid: () => connect.pid,
    walsender: async () => binlog.server.pid,
    broker: (await lab.kafka()).pid,
    launchedAt: null,
  })
  report({ ...measured, commitToLastS: round((performance.now() - (await loading)) / 1000) })
}

/** The peer's side of each benchmark that it has one for. */
export const BINLOG_PEER: Readonly<Record<string, (options: CaseOptions, flavor: Flavor) => Promise<void>>> = {
  stream,
  snapshot,
  'big-transaction': bigTransaction,
}

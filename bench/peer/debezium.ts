/** Debezium's Postgres connector beside the benchmarks of the Postgres source. */
import { setTimeout as delay } from 'node:timers/promises'
import type { BenchCase, CaseOptions } from '../cases.ts'
import { drain, percentiles, round } from '../drain.ts'
import type { Lab } from '../lab.ts'
import { cpuSeconds, peakRssMb, resetPeakRss } from '../process-usage.ts'
import { Connect, type Settings, until } from './connect.ts'

const CONNECTOR = { artifact: 'debezium-connector-postgres', version: '3.7.0.Final', table: 'public.bench' }

async function prepare(lab: Lab, name: string, settings: Settings): Promise<Connect> {
  const connect = await Connect.prepare(lab, name, CONNECTOR, {
    'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
    'plugin.name': 'pgoutput',
    'database.hostname': '127.0.0.1',
    'database.port': (await lab.postgres()).port,
    'database.user': 'postgres',
    'database.password': 'postgres',
    'database.dbname': 'postgres',
    'slot.name': name,
    'publication.name': name,
    'publication.autocreate.mode': 'disabled',
    'snapshot.mode': 'no_data',
    ...settings,
  })
  await lab.sql(`create publication ${name} for table bench`)
  return connect
}

function slotName(prefix: string, repetition: number): string {
  return `${prefix}${repetition}_${Date.now() % 1e7}`
}

async function cold(options: CaseOptions, extra: Settings, kind: 'insert' | 'snapshot'): Promise<void> {
  const { lab, rows, repetition } = options
  await lab.freshTable()
  const name = slotName('dbz', repetition)
  if (kind === 'snapshot') {
    await lab.sql(`call load_insert(1, ${rows}, 10000)`)
    await lab.sql('vacuum analyze bench')
  }
  await using connect = await prepare(lab, name, extra)
  if (kind === 'insert') {
    await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
    await lab.sql(`call load_insert(1, ${rows}, 1000)`)
  }
  await lab.sql('checkpoint')
  await connect.start()
  options.report(
    await drain({
      label: `debezium ${kind === 'insert' ? 'stream insert, cold' : 'snapshot'} (JSON, at-least-once)`,
      rows,
      before: 0,
      expected: rows,
      records: () => connect.records(),
      bytes: () => connect.bytes(),
      pid: () => connect.pid,
      walsender: () => lab.walsender(),
      broker: (await lab.kafka()).pid,
      launchedAt: connect.startedAt,
    }),
  )
  if (kind === 'insert') await warm(options, connect)
}

/** The same JVM, stopped while the WAL gathers: the peer at its best. */
async function warm({ lab, rows, report }: CaseOptions, connect: Connect): Promise<void> {
  let before = await connect.records()
  for (const kind of ['insert', 'mixed', 'mixed-full'] as const) {
    await connect.command('PUT', 'stop')
    while ((await lab.walsender()) > 0) await delay(50)
    if (kind === 'mixed-full') await lab.sql('alter table bench replica identity full')
    const next = (await lab.sql<{ next: string }>('select max(id) + 1 as next from bench'))[0]!.next
    await lab.sql(kind === 'insert' ? `call load_insert(${next}, ${rows}, 1000)` : `call load_mixed(${next}, ${rows}, 1000)`)
    await lab.sql('checkpoint')
    resetPeakRss(connect.pid)
    // a delete is followed by a tombstone
    const expected = kind === 'insert' ? rows : rows * 1.1
    await connect.command('PUT', 'resume')
    report(
      await drain({
        label: `debezium stream ${kind}, warm (JSON, at-least-once)`,
        rows,
        before,
        expected,
        records: () => connect.records(),
        bytes: () => connect.bytes(),
        pid: () => connect.pid,
        walsender: () => lab.walsender(),
        broker: (await lab.kafka()).pid,
        launchedAt: null,
      }),
    )
    before += expected
  }
}

async function latency({ lab, repetition, report }: CaseOptions): Promise<void> {
  await lab.freshTable()
  const name = slotName('dbzlat', repetition)
  await using connect = await prepare(lab, name, {})
  await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  await connect.start()
  // a JVM warmed by 200,000 rows, as the peer is at its best
  await lab.sql('call load_insert(1, 200000, 1000)')
  while ((await connect.records()) < 200_000) await delay(50)
  const walsender = await lab.walsender()
  const cpu = cpuSeconds(connect.pid)
  const walCpu = cpuSeconds(walsender)
  const count = 60_000
  const startedAt = performance.now()
  await lab.sql(`call load_steady(1000001, ${count}, 2000)`)
  while ((await connect.records()) < 200_000 + count) await delay(50)
  const seconds = (performance.now() - startedAt) / 1000
  const used = cpuSeconds(connect.pid) - cpu
  const ages = await connect.latencies(200_000, 200_000 + count)
  report({
    label: 'debezium latency, warm (JSON, at-least-once)',
    rows: count,
    rowsPerSecond: Math.round(count / seconds),
    firstRecordS: null,
    cpuPerMillion: round((used * 1e6) / count),
    cpuFromLaunchPerMillion: Number.NaN,
    walsenderCpuPerMillion: round(((cpuSeconds(walsender) - walCpu) * 1e6) / count),
    brokerCpuPerMillion: null,
    peakRssMb: Math.round(peakRssMb(connect.pid)),
    ...percentiles(ages),
  })
}

async function bigTransaction({ lab, rows, repetition, report }: CaseOptions): Promise<void> {
  await lab.freshTable()
  const name = slotName('dbzbig', repetition)
  await using connect = await prepare(lab, name, {})
  await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  await connect.start()
  await lab.sql('call load_insert(1, 100000, 1000)')
  while ((await connect.records()) < 100_000) await delay(50)
  const loading = lab.sql(`call load_one_transaction(1000001, ${rows})`).then(() => performance.now())
  const measured = await drain({
    label: 'debezium big-transaction, warm (JSON, at-least-once)',
    rows,
    before: 100_000,
    expected: rows,
    records: () => connect.records(),
    bytes: () => connect.bytes(),
    pid: () => connect.pid,
    walsender: () => lab.walsender(),
    broker: (await lab.kafka()).pid,
    launchedAt: null,
  })
  report({ ...measured, commitToLastS: round((performance.now() - (await loading)) / 1000) })
}

/** From a launch on stored offsets to the first record, one row waiting, as ours is measured. */
async function start({ lab, repetition, report }: CaseOptions): Promise<void> {
  await lab.freshTable()
  const name = slotName('dbzstart', repetition)
  await using connect = await prepare(lab, name, {})
  await lab.sql(`select pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  await connect.start()
  await lab.sql('call load_insert(1, 1, 1)')
  await until('the peer has a row', async () => (await connect.records()) === 1)
  await connect.end()
  await until('the peer stopped', async () => (await lab.walsender()) === 0)
  await lab.sql('call load_insert(2, 1, 1)')
  const before = await connect.records()
  await connect.start()
  await until('the peer has another row', async () => (await connect.records()) > before, 5)
  report({
    label: 'debezium start (JSON, at-least-once)',
    rows: 1,
    rowsPerSecond: Number.NaN,
    firstRecordS: round((performance.now() - connect.startedAt) / 1000),
    cpuPerMillion: Number.NaN,
    cpuFromLaunchPerMillion: Number.NaN,
    walsenderCpuPerMillion: null,
    brokerCpuPerMillion: null,
    peakRssMb: Math.round(peakRssMb(connect.pid)),
    cpuS: round(cpuSeconds(connect.pid)),
  })
}

/** The peer's side of each benchmark that it has one for. */
export const PEER: Readonly<Record<string, BenchCase>> = {
  stream: (options) => cold(options, {}, 'insert'),
  snapshot: (options) => cold(options, { 'snapshot.mode': 'initial' }, 'snapshot'),
  latency,
  'big-transaction': bigTransaction,
  start,
}

/** The benchmarks: each a function over a lab that returns its measurements. */
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { records } from '../core/event/record-batch.ts'
import { RecordDecoders } from '../core/schema/record-decoder.ts'
import { drain, type Measurement, percentiles, round } from './drain.ts'
import type { Lab } from './lab.ts'
import { type LogKind, MillraceRun, TOPIC } from './millrace-run.ts'
import { cpuSeconds, epochOfMonotonicClock, peakRssMb, resetPeakRss } from './process-usage.ts'

export interface CaseOptions {
  readonly lab: Lab
  readonly rows: number
  readonly logs: readonly LogKind[]
  /** Which repetition this is, from 0; part of names. */
  readonly repetition: number
  readonly report: (measurement: Measurement) => void
}

export type BenchCase = (options: CaseOptions) => Promise<void>

const PER_TRANSACTION = 1000
const LATENCY_RATE = 2000
const LATENCY_SECONDS = 30
const WARM_UP_SECONDS = 10

export async function brokerPid(lab: Lab, log: LogKind): Promise<number | undefined> {
  return log === 'embedded' ? undefined : (await lab.kafka()).pid
}

/** A variant of a run: appended to its label, with further arguments of Node. */
interface Variant {
  readonly name: string
  readonly nodeArgs: readonly string[]
}

/** Drains a backlog of WAL: provision, load, launch, watch. */
export async function backlog(options: CaseOptions, log: LogKind, kind: 'insert' | 'mixed' | 'mixed-full', variant?: Variant): Promise<void> {
  const { lab, rows, repetition } = options
  const suffix = variant === undefined ? '' : `-${variant.name.replaceAll(' ', '-')}`
  await lab.freshTable()
  if (kind !== 'insert') {
    await lab.sql(`call load_insert(1, ${rows}, 10000)`)
    if (kind === 'mixed-full') await lab.sql('alter table bench replica identity full')
  }
  await using run = await MillraceRun.prepare(lab, `stream-${kind}-${log}-${repetition}${suffix}`, { log, nodeArgs: variant?.nodeArgs ?? [] })
  await run.provision()
  await lab.sql(kind === 'insert' ? `call load_insert(1, ${rows}, ${PER_TRANSACTION})` : `call load_mixed(${rows + 1}, ${rows}, ${PER_TRANSACTION})`)
  await lab.sql('checkpoint')
  const before = await run.records()
  run.start()
  const measured = await drain({
    label: `stream ${kind} ${log}${variant === undefined ? '' : `, ${variant.name}`}`,
    rows,
    before,
    expected: rows,
    records: () => run.records(),
    bytes: () => run.bytes(),
    pid: () => run.pid,
    walsender: () => lab.walsender(),
    broker: await brokerPid(lab, log),
    launchedAt: run.startedAt,
  })
  options.report(measured)
  await run.stop()
}

export const stream: BenchCase = async (options) => {
  for (const log of options.logs) await backlog(options, log, 'insert')
  for (const log of options.logs) {
    await backlog(options, log, 'mixed')
    await backlog(options, log, 'mixed-full')
  }
  await receiveOnly(options)
}

/** Postgres' own client on the same WAL, to /dev/null: what the walsender gives an eager reader. */
async function receiveOnly({ lab, rows, report }: CaseOptions): Promise<void> {
  await lab.freshTable()
  const { port } = await lab.postgres()
  await lab.sql('create publication ceiling for table bench')
  await lab.sql("select pg_create_logical_replication_slot('ceiling', 'pgoutput')")
  await lab.sql(`call load_insert(1, ${rows}, ${PER_TRANSACTION})`)
  const end = (await lab.sql<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn'))[0]!.lsn
  const startedAt = performance.now()
  try {
    execFileSync(
      'pg_recvlogical',
      [
        '-h',
        '127.0.0.1',
        '-p',
        String(port),
        '-U',
        'postgres',
        '-d',
        'postgres',
        '--slot',
        'ceiling',
        '--start',
        '--no-loop',
        '-f',
        '/dev/null',
        '-F',
        '0',
        '-o',
        'proto_version=1',
        '-o',
        'publication_names=ceiling',
        `--endpos=${end}`,
      ],
      { stdio: 'ignore' },
    )
  } catch (error) {
    process.stderr.write(`pg_recvlogical cannot be run here (${(error as Error).message.split('\n')[0]}): its row is left out\n`)
    return
  }
  const seconds = (performance.now() - startedAt) / 1000
  report({
    label: 'pg_recvlogical to /dev/null',
    rows,
    rowsPerSecond: Math.round(rows / seconds),
    firstRecordS: null,
    cpuPerMillion: Number.NaN,
    cpuFromLaunchPerMillion: Number.NaN,
    walsenderCpuPerMillion: null,
    brokerCpuPerMillion: null,
    peakRssMb: 0,
  })
}

export const snapshot: BenchCase = async (options) => {
  const { lab, rows, repetition } = options
  for (const log of options.logs) {
    await lab.freshTable()
    await lab.sql(`call load_insert(1, ${rows}, 10000)`)
    await lab.sql('vacuum analyze bench')
    await lab.sql('checkpoint')
    await using run = await MillraceRun.prepare(lab, `snapshot-${log}-${repetition}`, { log, snapshot: 'initial' })
    // on Kafka the topic of an earlier repetition is still there
    const before = await run.records()
    run.start()
    options.report(
      await drain({
        label: `snapshot ${log}`,
        rows,
        before,
        expected: rows,
        records: () => run.records(),
        bytes: () => run.bytes(),
        pid: () => run.pid,
        broker: await brokerPid(lab, log),
        launchedAt: run.startedAt,
      }),
    )
  }
}

export const bigTransaction: BenchCase = async (options) => {
  const { lab, rows, repetition } = options
  for (const log of options.logs) {
    await lab.freshTable()
    await using run = await MillraceRun.prepare(lab, `big-${log}-${repetition}`, { log })
    await run.provision()
    const before = await run.records()
    run.start()
    await run.streaming()
    const startedAt = performance.now()
    const loading = lab.sql(`call load_one_transaction(1, ${rows})`).then(() => performance.now())
    const measured = await drain({
      label: `big-transaction ${log}`,
      rows,
      before,
      expected: rows,
      records: () => run.records(),
      bytes: () => run.bytes(),
      pid: () => run.pid,
      walsender: () => lab.walsender(),
      broker: await brokerPid(lab, log),
      launchedAt: null,
    })
    const committedAt = await loading
    options.report({ ...measured, commitToLastS: round((performance.now() - committedAt) / 1000), loadS: round((committedAt - startedAt) / 1000) })
  }
}

/**
 * Commit time to the moment at which a committed reader in another process holds the record. All of it runs at the same rate for a while first: what is
 * measured is a mesh that runs, not compilers that warm up.
 */
export const latency: BenchCase = async (options) => {
  const { lab, repetition } = options
  const count = LATENCY_RATE * LATENCY_SECONDS
  for (const log of options.logs) {
    await lab.freshTable()
    await using run = await MillraceRun.prepare(lab, `latency-${log}-${repetition}`, { log })
    await run.provision()
    const broker = (await brokerPid(lab, log)) ?? 0
    const offset = BigInt(await run.records())
    run.start()
    const walsender = await run.streaming()
    const reader = (await run.reader())!
    const ages: number[] = []
    let measuredFromMs = Number.POSITIVE_INFINITY
    let epochMs = epochOfMonotonicClock()
    const stop = new AbortController()
    const registry = await import('../core/schema/embedded-registry.ts').then(({ openEmbeddedRegistry }) =>
      openEmbeddedRegistry({ file: path.join(run.dir, 'state', 'registry.db') }),
    )
    const decoders = new RecordDecoders(registry)
    const reading = (async () => {
      for await (const batch of reader.consume([{ topic: TOPIC, partition: 0, offset }], stop.signal)) {
        const now = epochMs + performance.now()
        await decoders.prepare(batch.frame)
        for (const record of records(batch.frame)) {
          const change = decoders.decode(batch.frame, record)
          if (change === null) continue
          const committedAtMs = Number(change.committedAt) / 1000
          if (committedAtMs >= measuredFromMs) ages.push(now - committedAtMs)
        }
        if (ages.length >= count) return
      }
    })()
    const warmUp = LATENCY_RATE * WARM_UP_SECONDS
    await lab.sql(`call load_steady(1, ${warmUp}, ${LATENCY_RATE})`)
    epochMs = epochOfMonotonicClock()
    measuredFromMs = Date.now()
    const usage = () => [run.pid, walsender, broker].map(cpuSeconds) as [number, number, number]
    const before = usage()
    resetPeakRss(run.pid)
    const startedAt = performance.now()
    await lab.sql(`call load_steady(${warmUp + 1}, ${count}, ${LATENCY_RATE})`)
    await reading
    stop.abort()
    const seconds = (performance.now() - startedAt) / 1000
    const [ours, theirs, brokers] = usage().map((used, i) => round(((used - before[i]!) * 1e6) / count)) as [number, number, number]
    options.report({
      label: `latency ${log}`,
      rows: count,
      rowsPerSecond: Math.round(count / seconds),
      firstRecordS: null,
      cpuPerMillion: ours,
      cpuFromLaunchPerMillion: Number.NaN,
      walsenderCpuPerMillion: theirs,
      brokerCpuPerMillion: broker === 0 ? null : brokers,
      peakRssMb: Math.round(peakRssMb(run.pid)),
      ...percentiles(ages),
    })
    await registry[Symbol.asyncDispose]()
  }
}

/** Launch to the first record readable, with one row waiting in the WAL. */
export const start: BenchCase = async (options) => {
  const { lab, repetition } = options
  for (const log of options.logs) {
    await lab.freshTable()
    await using run = await MillraceRun.prepare(lab, `start-${log}-${repetition}`, { log })
    await run.provision()
    await lab.sql('call load_insert(1, 1, 1)')
    const before = await run.records()
    run.start()
    while ((await run.records()) === before) await delay(2)
    options.report({
      label: `start ${log}`,
      rows: 1,
      rowsPerSecond: Number.NaN,
      firstRecordS: round((performance.now() - run.startedAt) / 1000),
      cpuPerMillion: Number.NaN,
      cpuFromLaunchPerMillion: Number.NaN,
      walsenderCpuPerMillion: null,
      brokerCpuPerMillion: null,
      peakRssMb: Math.round(peakRssMb(run.pid)),
      cpuS: round(cpuSeconds(run.pid)),
    })
  }
}

/** From a full log to the Iceberg table: snapshot into the log first, then the sink alone. */
export const iceberg: BenchCase = async (options) => {
  const { lab, rows, repetition } = options
  await lab.freshTable()
  await lab.sql(`call load_insert(1, ${rows}, 10000)`)
  const sinks = '  lake: { kind: iceberg, from: [bench], warehouse: ./warehouse }\n'
  await using run = await MillraceRun.prepare(lab, `iceberg-${repetition}`, { log: 'embedded', snapshot: 'initial' })
  run.start()
  while ((await run.records()) < rows) await delay(50)
  await run.stop()
  // an upsert of every second row, so that keys exist before
  await lab.sql('update bench set qty = qty + 1 where id % 2 = 0')
  run.start()
  while ((await run.records()) < rows * 1.5) await delay(50)
  await run.stop()
  await using lake = await MillraceRun.prepare(lab, `iceberg-${repetition}`, { log: 'embedded', snapshot: 'initial', sinks })
  lake.start()
  options.report(
    await drain({
      label: 'iceberg upsert',
      rows: rows * 1.5,
      before: 0,
      expected: rows * 1.5,
      records: () => lake.rowsOf('lake'),
      // each look is a request to the measured process
      pollMs: 50,
      pid: () => lake.pid,
      launchedAt: lake.startedAt,
    }),
  )
}

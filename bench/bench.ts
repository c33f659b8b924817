/** `npm run bench -- NAME [options]`: measures Millrace, beside a peer in the same run when asked to. */
import { parseArgs } from 'node:util'
import { FLAVORS, type Flavor } from '../test/services/mysql.ts'
import { auditCost } from './audit-cost.ts'
import { BINLOG } from './binlog-cases.ts'
import type { BenchCase } from './cases.ts'
import * as cases from './cases.ts'
import { commitLog } from './commit-log.ts'
import type { Measurement } from './drain.ts'
import { Lab } from './lab.ts'
import { tables } from './many-tables.ts'
import type { LogKind } from './millrace-run.ts'
import { PEER } from './peer/debezium.ts'
import { BINLOG_PEER } from './peer/debezium-binlog.ts'
import { machine } from './process-usage.ts'
import { median, type Ratio, ratios } from './ratios.ts'

const CASES: Readonly<Record<string, BenchCase>> = {
  stream: cases.stream,
  snapshot: cases.snapshot,
  latency: cases.latency,
  'big-transaction': cases.bigTransaction,
  start: cases.start,
  tables,
  iceberg: cases.iceberg,
  audit: auditCost,
  'commit-log': commitLog,
}
const HELP = `npm run bench -- NAME [options]

  NAME               ${Object.keys(CASES).join(', ')}, or all
  --source NAMES     mysql, mariadb or both instead of postgres: ${Object.keys(BINLOG).join(', ')}
  --peer debezium    measures Kafka Connect + Debezium in the same run (needs a JDK and mvn)
  --log KINDS        embedded, kafka (exactly-once), kafka-idempotent; commas between (default embedded,kafka)
  --rows N           rows of a backlog (default 1000000)
  --runs N           repetitions (default 3)
  --json             one JSON document on stdout

Nothing else should run beside it: everything shares this machine's cores.`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' },
    source: { type: 'string', default: 'postgres' },
    log: { type: 'string', default: 'embedded,kafka' },
    rows: { type: 'string', default: '1000000' },
    runs: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
/** Whose benchmarks these are: null is Postgres and what needs no source. */
const flavors: readonly (Flavor | null)[] = values.source === 'postgres' ? [null] : (values.source.split(',') as Flavor[])
const known = Object.keys(flavors[0] === null ? CASES : BINLOG)
const names = positionals[0] === 'all' ? known : positionals
const unknown = names.filter((name) => !known.includes(name))
const isUnderstood = flavors.every((flavor) => flavor === null || FLAVORS.includes(flavor)) && (values.peer === undefined || values.peer === 'debezium')
if (values.help || names.length === 0 || unknown.length > 0 || !isUnderstood) {
  if (unknown.length > 0) process.stderr.write(`there is no benchmark ${unknown.join(', ')}\n\n`)
  process.stderr.write(`${HELP}\n`)
  process.exit(values.help ? 0 : 2)
}

const measurements: Measurement[] = []
const toOthers: Ratio[] = []
const lab = new Lab()
const end = () => lab[Symbol.asyncDispose]().finally(() => process.exit(130))
process.once('SIGINT', end)
process.once('SIGTERM', end)
try {
  for (const flavor of flavors) for (const name of names) await measure(name, flavor)
} finally {
  await lab[Symbol.asyncDispose]()
}
if (values.json) process.stdout.write(`${JSON.stringify({ machine: machine(), rows: Number(values.rows), measurements, ratios: toOthers })}\n`)
else process.stdout.write(`${summary()}\n`)

async function measure(name: string, flavor: Flavor | null): Promise<void> {
  const first = measurements.length
  for (let repetition = 0; repetition < Number(values.runs); repetition++) {
    const options = {
      lab,
      rows: Number(values.rows),
      logs: values.log.split(',') as LogKind[],
      repetition,
      report: (measurement: Measurement) => {
        measurements.push(measurement)
        process.stderr.write(`${JSON.stringify(measurement)}\n`)
      },
    }
    await (flavor === null ? CASES[name]!(options) : BINLOG[name]!(options, flavor))
    if (values.peer === 'debezium') await (flavor === null ? PEER[name]?.(options) : BINLOG_PEER[name]?.(options, flavor))
  }
  toOthers.push(...ratios(measurements.slice(first)))
}

/** A Markdown table: median (minimum–maximum) of each figure by label; then how many times better our median is than the best of the others. */
function summary(): string {
  const labels = [...new Set(measurements.map(({ label }) => label))]
  const extra = [...new Set(measurements.flatMap((measurement) => Object.keys(measurement)))].filter((key) => !['label', 'rows'].includes(key))
  const columns = extra.filter((key) => measurements.some((measurement) => typeof measurement[key] === 'number' && !Number.isNaN(measurement[key])))
  const lines = labels.map((label) => {
    const of = measurements.filter((measurement) => measurement.label === label)
    return [label, ...columns.map((column) => spread(of.map((measurement) => measurement[column])))]
  })
  const table = [['', ...columns], ['', ...columns].map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`)
  return [...table, '', ...toOthers.map(({ label, to, figure, times }) => `${label}: ${figure} ${times} × as good as the best of ${to}`)].join('\n')
}

function spread(values: readonly (string | number | null | undefined)[]): string {
  const numbers = values.filter((value): value is number => typeof value === 'number' && !Number.isNaN(value)).sort((a, b) => a - b)
  if (numbers.length === 0) return '–'
  return numbers.length === 1 ? String(numbers[0]) : `${median(numbers)} (${numbers[0]}–${numbers.at(-1)})`
}

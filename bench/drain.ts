/** Watching one process carry a known number of records into a log. */
import { setTimeout as delay } from 'node:timers/promises'
import { cpuSeconds, peakRssMb } from './process-usage.ts'

export interface Measurement {
  readonly label: string
  /** Rows changed, the unit of every rate. */
  readonly rows: number
  readonly rowsPerSecond: number
  /** From launch to the first record readable. */
  readonly firstRecordS: number | null
  /** CPU seconds per million rows between the first and the last record. */
  readonly cpuPerMillion: number
  /** The same, from launch to the last record. */
  readonly cpuFromLaunchPerMillion: number
  readonly walsenderCpuPerMillion: number | null
  readonly brokerCpuPerMillion: number | null
  readonly peakRssMb: number
  /** Bytes that the log holds more than before, per row, on disk; absent where nobody looked. */
  readonly bytesPerRow?: number
  readonly [more: string]: string | number | null | undefined
}

export interface DrainOptions {
  readonly label: string
  readonly rows: number
  /** Records in the log before, and how many are to come. */
  readonly before: number
  readonly expected: number
  readonly records: () => Promise<number>
  readonly pid: () => number
  readonly walsender?: (() => Promise<number>) | undefined
  readonly broker?: number | undefined
  /** Bytes of the records in the log, on disk. */
  readonly bytes?: () => number
  /** `performance.now()` at launch; null when the process ran already. */
  readonly launchedAt: number | null
  /** Between two looks; 5 by default. */
  readonly pollMs?: number
}

const POLL_MS = 5
const STUCK_MS = 120_000

/** @throws when nothing moves for two minutes */
export async function drain(options: DrainOptions): Promise<Measurement> {
  const { pid, broker } = options
  const startCpu = options.launchedAt === null ? cpuSeconds(pid()) : 0
  const snap = (walsender: number) => ({
    at: performance.now(),
    cpu: cpuSeconds(pid()),
    broker: broker === undefined ? 0 : cpuSeconds(broker),
    walsender: cpuSeconds(walsender),
  })
  const bytesBefore = options.bytes?.() ?? 0
  let walsender = 0
  let first: ReturnType<typeof snap> | null = null
  let firstCount = options.before
  let last = options.before
  let movedAt = performance.now()
  for (;;) {
    const count = await options.records()
    if (count > options.before && first === null) {
      walsender = (await options.walsender?.()) ?? 0
      first = snap(walsender)
      firstCount = count
    }
    if (count >= options.before + options.expected) break
    if (count !== last) {
      last = count
      movedAt = performance.now()
    } else if (performance.now() - movedAt > STUCK_MS) throw new Error(`${options.label}: stuck at ${count - options.before} of ${options.expected} records`)
    await delay(options.pollMs ?? POLL_MS)
  }
  const end = snap(walsender)
  const begin = first ?? end
  const seconds = (end.at - begin.at) / 1000
  // what came with the first look was carried before it
  const carried = (options.rows * (options.before + options.expected - firstCount)) / options.expected
  const per = (value: number, rows = carried) => round((value * 1e6) / Math.max(1, rows))
  return {
    label: options.label,
    rows: options.rows,
    rowsPerSecond: Math.round(carried / Math.max(seconds, 0.001)),
    firstRecordS: options.launchedAt === null ? null : round((begin.at - options.launchedAt) / 1000),
    cpuPerMillion: per(end.cpu - begin.cpu),
    cpuFromLaunchPerMillion: per(end.cpu - startCpu, options.rows),
    walsenderCpuPerMillion: walsender === 0 ? null : per(end.walsender - begin.walsender),
    brokerCpuPerMillion: broker === undefined ? null : per(end.broker - begin.broker),
    peakRssMb: Math.round(peakRssMb(pid())),
    ...(options.bytes === undefined ? {} : { bytesPerRow: Math.round((options.bytes() - bytesBefore) / options.rows) }),
  }
}

export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits))
}

export function percentiles(values: readonly number[]): { p50: number; p90: number; p99: number; p999: number; max: number } {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (p: number) => round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN)
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: round(sorted.at(-1) ?? Number.NaN) }
}

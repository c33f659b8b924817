/** From the binlog to JavaScript objects and nothing else, each reader in a process of its own: ours, and the package that most Node.js programs use. */
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { cached } from '../test/services/maven.ts'
import type { Flavor } from '../test/services/mysql.ts'
import { BinlogLab, PER_TRANSACTION } from './binlog-lab.ts'
import type { CaseOptions } from './cases.ts'

/** MIT, upkept: its last version was four months old when this was written. Fetched here alone. */
const ZONGJI = '0.9.0'

const execute = promisify(execFile)

/** What a reader is told: where, from which GTIDs, and after how many rows it ends. */
export interface DecodeTask {
  readonly flavor: Flavor
  readonly host: string
  readonly port: number
  readonly gtids: string
  readonly rows: number
  /** Folder with the package. */
  readonly zongji: string
}

/** From the first row to the last. */
export interface DecodeResult {
  readonly rowsPerSecond: number
  readonly cpuPerMillion: number
  readonly peakRssMb: number
}

export async function decode({ lab, rows, report }: CaseOptions, flavor: Flavor): Promise<void> {
  const zongji = await cached(`zongji-${ZONGJI}`, async (dir) => {
    await execute('npm', ['install', '--prefix', dir, '--no-save', '--no-audit', '--no-fund', `@vlasky/zongji@${ZONGJI}`])
  })
  const binlog = await BinlogLab.of(lab, flavor)
  await binlog.freshTable()
  const gtids = await binlog.gtids()
  await binlog.db.sql(`call load_insert(1, ${rows}, ${PER_TRANSACTION})`)
  const task: DecodeTask = { flavor, host: '127.0.0.1', port: binlog.server.port, gtids, rows, zongji }
  for (const [label, file] of [
    [`decode ${flavor}`, 'decode-millrace.ts'],
    [`zongji decode ${flavor}`, 'peer/zongji.ts'],
  ] as const) {
    const { stdout } = await execute(process.execPath, [path.join(import.meta.dirname, file), JSON.stringify(task)])
    const result = JSON.parse(stdout) as DecodeResult
    report({ label, rows, ...result, firstRecordS: null, cpuFromLaunchPerMillion: Number.NaN, walsenderCpuPerMillion: null, brokerCpuPerMillion: null })
  }
}

/** Counts the rows of one reader. */
export class DecodeMeter {
  readonly #rows: number
  #seen = 0
  #first = 0
  #startedAt = 0
  #cpu = process.cpuUsage()

  constructor(rows: number) {
    this.#rows = rows
  }

  /** @returns whether those were the last */
  count(rows: number): boolean {
    if (this.#first === 0) {
      this.#startedAt = performance.now()
      this.#cpu = process.cpuUsage()
      this.#first = rows
    }
    this.#seen += rows
    return this.#seen >= this.#rows
  }

  print(): void {
    const rows = this.#seen - this.#first
    const { user, system } = process.cpuUsage(this.#cpu)
    const result: DecodeResult = {
      rowsPerSecond: Math.round((rows / (performance.now() - this.#startedAt)) * 1000),
      cpuPerMillion: Number(((user + system) / rows).toFixed(2)),
      peakRssMb: Math.round(process.resourceUsage().maxRSS / 1024),
    }
    process.stdout.write(JSON.stringify(result))
  }
}

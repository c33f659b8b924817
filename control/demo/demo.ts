/**
 * `npm run demo`: the whole of Millrace on one machine without any service. Starts a real Postgres, loads a shop, runs the quickstart mesh as its own process while a
 * live workload changes the shop, and proves at the end that source, log, lake and search index are equal.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { readRunning } from '../../core/runtime/data-folder.ts'
import { renderAudit } from '../cli/audit-command.ts'
import { formatCount } from '../cli/figures.ts'
import { startPostgres } from './postgres-server.ts'
import { createShop, EXAMPLE_QUERY, runWorkload } from './shop.ts'

const HELP = `npm run demo -- [options]

Runs Postgres → Avro log → Iceberg and search on this machine and proves them equal.

  --seconds N   length of the live workload (default 15)
  --rows N      rows loaded before it (default 20000)
  --dir D       where everything is kept (default .millrace/demo; emptied first)
  --json        one JSON document on stdout, everything else on stderr (npm run -s demo -- --json: without -s npm itself writes to stdout);
                when the demo fails: {"equal": false, "error": {"message": …}}
  --keep        leave Postgres running at the end, to look around

Exits 0 when all are equal, 1 when they differ or it fails, 2 for options it does not know. Ctrl-C (130), SIGTERM (143) and SIGHUP (129)
end all that it started; once --keep leaves Postgres running, with the code of the result.`

interface AuditDocument {
  readonly ok: boolean
  readonly result: {
    readonly equal: boolean
    readonly audit: readonly {
      readonly table: string
      readonly equal: boolean
      readonly source: Side
      readonly log: Side
      readonly sinks: Readonly<Record<string, Side>>
      readonly differences: readonly string[]
    }[]
  }
  readonly error?: { readonly message: string }
}
interface Side {
  readonly rows: number
  readonly checksum: string
}

/** Marks a folder as one that may be emptied. */
const MADE_BY_DEMO = '.made-by-millrace-demo'
const repository = path.join(import.meta.dirname, '..', '..')
const millrace = path.join(repository, 'control', 'cli', 'millrace.js')

/** What ends the demo: Ctrl-C, a supervisor, a terminal that is closed. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** The demo cannot begin as it was asked to. */
class UsageError extends Error {}

/** One of {@link SIGNALS} came. */
class Interrupted extends Error {
  readonly exitCode: number

  constructor(signal: (typeof SIGNALS)[number]) {
    super(`stopped by ${signal}`)
    this.exitCode = 128 + os.constants.signals[signal]
  }
}

/** Aborts when the user wants to end, with {@link Interrupted}. Later signals change nothing: npm sends on the one that a terminal sends to all. */
function untilInterrupted(): AbortSignal {
  const stop = new AbortController()
  for (const name of SIGNALS) process.on(name, () => stop.abort(new Interrupted(name)))
  return stop.signal
}

/** The outcome of `work`, unless `stop` aborts before. A terminal's Ctrl-C reaches what was started, too, whose end is no failure then. */
async function unless<T>(stop: AbortSignal, work: Promise<T>): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  aborted.promise.catch(() => {})
  const abort = () => aborted.reject(stop.reason)
  stop.addEventListener('abort', abort, { once: true })
  if (stop.aborted) abort()
  try {
    return await Promise.race([work, aborted.promise])
  } catch (error) {
    await turn()
    throw stop.aborted ? stop.reason : error
  } finally {
    stop.removeEventListener('abort', abort)
  }
}

function count(name: string, text: string | undefined, preset: number): number {
  if (text === undefined) return preset
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value > 10_000_000) throw new UsageError(`--${name} takes a whole number, not ${text}`)
  return value
}

async function main(): Promise<number> {
  let parsed: ReturnType<typeof options>
  try {
    parsed = options()
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n\n${HELP}`)
  }
  const { values } = parsed
  if (values.help) {
    process.stdout.write(`${HELP}\n`)
    return 0
  }
  const seconds = count('seconds', values.seconds, 15)
  const rows = count('rows', values.rows, 20_000)
  const dir = path.resolve(values.dir ?? path.join('.millrace', 'demo'))
  const say = (text: string) => process.stderr.write(`${text}\n`)
  const startedAt = Date.now()

  if (existsSync(dir) && values.dir !== undefined && !existsSync(path.join(dir, MADE_BY_DEMO)) && readdirNotEmpty(dir)) {
    throw new UsageError(`${dir} is not empty and not from an earlier demo: choose another --dir`)
  }
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(dir, { recursive: true })
  writeFileSync(path.join(dir, MADE_BY_DEMO), 'The next demo in this folder empties it.\n')
  // Postgres runs as another user when we are root, and must be able to reach its folder
  const postgresDir = mkdtempSync(path.join(os.tmpdir(), 'millrace-demo-'))
  chmodSync(postgresDir, 0o755)
  const file = path.join(dir, 'quickstart.mesh.yaml')
  copyFileSync(path.join(repository, 'mesh-config', 'quickstart.mesh.yaml'), file)

  say(`starting Postgres 18 and loading ${formatCount(rows)} rows…`)
  const stop = untilInterrupted()
  const starting = startPostgres({ dataDir: path.join(postgresDir, 'data') })
  let mesh: ChildProcess | null = null
  let watch: NodeJS.Timeout | undefined
  let peakRssMb = 0
  try {
    const postgres = await unless(stop, starting)
    const env = { ...process.env, SHOP_URL: postgres.url }
    await unless(stop, createShop(postgres.url, rows))
    say(`running ${path.relative(process.cwd(), file)} while the shop is busy for ${seconds} s…\n`)
    const launchedAt = Date.now()
    mesh = spawn(process.execPath, [millrace, 'run', file], { env, stdio: ['ignore', 'ignore', 'inherit'] })
    const ended = new Promise<number>((resolve) => mesh!.once('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 0 : 1))))
    let over = false
    void ended.then(() => {
      over = true
    })
    watch = setInterval(() => {
      peakRssMb = Math.max(peakRssMb, peakRss(mesh!.pid!))
    }, 250)
    const workload = runWorkload(postgres.url, seconds)
    await unless(stop, workload.done)
    // a short workload may be over before the mesh runs
    while (!over && readRunning(path.join(dir, '.millrace')) === null) await unless(stop, delay(20))
    if (over) throw new Error('the mesh ended early; see its messages above')
    const document = await audit(file, 60 + Math.ceil(rows / 2000), env, stop)
    const meshSeconds = (Date.now() - launchedAt) / 1000
    clearInterval(watch)
    peakRssMb = Math.max(peakRssMb, peakRss(mesh.pid!))
    const status = await json(['status', file, '--json'], env, stop)
    mesh.kill('SIGINT')
    await unless(stop, ended)
    if (document.result == null) throw new Error(document.error?.message ?? 'the audit gave no result')
    const { equal, audit: tables } = document.result
    // so that each printed line works: PyIceberg reads no table with delete files
    const compacted = (await json(['compact', file, 'lake', '--json'], env, stop)) as { ok: boolean }
    if (!compacted.ok) throw new Error(`the lake could not be compacted: ${JSON.stringify(compacted)}`)
    const elapsed = (Date.now() - startedAt) / 1000
    const captured = sourceRows(status)
    const rowsPerSecond = Math.round(captured / Math.max(1, meshSeconds))
    const warehouse = path.join(dir, '.millrace', 'lake')
    const catalog = path.join(warehouse, 'catalog.db')
    if (values.json) {
      const sides = tables.map(({ table, equal: same, source, log, sinks }) => ({ table, equal: same, source, log, ...sinks }))
      process.stdout.write(`${JSON.stringify({ equal, audit: sides, warehouse, catalog, rowsPerSecond, peakRssMb, seconds: Number(elapsed.toFixed(1)) })}\n`)
    } else {
      process.stdout.write(`\n${renderAudit(tables)}\n\n`)
      process.stdout.write(
        equal
          ? `All equal (= is the same rows and checksum): ${formatCount(workload.statements())} changed rows in ${seconds} s, ${formatCount(captured)} records in the log, ${Math.round(peakRssMb)} MB at most.\n`
          : 'NOT EQUAL: see the lines marked above.\n',
      )
    }
    ;(values.json ? process.stderr : process.stdout).write(`\n${linesToQuery(file, warehouse, catalog)}\n`)
    if (values.keep) {
      say(`\nPostgres goes on at ${postgres.url}; ctrl-c ends it.`)
      await new Promise((resolve) => stop.addEventListener('abort', resolve, { once: true }))
    }
    return equal ? 0 : 1
  } finally {
    clearInterval(watch)
    if (mesh !== null && mesh.exitCode === null && mesh.signalCode === null) {
      const gone = once(mesh, 'exit')
      mesh.kill('SIGKILL')
      await gone
    }
    const postgres = await starting.catch(() => null)
    await postgres?.stop('SIGQUIT')
    rmSync(postgresDir, { recursive: true, force: true })
  }
}

function options() {
  return parseArgs({
    options: {
      seconds: { type: 'string' },
      rows: { type: 'string' },
      dir: { type: 'string' },
      json: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
}

async function audit(file: string, waitSeconds: number, env: NodeJS.ProcessEnv, stop: AbortSignal): Promise<AuditDocument> {
  return (await json(['audit', file, '--json', '--wait', String(waitSeconds)], env, stop)) as AuditDocument
}

/** Runs a millrace command and returns the document on its stdout. Its messages are kept from the terminal, where the live view is drawn. */
async function json(args: readonly string[], env: NodeJS.ProcessEnv, stop: AbortSignal): Promise<unknown> {
  const child = spawn(process.execPath, [millrace, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let said = ''
  child.stderr!.on('data', (bytes: Buffer) => {
    said += bytes.toString()
  })
  child.stdout!.on('data', (bytes: Buffer) => {
    out += bytes.toString()
  })
  try {
    await unless(stop, new Promise((resolve) => child.once('close', resolve)))
  } finally {
    child.kill('SIGKILL')
  }
  try {
    return JSON.parse(out)
  } catch {
    throw new Error(`millrace ${args[0]} gave no JSON: ${(out + said).slice(0, 1000)}`)
  }
}

function sourceRows(status: unknown): number {
  const nodes = (status as { result?: { nodes?: { role: string; rows: number }[] } }).result?.nodes ?? []
  return nodes.filter(({ role }) => role === 'source').reduce((sum, { rows }) => sum + rows, 0)
}

/** Most memory the process ever held, in MB; 0 where the system does not tell. */
function peakRss(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
  } catch {
    return 0
  }
}

function readdirNotEmpty(dir: string): boolean {
  try {
    return readdirSync(dir).length > 0
  } catch {
    return false
  }
}

function linesToQuery(file: string, warehouse: string, catalog: string): string {
  const here = (name: string) => path.relative(process.cwd(), name) || '.'
  return [
    'Everything is left in place. At the end millrace compact has rewritten the lake, since PyIceberg refuses tables with delete files. To look at it',
    "(for PyIceberg: pip install 'pyiceberg[sql-sqlite,pyarrow]'; DuckDB is at duckdb.org):",
    `  npx millrace search products '${EXAMPLE_QUERY}' --mesh ${here(file)}`,
    `  npx millrace tap shop.public.orders --mesh ${here(file)} --from-beginning --limit 3`,
    `  duckdb -c "INSTALL iceberg; LOAD iceberg; SELECT status, count(*) FROM iceberg_scan('${here(path.join(warehouse, 'public', 'orders'))}') GROUP BY 1"`,
    `  python3 -c "from pyiceberg.catalog.sql import SqlCatalog; print(*SqlCatalog('millrace', uri='sqlite:///${catalog}').load_table('public.orders').scan(selected_fields=('id', 'status', 'total'), limit=5).to_arrow().to_pylist(), sep='\\n')"`,
  ].join('\n')
}

try {
  process.exitCode = await main()
} catch (error) {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(error instanceof UsageError ? `${message}\n` : `the demo failed: ${message}\n`)
  // the options themselves may be what is wrong
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify({ equal: false, error: { message } })}\n`)
  process.exitCode = error instanceof UsageError ? 2 : error instanceof Interrupted ? error.exitCode : 1
}

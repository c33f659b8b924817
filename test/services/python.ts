/** Python with pinned packages, in a virtual environment kept in the user's cache: the second opinion on files that Millrace writes. */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { tried } from './maven.ts'

const run = promisify(execFile)
/** A maker that died leaves its lock; no installation takes longer than this. */
const LOCK_TIMEOUT_MS = 900_000

/** DuckDB with its Iceberg extension, and PyIceberg: the readers that judge Iceberg tables. */
export const ICEBERG_READERS = [
  'duckdb==1.5.5',
  'duckdb-extension-iceberg==1.5.5',
  'duckdb-extension-avro==1.5.5',
  'duckdb-extension-httpfs==1.5.5',
  'pytz',
  'pyiceberg[sql-sqlite,pyarrow]==0.12.0',
] as const

/** Python that gives a script `connection`, a DuckDB which reads Iceberg; it may not install its extensions itself. */
export const LOAD_DUCKDB = `
import os, duckdb
import duckdb_extension_iceberg, duckdb_extension_avro, duckdb_extension_httpfs
connection = duckdb.connect()
def extension(module, name):
    for root, _, files in os.walk(os.path.dirname(module.__file__)):
        if name + '.duckdb_extension' in files:
            connection.execute("LOAD '" + os.path.join(root, name + '.duckdb_extension') + "'")
extension(duckdb_extension_httpfs, 'httpfs'); extension(duckdb_extension_avro, 'avro'); extension(duckdb_extension_iceberg, 'iceberg')
connection.execute("SET TimeZone='UTC'")
`

/** Why Python cannot run here, or null. */
export function pythonSkipReason(): string | null {
  try {
    execFileSync('python3', ['-m', 'venv', '--help'], { stdio: 'ignore' })
    return null
  } catch {
    return 'no python3 with venv on PATH'
  }
}

/** Path of a python that has `packages`. Installs them once per machine, from the configured package index. */
export async function pythonWith(packages: readonly string[]): Promise<string> {
  const cache = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'millrace')
  const digest = createHash('sha256').update(packages.join('\n')).digest('hex').slice(0, 12)
  const target = path.join(cache, `python-${digest}`)
  const ready = path.join(target, 'ready')
  const lock = `${target}.lock`
  mkdirSync(cache, { recursive: true })
  for (const deadline = Date.now() + LOCK_TIMEOUT_MS; !existsSync(ready); ) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
    } catch {
      if (Date.now() > deadline || !lives(lock)) rmSync(lock, { force: true })
      await delay(100)
      continue
    }
    try {
      if (existsSync(ready)) break
      await tried(async () => {
        rmSync(target, { recursive: true, force: true })
        await run('python3', ['-m', 'venv', target])
        await run(path.join(target, 'bin', 'pip'), ['install', '--quiet', ...packages], { timeout: LOCK_TIMEOUT_MS })
      })
      writeFileSync(`${ready}.new`, '')
      renameSync(`${ready}.new`, ready)
    } finally {
      rmSync(lock, { force: true })
    }
  }
  return path.join(target, 'bin', 'python')
}

function lives(lock: string): boolean {
  try {
    const pid = Number(readFileSync(lock, 'utf8'))
    if (pid > 0) process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

export interface PythonSession extends AsyncDisposable {
  /** Calls a function of the script with JSON arguments. @throws its exception */
  call(name: string, ...args: readonly unknown[]): Promise<unknown>
}

const LOOP = `
import json, sys, traceback
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"result": globals()[request["name"]](*request["args"])}
    except Exception as error:
        answer = {"error": type(error).__name__ + ": " + str(error), "trace": traceback.format_exc()}
    print("\\x1e" + json.dumps(answer, default=str), flush=True)
`

/** One Python process with `script` loaded, which answers calls in turn. */
export function pythonSession(python: string, script: string): PythonSession {
  const child = spawn(python, ['-u', '-c', script + LOOP], { stdio: ['pipe', 'pipe', 'pipe'] })
  const waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = []
  let output = ''
  let errors = ''
  child.stderr.on('data', (bytes: Buffer) => {
    errors = (errors + bytes.toString()).slice(-4000)
  })
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    for (let end = output.indexOf('\n'); end >= 0; end = output.indexOf('\n')) {
      const line = output.slice(0, end)
      output = output.slice(end + 1)
      if (!line.startsWith('\x1e')) continue
      const answer = JSON.parse(line.slice(1)) as { result?: unknown; error?: string; trace?: string }
      const caller = waiting.shift()
      if (answer.error === undefined) caller?.resolve(answer.result)
      else caller?.reject(new Error(`${answer.error}\n${answer.trace}`))
    }
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  void ended.then(() => {
    for (const caller of waiting.splice(0)) caller.reject(new Error(`python ended: ${errors}`))
  })
  return {
    call: (name, ...args) =>
      new Promise((resolve, reject) => {
        waiting.push({ resolve, reject })
        child.stdin.write(`${JSON.stringify({ name, args })}\n`)
      }),
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      await ended
    },
  }
}

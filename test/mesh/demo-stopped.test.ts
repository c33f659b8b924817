import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { readRunning } from '../../core/runtime/data-folder.ts'

const dirs: string[] = []
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true })
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // a zombie that nobody has waited for is gone as well
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

async function until<T>(what: string, look: () => T | null): Promise<T> {
  for (const deadline = performance.now() + 240_000; ; await delay(5)) {
    const found = look()
    if (found !== null) return found
    if (performance.now() > deadline) throw new Error(`not ${what} in time`)
  }
}

/** Process id of the demo's Postgres, once it has written one. While the cluster is made the file comes and goes. */
function postgresPid(temporary: string): number | null {
  const folder = readdirSync(temporary).find((name) => name.startsWith('millrace-demo-'))
  if (folder === undefined) return null
  try {
    const pid = Number(readFileSync(path.join(temporary, folder, 'data', 'postmaster.pid'), 'utf8').split('\n')[0])
    return pid > 0 ? pid : null
  } catch {
    return null
  }
}

test.each([
  ['SIGINT', 'mesh', 130],
  ['SIGTERM', 'mesh', 143],
  ['SIGTERM', 'Postgres', 143],
  ['SIGHUP', 'mesh', 129],
] as const)(
  '%s while its %s runs ends all that the demo started, removes its temporary folder and says so in its document',
  async (signal, runs, exitCode) => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-demo-stopped-'))
    dirs.push(dir)
    const temporary = path.join(dir, 'tmp')
    mkdirSync(temporary)
    // Postgres runs as another user when we are root
    for (const one of [dir, temporary]) chmodSync(one, 0o755)
    const args = ['control/demo/demo.ts', '--json', '--seconds', '600', '--rows', '100', '--dir', path.join(dir, 'demo')]
    const child = spawn(process.execPath, args, { env: { ...process.env, TMPDIR: temporary }, stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
    try {
      const pids = [await until('Postgres started', () => postgresPid(temporary))]
      if (runs === 'mesh') pids.push((await until('the mesh runs', () => readRunning(path.join(dir, 'demo', '.millrace')))).pid)
      expect(pids.map(isAlive)).toEqual(pids.map(() => true))
      child.kill(signal)
      expect(await closed, said).toBe(exitCode)
      expect(pids.map(isAlive)).toEqual(pids.map(() => false))
      expect(readdirSync(temporary).filter((name) => name.startsWith('millrace-'))).toEqual([])
      expect(JSON.parse(out)).toEqual({ equal: false, error: { message: `stopped by ${signal}` } })
    } finally {
      child.kill('SIGKILL')
      await closed
    }
  },
  600_000,
)

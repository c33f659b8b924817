/**
 * Services that test files share: the first file that asks starts it, the others get the same one, and the global teardown ends it.
 * State lies in the run folder that the global set-up made.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

export const RUN_DIR_ENV = 'MILLRACE_TEST_RUN'

export function runDir(): string {
  const dir = process.env[RUN_DIR_ENV]
  if (dir === undefined) throw new Error(`${RUN_DIR_ENV} is not set: run tests with vitest`)
  return dir
}

/** `start` runs in one process of the run only; it returns what others need as JSON, with the pids to end at the end of the run. */
export async function sharedService<Info extends { readonly pids: readonly number[] }>(name: string, start: (dir: string) => Promise<Info>): Promise<Info> {
  const dir = path.join(runDir(), name)
  const ready = path.join(dir, 'ready.json')
  const failed = path.join(dir, 'failed.txt')
  let first = true
  try {
    mkdirSync(dir, { mode: 0o755 })
  } catch {
    first = false
  }
  if (first) {
    try {
      const info = await start(dir)
      writeFileSync(`${ready}.new`, JSON.stringify(info))
      renameSync(`${ready}.new`, ready)
      return info
    } catch (error) {
      writeFileSync(failed, String(error instanceof Error ? error.stack : error))
      throw error
    }
  }
  for (;;) {
    if (existsSync(ready)) return JSON.parse(readFileSync(ready, 'utf8')) as Info
    if (existsSync(failed)) throw new Error(`the shared service ${name} did not start: ${readFileSync(failed, 'utf8')}`)
    await delay(50)
  }
}

/** Ends every shared service of the run and removes its folder. */
export async function endSharedServices(dir: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const ready = path.join(dir, name, 'ready.json')
    if (!existsSync(ready)) continue
    for (const pid of (JSON.parse(readFileSync(ready, 'utf8')) as { pids: number[] }).pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // it ended by itself
      }
    }
  }
  // what was killed may write for a moment still
  await rm(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
}

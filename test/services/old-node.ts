/** The oldest Node that a clone works with: a real one, from npm, kept in the user's cache. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { cached, fetchSkipReason } from './maven.ts'

const run = promisify(execFile)
export const OLD_NODE = '20.20.2'

const NAME = `node-${OLD_NODE}`

/** Why it cannot be had here, or null. */
export function oldNodeSkipReason(): Promise<string | null> {
  return fetchSkipReason(NAME, async () => {
    // npm answers from its own cache what it cannot ask for
    const cache = mkdtempSync(path.join(os.tmpdir(), 'millrace-npm-'))
    try {
      await run('npm', ['view', '--cache', cache, '--fetch-retries=0', '--fetch-timeout=20000', `node@${OLD_NODE}`, 'version'])
    } finally {
      rmSync(cache, { recursive: true, force: true })
    }
  })
}

/** The folder with its `node`, for PATH. */
export async function oldNodeBin(): Promise<string> {
  const dir = await cached(NAME, async (at) => {
    writeFileSync(path.join(at, 'package.json'), '{"private":true}')
    await run('npm', ['install', '--no-audit', '--no-fund', '--fetch-retries=5', `node@${OLD_NODE}`], { cwd: at })
  })
  return path.join(dir, 'node_modules', 'node', 'bin')
}

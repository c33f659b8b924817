/** The oldest Node that a clone works with: a real one, from npm, kept in the user's cache. */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { cached } from './maven.ts'

const run = promisify(execFile)
export const OLD_NODE = '20.20.2'

/** The folder with its `node`, for PATH. */
export async function oldNodeBin(): Promise<string> {
  const dir = await cached(`node-${OLD_NODE}`, async (at) => {
    writeFileSync(path.join(at, 'package.json'), '{"private":true}')
    await run('npm', ['install', '--no-audit', '--no-fund', '--fetch-retries=5', `node@${OLD_NODE}`], { cwd: at })
  })
  return path.join(dir, 'node_modules', 'node', 'bin')
}

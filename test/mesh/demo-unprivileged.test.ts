import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, realpathSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'

const ROOT = path.join(import.meta.dirname, '..', '..')
const NOBODY = 65534
const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-unprivileged-'))
chmodSync(dir, 0o755)
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const isRoot = process.getuid?.() === 0
const as = isRoot ? { uid: NOBODY, gid: NOBODY } : {}
const hasOwnNode = process.execPath.startsWith(`${ROOT}${path.sep}`)

/** Why nobody without rights can run it here; null: somebody can. */
function skipReason(): string | null {
  if (!isRoot) return null
  // fails, too, when the user may not enter the folder
  const asNobody = (command: string, ...args: string[]) => spawnSync(command, args, { cwd: dir, stdio: 'ignore', ...as }).status === 0
  if (!asNobody('/bin/sh', '-c', 'true')) return `no process may be started as another user, or not in ${dir}`
  return hasOwnNode || asNobody(process.execPath, '--version') ? null : `other users may not run ${process.execPath}`
}

const reason = skipReason()
if (reason !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${reason}`)

const PARTS = ['control', 'core', 'connectors', 'mesh-config', 'package.json', 'node_modules']
const SAMPLES = ['control/demo/demo.ts', 'core/plugin.ts', 'connectors/postgres/postgres-config.ts', 'mesh-config/quickstart.mesh.yaml', 'package.json']

function isReadableByAll(file: string): boolean {
  const real = realpathSync(file)
  if ((statSync(real).mode & 0o004) === 0) return false
  for (let at = path.dirname(real); ; at = path.dirname(at)) {
    if ((statSync(at).mode & 0o005) !== 0o005) return false
    if (at === path.dirname(at)) return true
  }
}

/** The clone, where everybody can read it: a copy, when its owner keeps it from others. */
function readableClone(): string {
  const samples = [...SAMPLES, 'node_modules/zod/package.json', ...(hasOwnNode ? [path.relative(ROOT, process.execPath)] : [])]
  if (samples.every((name) => isReadableByAll(path.join(ROOT, name)))) return ROOT
  const clone = path.join(dir, 'clone')
  mkdirSync(clone)
  execFileSync('cp', ['-aH', ...PARTS.map((name) => path.join(ROOT, name)), clone])
  execFileSync('chmod', ['-R', 'a+rX', clone])
  return clone
}

const title = `the demo ends equal when a user without any rights runs it${reason === null ? '' : ` (skipped: ${reason})`}`
test.skipIf(reason !== null)(title, { timeout: 600_000 }, async ({ signal }) => {
  const home = path.join(dir, 'home')
  mkdirSync(home)
  if (isRoot) chownSync(home, NOBODY, NOBODY)
  const clone = isRoot ? readableClone() : ROOT
  const node = hasOwnNode ? path.join(clone, path.relative(ROOT, process.execPath)) : process.execPath
  const folder = path.join(home, 'demo')
  const child = spawn(node, [path.join(clone, 'control', 'demo', 'demo.ts'), '--json', '--seconds', '2', '--rows', '500', '--dir', folder], {
    cwd: home,
    env: { ...process.env, HOME: home, TMPDIR: home, XDG_CACHE_HOME: home },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...as,
    // out of time: it ends all that it started
    signal,
  })
  let out = ''
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  expect(code, said.slice(-3000)).toBe(0)
  const { equal, audit } = JSON.parse(out) as { equal: boolean; audit: { table: string; equal: boolean }[] }
  expect([equal, audit.length]).toEqual([true, 5])
  if (isRoot) expect(statSync(path.join(folder, 'quickstart.mesh.yaml')).uid).toBe(NOBODY)
})

import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'

const ROOT = path.join(import.meta.dirname, '..', '..')
const NOBODY = 65534
const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-unprivileged-'))
chmodSync(dir, 0o755)
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** The clone, where everybody can read it. */
function readableClone(): string {
  for (let at = ROOT; at !== path.dirname(at); at = path.dirname(at)) if ((statSync(at).mode & 0o005) !== 0o005) return copied()
  return ROOT
}

function copied(): string {
  const clone = path.join(dir, 'clone')
  mkdirSync(clone)
  const parts = ['control', 'core', 'connectors', 'mesh-config', 'package.json', 'node_modules'].map((name) => path.join(ROOT, name))
  execFileSync('cp', ['-a', ...parts, clone])
  return clone
}

test('the demo ends equal when a user without any rights runs it', async () => {
  const isRoot = process.getuid?.() === 0
  const home = path.join(dir, 'home')
  mkdirSync(home)
  if (isRoot) chownSync(home, NOBODY, NOBODY)
  const clone = isRoot ? readableClone() : ROOT
  const node = process.execPath.startsWith(ROOT) ? path.join(clone, path.relative(ROOT, process.execPath)) : process.execPath
  const folder = path.join(home, 'demo')
  const child = spawn(node, [path.join(clone, 'control', 'demo', 'demo.ts'), '--json', '--seconds', '2', '--rows', '500', '--dir', folder], {
    cwd: home,
    env: { ...process.env, HOME: home, TMPDIR: home, XDG_CACHE_HOME: home },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(isRoot ? { uid: NOBODY, gid: NOBODY } : {}),
  })
  let out = ''
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  expect(code, said.slice(-3000)).toBe(0)
  const { equal, audit } = JSON.parse(out) as { equal: boolean; audit: { table: string; equal: boolean }[] }
  expect([equal, audit.length]).toEqual([true, 5])
  if (isRoot) expect(statSync(path.join(folder, 'quickstart.mesh.yaml')).uid).toBe(NOBODY)
}, 600_000)

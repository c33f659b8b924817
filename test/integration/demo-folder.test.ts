import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { expect, test } from 'vitest'

test('a folder that the demo did not make is not emptied, though it has the same mesh file', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-demo-folder-'))
  try {
    for (const name of ['quickstart.mesh.yaml', 'notes.txt']) writeFileSync(path.join(dir, name), 'mine\n')
    const options = { encoding: 'utf8', timeout: 60_000 } as const
    const demo = (...more: string[]) => spawnSync(process.execPath, ['control/demo/demo.ts', '--dir', dir, '--rows', '0', '--seconds', '0', ...more], options)
    const { status, stderr } = demo()
    expect(existsSync(path.join(dir, 'notes.txt'))).toBe(true)
    expect([status, stderr]).toEqual([2, expect.stringContaining('choose another --dir')])
    const told = demo('--json')
    expect([told.status, JSON.parse(told.stdout)]).toEqual([2, { equal: false, error: { message: expect.stringContaining('choose another --dir') } }])
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}, 150_000)

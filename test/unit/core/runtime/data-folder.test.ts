import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { DataFolder, readRunning } from '../../../../core/runtime/data-folder.ts'

const fresh = () => path.join(mkdtempSync(path.join(os.tmpdir(), 'millrace-folder-')), 'state')

test('one holder at a time, and the refused one is told who it is', () => {
  const dir = fresh()
  const first = new DataFolder(dir)
  first.announce({ mesh: 'm', pid: 4711, host: '127.0.0.1', port: 1, startedAt: 0 })
  expect(() => new DataFolder(dir)).toThrow(expect.objectContaining({ code: 'log.locked', message: expect.stringContaining('4711') }))
  expect(readRunning(dir)).toMatchObject({ mesh: 'm', port: 1 })
  first[Symbol.dispose]()
  expect(readRunning(dir)).toBeNull()
  new DataFolder(dir)[Symbol.dispose]()
})

test('a folder that cannot be locked for another reason than a holder says which', () => {
  const dir = fresh()
  mkdirSync(path.join(dir, 'lock.db'), { recursive: true })
  const wrong = { code: 'config.invalid', message: expect.stringContaining('unable to open database file'), fix: expect.any(String) }
  expect(() => new DataFolder(dir)).toThrow(expect.objectContaining(wrong))
})

test('a pause outlives the process, keeps its start, and damage is told', () => {
  const dir = fresh()
  {
    using folder = new DataFolder(dir)
    const since = folder.pause('shop')
    expect(folder.pause('shop')).toBe(since)
    folder.pause('lake')
    expect(folder.resume('lake')).toBe(true)
    expect(folder.resume('lake')).toBe(false)
  }
  using folder = new DataFolder(dir)
  expect([...folder.paused]).toEqual([['shop', expect.stringMatching(/^\d{4}-.*Z$/)]])
  writeFileSync(path.join(dir, 'paused.json'), '{')
  expect(() => folder.paused).toThrow(expect.objectContaining({ code: 'config.invalid', fix: expect.any(String) }))
})

test('a holder that was killed leaves no lock behind', async () => {
  const dir = fresh()
  const module = pathToFileURL(path.resolve('core/runtime/data-folder.ts')).href
  const code = `const { DataFolder } = await import(${JSON.stringify(module)}); const held = new DataFolder(process.argv[1]); console.log('held'); setInterval(() => held.dir, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code, dir], { stdio: ['ignore', 'pipe', 'inherit'] })
  // one that lives on holds the run's own stderr open
  onTestFinished(() => void child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  expect(() => new DataFolder(dir)).toThrow(expect.objectContaining({ code: 'log.locked' }))
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
  new DataFolder(dir)[Symbol.dispose]()
})

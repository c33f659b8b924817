import fs, { mkdtempSync, readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { expect, test, vi } from 'vitest'
import { DataFolder } from '../../../../core/runtime/data-folder.ts'

const synced = vi.hoisted(() => [] as { readonly what: string; readonly nodes: string }[])
let file = ''
/** What making folders, and writing and syncing files, fails with. */
let failure: string | null = null

/** What the file of paused nodes has as something is made durable. */
const present = () => (fs.existsSync(file) ? Object.keys(JSON.parse(readFileSync(file, 'utf8')) as object).join() : 'no file')

vi.mock('node:fs', async (original) => {
  const real = await original<typeof fs>()
  const fails = (what: string) => {
    if (failure !== null) throw Object.assign(new Error(`${failure}: ${what}`), { code: failure })
  }
  const fsyncSync = (fd: number) => {
    synced.push({ what: real.fstatSync(fd).isDirectory() ? 'folder' : 'file', nodes: present() })
    fails('fsync')
    real.fsyncSync(fd)
  }
  const writeFileSync: typeof fs.writeFileSync = (of, ...rest) => {
    if (typeof of === 'string') fails('write')
    real.writeFileSync(of, ...rest)
  }
  const mkdirSync = (of: string, options: fs.MakeDirectoryOptions) => {
    fails('mkdir')
    return real.mkdirSync(of, options)
  }
  return { ...real, fsyncSync, writeFileSync, mkdirSync }
})

test.skipIf(process.platform === 'win32')('a pause and its end are durable with their name: the folder is synced after the rename', () => {
  using folder = new DataFolder(path.join(mkdtempSync(path.join(os.tmpdir(), 'millrace-folder-')), 'state'))
  file = path.join(folder.dir, 'paused.json')
  folder.pause('shop')
  folder.resume('shop')
  expect(synced).toEqual([
    { what: 'file', nodes: 'no file' },
    { what: 'folder', nodes: 'shop' },
    { what: 'file', nodes: 'shop' },
    { what: 'folder', nodes: '' },
  ])
})

test('what cannot be noted is said as an error of the disk, and what was noted before stays', () => {
  using folder = new DataFolder(path.join(mkdtempSync(path.join(os.tmpdir(), 'millrace-folder-')), 'state'))
  const since = folder.pause('shop')
  folder.want('shop', 'public.items')
  const writes = [
    () => folder.pause('lake'),
    () => folder.resume('shop'),
    () => folder.want('shop', null),
    () => folder.grant('shop', 'public.items'),
    () => folder.announce({ mesh: 'm', pid: 1, host: '127.0.0.1', port: 1, startedAt: 0 }),
    () => folder.nodeDir('shop'),
    () => new DataFolder(path.join(folder.dir, 'other')),
  ]
  for (const [code, told] of [
    ['ENOSPC', 'log.full'],
    ['EIO', 'config.invalid'],
  ] as const) {
    failure = code
    for (const write of writes) expect(write).toThrow(expect.objectContaining({ code: told, fix: expect.any(String) }))
  }
  failure = null
  expect([[...folder.paused], [...folder.wanted]]).toEqual([[['shop', since]], [['shop', ['public.items']]]])
})

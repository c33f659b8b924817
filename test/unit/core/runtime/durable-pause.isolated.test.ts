import fs, { mkdtempSync, readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { expect, test, vi } from 'vitest'
import { DataFolder } from '../../../../core/runtime/data-folder.ts'

const synced = vi.hoisted(() => [] as { readonly what: string; readonly nodes: string }[])
let file = ''

/** What the file of paused nodes has as something is made durable. */
const present = () => (fs.existsSync(file) ? Object.keys(JSON.parse(readFileSync(file, 'utf8')) as object).join() : 'no file')

vi.mock('node:fs', async (original) => {
  const real = await original<typeof fs>()
  const fsyncSync = (fd: number) => {
    synced.push({ what: real.fstatSync(fd).isDirectory() ? 'folder' : 'file', nodes: present() })
    real.fsyncSync(fd)
  }
  return { ...real, fsyncSync }
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

import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { localStore } from '../../../../connectors/iceberg/local-store.ts'
import { SqlCatalog } from '../../../../connectors/iceberg/sql-catalog.ts'
import { shutOut } from '../shut-out.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-catalog-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const open = (file: string, readOnly: boolean) => new SqlCatalog({ path: file, name: 'c', warehouse: `file://${dir}`, readOnly }, localStore)
const table = { namespace: ['public'], name: 'orders' }

test('a reader takes a catalog that is not there for an empty one, and changes none', async () => {
  const file = path.join(dir, 'none.db')
  await using reader = open(file, true)
  expect(await reader.load(table)).toBeNull()
  expect(readdirSync(dir)).toEqual([])
  await using writer = open(file, false)
  expect(await writer.load(table)).toBeNull()
  expect(await reader.load(table)).toBeNull()
  await expect(reader.create(table, { type: 'struct', 'schema-id': 0, fields: [] }, 0, {})).rejects.toThrow(/readonly/)
})

test.skipIf(process.platform === 'win32')('a catalog that may not be seen is no empty one', () => {
  const folder = path.join(dir, 'closed')
  mkdirSync(folder)
  const refused = expect.objectContaining({ code: 'sink.forbidden', fix: expect.any(String) })
  shutOut(folder, () => {
    for (const readOnly of [true, false]) expect(() => open(path.join(folder, 'in', 'catalog.db'), readOnly)).toThrow(refused)
  })
})

test.skipIf(process.platform === 'win32')('a catalog that may be seen and not be read is forbidden', () => {
  const file = path.join(dir, 'of-another.db')
  chmodSync(dir, 0o755)
  void open(file, false)[Symbol.asyncDispose]()
  const refused = expect.objectContaining({ code: 'sink.forbidden', fix: expect.any(String) })
  shutOut(file, () => {
    for (const readOnly of [true, false]) expect(() => open(file, readOnly)).toThrow(refused)
  })
})

test('a damaged catalog is not tried for ever', () => {
  const file = path.join(dir, 'damaged.db')
  void open(file, false)[Symbol.asyncDispose]()
  // the first page's header, after that of the file
  const handle = openSync(file, 'r+')
  writeSync(handle, Buffer.alloc(100, 0xff), 0, 100, 100)
  closeSync(handle)
  const damaged = expect.objectContaining({ code: 'sink.forbidden', message: expect.stringContaining('damaged'), fix: expect.any(String) })
  for (const readOnly of [true, false]) expect(() => open(file, readOnly)).toThrow(damaged)
})

test.runIf(process.platform === 'linux')('a file that is no catalog is let go', () => {
  const file = path.join(dir, 'text.db')
  writeFileSync(file, 'no database, but long enough to be looked at as one: '.repeat(100))
  for (const readOnly of [true, false]) expect(() => open(file, readOnly)).toThrow(expect.objectContaining({ code: 'config.invalid', fix: expect.any(String) }))
  expect(openFiles()).not.toContain(file)
})

/** Paths of what this process has open. */
function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      // the listing's own, closed meanwhile
      return []
    }
  })
}

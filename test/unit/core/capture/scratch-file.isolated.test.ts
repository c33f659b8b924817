import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { ScratchFile } from '../../../../core/capture/scratch-file.ts'

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  return { ...fs, writeSync: vi.fn(fs.writeSync) }
})

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-scratch-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const bytes = Buffer.from(Array.from({ length: 700_000 }, (_, n) => n >> 4))

test('it keeps few bytes in memory, many on disk, and none when it is discarded', () => {
  const file = new ScratchFile(path.join(dir, 'f'))
  expect([...file.pieces()]).toEqual([])
  file.append(bytes, 0, 1000)
  expect(Buffer.concat([...file.pieces(10, 500)]).equals(bytes.subarray(10, 500))).toBe(true)
  expect(readdirSync(dir)).toEqual([])
  for (let at = 1000; at < bytes.length; at += 99_000) file.append(bytes.subarray(at, at + 99_000))
  expect(readdirSync(dir)).toEqual(['f'])
  expect(file.size).toBe(bytes.length)
  expect(Buffer.concat([...file.pieces()]).equals(bytes)).toBe(true)
  expect(Buffer.concat([...file.pieces(5, 600_001)]).equals(bytes.subarray(5, 600_001))).toBe(true)
  expect(Math.max(...[...file.pieces()].map(({ length }) => length))).toBeLessThanOrEqual(256 * 1024)
  file.discard()
  expect(existsSync(path.join(dir, 'f'))).toBe(false)
  file.discard()
})

test('bytes are read from any place, those in the file and those after it, and no more than there are', () => {
  const file = new ScratchFile(path.join(dir, 'f'))
  for (let at = 0; at < bytes.length; at += 1000) file.append(bytes, at, at + 1000)
  const target = Buffer.alloc(bytes.length + 10)
  for (const from of [0, 1, 262_000, 524_000, 699_999, 700_000]) {
    expect(file.read(target, 3, from)).toBe(bytes.length - from)
    expect(target.subarray(3, 3 + bytes.length - from).equals(bytes.subarray(from))).toBe(true)
  }
  expect(file.read(target.subarray(0, 40), 10, 523_990)).toBe(30)
  expect(target.subarray(10, 40).equals(bytes.subarray(523_990, 524_020))).toBe(true)
  file.discard()
})

test('bytes of which a full disk took only some are whole, and there once', () => {
  const file = new ScratchFile(path.join(dir, 'f'))
  file.append(bytes, 0, 200_000)
  const write = vi.mocked(writeSync)
  const real = write.getMockImplementation() as (...args: unknown[]) => number
  write.mockImplementationOnce(((fd: number, from: Buffer, at: number, _length: number, place: number) => real(fd, from, at, 1000, place)) as never)
  write.mockImplementationOnce((() => {
    throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
  }) as never)
  // as another file of the process may ask it to, to save memory: its own source learns nothing of it
  expect(() => file.append(bytes, 200_000, 300_000)).toThrow(expect.objectContaining({ code: 'log.full' }))
  expect(file.size).toBe(200_000)
  file.append(bytes, 200_000, 300_000)
  expect(Buffer.concat([...file.pieces()]).equals(bytes.subarray(0, 300_000))).toBe(true)
  file.discard()
})

test('a folder that cannot be written is an error that says what to do', () => {
  const nowhere = new ScratchFile(path.join(dir, 'no', 'f'), 'make the folder')
  const wrong = { name: 'MillraceError', code: 'config.invalid', message: expect.stringContaining(path.join(dir, 'no', 'f')), fix: 'make the folder' }
  expect(() => nowhere.append(bytes)).toThrow(expect.objectContaining(wrong))
  nowhere.discard()
})

test('the folder for them is made anew, and one that cannot be is an error too', () => {
  const folder = path.join(dir, 'node', 'spill')
  ScratchFile.emptyFolder(folder)
  writeFileSync(path.join(folder, 'left'), '')
  ScratchFile.emptyFolder(folder)
  expect(readdirSync(folder)).toEqual([])
  writeFileSync(path.join(dir, 'file'), '')
  const below = path.join(dir, 'file', 'spill')
  const wrong = { name: 'MillraceError', code: 'config.invalid', message: expect.stringContaining(below), fix: expect.stringContaining('make room') }
  expect(() => ScratchFile.emptyFolder(below)).toThrow(expect.objectContaining(wrong))
})

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SegmentBytes } from '../../../../connectors/cassandra/cdc-files.ts'
import { type SegmentIndex, SegmentReader } from '../../../../connectors/cassandra/segment-reader.ts'
import { MillraceError } from '../../../../core/errors.ts'
import { COMPRESSORS, writtenSegment } from './written-segment.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-segment-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

let files = 0
function stored(bytes: Buffer): string {
  const file = path.join(dir, `CommitLog-7-${++files}.log`)
  writeFileSync(file, bytes)
  return file
}

interface Read {
  readonly entries: string[]
  readonly positions: number[]
  readonly error: MillraceError | null
}

/** A file that is read often and never changes, without a disk. */
function inMemory(file: Buffer): SegmentBytes {
  return {
    read: async (into, offset, length, position) => ({ bytesRead: position < file.length ? file.copy(into, offset, position, position + length) : 0 }),
    stat: async () => ({ size: file.length }),
    close: async () => {},
  }
}

/** @param where a path, or all bytes */
async function readAll(where: string | Buffer, index: SegmentIndex, from = 0): Promise<Read> {
  const entries: string[] = []
  const positions: number[] = []
  try {
    await using reader = typeof where === 'string' ? await SegmentReader.open(where, from) : await SegmentReader.open('in memory', from, inMemory(where))
    for (let block = await reader.read(index); block !== null; block = await reader.read(index)) {
      for (const [i, start] of block.starts.entries()) {
        entries.push(block.bytes.toString('latin1', start, block.ends[i]))
        positions.push(block.positions[i]!)
      }
      expect(reader.position).toBeGreaterThanOrEqual(positions.at(-1)!)
    }
    return { entries, positions, error: null }
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error
    return { entries, positions, error }
  }
}

const SECTIONS = [['first entry', 'second entry of the section'], [], ['x'.repeat(2_500_000), 'after the long one'], ['last entry']]
const sections = SECTIONS.map((entries) => entries.map((text) => Buffer.from(text)))
const ALL = SECTIONS.flat()
const completed: SegmentIndex = { until: 0, completed: true }

describe.each([null, ...COMPRESSORS])('a segment with %s', (compressor) => {
  test('gives every entry, up to what is durable', async () => {
    const { bytes, ends } = writtenSegment(sections, { compressor, padding: compressor === null ? 4096 : 0 })
    const file = stored(bytes)
    expect(await readAll(file, { until: ends.at(-1)!, completed: true })).toMatchObject({ entries: ALL, error: null })
    for (const [i, until] of ends.entries()) {
      expect((await readAll(file, { until, completed: false })).entries).toEqual(SECTIONS.slice(0, i).flat())
      // an index whose last digits are not written yet
      if (i > 0) expect((await readAll(file, { until: until - 1, completed: false })).entries).toEqual(SECTIONS.slice(0, i - 1).flat())
    }
  })

  test('goes on from every position', async () => {
    const { bytes, ends } = writtenSegment(sections, { compressor })
    const file = stored(bytes)
    const { positions } = await readAll(file, completed)
    expect(positions).toHaveLength(ALL.length)
    for (const [i, position] of positions.entries()) expect(await readAll(file, completed, position)).toMatchObject({ entries: ALL.slice(i + 1), error: null })
    for (const [i, end] of ends.entries()) expect(await readAll(file, completed, end)).toMatchObject({ entries: SECTIONS.slice(i).flat(), error: null })
    expect((await readAll(file, completed, positions[0]! + 1)).error?.code).toBe('source.protocol')
    expect((await readAll(file, completed, ends.at(-1)! + 1)).error).toMatchObject({ code: 'source.protocol', message: expect.stringContaining('no position') })
  })

  test('is followed while it grows', async () => {
    const { bytes, ends, fileEnds } = writtenSegment(sections, { compressor })
    const file = path.join(dir, `CommitLog-7-growing-${compressor}.log`)
    writeFileSync(file, bytes.subarray(0, fileEnds[0]))
    await using reader = await SegmentReader.open(file)
    const seen: string[] = []
    const read = async (index: SegmentIndex) => {
      for (let block = await reader.read(index); block !== null; block = await reader.read(index)) {
        for (const [i, start] of block.starts.entries()) seen.push(block.bytes.toString('latin1', start, block.ends[i]))
      }
    }
    for (const [i, until] of ends.entries()) {
      // what comes after it is garbage until it is synced
      writeFileSync(file, Buffer.concat([bytes.subarray(0, fileEnds[i]), Buffer.alloc(100, 0xa5)]), { flag: 'r+' })
      await read({ until, completed: false })
      expect(seen).toEqual(SECTIONS.slice(0, i).flat())
      await read({ until, completed: false })
      expect(seen).toEqual(SECTIONS.slice(0, i).flat())
    }
  })

  test('never gives an entry that was not written, whatever byte is changed or cut off', async () => {
    const small = [['first entry', 'second one'], ['third entry of them']]
    const { bytes, ends } = writtenSegment(
      small.map((entries) => entries.map((text) => Buffer.from(text))),
      { compressor },
    )
    const written = small.flat()
    const index = { until: ends.at(-1)!, completed: true }
    for (let at = 0; at < bytes.length; at++) {
      for (const flip of [0x01, 0x80, 0xff]) {
        const broken = Buffer.from(bytes)
        broken[at]! ^= flip
        const { entries, error } = await readAll(broken, index)
        expect(entries).toEqual(written.slice(0, entries.length))
        if (entries.length < written.length) expect(error).not.toBeNull()
        if (error !== null) expect(['source.protocol', 'source.unprepared']).toContain(error.code)
      }
      const { entries, error } = await readAll(bytes.subarray(0, at), index)
      expect(entries).toEqual(written.slice(0, entries.length))
      expect(error).toMatchObject({ code: 'source.protocol', fix: expect.stringContaining('resnapshot') })
    }
  })
})

test('random bytes in place of sections give an error', async () => {
  const head = writtenSegment([])
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 8, maxLength: 300 }), async (noise) => {
      fc.pre(noise.slice(0, 8).some((byte) => byte !== 0))
      const { entries, error } = await readAll(Buffer.concat([head.bytes, noise]), completed)
      expect(entries).toEqual([])
      expect(error?.code).toBe('source.protocol')
    }),
    { numRuns: 300 },
  )
})

test('a database that died says the length of the file: what was written is read, and no more', async () => {
  const { bytes } = writtenSegment(sections, { padding: 5000 })
  const file = stored(bytes)
  expect(await readAll(file, { until: bytes.length, completed: true })).toMatchObject({ entries: ALL, error: null })
  const compressed = writtenSegment(sections, { compressor: 'LZ4Compressor' })
  expect(compressed.bytes.length).toBeLessThan(compressed.ends.at(-1)!)
  expect(await readAll(stored(compressed.bytes), { until: compressed.bytes.length, completed: true })).toMatchObject({ entries: ALL, error: null })
})

test('a log whose compressor is not installed is none that is broken', async () => {
  const { bytes } = writtenSegment(sections, { compressor: 'LZ4Compressor' })
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      if (specifier === 'lz4-napi') throw new Error('Cannot find module lz4-napi-of-this-machine')
      return next(specifier, context)
    },
  })
  try {
    const { entries, error } = await readAll(stored(bytes), { until: bytes.length, completed: true })
    expect(entries).toEqual([])
    expect(error).toMatchObject({ code: 'source.unprepared', message: expect.stringContaining('lz4-napi'), fix: expect.stringContaining('npm install') })
  } finally {
    hooks.deregister()
  }
})

test('a completed segment of which the rest is zeros is an error with its place', async () => {
  const { bytes, ends } = writtenSegment(sections, { padding: 100 })
  bytes.fill(0, ends[3])
  const { entries, error } = await readAll(stored(bytes), { until: ends[4]!, completed: true })
  expect(entries).toEqual(SECTIONS.slice(0, 3).flat())
  expect(error).toMatchObject({ code: 'source.protocol', message: expect.stringContaining(`offset ${ends[3]}`) })
})

test('what comes before a broken entry is given before the error', async () => {
  const { bytes, ends } = writtenSegment([['first entry', 'second entry'].map((text) => Buffer.from(text))])
  bytes[ends[1]! - 6]! ^= 1
  const file = stored(bytes)
  await using reader = await SegmentReader.open(file)
  expect((await reader.read(completed))!.starts).toHaveLength(1)
  const place = reader.position
  for (let i = 0; i < 2; i++) await expect(reader.read(completed)).rejects.toThrow(`${file}, offset ${place}: an entry has a wrong checksum`)
})

test.each([
  [{ version: 6 }, 'version 6'],
  [{ parameters: '{"compressionClass":"org.example.Own"}' }, 'org.example.Own'],
  [{ parameters: '{"encCipher":"AES/CBC/PKCS5Padding","encKeyAlias":"k"}' }, 'encrypted'],
])('a segment of %o is refused', async (options, message) => {
  const { error } = await readAll(stored(writtenSegment(sections, options).bytes), completed)
  expect(error).toMatchObject({ code: 'source.unprepared', message: expect.stringContaining(message), fix: expect.any(String) })
})

test('says what its header says', async () => {
  await using reader = await SegmentReader.open(stored(writtenSegment([], { version: 8, id: 5n, compressor: 'ZstdCompressor' }).bytes))
  expect(reader.descriptor).toEqual({ version: 8, id: 5n, compression: 'ZstdCompressor' })
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterEach, expect, test } from 'vitest'
import { type KnownRow, KnownRows } from '../../../../connectors/cassandra/known-rows.ts'

const dirs: string[] = []
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true })
})

function context() {
  const dataDir = mkdtempSync(path.join(os.tmpdir(), 'millrace-known-'))
  dirs.push(dataDir)
  return { mesh: 'test', node: 'shop', dataDir, logger: pino({ level: 'silent' }), metric: () => {} }
}

const [p, q] = [Buffer.from('p'), Buffer.from('q')]
const [a, b, c] = ['a', 'b', 'c'].map((text) => Buffer.from(`\0\0\0\x01${text}`)) as [Buffer, Buffer, Buffer]
const row = (writtenAt: number | bigint, alive = true): KnownRow => ({ writtenAt, alive, marked: alive, due: 0 })

test('what was noted is there at once, and after a restart only what was durable before', () => {
  const at = context()
  {
    using known = KnownRows.open(at, true)
    known.flush(0n, { place: 0 })
    known.begin(1n)
    known.note('t', p, a, row(1))
    known.note('t', p, b, row(1))
    known.begin(2n)
    known.note('t', p, a, row(2, false))
    known.note('t', p, c, row(2n ** 62n))
    expect(known.partition('t', p).map(({ clustering }) => clustering)).toEqual([b, c])
    known.flush(1n, { place: 1 })
    expect(known.find('t', p, a)).toEqual(row(2, false))
  }
  {
    using known = KnownRows.open(at, false)
    expect(known.offset).toEqual({ place: 1 })
    expect(known.partition('t', p).map(({ clustering }) => clustering)).toEqual([a, b])
    expect(known.find('t', q, a)).toBe(null)
    known.begin(2n)
    known.note('t', p, c, row(2n ** 62n))
    known.flush(2n, { place: 2 })
    expect(known.find('t', p, c)).toEqual(row(2n ** 62n))
  }
})

test('rows of a chunk are durable at once, and do not go over newer ones', () => {
  const at = context()
  {
    using known = KnownRows.open(at, true)
    known.note('t', p, a, row(5, false))
    known.addRead(
      't',
      [a, b].map((clustering) => ({ partition: p, clustering, row: row(4) })),
      { token: 7n, done: false },
    )
    expect(known.partition('t', p).map(({ clustering }) => clustering)).toEqual([b])
    known.flush(9n, {})
    expect(known.partition('t', p).map(({ clustering }) => clustering)).toEqual([b])
  }
  using known = KnownRows.open(at, false)
  expect(known.upTo('t')).toEqual({ token: 7n, done: false })
  expect(known.partition('t', p).map(({ clustering }) => clustering)).toEqual([b])
})

test('rows that are due, in memory and in the file', () => {
  using known = KnownRows.open(context(), true)
  known.note('t', p, a, { ...row(1), due: 10 })
  known.flush(1n, {})
  known.note('t', q, b, { ...row(2), due: 20 })
  expect(known.due(9, 9)).toEqual([])
  expect(known.due(10, 9)).toEqual([{ tableId: 't', partition: p, clustering: a }])
  expect(known.due(20, 9)).toHaveLength(2)
  known.note('t', p, a, row(3))
  expect(known.due(20, 9)).toEqual([{ tableId: 't', partition: q, clustering: b }])
})

test('a second process is refused, and a file that is gone is history that is lost', () => {
  const at = context()
  {
    using known = KnownRows.open(at, true)
    expect(() => KnownRows.open(at, false)).toThrow(expect.objectContaining({ code: 'source.in_use', fix: expect.any(String) }))
    expect(known.offset).toBe(null)
  }
  rmSync(path.join(at.dataDir, 'cassandra'), { recursive: true })
  expect(() => KnownRows.open(at, false)).toThrow(expect.objectContaining({ code: 'source.history_lost' }))
})

test('rows of a reading that is taken up again are doubted, until they are read or written again', () => {
  using known = KnownRows.open(context(), true)
  known.doubt('t')
  const read = (clustering: Buffer, token: bigint) => known.addRead('t', [{ partition: p, clustering, row: row(4) }], { token, done: false })
  read(a, 7n)
  read(b, 8n)
  known.addRead('t', [{ partition: p, clustering: c, row: row(4, false) }], { token: 9n, done: false })
  known.begin(1n)
  known.note('t', q, a, row(5))
  known.doubt('t')
  expect(known.find('t', p, a)).toEqual({ ...row(4), unsure: true })
  expect(known.find('t', p, b)).toEqual({ ...row(4), unsure: true })
  expect(known.find('t', p, c)).toEqual(row(4, false))
  expect(known.find('t', q, a)).toEqual(row(5))
  read(a, 7n)
  known.note('t', p, b, row(6))
  known.flush(1n, {})
  expect(known.find('t', p, a)).toEqual(row(4))
  expect(known.find('t', p, b)).toEqual(row(6))
})

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type EmbeddedLog, type EmbeddedLogOptions, openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import { batchOf, frameFor, idFrame, logContract, readCount, readUntil, startOf, topicSpec } from '../../testing/log.contract.ts'
import { valuesOf } from '../fault/known-batches.ts'
import { mountSmallDisk, smallDiskSkipReason, unmountSmallDisks } from '../services/small-disk.ts'

const root = mkdtempSync(path.join(os.tmpdir(), 'millrace-log-'))
let folders = 0
const freshDir = (): string => path.join(root, `log-${folders++}`)
const open: AsyncDisposable[] = []

async function openLog(options: EmbeddedLogOptions): Promise<EmbeddedLog> {
  const log = await openEmbeddedLog({ cleanEveryMs: 3_600_000, ...options })
  open.push(log)
  return log
}

afterEach(async () => {
  for (const log of open.splice(0)) await log[Symbol.asyncDispose]()
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

for (const [name, options] of [
  ['the embedded log', {}],
  ['the embedded log with segments of 20 KB', { segmentBytes: 20_000 }],
] as const) {
  logContract(
    name,
    async () => {
      const dir = freshDir()
      let log = await openEmbeddedLog({ dir, ...options })
      return {
        log,
        reopen: async () => {
          await log[Symbol.asyncDispose]()
          log = await openEmbeddedLog({ dir, ...options })
          return log
        },
        dispose: () => Promise.resolve(log[Symbol.asyncDispose]()),
      }
    },
    { expire: (log) => (log as EmbeddedLog).clean({ nowMs: Date.now() + 60_000 }), wakeMs: 1000 },
  )
}

/** Files of segments in the folder of a log. */
const segmentFiles = (dir: string): string[] => readdirSync(path.join(dir, 'segments')).sort()
const segmentBytes = (dir: string): number => segmentFiles(dir).reduce((n, file) => n + statSync(path.join(dir, 'segments', file)).size, 0)
const keyed = (key: string, value: string | null) => ({ key: Buffer.from(key), value: value === null ? null : Buffer.from(value) })

describe('one writing process', () => {
  test('a second process gets log.locked, which names the first', async () => {
    const dir = freshDir()
    await openLog({ dir })
    await expect(openEmbeddedLog({ dir })).rejects.toMatchObject({ code: 'log.locked', message: expect.stringContaining(String(process.pid)) })
    const module = path.resolve('core/log/embedded/embedded-log.ts')
    const script = `import { openEmbeddedLog } from ${JSON.stringify(module)}; try { await openEmbeddedLog({ dir: ${JSON.stringify(dir)} }); console.log('opened') } catch (e) { console.log(e.code, e.message) }`
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
    expect(said).toMatch(/^log\.locked /)
    expect(said).toContain(`process ${process.pid}`)
  })

  test('a log is the same one after a restart, after new segments and to other readers; one that is made anew is another', async () => {
    const dir = freshDir()
    const log = await openLog({ dir, segmentBytes: 4_000 })
    const { identity } = log
    expect(identity).toMatch(/^[0-9a-f-]{36}$/)
    await log.ensureTopics([topicSpec('t')])
    const writer = await log.openWriter('node')
    for (let n = 0; n < 20; n++) await writer.append(batchOf([idFrame('t', 0, ['x'.repeat(1000)])]))
    expect((await openLog({ dir, readOnly: true })).identity).toBe(identity)
    await log[Symbol.asyncDispose]()
    expect((await openLog({ dir })).identity).toBe(identity)
    expect((await openLog({ dir: freshDir() })).identity).not.toBe(identity)
  })

  test('closing frees the folder', async () => {
    const dir = freshDir()
    const log = await openEmbeddedLog({ dir })
    await log[Symbol.asyncDispose]()
    await openLog({ dir })
  })
})

/** Of a poll, whose own is a second. */
const PATIENT = { timeout: 60_000 }

describe('readers in other processes', () => {
  test('a read-only log follows the writer through appends, new segments and cleaning', async () => {
    const dir = freshDir()
    const log = await openLog({ dir, segmentBytes: 4_000 })
    await log.ensureTopics([topicSpec('t', 2), topicSpec('short', 1, { retentionMs: 1000 })])
    const reader = await openLog({ dir, readOnly: true })
    const writer = await log.openWriter('node')
    const reading = readCount(reader, [startOf('t', 0), startOf('t', 1)], 600)
    for (let n = 0; n < 300; n++) {
      await writer.append(batchOf([idFrame('t', 0, [`a${n}`]), idFrame('t', 1, [`b${n}`]), idFrame('short', 0, [`${n}`])], { n }))
      if (n % 100 === 99) await log.clean({ force: true, nowMs: Date.now() + 60_000 })
    }
    const seen = await reading
    expect(seen.filter((r) => r.partition === 0).map((r) => r.id)).toEqual(Array.from({ length: 300 }, (_, n) => `a${n}`))
    expect(seen.filter((r) => r.partition === 1).map((r) => r.id)).toEqual(Array.from({ length: 300 }, (_, n) => `b${n}`))
    await expect.poll(async () => (await reader.progress('node')).get('n'), PATIENT).toBe(299)
    await expect.poll(() => reader.bounds('short'), PATIENT).toEqual(await log.bounds('short'))
    expect((await log.bounds('short'))[0]!.start).toBe(300n)
    // a reader that comes later sees the same
    const later = await openLog({ dir, readOnly: true })
    expect(await later.bounds('t')).toEqual(await log.bounds('t'))
    expect((await readCount(later, [startOf('t', 1)], 300)).map((r) => r.id)).toEqual(Array.from({ length: 300 }, (_, n) => `b${n}`))
  })

  test('a reader in another process has a record within a second', async () => {
    const dir = freshDir()
    const log = await openLog({ dir })
    await log.ensureTopics([topicSpec('t')])
    const writer = await log.openWriter('node')
    const reader = await openLog({ dir, readOnly: true })
    const batches = reader.consume([startOf('t')], new AbortController().signal)[Symbol.asyncIterator]()
    const waits: number[] = []
    for (let n = 0; n < 20; n++) {
      const next = batches.next()
      await writer.append(batchOf([idFrame('t', 0, [`${n}`])]))
      const at = performance.now()
      await next
      waits.push(performance.now() - at)
    }
    await batches.return?.()
    // most of them: the machine may be busy with something else for a while
    expect(waits.sort((a, b) => a - b)[15]).toBeLessThan(1000)
  })

  test('writing is refused, and a folder without a log is told apart', async () => {
    const dir = freshDir()
    await expect(openEmbeddedLog({ dir, readOnly: true })).rejects.toMatchObject({ code: 'log.unreachable' })
    await openLog({ dir })
    const reader = await openLog({ dir, readOnly: true })
    await expect(reader.openWriter('node')).rejects.toMatchObject({ code: 'log.refused' })
    await expect(reader.ensureTopics([topicSpec('t')])).rejects.toMatchObject({ code: 'log.refused' })
    await expect(reader.bounds('t')).rejects.toMatchObject({ code: 'log.unreachable' })
  })
})

describe('positions', () => {
  test('a position after the end gives log.position_lost: it is of another log', async () => {
    const log = await openLog({ dir: freshDir() })
    await log.ensureTopics([topicSpec('t')])
    await expect(readCount(log, [{ topic: 't', partition: 0, offset: 1n }], 1)).rejects.toMatchObject({ code: 'log.position_lost' })
  })
})

describe('retention', () => {
  test('expired records free their bytes, the rest stays, and a reader in the middle goes on', async () => {
    const dir = freshDir()
    const log = await openLog({ dir, segmentBytes: 50_000 })
    await log.ensureTopics([topicSpec('short', 1, { retentionMs: 1000 }), topicSpec('kept')])
    const writer = await log.openWriter('node')
    const value = 'x'.repeat(2000)
    for (let n = 0; n < 100; n++)
      await writer.append(batchOf([frameFor('short', 0, [keyed(`${n}`, value)]), ...(n % 10 === 0 ? [idFrame('kept', 0, [`${n}`])] : [])]))
    const before = segmentBytes(dir)
    const reader = log.consume([startOf('kept')], new AbortController().signal)[Symbol.asyncIterator]()
    expect((await reader.next()).value?.baseOffset).toBe(0n)
    await log.clean({ nowMs: Date.now() + 60_000, force: true })
    expect(segmentBytes(dir)).toBeLessThan(before / 10)
    expect(await log.bounds('short')).toEqual([{ partition: 0, start: 100n, end: 100n }])
    for (let n = 1; n < 10; n++) expect((await reader.next()).value?.baseOffset).toBe(BigInt(n))
    await reader.return?.()
    expect((await readCount(log, [startOf('kept')], 10)).map((r) => r.id)).toEqual(Array.from({ length: 10 }, (_, n) => `${n * 10}`))
    await log[Symbol.asyncDispose]()
    const again = await openLog({ dir })
    expect(await again.bounds('short')).toEqual([{ partition: 0, start: 100n, end: 100n }])
    expect((await readCount(again, [startOf('kept')], 10)).length).toBe(10)
  })

  test('a topic that exists takes over the retention that its spec has now', async () => {
    const dir = freshDir()
    const log = await openLog({ dir, segmentBytes: 50_000 })
    await log.ensureTopics([topicSpec('t')])
    const writer = await log.openWriter('node')
    for (let n = 0; n < 100; n++) await writer.append(batchOf([frameFor('t', 0, [keyed(`${n}`, 'x'.repeat(2000))])]))
    await log.clean({ nowMs: Date.now() + 60_000, force: true })
    expect(await log.bounds('t')).toEqual([{ partition: 0, start: 0n, end: 100n }])
    await log.ensureTopics([topicSpec('t', 1, { retentionMs: 1000 })])
    await log.clean({ nowMs: Date.now() + 60_000, force: true })
    expect(await log.bounds('t')).toEqual([{ partition: 0, start: 100n, end: 100n }])
  })

  test('a bound in bytes drops the oldest segments of a topic', async () => {
    const dir = freshDir()
    const log = await openLog({ dir, segmentBytes: 20_000, retentionBytes: 50_000 })
    await log.ensureTopics([topicSpec('t')])
    const writer = await log.openWriter('node')
    for (let n = 0; n < 200; n++) await writer.append(batchOf([frameFor('t', 0, [keyed(`${n}`, 'x'.repeat(1000))])]))
    await log.clean()
    const [bounds] = await log.bounds('t')
    expect(bounds!.start).toBeGreaterThan(100n)
    expect(bounds!.start).toBeLessThan(160n)
    expect(segmentBytes(dir)).toBeLessThan(120_000)
    expect((await readUntil(log, [{ topic: 't', partition: 0, offset: bounds!.start }], (seen) => seen.at(-1)?.offset === 199n)).length).toBe(
      200 - Number(bounds!.start),
    )
  })
})

describe('compaction', () => {
  test.each([100_000, 20])('keeps the last record of each key, at its offset, with room for %i keys at once', async (keysInMemory) => {
    const dir = freshDir()
    const log = await openLog({ dir, segmentBytes: 20_000, keysInMemory })
    await log.ensureTopics([topicSpec('c', 2, { compacted: true }), topicSpec('other')])
    const writer = await log.openWriter('node')
    const last = new Map<string, { id: string | null; partition: number }>()
    for (let n = 0; n < 300; n++) {
      const partition = n % 2
      const plain = Array.from({ length: 5 }, (_, i) => {
        const key = `k${partition}-${(n * 7 + i * 3) % 40}`
        const id = (n + i) % 11 === 0 ? null : `${key} ${n}.${i} ${'x'.repeat(50)}`
        last.delete(key)
        last.set(key, { id, partition })
        return keyed(key, id)
      })
      await writer.append(batchOf([frameFor('c', partition, plain), idFrame('other', 0, [`${n}`])]))
    }
    const positions = [startOf('c', 0), startOf('c', 1)]
    const before = await readCount(log, positions, 1500)
    const offsets = new Map(before.map((record) => [`${record.partition} ${record.offset}`, record]))
    await log.clean({ force: true })
    const check = async (from: EmbeddedLog, expected: number) => {
      const after = await readUntil(from, positions, (seen) => seen.length >= expected)
      for (const record of after) expect(offsets.get(`${record.partition} ${record.offset}`)).toEqual(record)
      return after
    }
    const survivors = await check(log, last.size)
    const found = new Map(survivors.map((record) => [record.key!, { id: record.id, partition: record.partition }]))
    expect(survivors.length).toBe(last.size)
    expect(found).toEqual(last)
    expect(await log.bounds('c')).toEqual([0, 1].map((partition) => ({ partition, start: 0n, end: 750n })))
    expect((await readCount(log, [startOf('other')], 300)).map((r) => r.id)).toEqual(Array.from({ length: 300 }, (_, n) => `${n}`))

    // tombstones go once they are old; then who stopped in the middle is told, and who starts anew sees the same rows
    await log.clean({ force: true, nowMs: Date.now() + 8 * 24 * 3600 * 1000 })
    const rows = [...last].filter(([, { id }]) => id !== null)
    const kept = await check(log, rows.length)
    expect(new Set(kept.map((record) => record.key))).toEqual(new Set(rows.map(([key]) => key)))
    await expect(readCount(log, [{ topic: 'c', partition: 0, offset: 1n }], 1)).rejects.toMatchObject({ code: 'log.position_lost' })

    await writer.append(batchOf([frameFor('c', 0, [keyed('k0-new', 'new')]), frameFor('c', 1, [keyed('k1-new', 'new')])]))
    await log[Symbol.asyncDispose]()
    const again = await openLog({ dir })
    const everything = await readUntil(again, positions, (seen) => seen.filter((record) => record.id === 'new').length === 2)
    expect(everything.length).toBe(rows.length + 2)
  })

  test('a reader that had the row, and not yet the delete that is taken away, is told; one that begins anew is not', async () => {
    const log = await openLog({ dir: freshDir(), segmentBytes: 4_000 })
    await log.ensureTopics([topicSpec('c', 1, { compacted: true })])
    const writer = await log.openWriter('node')
    const fill = async (from: number) => {
      for (let n = from; n < from + 30; n++) await writer.append(batchOf([frameFor('c', 0, [keyed(`k${n}`, 'x'.repeat(400))])]))
    }
    await writer.append(batchOf([frameFor('c', 0, [keyed('gone', 'row')])]))
    await fill(0)
    await writer.append(batchOf([frameFor('c', 0, [keyed('gone', null)])]))
    await fill(30)
    const { end } = (await log.bounds('c'))[0]!
    const stop = new AbortController()
    const reading = log.consume([startOf('c')], stop.signal)[Symbol.asyncIterator]()
    try {
      const first = (await reading.next()).value as { baseOffset: bigint }
      expect(first.baseOffset).toBe(0n)
      await log.clean({ force: true, nowMs: Date.now() + 8 * 24 * 3600 * 1000 })
      const readOn = async () => {
        for (let next = 0n; next < end; ) next = ((await reading.next()).value as { nextOffset: bigint }).nextOffset
      }
      await expect(readOn()).rejects.toMatchObject({ code: 'log.position_lost' })
    } finally {
      stop.abort()
      await reading.return?.()
    }
    expect((await readCount(log, [startOf('c')], 60)).map(({ key }) => key)).not.toContain('gone')
  })

  test('goes on beside appends and readers, which miss nothing', async () => {
    const log = await openLog({ dir: freshDir(), segmentBytes: 10_000 })
    await log.ensureTopics([topicSpec('c', 1, { compacted: true }), topicSpec('all')])
    const writer = await log.openWriter('node')
    let done = false
    const cleaning = (async () => {
      while (!done) {
        await log.clean({ force: true })
        await delay(1)
      }
    })()
    const reading = readCount(log, [startOf('all')], 1000)
    for (let n = 0; n < 1000; n++) await writer.append(batchOf([frameFor('c', 0, [keyed(`${n % 10}`, `${n}`)]), idFrame('all', 0, [`${n}`])]))
    done = true
    await cleaning
    expect((await reading).map((record) => record.id)).toEqual(Array.from({ length: 1000 }, (_, n) => `${n}`))
    await log.clean({ force: true })
    const seen = await readUntil(log, [startOf('c')], (all) => all.at(-1)?.offset === 999n)
    expect(seen.map((record) => record.id)).toEqual(Array.from({ length: 10 }, (_, n) => `${990 + n}`))
  })
})

test.runIf(process.platform !== 'win32')('a file size limit is log.full too, and what landed is whole', async () => {
  const dir = freshDir()
  const child = path.resolve('test/fault/embedded-log-filler.ts')
  const said = JSON.parse(execFileSync('bash', ['-c', 'ulimit -f 128 && exec "$0" "$@"', process.execPath, child, dir], { encoding: 'utf8' }))
  expect(said).toMatchObject({ failed: 'log.full', again: 'log.full', progress: said.landed - 1 })
  expect(said.landed).toBeGreaterThan(20)
  const log = await openLog({ dir })
  expect((await log.progress('node')).get('n')).toBe(said.landed - 1)
  expect((await log.bounds('all')).map(({ end }) => Number(end))).toEqual(said.ends)
  for (const partition of [0, 1, 2]) {
    const expected = Array.from({ length: said.landed }, (_, n) => valuesOf(n, partition)).flat()
    expect((await readCount(log, [startOf('all', partition)], expected.length)).map((record) => record.id)).toEqual(expected)
  }
})

test('a batch that cannot be stored is refused, and none lands before it', async () => {
  const log = await openLog({ dir: freshDir() })
  await log.ensureTopics([topicSpec('t')])
  const writer = await log.openWriter('node')
  const [wrong, next] = [batchOf([idFrame('missing', 0, ['a'])], { n: 0 }), batchOf([idFrame('t', 0, ['b'])], { n: 1 })]
  await expect(writer.append(wrong)).rejects.toMatchObject({ code: 'log.refused', category: 'config' })
  await expect(writer.append(next)).rejects.toMatchObject({ code: 'log.refused' })
  expect((await log.progress('node')).size).toBe(0)
  await log.ensureTopics([topicSpec('missing')])
  await writer.append(wrong)
  await writer.append(next)
  expect((await readCount(log, [startOf('missing'), startOf('t')], 2)).length).toBe(2)
  const frame = idFrame('t', 0, ['c'])
  await expect(writer.append(batchOf([{ ...frame, end: frame.end - 1 }]))).rejects.toMatchObject({ code: 'invariant.broken' })
  await expect((await log.openWriter('other')).append(batchOf([idFrame('t', 1, ['d'])]))).rejects.toMatchObject({ code: 'log.refused' })
  for (const topic of ['', '.', '..', 'a/b', 'ü', 'x'.repeat(250)])
    await expect(log.ensureTopics([topicSpec(topic)])).rejects.toMatchObject({ code: 'log.refused' })
  await log.ensureTopics([topicSpec('x'.repeat(249)), topicSpec('__proto__'), topicSpec('A.b-c_D')])
  await (await log.openWriter('__proto__')).append(batchOf([idFrame('__proto__', 0, ['e'])], { __proto__x: 1 }))
  expect((await readCount(log, [startOf('__proto__')], 1))[0]!.id).toBe('e')
})

const mount = path.join(root, 'small-disk')
const noDisk = smallDiskSkipReason()
describe.skipIf(noDisk !== null)(`a full disk${noDisk === null ? '' : ` (skipped: ${noDisk})`}`, () => {
  beforeAll(() => mountSmallDisk(mount, 3))
  afterAll(unmountSmallDisks)

  test('append gives log.full, nothing half is visible, and the same batches land in order once there is room', async () => {
    const dir = path.join(mount, 'log')
    const log = await openLog({ dir, segmentBytes: 500_000 })
    await log.ensureTopics([topicSpec('t', 2)])
    const writer = await log.openWriter('node')
    writeFileSync(path.join(mount, 'ballast'), Buffer.alloc(1_500_000))
    const batches = Array.from({ length: 40 }, (_, n) =>
      batchOf([frameFor('t', 0, [keyed(`${n}`, 'x'.repeat(30_000))]), frameFor('t', 1, [keyed(`${n}`, 'y'.repeat(30_000))])], { n }),
    )
    const failed: (typeof batches)[number][] = []
    let landed = 0
    for (let n = 0; n < batches.length; n += 5) {
      const outcomes = await Promise.allSettled(batches.slice(n, n + 5).map((batch) => writer.append(batch)))
      for (const [i, outcome] of outcomes.entries()) {
        if (outcome.status === 'fulfilled') {
          expect(failed).toEqual([])
          landed++
        } else {
          expect(outcome.reason).toMatchObject({ code: 'log.full', category: 'unavailable' })
          failed.push(batches[n + i]!)
        }
      }
    }
    expect(failed.length).toBeGreaterThan(5)
    expect(landed).toBeGreaterThan(2)
    expect((await log.bounds('t')).map(({ end }) => end)).toEqual([BigInt(landed), BigInt(landed)])
    expect((await log.progress('node')).get('n')).toBe(landed - 1)
    expect((await readCount(log, [startOf('t', 0), startOf('t', 1)], landed * 2)).length).toBe(landed * 2)

    // a small batch behind a large one that fails must not slip in, though it would fit
    const other = await log.openWriter('other')
    const large = batchOf([frameFor('t', 0, [keyed('large', 'z'.repeat(2_800_000))])], { large: true })
    const small = batchOf([idFrame('t', 0, ['small'])], { small: true })
    const largeFails = expect(other.append(large)).rejects.toMatchObject({ code: 'log.full' })
    for (let turn = 0; turn < 5; turn++) await Promise.resolve()
    await expect(other.append(small)).rejects.toMatchObject({ code: 'log.full' })
    await largeFails
    expect((await log.progress('other')).size).toBe(0)

    rmSync(path.join(mount, 'ballast'))
    // a batch out of its turn would leave a hole
    await expect(writer.append(failed[3]!)).rejects.toMatchObject({ code: 'log.full' })
    for (const batch of failed) await writer.append(batch)
    for (const partition of [0, 1]) {
      const seen = await readCount(log, [startOf('t', partition)], batches.length)
      expect(seen.map((record) => record.key)).toEqual(batches.map((_, n) => `${n}`))
    }
    await log[Symbol.asyncDispose]()
    const again = await openLog({ dir })
    expect((await again.bounds('t')).map(({ end }) => end)).toEqual([40n, 40n])
    expect((await again.progress('node')).get('n')).toBe(39)
  })
})

test('the event loop is not blocked by appends', async () => {
  const log = await openLog({ dir: freshDir() })
  await log.ensureTopics([topicSpec('t')])
  const writer = await log.openWriter('node')
  let turns = 0
  let busy = true
  const spin = () => {
    turns++
    if (busy) setImmediate(spin)
  }
  setImmediate(spin)
  for (let n = 0; n < 50; n++) await writer.append(batchOf([idFrame('t', 0, [`${n}`])]))
  busy = false
  // more than one for each, however fast the disk is
  expect(turns).toBeGreaterThan(50)
})

import { copyFileSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MillraceError } from '../../../../../core/errors.ts'
import { type EmbeddedLog, openEmbeddedLog } from '../../../../../core/log/embedded/embedded-log.ts'
import { batchOf, idFrame, readCount, type SeenRecord, startOf, topicSpec } from '../../../../../testing/log.contract.ts'

const root = mkdtempSync(path.join(os.tmpdir(), 'millrace-damaged-'))
const whole = path.join(root, 'whole')
let folders = 0
afterAll(() => rmSync(root, { recursive: true, force: true }))

const BATCHES = 30
let expected: SeenRecord[]

async function contents(log: EmbeddedLog): Promise<SeenRecord[]> {
  const seen: SeenRecord[] = []
  for (const partition of [0, 1]) {
    const bounds = await log.bounds('t')
    seen.push(...(await readCount(log, [startOf('t', partition)], Number(bounds[partition]!.end))))
  }
  return seen
}

async function write(dir: string, batches: number, afterEach: (n: number) => void = () => {}): Promise<void> {
  await using log = await openEmbeddedLog({ dir, segmentBytes: 2_500 })
  await log.ensureTopics([topicSpec('t', 2)])
  await using writer = await log.openWriter('node')
  for (let n = 0; n < batches; n++) {
    await writer.append(batchOf([idFrame('t', 0, [`a${n}`, `b${n}`]), idFrame('t', 1, [`c${n}`])], { n }))
    afterEach(n)
  }
}

function copy(): string {
  const dir = path.join(root, `copy-${folders++}`)
  cpSync(whole, dir, { recursive: true })
  return dir
}

beforeAll(async () => {
  await write(whole, BATCHES)
  await using log = await openEmbeddedLog({ dir: copy() })
  expected = await contents(log)
  expect(expected.length).toBe(BATCHES * 3)
  expect(readdirSync(path.join(whole, 'segments')).length).toBeGreaterThan(2)
})

/** Opens and reads what was damaged: it is all there, or the error says which file and byte. Never less, never another error. */
async function allOrCorrupt(dir: string, readOnly: boolean): Promise<'all' | 'corrupt'> {
  try {
    await using log = await openEmbeddedLog({ dir, readOnly })
    expect((await log.progress('node')).get('n')).toBe(BATCHES - 1)
    expect(await contents(log)).toEqual(expected)
    return 'all'
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error
    expect(error).toMatchObject({ code: 'log.corrupt', message: expect.stringMatching(/byte \d+/), fix: expect.any(String) })
    expect(error.message).toContain(dir)
    return 'corrupt'
  }
}

const segmentFile = fc.nat().map((n) => {
  const files = readdirSync(path.join(whole, 'segments')).sort()
  return files[n % files.length]!
})

test('bytes flipped in a segment', async () => {
  const outcomes = { all: 0, corrupt: 0 }
  await fc.assert(
    fc.asyncProperty(
      segmentFile,
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      fc.integer({ min: 1, max: 255 }),
      async (file, place, flip) => {
        const dir = copy()
        const damaged = path.join(dir, 'segments', file)
        const bytes = readFileSync(damaged)
        bytes[Math.floor(place * bytes.length)]! ^= flip
        writeFileSync(damaged, bytes)
        outcomes[await allOrCorrupt(dir, false)]++
        rmSync(dir, { recursive: true })
      },
    ),
    { numRuns: 90, seed: 11 },
  )
  // heads of sealed segments are not read again, all else is
  expect(outcomes.corrupt).toBeGreaterThan(15)
})

test('a segment cut short, by a bit or by a lot, or gone', async () => {
  await fc.assert(
    fc.asyncProperty(segmentFile, fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), async (file, place) => {
      const dir = copy()
      const damaged = path.join(dir, 'segments', file)
      truncateSync(damaged, Math.floor(place * statSync(damaged).size))
      expect(await allOrCorrupt(dir, false)).toBe('corrupt')
      rmSync(damaged)
      expect(await allOrCorrupt(dir, false)).toBe('corrupt')
      rmSync(dir, { recursive: true })
    }),
    { numRuns: 30 },
  )
})

test('a damaged, stale or missing mark costs nothing', async () => {
  for (let at = 0; at < 32; at++) {
    const dir = copy()
    const mark = readFileSync(path.join(dir, 'committed'))
    mark[at]! ^= 0x11
    writeFileSync(path.join(dir, 'committed'), mark)
    expect(await allOrCorrupt(dir, false)).toBe('all')
    rmSync(dir, { recursive: true })
  }
  const dir = copy()
  rmSync(path.join(dir, 'committed'))
  expect(await allOrCorrupt(dir, false)).toBe('all')
})

test('garbage after the last group is cut, and the log goes on', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 5000 }), async (garbage) => {
      const dir = copy()
      const last = path.join(dir, 'segments', readdirSync(path.join(dir, 'segments')).sort().at(-1)!)
      writeFileSync(last, garbage, { flag: 'a' })
      expect(await allOrCorrupt(dir, false)).toBe('all')
      expect(await allOrCorrupt(dir, true)).toBe('all')
      rmSync(dir, { recursive: true })
    }),
    { numRuns: 20 },
  )
})

test('a crash after any byte of a write: the group is there whole or not at all, also when a segment was begun in it', async () => {
  const dir = path.join(root, 'torn')
  const steps: { files: Map<string, Buffer>; n: number }[] = []
  const snapshot = (n: number) => {
    const files = new Map(readdirSync(path.join(dir, 'segments')).map((file) => [`segments/${file}`, readFileSync(path.join(dir, 'segments', file))]))
    files.set('committed', readFileSync(path.join(dir, 'committed')))
    steps.push({ files, n })
  }
  await write(dir, 9, snapshot)
  let cuts = 0
  let rolls = 0
  for (let step = 1; step < steps.length; step++) {
    const [before, after] = [steps[step - 1]!, steps[step]!]
    // the files in the order in which they grew: what follows a cut was not written yet, but for the zeros of the room made before
    const written = (bytes: Buffer | undefined) => (bytes?.findLastIndex((byte) => byte !== 0) ?? -1) + 1
    const grown = [...after.files].filter(([file, bytes]) => file !== 'committed' && written(bytes) > written(before.files.get(file))).sort()
    if (grown.length > 1) rolls++
    for (const [i, [file, bytes]] of grown.entries()) {
      const from = written(before.files.get(file))
      const to = written(bytes)
      const earlier = before.files.get(file)?.length ?? 0
      const room = bytes.length >= earlier ? earlier : 0
      for (let cut = from; cut <= to; cut += cut < from + 45 || cut > to - 20 ? 9 : 97) {
        cuts++
        const torn = path.join(root, `torn-${folders++}`)
        cpSync(dir, torn, { recursive: true })
        rmSync(path.join(torn, 'segments'), { recursive: true })
        cpSync(path.join(dir, 'segments'), path.join(torn, 'segments'), { recursive: true, filter: (source) => !source.endsWith('.segment') })
        for (const [name, content] of before.files) writeFileSync(path.join(torn, name), content)
        for (const [name, content] of grown.slice(0, i)) writeFileSync(path.join(torn, name), content)
        writeFileSync(path.join(torn, file), Buffer.concat([bytes.subarray(0, cut), Buffer.alloc(Math.max(0, room - cut))]))
        await using log = await openEmbeddedLog({ dir: torn, segmentBytes: 2_500 })
        const n = (await log.progress('node')).get('n') as number
        expect([before.n, after.n]).toContain(n)
        expect((await log.bounds('t')).map(({ end }) => Number(end))).toEqual([(n + 1) * 2, n + 1])
        await using writer = await log.openWriter('node')
        await writer.append(batchOf([idFrame('t', 0, ['more'])]))
        expect((await readCount(log, [startOf('t', 0)], (n + 1) * 2 + 1)).at(-1)!.id).toBe('more')
        rmSync(torn, { recursive: true })
      }
    }
  }
  expect(cuts).toBeGreaterThan(50)
  expect(rolls).toBeGreaterThan(0)
})

test('a group of which pages never reached the disk is cut, and the log goes on past it', async () => {
  const dir = path.join(root, 'holes')
  let mark = Buffer.alloc(0)
  let begin = 0
  const file = () => path.join(dir, 'segments', '000000000000.segment')
  {
    await using log = await openEmbeddedLog({ dir })
    await log.ensureTopics([topicSpec('t')])
    await using writer = await log.openWriter('node')
    await writer.append(batchOf([idFrame('t', 0, ['a'])], { n: 0 }))
    mark = readFileSync(path.join(dir, 'committed'))
    begin = statSync(file()).size
    await writer.append(batchOf([idFrame('t', 0, ['b'.repeat(3000)])], { n: 1 }))
  }
  const bytes = readFileSync(file())
  for (let at = begin; at < bytes.length; at += 97) {
    const torn = path.join(root, `holes-${folders++}`)
    cpSync(dir, torn, { recursive: true })
    const holed = Buffer.from(bytes)
    holed.fill(0, at, Math.min(at + 97, holed.length))
    writeFileSync(path.join(torn, 'committed'), mark)
    writeFileSync(path.join(torn, 'segments', '000000000000.segment'), holed)
    for (const id of ['x', 'y']) {
      // small segments: what is left of the tail must not end up behind the footer
      await using log = await openEmbeddedLog({ dir: torn, segmentBytes: 100 })
      await using writer = await log.openWriter('node')
      await writer.append(batchOf([idFrame('t', 0, [id])]))
    }
    await using log = await openEmbeddedLog({ dir: torn })
    expect((await log.progress('node')).get('n')).toBe(0)
    expect((await readCount(log, [startOf('t')], 3)).map((record) => record.id)).toEqual(['a', 'x', 'y'])
  }
})

test('replaced segments that a crash left behind are passed over', async () => {
  const dir = copy()
  const saved = path.join(root, 'saved')
  cpSync(path.join(dir, 'segments'), saved, { recursive: true })
  {
    await using log = await openEmbeddedLog({ dir, runBytes: 1_000_000 })
    await log.ensureTopics([topicSpec('t', 2, { compacted: true })])
    await log.clean({ force: true })
    expect(readdirSync(path.join(dir, 'segments')).length).toBeLessThan(readdirSync(saved).length)
  }
  const names = readdirSync(path.join(dir, 'segments'))
  for (const file of readdirSync(saved)) if (!names.includes(file)) copyFileSync(path.join(saved, file), path.join(dir, 'segments', file))
  writeFileSync(path.join(dir, 'segments', '000000000000-000000000001-1.segment.tmp'), 'half a rewrite')
  expect(await allOrCorrupt(dir, true)).toBe('all')
  expect(await allOrCorrupt(dir, false)).toBe('all')
  expect(readdirSync(path.join(dir, 'segments')).sort()).toEqual(names.sort())
})

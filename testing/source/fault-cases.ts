import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { readAnew } from '../../core/capture/start-over.ts'
import { asMillraceError, MillraceError } from '../../core/errors.ts'
import type { SourceOffset } from '../../core/event/offset.ts'
import { snapshotDone } from './snapshot-cases.ts'
import type { SourceCapabilities, Write } from './source-driver.ts'
import { columnOf, type SourceBench, type SourceRun, until } from './source-run.ts'
import { expectChanges, expectRising, expectState, isStreamed, type OpenBench, PROMPT_MS } from './stream-cases.ts'
import type { LogFaults } from './test-log.ts'
import { seeded } from './workload.ts'

const MIB = 1024 * 1024
/** Large transactions before a kill: a source that starts slowly is not flooded. */
const MOST_LARGE = 20

/** What the process holds, after all that can be given back was: buffers that one collection found are counted until the next. */
function heldBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** A log that ends with an append, before or after it landed; a slow one has others waiting then. */
function killAt(append: number, landed: boolean, slowMs: number): LogFaults {
  const kill = (n: number) => {
    if (n === append) throw new MillraceError('log.unreachable', 'killed')
  }
  const beforeLanding = async (n: number) => {
    if (slowMs > 0) await delay(slowMs)
    if (!landed) kill(n)
  }
  return landed ? { beforeLanding, afterLanding: kill } : { beforeLanding }
}

/** Starts it again while it may pass, as the runtime does. */
async function startAgain(bench: SourceBench): Promise<SourceRun> {
  let run: SourceRun | null = null
  await until('the source opens again', async () => {
    run = await bench.start().catch((error: unknown) => {
      if (asMillraceError(error).category !== 'unavailable') throw error
      return null
    })
    return run !== null
  })
  return run!
}

export function faultCases(open: OpenBench, can: SourceCapabilities): void {
  const rounds = can.rounds ?? 8

  test(`killed ${rounds} times before or after a batch landed, with a fast and a slow log, in snapshot and stream, nothing is lost and nothing is there twice`, async () => {
    await using bench = await open()
    const tables = ['items', 'parts']
    await bench.createTable(...tables)
    await bench.write(bench.work.fill('items', 600))
    const before = bench.oracle.changes.length
    const random = seeded(11)
    for (let round = 0; round < rounds; round++) {
      const run = await bench.start({ snapshot: 'initial', chunkRows: 40, faults: killAt(random(10), random(2) === 0, (round % 2) * 15) })
      let large = round % 3 === 2 ? MOST_LARGE : 0
      await until('the kill', async () => {
        await bench.write(large-- > 0 ? bench.work.fill('parts', 400, 300) : bench.work.transaction(tables))
        return run.failure !== null
      })
      await run.stop()
      expect(run.failure).toMatchObject({ message: 'killed' })
      if (round === rounds >> 1 && bench.source.addColumn !== undefined) {
        await bench.source.addColumn('items')
        bench.work.extra.add('items')
      }
    }
    const last = await bench.start({ snapshot: 'initial', chunkRows: 40 })
    await last.until('the snapshot is done', () => snapshotDone(last))
    await bench.caughtUp(last)
    expectRising(bench.log)
    expectState(bench.log, bench.oracle)
    expectChanges(bench.log.changes.filter(isStreamed), bench.oracle.changes.slice(before), can, 1)
  })

  if (can.fixedColumns !== true)
    test('a column that is added in mid-stream is in the changes after it, and in none before', async ({ skip }) => {
      await using bench = await open()
      if (bench.source.addColumn === undefined) return skip('the driver cannot add a column')
      await bench.createTable('items')
      const run = await bench.start()
      for (let n = 0; n < 10; n++) await bench.write(bench.work.transaction(['items']))
      const changed = bench.oracle.changes.length
      await bench.source.addColumn('items')
      bench.work.extra.add('items')
      for (let n = 0; n < 10; n++) await bench.write(bench.work.transaction(['items']))
      await bench.caughtUp(run)
      expectChanges(bench.log.changes, bench.oracle.changes, can)
      const shapes = bench.log.changes.map((change) => (change.kind === 'row' ? change.table.columns.map(({ name, id }) => `${name} ${id}`) : []))
      expect(shapes.slice(0, changed).filter((shape) => shape.length > 4)).toEqual([])
      // a column keeps its identity
      expect(shapes.at(-1)!.length).toBe(5)
      expect(shapes.at(-1)!.slice(0, 4)).toEqual(shapes[0])
    })

  test('a change that cannot be written parks its table alone, until it is read again', async () => {
    await using bench = await open()
    const tables = ['items', 'parts']
    await bench.createTable(...tables)
    const run = await bench.start()
    await bench.caughtUp(run)
    run.unwritable = 'items'
    await until('the table is parked', async () => {
      if (run.failure !== null) throw run.failure
      await bench.write(bench.work.transaction(tables))
      return run.status?.parked.length === 1
    })
    // what was written before lands before these
    await bench.write(bench.work.fill('parts', 1))
    await bench.caughtUp(run, bench.log, ['parts'])
    const ofItems = () => bench.log.changes.filter((change) => change.kind !== 'message' && change.table.name === 'items').length
    const before = ofItems()
    await bench.write([...bench.work.fill('items', 20), ...bench.work.fill('parts', 20), ...bench.work.fill('items', 20)])
    await bench.caughtUp(run, bench.log, ['parts'])
    expect(ofItems()).toBe(before)
    expectChanges(
      bench.log.changes.filter((change) => change.kind !== 'message' && change.table.name === 'parts'),
      bench.oracle.changes.filter(({ table }) => table === 'parts'),
      can,
    )
    const id = `${bench.source.namespace}.items`
    expect(run.status!.parked).toMatchObject([{ table: id, code: 'record.unrepresentable', skipped: expect.any(Number) }])
    // told a few times a second
    await run.until('what is left out is counted', () => run.status!.parked[0]!.skipped >= 40)
    await run.stop()
    for (const [entry, value] of readAnew(bench.log.stored, id)!) {
      if (value === null) bench.log.stored.delete(entry)
      else bench.log.stored.set(entry, value)
    }
    const again = await bench.start({ chunkRows: 20 })
    await bench.caughtUp(again)
    await again.until('it is read', () => snapshotDone(again) && again.status!.parked.length === 0)
    expectRising(bench.log)
    expectState(bench.log, bench.oracle)
  })

  // I8
  test('a log that stalls holds the source, in bounded memory', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const stall = Promise.withResolvers<void>()
    let stalled = false
    const run = await bench.start({
      faults: {
        beforeLanding(_, { count }) {
          if (count === 0) return
          stalled = true
          return stall.promise
        },
      },
    })
    // one text for all, so that the test itself holds little
    const body = 'so much to say '.repeat(1400)
    let id = 0
    const block = (rows: number): readonly Write[] => {
      const writes = Array.from({ length: rows }, (): Write => ({ op: 'insert', table: 'items', row: { id: ++id, name: null, quantity: id, body } }))
      bench.oracle.apply(writes)
      return writes
    }
    await bench.write(block(1))
    await run.until('the log stalls', () => stalled)
    try {
      const before = heldBytes()
      let most = 0
      for (let n = 0; n < 12; n++) {
        await bench.write(block(n === 6 ? 1000 : 200))
        most = Math.max(most, heldBytes() - before)
      }
      expect(most).toBeLessThan(can.heldBytes ?? 32 * MIB)
    } finally {
      stall.resolve()
    }
    await run.until('every row is there', () => bench.log.changes.length >= bench.oracle.changes.length)
    expect(bench.log.changes.map((change) => (change.kind === 'row' ? columnOf(change.table, change.after!, 'quantity') : 0))).toEqual(
      Array.from({ length: id }, (_, n) => n + 1),
    )
  })

  test('ends promptly in the middle of a transaction, and gives it whole the next time', async () => {
    await using bench = await open()
    await bench.createTable('items')
    let stopping: Promise<number> | null = null
    const run: SourceRun = await bench.start({
      faults: {
        afterLanding(_, { count }) {
          if (count > 1) stopping ??= run.stop()
        },
      },
    })
    await bench.write(bench.work.fill('items', 1))
    await bench.write(bench.work.fill('items', 5000, 400))
    await run.until('some of it is in the log', () => stopping !== null)
    expect(await stopping).toBeLessThan(PROMPT_MS)
    expect(run.failure).toBe(null)
    const again = await bench.start()
    await bench.caughtUp(again)
    expectRising(bench.log)
    expectChanges(bench.log.changes, bench.oracle.changes, can)
  })

  test('goes on after the server was restarted', async ({ skip }) => {
    await using bench = await open()
    if (bench.source.restart === undefined) return skip('the driver cannot restart its server')
    await bench.createTable('items')
    const run = await bench.start()
    for (let n = 0; n < 10; n++) await bench.write(bench.work.transaction(['items']))
    await bench.source.restart()
    for (let n = 0; n < 10; n++) await bench.write(bench.work.transaction(['items']))
    await until('it ended, or has come through', () => run.failure !== null || bench.log.changes.length >= bench.oracle.changes.length)
    if (run.failure !== null) expect(run.failure).toMatchObject({ name: 'MillraceError', category: 'unavailable' })
    await run.stop()
    const again = await startAgain(bench)
    await bench.caughtUp(again)
    expectRising(bench.log)
    expectChanges(bench.log.changes, bench.oracle.changes, can)
  })

  test('says that history is lost, and never starts anew by itself', async ({ skip }) => {
    await using bench = await open()
    if (bench.source.loseHistory === undefined) return skip('the driver cannot lose its history')
    await bench.createTable('items')
    const run = await bench.start()
    await bench.write(bench.work.fill('items', 10))
    await bench.caughtUp(run)
    await run.stop()
    await bench.write(bench.work.fill('items', 10))
    await bench.source.loseHistory()
    const lost = { name: 'MillraceError', code: 'source.history_lost', fix: expect.stringContaining('--resnapshot') }
    const offset = bench.log.stored.get('offset') as SourceOffset
    await expect(bench.open(offset)).rejects.toMatchObject(lost)
    await expect(bench.open(offset)).rejects.toMatchObject(lost)
  })

  if (can.exclusive === true)
    test('a second process is refused, and may come when the first is gone', async () => {
      await using bench = await open()
      await bench.createTable('items')
      const run = await bench.start()
      await bench.caughtUp(run)
      const offset = bench.log.stored.get('offset') as SourceOffset
      await expect(bench.open(offset)).rejects.toMatchObject({ name: 'MillraceError', code: 'source.in_use', fix: expect.any(String) })
      await bench.caughtUp(run)
      await run.stop()
      await bench.caughtUp(await bench.start())
      expectChanges(bench.log.changes, bench.oracle.changes, can)
    })

  if (can.keepsNothing !== true)
    test('leaves nothing behind when it is deprovisioned', async ({ skip }) => {
      await using bench = await open()
      if (bench.source.leftovers === undefined) return skip('the source keeps nothing on a server')
      await bench.createTable('items')
      const run = await bench.start()
      await bench.caughtUp(run)
      expect(await bench.source.leftovers()).not.toEqual([])
      await run.stop()
      const { provisions } = bench.source.plugin
      const listed = async () => ((await provisions?.list(bench.config(), bench.context)) ?? []).map(({ name }) => name).sort()
      expect(await listed()).toEqual([...(await bench.source.leftovers())].sort())
      const again = await bench.start()
      await bench.caughtUp(again)
      await expect(provisions?.drop(bench.config(), bench.context), 'while it is captured').rejects.toMatchObject({ code: 'source.in_use' })
      await bench.caughtUp(again)
      await again.stop()
      await provisions?.drop(bench.config(), bench.context)
      expect(await bench.source.leftovers()).toEqual([])
      expect(await listed()).toEqual([])
      await provisions?.drop(bench.config(), bench.context)
      // what was captured is not forgotten: a start that had nothing to go on from would not be noticed
      await expect(bench.open(bench.log.stored.get('offset') as SourceOffset)).rejects.toMatchObject({ code: 'source.history_lost' })
      expect(await bench.source.leftovers()).toEqual([])
    })

  test('each refusal has its code and its repair, and the check finds it before', async ({ skip }) => {
    await using bench = await open()
    const wrong = bench.source.wrong ?? []
    if (wrong.length === 0) return skip('the driver gives no wrong settings')
    const { plugin } = bench.source
    for (const { what, settings, code } of wrong) {
      const config = bench.config(settings)
      const refusal = await plugin.open(config, bench.context, null).then(
        () => what,
        (error: unknown) => error,
      )
      expect(refusal, what).toMatchObject({ name: 'MillraceError', code, fix: expect.any(String) })
      const findings = await plugin.check(config, bench.context).catch((error: unknown) => [{ level: 'error', fix: asMillraceError(error).fix }])
      expect(findings, what).toContainEqual(expect.objectContaining({ level: 'error', fix: expect.any(String) }))
    }
  })
}

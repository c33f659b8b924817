import { expect, test } from 'vitest'
import type { SnapshotChunk, SourceReader } from '../../core/capture/source-connector.ts'
import type { Json } from '../../core/event/offset.ts'
import { SNAPSHOT_ENTRY } from '../../core/event/snapshot-progress.ts'
import type { TableSchema, Tuple } from '../../core/event/table-schema.ts'
import { TupleWriter } from '../../core/event/tuple-writer.ts'
import { canonical } from '../sink-history.ts'
import type { SourceCapabilities } from './source-driver.ts'
import { itemOf, type SourceBench, type SourceRun, until } from './source-run.ts'
import { expectChanges, expectRising, expectState, isStreamed, type OpenBench, PROMPT_MS } from './stream-cases.ts'

const still = new AbortController().signal
const idsOf = (table: TableSchema, rows: readonly Tuple[]) => rows.map((row) => itemOf(table, row).id)

export function snapshotDone(run: SourceRun): boolean {
  return run.status?.state === 'running' && run.status.snapshot.every(({ done }) => done)
}

function rowsOf(chunk: SnapshotChunk): readonly Tuple[] {
  const rows: Tuple[] = []
  const writer = new TupleWriter(chunk.table)
  chunk.write(
    writer,
    () => writer.start(),
    () => rows.push(writer.row()),
  )
  expect(rows.length).toBe(chunk.rows)
  return rows
}

async function readChunk(run: SourceRun, table: TableSchema, cursor: Json | null, maxRows: number) {
  const views: unknown[] = []
  const chunk = await run.connector.snapshot.read(table, cursor, { maxRows, maxBytes: 1 << 20 }, (fence) => views.push(fence), still)
  expect(views).toEqual([chunk.fence])
  // as it comes back from the log's progress
  return { chunk, rows: rowsOf(chunk), next: JSON.parse(JSON.stringify(chunk.next)) as Json | null }
}

export function snapshotCases(open: OpenBench, can: SourceCapabilities): void {
  test('snapshot and stream together give what the tables hold, while they are written', async () => {
    await using bench = await open()
    await bench.createTable('items', 'empty')
    await bench.write(bench.work.fill('items', 2000))
    const before = bench.oracle.changes.length
    const run = await bench.start({ snapshot: 'initial', chunkRows: 90 })
    await until('the snapshot is done', async () => {
      if (run.failure !== null) throw run.failure
      await bench.write(bench.work.transaction(['items', 'empty']))
      return snapshotDone(run)
    })
    await bench.caughtUp(run)
    expectRising(bench.log)
    expectState(bench.log, bench.oracle)
    expectChanges(bench.log.changes.filter(isStreamed), bench.oracle.changes.slice(before), can)
    // progress is durable: another start reads nothing again
    await run.stop()
    const read = bench.log.changes.length
    const again = await bench.start({ snapshot: 'initial' })
    await bench.caughtUp(again)
    expect(bench.log.changes.slice(read).every(isStreamed)).toBe(true)
  })

  // I12
  test('after a restart no chunk shows less than the log has already, and all come without another change', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const first = await bench.start({ acknowledge: false })
    await bench.write(bench.work.fill('items', 50))
    await bench.caughtUp(first)
    const offset = bench.log.stored.get('offset')!
    for (let n = 0; n < 60; n++) await bench.write(bench.work.transaction(['items']))
    await bench.caughtUp(first)
    await first.stop()
    // killed before a later offset was durable, and after the rows were; and before the first chunk
    bench.log.stored.set('offset', offset)
    for (const entry of bench.log.stored.keys()) if (entry.startsWith(SNAPSHOT_ENTRY)) bench.log.stored.delete(entry)
    const again = await bench.start({ snapshot: 'initial', chunkRows: 20 })
    await again.until('the snapshot is done', () => snapshotDone(again))
    expectRising(bench.log)
    expectState(bench.log, bench.oracle)
    expectChanges(bench.log.changes.filter(isStreamed), bench.oracle.changes, can)
  })

  test('a table that appears later is read while the rest streams', async () => {
    await using bench = await open()
    await bench.createTable('items')
    const run = await bench.start({ snapshot: 'initial' })
    await bench.caughtUp(run)
    await bench.createTable('later')
    await bench.write(bench.work.fill('later', 500))
    await until('both are read', async () => {
      if (run.failure !== null) throw run.failure
      await bench.write(bench.work.transaction(['items', 'later']))
      return run.status?.snapshot.length === 2 && snapshotDone(run)
    })
    await bench.caughtUp(run)
    expectRising(bench.log)
    expectState(bench.log, bench.oracle)
  })

  if (can.locksReaders === true) {
    test('while a table is locked the others stream and are acknowledged, and it is read on once it is not', async () => {
      await using bench = await open()
      await bench.createTable('items', 'others')
      await bench.write(bench.work.fill('items', 200))
      await using locks = new AsyncDisposableStack()
      const isRead: string[] = []
      const run = await bench.start({
        snapshot: 'initial',
        chunkRows: 20,
        async beforeChunk({ name }) {
          if (name === 'items' && isRead.push(name) === 4) locks.use(await bench.source.lockTable!(name))
        },
      })
      await run.until('it is locked, and tried again', () => isRead.length > 5)
      const before = run.yields.length
      for (let n = 0; n < 20; n++) await bench.write(bench.work.transaction(['others']))
      await bench.caughtUp(run, bench.log, ['others'])
      await run.until('what came meanwhile is acknowledged', () => {
        const told = JSON.stringify(run.acknowledged)
        return run.yields.slice(before).some(({ offset }) => JSON.stringify(offset) === told)
      })
      expect(run.status!.snapshot.find(({ table }) => table.endsWith('.items'))).toMatchObject({ done: false, rows: 60 })
      await locks.disposeAsync()
      await run.until('the snapshot is done', () => snapshotDone(run))
      await bench.caughtUp(run)
      expectRising(bench.log)
      expectState(bench.log, bench.oracle)
    })
  }

  test('a snapshot resumes at any cursor', async () => {
    await using bench = await open()
    await bench.createTable('items')
    await bench.write(bench.work.fill('items', 300))
    const run = await bench.start()
    const table = (await run.connector.tables())[0]!
    const chunks: { readonly cursor: Json | null; readonly ids: readonly unknown[] }[] = []
    let cursor: Json | null = null
    do {
      const { chunk, rows, next } = await readChunk(run, table, cursor, 37)
      chunks.push({ cursor, ids: idsOf(chunk.table, rows) })
      cursor = next
    } while (cursor !== null)
    expect(chunks.flatMap(({ ids }) => ids).sort((a, b) => Number(a) - Number(b))).toEqual([...bench.oracle.rows('items').keys()])
    expect(chunks.length).toBeGreaterThan(2)
    for (const [n, chunk] of chunks.entries()) {
      const rest: unknown[] = []
      let at: Json | null = chunk.cursor
      do {
        const { chunk: read, rows, next } = await readChunk(run, table, at, 61)
        rest.push(...idsOf(read.table, rows))
        at = next
      } while (at !== null)
      expect(rest).toEqual(chunks.slice(n).flatMap(({ ids }) => ids))
    }
    expect((await run.connector.snapshot.estimate(table)) ?? 0).toBeGreaterThanOrEqual(0)
    expect(run.failure).toBe(null)
  })

  test('reading a chunk ends promptly when it is aborted, and may be repeated', async () => {
    await using bench = await open()
    await bench.createTable('items')
    await bench.write(bench.work.fill('items', 500))
    const run = await bench.start()
    const table = (await run.connector.tables())[0]!
    const cut = new AbortController()
    const from = performance.now()
    const reading = run.connector.snapshot.read(table, null, { maxRows: 1000, maxBytes: 1 << 20 }, () => cut.abort(), cut.signal)
    await reading.catch(() => {})
    expect(performance.now() - from).toBeLessThan(PROMPT_MS)
    expect((await readChunk(run, table, null, 1000)).rows).toHaveLength(500)
  })

  test('an audit reads the tables beside a capture, and knows the place of its view', async () => {
    await using bench = await open()
    await bench.createTable('items')
    await bench.write(bench.work.fill('items', 200))
    const run = await bench.start({ snapshot: 'initial' })
    await bench.caughtUp(run)
    await using reader = await bench.source.plugin.openReader(bench.config(), bench.context)
    const seen = await scan(reader, bench)
    await run.until('the stream passes the view', () => reader.reached(run.yields.at(-1)!.offset, seen.commit))
    const seenIds = seen.ids.sort((a, b) => Number(a) - Number(b))
    expect(seenIds).toEqual([...bench.oracle.rows('items').keys()].sort((a, b) => a - b))
    expect(reader.reached(run.connector.start, seen.commit)).toBe(false)
    // changes below the view's commit are in it, later ones are not
    expect(bench.log.changes.filter(isStreamed).every(({ position }) => position.commit < seen.commit)).toBe(true)
    await bench.write(bench.work.fill('items', 1))
    await bench.caughtUp(run)
    expect(bench.log.changes.at(-1)!.position.commit).toBeGreaterThanOrEqual(seen.commit)
  })

  test('values of every type come the same from a snapshot and from the stream', async ({ skip }) => {
    await using bench = await open()
    const { types } = bench.source
    if (types === undefined) return skip('the driver gives no table of types')
    await types.create('read')
    await types.load('read')
    const run = await bench.start({ snapshot: 'initial' })
    await run.until('the snapshot is done', () => snapshotDone(run))
    await types.create('streamed')
    await types.load('streamed')
    const rows = (table: string) => bench.log.changes.filter((change) => change.kind === 'row' && change.table.name === table)
    const texts = (table: string) => rows(table).map((change) => (change.kind === 'row' ? change.after!.map(canonical) : []))
    // where the capture's look for new tables falls between its making and here, its rows are read as well, or alone
    const streamed = () => [...new Map(texts('streamed').map((row) => [row.join('\n'), row])).values()]
    await run.until('every row is there', () => streamed().length >= types.rows.length)
    const wanted = types.rows.map((row) => row.map(canonical))
    for (const [table, got] of [
      ['read', texts('read')],
      ['streamed', streamed()],
    ] as const) {
      expect([table, got.sort((a, b) => (wanted.findIndex((row) => row[0] === a[0]) < wanted.findIndex((row) => row[0] === b[0]) ? -1 : 1))]).toEqual([
        table,
        wanted,
      ])
    }
    expect(rows('read').some(isStreamed)).toBe(false)
  })
}

async function scan(reader: SourceReader, bench: SourceBench): Promise<{ commit: bigint; ids: unknown[] }> {
  const tables = await reader.tables()
  expect(tables.map(({ name }) => name)).toEqual(['items'])
  const ids: unknown[] = []
  const commit = await reader.scan(
    tables[0]!,
    (shape) => {
      const writer = new TupleWriter(shape)
      return { writer, beginRow: () => writer.start(), endRow: () => ids.push(itemOf(shape, writer.row()).id) }
    },
    still,
  )
  expect(bench.source.namespace).toBe(tables[0]!.namespace)
  return { commit, ids }
}

import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type CaptureOptions, capture, topicOf } from '../../../../core/capture/capture.ts'
import type { CaptureOutput, SnapshotChunk, SnapshotReader, SourceConnector } from '../../../../core/capture/source-connector.ts'
import { MillraceError } from '../../../../core/errors.ts'
import type { Json, SourceOffset } from '../../../../core/event/offset.ts'
import { comparePositions, type Position, unpackPosition } from '../../../../core/event/position.ts'
import { recordHeader, records } from '../../../../core/event/record-batch.ts'
import type { TableSchema, Value } from '../../../../core/event/table-schema.ts'
import { capturedLedgers, type LedgerOp, WindowLedger, windowOf } from '../../../../core/event/window-ledger.ts'
import type { EncodedBatch, Log, LogWriter } from '../../../../core/log/log.ts'
import type { SchemaRegistry } from '../../../../core/schema/registry.ts'
import { runs } from '../../../fixed-seed.ts'

const TABLE: TableSchema = {
  namespace: 'public',
  name: 't',
  columns: ['id', 'value'].map((name, i) => ({
    name,
    id: i + 1,
    type: { kind: 'int32' as const },
    sourceType: 'int',
    nullable: i > 0,
    mayBeUnchanged: false,
    maybeSpecial: false,
  })),
  key: [0],
}

type Given = Pick<CaptureOptions, 'connector' | 'writer'> &
  Partial<Pick<CaptureOptions, 'log' | 'onStatus' | 'signal'>> & { readonly mode?: CaptureOptions['snapshot']['mode'] }

/** A capture whose log makes topics and does no more, unless another is given. */
function captureWith({
  connector,
  writer,
  log,
  mode = 'initial',
  onStatus = () => {},
  signal = new AbortController().signal,
}: Given): ReturnType<typeof capture> {
  return capture({
    node: 'n',
    connector,
    plugin: { name: 'fake', version: '0', sourceFields: [] },
    database: 'db',
    log: log ?? ({ kind: 'embedded', ensureTopics: async () => {} } as unknown as Log),
    writer,
    registry,
    topics: { partitions: 1, retentionMs: null, compacted: false, replicationFactor: null },
    snapshot: { mode, chunkRows: 2, chunkBytes: 1000, parallel: 1 },
    onStatus,
    signal,
  })
}

type Change = { readonly op: 'c' | 'u' | 'd'; readonly id: number; readonly value: number }
/** A database: transactions in commit order, the first `committed` of which have happened. */
class Database {
  readonly transactions: readonly (readonly Change[])[]
  committed: number
  acknowledged = 0
  constructor(transactions: readonly (readonly Change[])[], committed: number) {
    this.transactions = transactions
    this.committed = committed
  }
  /** Rows after the first `count` transactions. */
  state(count: number): Map<number, number> {
    const rows = new Map<number, number>()
    for (const transaction of this.transactions.slice(0, count)) {
      for (const { op, id, value } of transaction) {
        if (op === 'd') rows.delete(id)
        else rows.set(id, value)
      }
    }
    return rows
  }
}

/** Durable memory of a log: survives its writers. */
class Store {
  readonly records: { position: Position; key: number; value: number | null; op: string }[] = []
  readonly progress = new Map<string, Json>()
  /** What a reader of the records counts, a minute of commit time a window. */
  readonly counted = new WindowLedger(60)
}

/** Commit times that go back and forth between minutes. */
const committedAt = (transaction: number) => BigInt([3, 3, 1, 2, 7][transaction % 5]!) * 60_000_000n

function storeBatch(store: Store, batch: EncodedBatch, db: Database): void {
  for (const frame of batch.frames) {
    const bytes = Buffer.from(frame.buffer.subarray(0, frame.end))
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (const record of records(bytes)) {
      // Confluent header, then the Avro of {id: int} and of the envelope's images
      const zigzag = (at: number): [number, number] => {
        let value = 0
        let shift = 0
        for (;;) {
          const byte = bytes[at++]!
          value |= (byte & 127) << shift
          if (byte < 128) return [(value >>> 1) ^ -(value & 1), at]
          shift += 7
        }
      }
      const [key] = zigzag(record.keyFrom + 5)
      const image = record.valueFrom + 5
      let value: number | null = null
      if (bytes[image] === 0 && bytes[image + 1] === 2) value = zigzag(zigzag(image + 2)[1] + 1)[0]
      const position = unpackPosition(recordHeader(bytes, record, 'pos')!)
      const at = Number(position.commit) - 1
      const streamed = position.ordinal < 0x8000_0000
      const op: LedgerOp = streamed ? db.transactions[at]![(position.ordinal - 1) / 2]!.op : 'r'
      store.counted.tally(windowOf(streamed ? committedAt(at) : 5n)).addRecord(op, view, record)
      store.records.push({ position, key, value, op: value === null ? 'd' : 'w' })
    }
  }
  for (const [name, entry] of batch.progress) {
    if (entry === null) store.progress.delete(name)
    else store.progress.set(name, structuredClone(entry))
  }
}

const registry = { register: async () => 1 } as unknown as SchemaRegistry
const turn = () => new Promise((resolve) => setImmediate(resolve))

interface LifeOptions {
  readonly forkedAt?: bigint
  /** Views show what is committed, or what the stream has come to. */
  readonly views?: 'present' | 'streamed'
}

/** One life of a capture over the database; ends when everything is durable, or crashes at the chosen append. */
async function live(
  db: Database,
  store: Store,
  dice: () => number,
  crashAt: number,
  landsBeforeCrash: boolean,
  { forkedAt, views = 'present' }: LifeOptions = {},
): Promise<'done' | 'crashed'> {
  const stop = new AbortController()
  /** What the stream has written, or is writing. */
  let streamed = 0
  let appends = 0
  const writer: LogWriter = {
    progress: new Map(store.progress),
    async append(batch) {
      const mine = appends++
      // batches land in order, some turns later
      for (let i = 0; i < dice() % 3; i++) await turn()
      if (mine >= crashAt) {
        if (mine === crashAt && landsBeforeCrash) storeBatch(store, batch, db)
        throw new MillraceError('log.unreachable', 'crash')
      }
      storeBatch(store, batch, db)
    },
    async [Symbol.asyncDispose]() {},
  }
  const queue: Promise<void>[] = []
  const inOrder: LogWriter = { ...writer, append: (batch) => (queue[0] = (queue[0] ?? Promise.resolve()).then(() => writer.append(batch))) }
  let snapshotDone = (store.progress.get('snapshot/public.t') as { done: boolean } | undefined)?.done === true
  const snapshot: SnapshotReader = {
    async estimate() {
      return 10
    },
    async read(table, cursor, _limits, onView, _signal): Promise<SnapshotChunk> {
      await turn()
      let seen = db.committed
      for (let i = 0; i < dice() % 3; i++) await turn()
      if (views === 'streamed') seen = streamed
      onView(seen)
      const after = cursor as number | null
      const rows = [...db.state(seen)].filter(([id]) => after === null || id > after).sort(([a], [b]) => a - b)
      const taken = rows.slice(0, 2)
      for (let i = 0; i < dice() % 4; i++) await turn()
      // longer than a batch stays open, so that one is closed while the stream waits for this chunk
      if (dice() % 8 === 0) await delay(2)
      return {
        rows: taken.length,
        next: taken.length === rows.length ? null : taken.at(-1)![0],
        fence: seen,
        readAt: 5n,
        table,
        write(to, beginRow, endRow) {
          for (const row of taken) {
            beginRow()
            for (const value of row) to.int(value)
            endRow()
          }
          if (taken.length === rows.length) snapshotDone = true
        },
      }
    },
    sees: (fence, commit) => BigInt(fence as number) >= commit,
  }
  const connector: SourceConnector = {
    start: { done: 0 },
    ...(forkedAt === undefined ? {} : { forkedAt }),
    snapshot,
    async tables() {
      return [TABLE]
    },
    async whyAbsent() {
      return null
    },
    async isRewritten() {
      return false
    },
    async *changes(from: SourceOffset, to: CaptureOutput, signal: AbortSignal) {
      const table = (await to.table(TABLE))!
      const resumed = from.done as number
      // what was streamed before may come again
      let at = store.progress.has('position') ? Math.max(0, resumed - (dice() % 3)) : resumed
      streamed = at
      while (!signal.aborted) {
        if (dice() % 3 === 0 && db.committed < db.transactions.length) db.committed++
        if (at === db.committed) {
          await turn()
          if (to.chunks.size > 0) await to.chunks.emit((fence) => at >= (fence as number))
          yield { done: Math.max(at, resumed) }
          if (at === db.transactions.length && snapshotDone) return
          continue
        }
        const transaction = db.transactions[at]!
        if (to.chunks.size > 0) await to.chunks.emit((fence) => at >= (fence as number))
        streamed = at + 1
        to.transaction({ commit: BigInt(at + 1), committedAt: committedAt(at), source: [] })
        for (const [n, { op, id, value }] of transaction.entries()) {
          if (table.begin(op, 2 * n + 1)) {
            if (op === 'd') {
              table.key()
              table.int(id)
            } else {
              table.after()
              table.int(id)
              table.int(value)
            }
            table.end()
          }
          if (dice() % 2 === 0) {
            yield { done: Math.max(at, resumed) }
            if (signal.aborted) return
          }
        }
        at++
        // the same piece of input may go on, with chunks or the next transaction
        if (dice() % 2 === 0) yield { done: Math.max(at, resumed) }
      }
    },
    acknowledge(offset) {
      // I1: only what is durable is acknowledged
      const durable = (store.progress.get('offset') as { done: number } | undefined)?.done ?? 0
      expect(offset.done as number).toBeLessThanOrEqual(durable)
      db.acknowledged = Math.max(db.acknowledged, offset.done as number)
    },
    async lag() {
      return { retainedBytes: 0, behindBytes: 0 }
    },
    async [Symbol.asyncDispose]() {},
  }
  const log = { kind: 'embedded', ensureTopics: async () => {} } as unknown as Log
  try {
    await captureWith({ connector, writer: inOrder, log, signal: stop.signal })
    return 'done'
  } catch (error) {
    if (error instanceof MillraceError && error.message === 'crash') return 'crashed'
    throw error
  }
}

function replay(store: Store): Map<number, number> {
  const rows = new Map<number, number>()
  for (const { key, value } of store.records) {
    if (value === null) rows.delete(key)
    else rows.set(key, value)
  }
  return rows
}

const change = fc.record({ op: fc.constantFrom('c' as const, 'u' as const, 'd' as const), id: fc.nat(7), value: fc.nat(100) })

describe('through crashes at any append', () => {
  test('the log holds each change once, in order, and replays to the state of the source', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(change, { maxLength: 6 }), { minLength: 1, maxLength: 12 }),
        fc.nat(4),
        fc.array(fc.tuple(fc.nat(12), fc.boolean()), { maxLength: 4 }),
        fc.infiniteStream(fc.nat(1000)),
        fc.constantFrom('present' as const, 'streamed' as const),
        async (transactions, committed, crashes, random, views) => {
          const db = new Database(transactions, Math.min(committed, transactions.length))
          const store = new Store()
          const dice = () => random.next().value as number
          for (const [crashAt, lands] of [...crashes, [Number.POSITIVE_INFINITY, false] as [number, boolean]]) {
            if ((await live(db, store, dice, crashAt, lands, { views })) === 'done') break
          }
          const streamed = store.records.filter(({ position }) => position.ordinal < 0x8000_0000)
          const expected = db.transactions.flatMap((transaction, t) =>
            transaction.map((c, n) => ({ commit: BigInt(t + 1), ordinal: 2 * n + 1, key: c.id, value: c.op === 'd' ? null : c.value })),
          )
          expect(streamed.map(({ position, key, value }) => ({ ...position, key, value }))).toEqual(expected)
          for (let i = 1; i < store.records.length; i++) expect(comparePositions(store.records[i - 1]!.position, store.records[i]!.position)).toBeLessThan(0)
          expect(replay(store)).toEqual(db.state(db.transactions.length))
          // whatever crashed when, what was captured of each window is what is in the log of it
          const captured = capturedLedgers(store.progress).get('n.public.t') ?? new WindowLedger(60)
          expect(captured.toJSON().windows).toEqual(store.counted.toJSON().windows)
          expect(captured.total.toJSON()).toEqual(store.counted.total.toJSON())
        },
      ),
      { numRuns: runs(1500) },
    )
  })
})

// I2
test('a chunk after a transaction that is sent again takes a position of its own', async () => {
  const db = new Database([[{ op: 'c', id: 1, value: 1 }]], 1)
  const store = new Store()
  store.progress.set('offset', { done: 0 })
  store.progress.set('position', { commit: '1', ordinal: 0x8000_0001 })
  await live(db, store, () => 1, Number.POSITIVE_INFINITY, false)
  expect(store.records.map(({ position }) => position)).toEqual([{ commit: 1n, ordinal: 0x8000_0002 }])
  expect(store.progress.get('snapshot/public.t')).toEqual({ done: true, rows: 1, at: { commit: '1', ordinal: 0x8000_0002 } })
})

// I12
test('a view that is older than what the log has is taken again when the stream has gone on', async () => {
  const db = new Database(
    [
      [{ op: 'c', id: 1, value: 1 }],
      [{ op: 'u', id: 1, value: 2 }],
      [
        { op: 'd', id: 1, value: 0 },
        { op: 'c', id: 2, value: 2 },
      ],
    ],
    3,
  )
  const store = new Store()
  store.progress.set('offset', { done: 0 })
  store.progress.set('position', { commit: '3', ordinal: 1 })
  await live(db, store, () => 1, Number.POSITIVE_INFINITY, false, { views: 'streamed' })
  expect(store.records.map(({ key, value, op }) => [key, value, op])).toEqual([
    [2, 2, 'w'],
    [2, 2, 'w'],
  ])
})

test('a source that cannot say what a view shows is refused', async () => {
  const connector = { start: { done: 0 }, snapshot: { read: async () => {} } } as unknown as SourceConnector
  const options = {
    node: 'n',
    connector,
    plugin: { name: 'old' },
    topics: {},
    writer: { progress: new Map(), async [Symbol.asyncDispose]() {} },
    signal: new AbortController().signal,
    onStatus: () => {},
  }
  await expect(capture(options as unknown as CaptureOptions)).rejects.toMatchObject({
    code: 'config.unsupported',
    fix: expect.stringContaining('write-a-source'),
  })
})

test('values of one chunk reach the log as reads', async () => {
  const db = new Database([[{ op: 'c', id: 1, value: 1 }]], 1)
  const store = new Store()
  store.progress.set('offset', { done: 1 })
  await live(db, store, () => 1, Number.POSITIVE_INFINITY, false)
  const rows: Value[][] = store.records.map(({ key, value }) => [key, value])
  expect(rows).toEqual([[1, 1]])
  expect(store.progress.get('snapshot/public.t')).toEqual({ done: true, rows: 1, at: { commit: '0', ordinal: 0x8000_0000 } })
})

test('the last offset of a source that falls silent becomes durable without its saying anything more', async () => {
  const stop = new AbortController()
  const appended: (Json | null | undefined)[] = []
  const connector = {
    start: { done: 0 },
    snapshot: { sees: () => true } as unknown as SnapshotReader,
    tables: async () => [],
    async *changes(_from: SourceOffset, _to: CaptureOutput, signal: AbortSignal) {
      yield { done: 1 }
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
    },
    acknowledge(offset: SourceOffset) {
      if (offset.done === 1) stop.abort()
    },
  } as unknown as SourceConnector
  const writer: LogWriter = {
    progress: new Map(),
    append: async ({ progress }) => {
      appended.push(progress.get('offset'))
    },
    async [Symbol.asyncDispose]() {},
  }
  await captureWith({ connector, writer, signal: stop.signal })
  expect(appended).toEqual([{ done: 0 }, { done: 1 }])
})

test('what is on its way to the log when the source fails is counted once it has landed', async () => {
  const lost = new MillraceError('source.unreachable', 'lost')
  const underWay = Promise.withResolvers<void>()
  const landed = Promise.withResolvers<void>()
  const failed = Promise.withResolvers<void>()
  const connector = {
    start: { done: 0 },
    snapshot: { sees: () => true } as unknown as SnapshotReader,
    tables: async () => [TABLE],
    async *changes(_from: SourceOffset, to: CaptureOutput) {
      const table = (await to.table(TABLE))!
      to.transaction({ commit: 1n, committedAt: 0n, source: [] })
      table.begin('c', 1)
      table.after()
      table.int(1)
      table.int(1)
      table.end()
      yield { done: 1 }
      await underWay.promise
      failed.resolve()
      throw lost
    },
    acknowledge() {},
  } as unknown as SourceConnector
  const writer: LogWriter = {
    progress: new Map<string, Json>([['offset', { done: 0 }]]),
    async append({ count }) {
      if (count === 0) return
      underWay.resolve()
      await landed.promise
    },
    async [Symbol.asyncDispose]() {},
  }
  const counted: { readonly rows: number; readonly offset: SourceOffset }[] = []
  const capturing = captureWith({ connector, writer, mode: 'never', onStatus: ({ rows, offset }) => counted.push({ rows, offset }) })
  const ended = expect(capturing).rejects.toBe(lost)
  await failed.promise
  for (let turns = 0; turns < 10; turns++) await turn()
  landed.resolve()
  await ended
  expect(counted.at(-1)).toEqual({ rows: 1, offset: { done: 1 } })
})

test('a source whose tables are not known yet is not said to follow its stream', async () => {
  const lost = new MillraceError('source.unreachable', 'lost')
  const connector = {
    start: { done: 0 },
    snapshot: { sees: () => true } as unknown as SnapshotReader,
    tables: () => Promise.reject(lost),
  } as unknown as SourceConnector
  const writer: LogWriter = { progress: new Map(), append: async () => {}, async [Symbol.asyncDispose]() {} }
  const states: string[] = []
  await expect(captureWith({ connector, writer, onStatus: ({ state }) => states.push(state) })).rejects.toBe(lost)
  expect(states).toEqual([])
})

test('the place where a new source starts is not acknowledged before it is durable', async () => {
  const acknowledged: SourceOffset[] = []
  const connector = {
    start: { done: 0 },
    snapshot: { sees: () => true } as unknown as SnapshotReader,
    tables: async () => [],
    async *changes() {},
    acknowledge: (offset: SourceOffset) => void acknowledged.push(offset),
  } as unknown as SourceConnector
  const writer: LogWriter = {
    progress: new Map(),
    append: () => Promise.reject(new MillraceError('log.full', 'no room')),
    async [Symbol.asyncDispose]() {},
  }
  const capturing = captureWith({ connector, writer })
  await expect(capturing).rejects.toMatchObject({ code: 'log.full' })
  expect(acknowledged).toEqual([])
})

test('tables of any two names have two topics', () => {
  const topics = ['a.b', 'a__x2e_b', 'a__xref', 'a-b', 'a b', '__x_', ''].map((name) => topicOf('n', { namespace: 'public', name }))
  expect(new Set(topics).size).toBe(topics.length)
  expect(topics).toEqual(expect.arrayContaining(['n.public.a-b', 'n.public.a__xref', 'n.public.a__x2e_b']))
})

test('a part of a transaction that another history of the source lacks is refused, since its positions would hide what comes instead', async () => {
  const db = new Database([[{ op: 'c', id: 1, value: 1 }], [{ op: 'c', id: 2, value: 2 }]], 2)
  const store = new Store()
  store.progress.set('offset', { done: 1 })
  store.progress.set('position', { commit: '2', ordinal: 1 })
  const refusal = await live(db, store, () => 1, Number.POSITIVE_INFINITY, false, { forkedAt: 2n }).catch((error: unknown) => error)
  expect(refusal).toMatchObject({ code: 'source.identity_changed', fix: 'millrace run FILE --resnapshot n' })
  expect(store.records).toEqual([])
  expect(await live(db, store, () => 1, Number.POSITIVE_INFINITY, false, { forkedAt: 3n })).toBe('done')
})

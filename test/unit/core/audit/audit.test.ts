import { expect, test } from 'vitest'
import { auditTable, type TableAuditOptions } from '../../../../core/audit/audit.ts'
import type { SourceReader } from '../../../../core/capture/source-connector.ts'
import { SHAPE_ENTRY } from '../../../../core/capture/start-over.ts'
import { MillraceError } from '../../../../core/errors.ts'
import type { RowChange } from '../../../../core/event/change-event.ts'
import type { Json } from '../../../../core/event/offset.ts'
import { SNAPSHOT_ENTRY } from '../../../../core/event/snapshot-progress.ts'
import { type Tuple, tableId } from '../../../../core/event/table-schema.ts'
import { CAPTURED_WINDOWS, WINDOW_ENTRY } from '../../../../core/event/window-ledger.ts'
import type { LogPosition } from '../../../../core/log/log.ts'
import { countStream } from '../../../../core/materialize/stream-count.ts'
import { RecordDecoders } from '../../../../core/schema/record-decoder.ts'
import { MemoryLog } from '../materialize/memory-log.ts'
import { MemorySink, MemoryTarget } from '../materialize/memory-sink.ts'
import { SHAPES, type StreamChange, StreamRecords, TOPIC } from '../materialize/stream-records.ts'

const still = new AbortController().signal
const table = SHAPES[0]!
const LIMITS = { rows: 1000, bytes: 1 << 20, ageMs: 10 }

/** A table whose changes are in the source, the log and one target at once. */
class Flow {
  readonly encoder = new StreamRecords()
  readonly log = new MemoryLog()
  readonly target = new MemoryTarget()
  readonly #source = new Map<bigint, Tuple>()
  readonly #sink = new MemorySink(this.target, LIMITS)
  /** What capture wrote, without what else is in the log. */
  readonly #meant = new MemoryLog()
  #records = 0n
  #end = 0n

  async start(rows: number): Promise<void> {
    for (const log of [this.log, this.#meant]) log.create(TOPIC, 1)
    await this.#sink.prepare(table)
    this.log.entries.set('offset', {})
    this.log.entries.set(SNAPSHOT_ENTRY + tableId(table), { done: true, rows: 0 })
    this.log.entries.set(SHAPE_ENTRY + tableId(table), table as unknown as Json)
    await this.write(Array.from({ length: rows }, (_, id) => ({ op: 'c', row: [BigInt(id), 'first', 'body'] })))
  }

  /** @param hidden its records cannot be read yet, though their progress can */
  async write(written: readonly StreamChange[], hidden = false): Promise<void> {
    const changes: RowChange[] = []
    const records = written.map(({ op, row }) => {
      const key = row[0] as bigint
      const position = { commit: this.#records++, ordinal: 1 }
      const after = op === 'd' ? null : row
      changes.push({ kind: 'row', op: op as 'c' | 'u' | 'd', table, position, committedAt: 0n, key: [key], before: null, after })
      if (after === null) this.#source.delete(key)
      else this.#source.set(key, after)
      return this.encoder.record(table, { op, row }, position)
    })
    for (const log of [this.log, this.#meant]) log.append(TOPIC, new Map([[0, records]]))
    this.#end += BigInt(records.length)
    const meant = [{ topic: TOPIC, partition: 0, offset: this.#records }]
    const { ledger } = await countStream(this.#meant, new RecordDecoders(this.encoder.registry), meant, CAPTURED_WINDOWS, still)
    for (const [window, tally] of ledger.windows) this.log.entries.set(`${WINDOW_ENTRY}${TOPIC}/${window}`, { ...tally.toJSON() })
    this.log.entries.set('position', { commit: String(this.#records - 1n), ordinal: 1 })
    if (hidden) this.log.hide(TOPIC, 0)
    await this.#land(changes)
  }

  /** A record that no capture wrote. */
  async slipIn(row: Tuple, commit: bigint): Promise<void> {
    this.log.append(TOPIC, new Map([[0, [this.encoder.record(table, { op: 'c', row }, { commit, ordinal: 1 })]]]))
    this.#end++
    await this.#land([])
  }

  async #land(changes: readonly RowChange[]): Promise<void> {
    const positions = [{ topic: TOPIC, partition: 0, offset: this.#end }]
    await this.#sink.apply({ table, changes: [...changes], positions, memo: () => null, onRejected: async () => {} })
  }

  get reader(): SourceReader {
    return {
      tables: async () => [table],
      reached: () => true,
      scan: async (_, open) => {
        const { writer, beginRow, endRow } = open(table)
        for (const row of [...this.#source.values()]) {
          beginRow()
          for (const value of row) writer.value(value)
          endRow()
        }
        return this.#records
      },
      [Symbol.asyncDispose]: async () => {},
    }
  }

  audit(sink: MemorySink, more: Partial<Pick<TableAuditOptions, 'deadlineMs' | 'showKeys' | 'signal' | 'pause' | 'sinks'>> = {}) {
    const { log, reader } = this
    const options = { node: 'shop', table, topic: TOPIC, compacted: false, reader, log, registry: this.encoder.registry, memoryBytes: 1 << 20, signal: still }
    return auditTable({ ...options, deadlineMs: 60_000, showKeys: 0, sinks: [{ node: 'lake', open: async () => sink }], ...more })
  }
}

/** Changes come whenever somebody asks where the log ends. */
function keepWriting(flow: Flow): void {
  const bounds = flow.log.bounds.bind(flow.log)
  let turns = 0n
  flow.log.bounds = async (topic, end) => {
    await flow.write([{ op: 'u', row: [turns++ % 20n, `turn ${turns}`, 'body'] }])
    return bounds(topic, end)
  }
}

/** Changes come all the while it is read. */
class BusySink extends MemorySink {
  readonly #flow: Flow
  #turns = 0
  scans = 0

  constructor(flow: Flow) {
    super(flow.target, LIMITS)
    this.#flow = flow
  }

  override async *rows(onView: (positions: readonly LogPosition[]) => void): AsyncIterable<readonly Tuple[]> {
    this.scans++
    for await (const rows of super.rows(onView)) {
      const id = BigInt(this.#turns++)
      await this.#flow.write([
        { op: 'u', row: [5n + (id % 10n), `turn ${id}`, 'body'] },
        { op: 'c', row: [1000n + id, 'new', 'body'] },
        ...(id < 5n ? [{ op: 'd' as const, row: [15n + id, '', ''] }] : []),
      ])
      yield rows
    }
  }
}

test('a sink that takes changes all the while it is read is compared with the log as of what was read, in one scan', async () => {
  const flow = new Flow()
  await flow.start(20)
  const sink = new BusySink(flow)
  const audit = await flow.audit(sink)
  expect(audit.differences).toEqual([])
  expect(audit.equal).toBe(true)
  expect(sink.scans).toBe(1)
  expect(flow.target.rows.size).toBe(35)
})

test('a sink that refuses the table when it is opened makes the table different, and ends no audit', async () => {
  const flow = new Flow()
  await flow.start(10)
  const open = async () => Promise.reject(new MillraceError('sink.schema_unsupported', 'no such name'))
  const { equal, source, log, differences } = await flow.audit(new MemorySink(flow.target, LIMITS), { sinks: [{ node: 'lake', open }] })
  expect([equal, source.rows, log.rows]).toEqual([false, 10, 10])
  expect(differences).toEqual(['lake does not take it: sink.schema_unsupported: no such name'])
})

test('keys that differ are named while the sink takes changes', async () => {
  const flow = new Flow()
  await flow.start(20)
  flow.target.rows.delete('3n')
  const audit = await flow.audit(new BusySink(flow), { showKeys: 5 })
  expect(audit.equal).toBe(false)
  expect(audit.differences.filter((one) => one.startsWith('id='))).toEqual(['id=3: in the log, not in lake'])
})

test('what is waited for is looked at less and less often', async () => {
  const flow = new Flow()
  await flow.start(1)
  flow.log.entries.delete(SNAPSHOT_ENTRY + tableId(table))
  let looks = 0
  flow.log.progress = async () => {
    looks++
    return flow.log.entries
  }
  const stop = new AbortController()
  const waits: number[] = []
  const pause = async (ms: number) => {
    if (waits.push(ms) === 8) stop.abort()
  }
  const unfinished = { code: 'audit.unfinished', message: expect.stringContaining('snapshot') }
  await expect(flow.audit(new MemorySink(flow.target, LIMITS), { pause, signal: stop.signal })).rejects.toMatchObject(unfinished)
  expect(waits).toEqual([50, 100, 200, 400, 800, 1000, 1000, 1000])
  expect(looks).toBe(9)
})

test('what is waited for in vain ends the audit at its deadline', async () => {
  const flow = new Flow()
  await flow.start(1)
  flow.log.entries.delete(SNAPSHOT_ENTRY + tableId(table))
  const from = performance.now()
  const unfinished = { code: 'audit.unfinished', fix: expect.stringContaining('--wait') }
  await expect(flow.audit(new MemorySink(flow.target, LIMITS), { deadlineMs: 200 })).rejects.toMatchObject(unfinished)
  expect(performance.now() - from).toBeGreaterThan(195)
})

test('the ledger is compared at one position, though changes come whenever it looks', async () => {
  const flow = new Flow()
  await flow.start(20)
  keepWriting(flow)
  const audit = await flow.audit(new MemorySink(flow.target, LIMITS))
  expect(audit).toMatchObject({ equal: true, differences: [], ledger: { equal: true } })
  expect(audit.ledger.captured).toBeGreaterThan(20)
  expect(audit.ledger.inLog).toBe(audit.ledger.captured)
})

test('a record that is there twice is found while changes come', async () => {
  const flow = new Flow()
  await flow.start(20)
  await flow.slipIn([3n, 'first', 'body'], 3n)
  keepWriting(flow)
  const { equal, ledger } = await flow.audit(new MemorySink(flow.target, LIMITS))
  expect(equal).toBe(false)
  expect(ledger).toMatchObject({ equal: false, inLog: ledger.captured + 1 })
})

test('a record that lies after all that capture wrote, and stays unclaimed, is too many', async () => {
  const flow = new Flow()
  await flow.start(20)
  await flow.slipIn([3n, 'first', 'body'], 99n)
  let waitedMs = 0
  const pause = async (ms: number) => void (waitedMs += ms)
  const { ledger } = await flow.audit(new MemorySink(flow.target, LIMITS), { pause })
  expect(ledger).toEqual({ equal: false, captured: 20, inLog: 21 })
  // capture may tell of it a moment after it can be read
  expect(waitedMs).toBeGreaterThan(1000)
})

/** A change is captured right after it was read, and its record can be read only once somebody asks for what is written. */
class LateSink extends MemorySink {
  readonly #flow: Flow

  constructor(flow: Flow) {
    super(flow.target, LIMITS)
    this.#flow = flow
  }

  override async *rows(onView: (positions: readonly LogPosition[]) => void): AsyncIterable<readonly Tuple[]> {
    yield* super.rows(onView)
    await this.#flow.write([{ op: 'c', row: [100n, 'late', 'body'] }], true)
  }
}

test('progress that is seen before its records is not taken for a loss', async () => {
  const flow = new Flow()
  await flow.start(20)
  const { log } = flow
  const bounds = log.bounds.bind(log)
  log.bounds = (topic, end) => {
    if (end === 'written') log.show(TOPIC, 0)
    return bounds(topic, end)
  }
  const audit = await flow.audit(new LateSink(flow))
  expect(audit).toMatchObject({ equal: true, ledger: { equal: true, captured: 21, inLog: 21 } })
})

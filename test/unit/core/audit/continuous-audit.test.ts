import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type CapturedStream, ContinuousAudit, describeDifference, type LandedStream, type WindowDifference } from '../../../../core/audit/continuous-audit.ts'
import type { Json } from '../../../../core/event/offset.ts'
import { CAPTURED_WINDOWS, LEDGER_ENTRY, Tally, WINDOW_ENTRY, WindowLedger, windowOf, windowStart } from '../../../../core/event/window-ledger.ts'
import { LANDED_WINDOWS, LandedWindows } from '../../../../core/materialize/landed-windows.ts'
import { type MaterializeStatus, materialize } from '../../../../core/materialize/materialize.ts'
import { MemoryBudget } from '../../../../core/materialize/memory-budget.ts'
import { countStream } from '../../../../core/materialize/stream-count.ts'
import { RecordDecoders } from '../../../../core/schema/record-decoder.ts'
import { MemoryLog } from '../materialize/memory-log.ts'
import { MemorySink, MemoryTarget } from '../materialize/memory-sink.ts'
import { SHAPES, StreamRecords, TOPIC } from '../materialize/stream-records.ts'

const still = new AbortController().signal
const NOW = windowStart(windowOf(1_700_000_000_000_000n)) + 3_600_000

function progressOf(ledger: WindowLedger): Map<string, Json> {
  const { horizon, before, windows } = ledger.toJSON()
  const progress = new Map<string, Json>(Object.entries(windows).map(([window, tally]) => [`${WINDOW_ENTRY}${TOPIC}/${window}`, { ...tally }]))
  if (horizon !== null) progress.set(LEDGER_ENTRY + TOPIC, { horizon, before: { ...before } })
  return progress
}

const source = (windows: WindowLedger, compacted = false): CapturedStream => ({ node: 'shop', topic: TOPIC, compacted, windows })
const captures = (windows: WindowLedger, compacted = false) => new Map([[TOPIC, source(windows, compacted)]])

describe('a record that changes its fate between capture and sink is told with its window', () => {
  /** Captures ten changes, a window each or two, and gives the sink others. */
  async function audited(tamper: (written: ReturnType<StreamRecords['record']>[], encoder: StreamRecords) => ReturnType<StreamRecords['record']>[]) {
    const encoder = new StreamRecords()
    const written = Array.from({ length: 10 }, (_, i) =>
      encoder.record(SHAPES[0]!, { op: 'c', row: [BigInt(i), `row ${i}`, 'body'] }, { commit: BigInt(i), ordinal: 1 }),
    )
    const [meant, log] = [new MemoryLog(), new MemoryLog()]
    for (const one of [meant, log]) one.create(TOPIC, 1)
    meant.append(TOPIC, new Map([[0, written]]))
    log.append(TOPIC, new Map([[0, tamper(written, encoder)]]))
    const ends = async (of: MemoryLog) => (await of.bounds(TOPIC)).map(({ partition, end }) => ({ topic: TOPIC, partition, offset: end }))
    const { ledger } = await countStream(meant, new RecordDecoders(encoder.registry), await ends(meant), CAPTURED_WINDOWS, still)

    const stop = new AbortController()
    let status: MaterializeStatus | null = null
    const end = (await ends(log))[0]!.offset
    await materialize({
      node: 'lake',
      topic: TOPIC,
      log,
      registry: encoder.registry,
      sink: new MemorySink(new MemoryTarget(), { rows: 3, bytes: 100_000, ageMs: 1 }),
      deadLetters: () => log.openWriter('lake'),
      redact: (text) => text,
      retry: { firstMs: 1, maxMs: 1 },
      memory: new MemoryBudget(6_000_000),
      onStatus: (now) => {
        status = now
        if (now.positions[0]?.offset === end) stop.abort()
      },
      signal: stop.signal,
    })
    const told: WindowDifference[] = []
    const audit = new ContinuousAudit({ bounds: (topic) => log.bounds(topic), progress: async () => progressOf(ledger) }, (difference) => told.push(difference))
    const landed: LandedStream[] = [{ sink: 'lake', topic: TOPIC, held: status }]
    for (let looks = 0; looks < 4; looks++) await audit.look(captures(ledger), landed, NOW + looks)
    expect(audit.status.differences).toEqual(told)
    // told or equal, all of it was looked at
    expect(audit.status.throughMs).toBe(NOW + 3)
    return told
  }
  const window = (i: number) => windowStart(windowOf(1_700_000_000_000_000n + BigInt(i) * 23_000_000n))

  test('none: nothing is told', async () => {
    expect(await audited((written) => written)).toEqual([])
  })

  test('lost', async () => {
    const told = await audited((written) => written.filter((_, i) => i !== 6))
    expect(told).toMatchObject([
      { sink: 'lake', stream: TOPIC, fromMs: window(6), untilMs: window(6) + 60_000, difference: '1 insert missing', rejected: { sum: '0000000000000000' } },
    ])
    const { captured, landed } = told[0]!
    expect(describeDifference(told[0]!)).toBe(
      `shop.public.items, 2023-11-14 22:15–22:16 UTC, in lake: 1 insert missing; captured 2 (2 inserts; sum ${captured.sum}), landed 1 (1 insert; sum ${landed.sum}), rejected 0`,
    )
  })

  test('doubled', async () => {
    expect(await audited((written) => [...written, written[2]!])).toMatchObject([{ fromMs: window(2), difference: '1 insert too many' }])
  })

  test('with other content', async () => {
    const changed = (encoder: StreamRecords) => encoder.record(SHAPES[0]!, { op: 'c', row: [8n, 'row 8!', 'body'] }, { commit: 8n, ordinal: 1 })
    const told = await audited((written, encoder) => written.map((record, i) => (i === 8 ? changed(encoder) : record)))
    expect(told).toMatchObject([{ fromMs: window(8), difference: 'the same number of changes, with other content' }])
  })

  test('made undecodable: it is missing, whatever its dead letter says', async () => {
    const told = await audited((written, encoder) => written.map((record, i) => (i === 0 ? encoder.malformed(record) : record)))
    expect(told).toMatchObject([{ fromMs: window(0), difference: '1 insert missing' }])
  })
})

const view = new DataView(Uint8Array.from({ length: 256 }, (_, i) => (i * 37) % 251).buffer)
const put = (ledger: WindowLedger, window: number, n: number) => ledger.tally(window).add(99, view, n % 200, (n % 200) + 30)

/** A log of changes; a source that knows a while later what landed in it; a sink that reads what is there, one change in another way than it was written. */
class Model {
  readonly changes: number[] = []
  readonly tampered: { readonly at: number; readonly how: 'lost' | 'doubled' | 'changed' } | null
  readonly told: WindowDifference[] = []
  readonly audit: ContinuousAudit
  now = NOW
  known = 0
  captured = new WindowLedger(CAPTURED_WINDOWS)
  landed = new LandedWindows()
  read = 0

  constructor(tampered: Model['tampered']) {
    this.tampered = tampered
    const bounds = async () => [{ partition: 0, start: 0n, end: BigInt(this.changes.length) }]
    this.audit = new ContinuousAudit({ bounds, progress: async () => progressOf(this.capturedOf(this.changes.length)) }, (difference) =>
      this.told.push(difference),
    )
  }

  capturedOf(count: number): WindowLedger {
    const ledger = new WindowLedger(CAPTURED_WINDOWS)
    for (const [n, window] of this.changes.slice(0, count).entries()) put(ledger, window, n)
    return ledger
  }

  know(count: number): void {
    const known = Math.min(this.changes.length, this.known + count)
    if (known !== this.known) this.captured = this.capturedOf(known)
    this.known = known
  }

  apply(count: number): void {
    const to = Math.min(this.changes.length, this.read + count)
    if (to === this.read) return
    const batch = new WindowLedger(Number.POSITIVE_INFINITY)
    for (let n = this.read; n < to; n++) {
      const how = this.tampered?.at === n ? this.tampered.how : null
      if (how === 'lost') continue
      put(batch, this.changes[n]!, how === 'changed' ? n + 1 : n)
      if (how === 'doubled') put(batch, this.changes[n]!, n)
    }
    this.landed = this.landed.with(batch, new WindowLedger(1), new WindowLedger(1))
    this.read = to
  }

  async look(): Promise<void> {
    const held = { positions: [{ topic: TOPIC, partition: 0, offset: BigInt(this.read) }], windows: this.landed }
    await this.audit.look(captures(this.captured), [{ sink: 'lake', topic: TOPIC, held }], this.now++)
  }

  async rest(): Promise<void> {
    this.know(1e9)
    this.apply(1e9)
    for (let looks = 0; looks < 3; looks++) await this.look()
  }
}

const step = fc.oneof(
  fc.record({ do: fc.constant('capture' as const), windows: fc.array(fc.integer({ min: 0, max: 90 }), { minLength: 1, maxLength: 9 }) }),
  fc.record({ do: fc.constantFrom('know' as const, 'apply' as const), count: fc.integer({ min: 1, max: 9 }) }),
  fc.constant({ do: 'look' as const }),
)

// I11
test('however source, sink and looks interleave: no alarm without a cause, and one, in the right window, with a cause', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 60 }),
      fc.option(fc.record({ at: fc.nat(40), how: fc.constantFrom('lost' as const, 'doubled' as const, 'changed' as const) })),
      async (steps, tampered) => {
        const model = new Model(tampered)
        for (const one of steps) {
          if (one.do === 'capture') model.changes.push(...one.windows)
          else if (one.do === 'know') model.know(one.count)
          else if (one.do === 'apply') model.apply(one.count)
          else await model.look()
        }
        await model.rest()
        expect(model.audit.status.throughMs).toBe(model.now - 1)
        if (tampered === null || tampered.at >= model.changes.length) {
          expect(model.told).toEqual([])
          expect(model.audit.status.differences).toEqual([])
          return
        }
        const { differences } = model.audit.status
        expect(differences.length).toBe(1)
        expect(model.told.length).toBe(1)
        const { fromMs, untilMs, difference } = differences[0]!
        const at = windowStart(model.changes[tampered.at]!)
        expect(at >= (fromMs ?? 0) && at < untilMs).toBe(true)
        // what is told apart is as fine as the sink keeps it
        if (new Set(model.changes).size <= LANDED_WINDOWS) expect(fromMs).toBe(at)
        const said = { lost: '1 insert missing', doubled: '1 insert too many', changed: 'the same number of changes, with other content' }
        expect(difference).toBe(said[tampered.how])
      },
    ),
    { numRuns: 400 },
  )
})

test('what a compacting log may have dropped before the sink read it is no difference; what came besides is', async () => {
  const [captured, fewer, more] = [new WindowLedger(CAPTURED_WINDOWS), new WindowLedger(LANDED_WINDOWS), new WindowLedger(LANDED_WINDOWS)]
  for (let n = 0; n < 5; n++) put(captured, 1, n)
  for (let n = 0; n < 3; n++) put(fewer, 1, n)
  for (let n = 0; n < 6; n++) put(more, 1, n)
  const seen = async (ledger: WindowLedger, compacted: boolean) => {
    const audit = new ContinuousAudit({ bounds: async () => [], progress: async () => progressOf(captured) }, () => {})
    const landed: LandedStream[] = [{ sink: 'lake', topic: TOPIC, held: { positions: [], windows: new LandedWindows(ledger) } }]
    for (let looks = 0; looks < 3; looks++) await audit.look(captures(captured, compacted), landed, NOW)
    return audit.status.differences.length
  }
  expect([await seen(fewer, true), await seen(fewer, false), await seen(more, true)]).toEqual([0, 1, 1])
})

test('a sink that is behind, not open yet, or whose target keeps no windows holds the audit back and says so', async () => {
  const captured = new WindowLedger(CAPTURED_WINDOWS)
  put(captured, 1, 1)
  const audit = new ContinuousAudit({ bounds: async () => [{ partition: 0, start: 0n, end: 1n }], progress: async () => progressOf(captured) }, () => {})
  const full = new WindowLedger(LANDED_WINDOWS)
  put(full, 1, 1)
  const lake = (offset: bigint, windows: LandedWindows | null): LandedStream => ({
    sink: 'lake',
    topic: TOPIC,
    held: { positions: [{ topic: TOPIC, partition: 0, offset }], windows },
  })
  const search: LandedStream = { sink: 'search', topic: TOPIC, held: null }
  const look = async (...landed: LandedStream[]) => {
    await audit.look(captures(captured), landed, NOW)
    await audit.look(captures(captured), landed, NOW + 1)
    return audit.status
  }
  expect(await look(lake(0n, new LandedWindows()))).toEqual({ throughMs: null, differences: [], uncounted: [] })
  expect(await look(lake(1n, new LandedWindows(full)))).toEqual({ throughMs: NOW + 1, differences: [], uncounted: [] })
  expect(await look(lake(1n, new LandedWindows(full)), search)).toEqual({ throughMs: null, differences: [], uncounted: [] })
  expect(await look(lake(1n, null))).toMatchObject({ uncounted: [`lake ${TOPIC}`] })
})

test('a tally that was rejected counts as delivered', async () => {
  const captured = new WindowLedger(CAPTURED_WINDOWS)
  for (const n of [1, 2, 3]) put(captured, 1, n)
  const [all, bad] = [new WindowLedger(9), new WindowLedger(9)]
  for (const n of [1, 2, 3]) put(all, 1, n)
  put(bad, 1, 2)
  const windows = new LandedWindows().with(all, bad, new WindowLedger(1))
  expect([windows.landed.at(1).records, windows.rejected.at(1).records, windows.at(1).equals(captured.at(1))]).toEqual([2, 1, true])
  expect(new Tally().equals(windows.at(2))).toBe(true)
})

describe('a difference that keeps changing', () => {
  /** Window 2 lacks its change all the while, and window 1 has another one as told. */
  function changing() {
    const captured = new WindowLedger(CAPTURED_WINDOWS)
    for (const [window, n] of [[1, 1], [2, 2]] as const) put(captured, window, n) // biome-ignore format: one line
    const told: (readonly [window: number, untold: number])[] = []
    const audit = new ContinuousAudit({ bounds: async () => [], progress: async () => progressOf(captured) }, ({ fromMs }, untold) =>
      told.push([fromMs! / 60_000, untold]),
    )
    return async (other: number, now: number) => {
      const ledger = new WindowLedger(LANDED_WINDOWS)
      put(ledger, 1, other)
      const landed: LandedStream[] = [{ sink: 'lake', topic: TOPIC, held: { positions: [], windows: new LandedWindows(ledger) } }]
      told.length = 0
      for (let looks = 0; looks < 2; looks++) await audit.look(captures(captured), landed, now)
      return [...told]
    }
  }

  test('is remembered once it was told, and not without bound', async () => {
    const look = changing()
    let minute = NOW
    expect(await look(10, minute)).toEqual([[1, 0], [2, 0]]) // biome-ignore format: one line
    for (let n = 11; n < 120; n++) expect(await look(n, (minute += 60_000))).toEqual([[1, 0]])
    expect(await look(100, (minute += 60_000))).toEqual([])
    expect(await look(10, (minute += 60_000))).toEqual([[1, 0]])
  })

  test('is told at once, and then once a minute with the number of those between; the last one too, though nothing changes any more', async () => {
    const look = changing()
    expect(await look(10, NOW)).toHaveLength(2)
    for (let n = 11; n < 30; n++) expect(await look(n, NOW + n)).toEqual([])
    expect(await look(30, NOW + 60_000)).toEqual([[1, 19]])
    for (const n of [31, 32]) expect(await look(n, NOW + 60_000 + n)).toEqual([])
    expect(await look(32, NOW + 119_999)).toEqual([])
    expect(await look(32, NOW + 120_000)).toEqual([[1, 1]])
    for (let minutes = 3; minutes < 9; minutes++) expect(await look(32, NOW + minutes * 60_000)).toEqual([])
  })
})

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CapturedWindows } from '../../../../core/capture/captured-windows.ts'
import type { Json } from '../../../../core/event/offset.ts'
import { capturedLedgers, LEDGER_OPS, Tally, WindowLedger, windowOf, windowStart } from '../../../../core/event/window-ledger.ts'

const view = new DataView(Uint8Array.from({ length: 256 }, (_, i) => (i * 37) % 251).buffer)
/** The n-th record: its bytes are its own. */
const put = (tally: Tally, op: number, n: number) => tally.add(LEDGER_OPS[op]!.charCodeAt(0), view, n, n + 30)
const change = fc.record({ window: fc.nat(12), op: fc.nat(4), n: fc.nat(200) })

describe('a ledger by windows', () => {
  test('a window is a minute of commit time, whatever else is known', () => {
    expect(windowOf(1_700_000_000_000_000n)).toBe(windowOf(1_700_000_000_000_000n + 19_000_000n))
    expect(windowOf(1_700_000_000_000_000n)).not.toBe(windowOf(1_700_000_000_000_000n + 60_000_000n))
    expect(windowStart(windowOf(1_700_000_039_999_999n))).toBe(1_699_999_980_000)
  })

  test('rolling up loses nothing: totals below any window at or above the horizon are exact, in any order of arrival', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), fc.integer({ min: 1, max: 5 }), (changes, most) => {
        const rolled = new WindowLedger(most)
        const exact = new WindowLedger(1000)
        for (const { window, op, n } of changes) {
          put(rolled.tally(window), op, n)
          put(exact.tally(window), op, n)
        }
        expect(rolled.windows.size).toBeLessThanOrEqual(most)
        expect(rolled.total.toJSON()).toEqual(exact.total.toJSON())
        for (let window = rolled.horizon ?? 0; window < 14; window++) {
          expect(rolled.totalBelow(window).toJSON()).toEqual(exact.totalBelow(window).toJSON())
          expect(rolled.windows.get(window)?.toJSON()).toEqual(exact.windows.get(window)?.toJSON())
        }
        expect(WindowLedger.of(most, JSON.parse(JSON.stringify(rolled))).toJSON()).toEqual(rolled.toJSON())
      }),
    )
  })

  test('what was added and taken out again leaves no trace', () => {
    fc.assert(
      fc.property(fc.array(change), fc.array(change), (stay, go) => {
        const add = (ledger: WindowLedger, all: typeof stay) => {
          for (const { window, op, n } of all) put(ledger.tally(window), op, n)
          return ledger
        }
        const both = add(add(new WindowLedger(20), stay), go)
        both.removeAll(add(new WindowLedger(20), go))
        expect(both.total.toJSON()).toEqual(add(new WindowLedger(20), stay).total.toJSON())
      }),
    )
  })

  test('one record more, less, twice, of another op or with another byte makes a tally differ', () => {
    const tally = (...records: (readonly [op: number, n: number])[]) => {
      const made = new Tally()
      for (const [op, n] of records) put(made, op, n)
      return made
    }
    const base = tally([1, 3], [2, 4])
    expect(base.equals(tally([2, 4], [1, 3]))).toBe(true)
    for (const other of [tally([1, 3]), tally([1, 3], [2, 4], [2, 4]), tally([1, 3], [3, 4]), tally([1, 3], [2, 5]), tally([1, 4], [2, 3], [0, 1])]) {
      expect(base.equals(other)).toBe(false)
    }
  })
})

test("capture's progress holds exactly what was counted, however batches and restarts fall", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.array(change, { maxLength: 8 }), fc.boolean()), { maxLength: 12 }), (batches) => {
      const durable = new Map<string, Json>()
      const exact = new WindowLedger(1000)
      let windows = new CapturedWindows(durable)
      for (const [changes, restarts] of batches) {
        // seven times as far apart as windows are kept
        for (const { window, op, n } of changes) {
          put(windows.ledger('s.t').tally(window * 35), op, n)
          put(exact.tally(window * 35), op, n)
        }
        const progress = new Map<string, Json | null>()
        windows.takeProgress(['s.t'], progress)
        for (const [key, entry] of progress) {
          if (entry === null) durable.delete(key)
          else durable.set(key, structuredClone(entry))
        }
        windows.landed(progress)
        expect((windows.durable.get('s.t')?.windows ?? new WindowLedger(60)).toJSON()).toEqual(
          (capturedLedgers(durable).get('s.t') ?? new WindowLedger(60)).toJSON(),
        )
        if (restarts) windows = new CapturedWindows(durable)
      }
      const kept = capturedLedgers(durable).get('s.t') ?? new WindowLedger(1)
      expect(kept.total.toJSON()).toEqual(exact.total.toJSON())
      for (const [window, tally] of kept.windows) expect(tally.toJSON()).toEqual(exact.windows.get(window)!.toJSON())
    }),
  )
})

test('many windows: the progress keeps the newest apart and the rest in one entry', () => {
  const windows = new CapturedWindows(new Map())
  const durable = new Map<string, Json>()
  for (let window = 0; window < 200; window++) {
    put(windows.ledger('s.t').tally(window), 1, window)
    const progress = new Map<string, Json | null>()
    windows.takeProgress(['s.t'], progress)
    expect(progress.size).toBeLessThanOrEqual(3)
    for (const [key, entry] of progress) {
      if (entry === null) durable.delete(key)
      else durable.set(key, entry)
    }
  }
  expect(durable.size).toBe(61)
  expect(durable.get('ledger/s.t')).toMatchObject({ horizon: 140, before: { c: 140 } })
  expect(capturedLedgers(durable).get('s.t')!.total.records).toBe(200)
})

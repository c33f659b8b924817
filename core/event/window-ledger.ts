import type { Json } from './offset.ts'
import type { FrameRecord } from './record-batch.ts'
import { RowChecksum } from './row-hash.ts'

/** Length of a window of the audit, in microseconds of the source's commit time. */
const WINDOW_US = 60_000_000n
const WINDOW_MICROS = Number(WINDOW_US)
export const WINDOW_MS = Number(WINDOW_US / 1000n)

/** What a window counts apart: Debezium's letters of the changes that travel in a table's topic. */
export const LEDGER_OPS = ['r', 'c', 'u', 'd', 't'] as const
export type LedgerOp = (typeof LEDGER_OPS)[number]
export type LedgerCounts = { readonly [op in LedgerOp]?: number }

/** A window's tally as JSON, in a source's progress and in what sinks keep. Ops that never came are left out. */
export type TallyJson = LedgerCounts & { readonly sum: string }

export interface LedgerJson {
  /** Windows below this one are only in `before`; null: none were rolled up. */
  readonly horizon: number | null
  readonly before: TallyJson
  readonly windows: { readonly [window: string]: TallyJson }
}

/** The window of a commit time. It is a function of the record alone, so that whoever reads a record puts it where capture did. */
export function windowOf(committedAt: bigint): number {
  const micros = Number(committedAt)
  return Number.isSafeInteger(micros) ? Math.trunc(micros / WINDOW_MICROS) : Number(committedAt / WINDOW_US)
}

/** When a window begins, epoch milliseconds. */
export function windowStart(window: number): number {
  return window * WINDOW_MS
}

const INDEX_OF_CODE = Uint8Array.from({ length: 128 }, (_, code) => Math.max(0, LEDGER_OPS.indexOf(String.fromCharCode(code) as LedgerOp)))

/** How many changes of each op, and the sum over their records' content: key, value and position, as they lie in the frame. */
export class Tally {
  readonly counts = [0, 0, 0, 0, 0]
  readonly checksum = new RowChecksum()

  /** @param code of the op's letter */
  add(code: number, view: DataView, from: number, to: number): void {
    this.counts[INDEX_OF_CODE[code]!]!++
    this.checksum.add(view, from, to)
  }

  addHash(code: number, high: number, low: number): void {
    this.counts[INDEX_OF_CODE[code]!]!++
    this.checksum.addHash(high, low)
  }

  /** A record of a frame that lies in `view`. */
  addRecord(op: LedgerOp, view: DataView, record: FrameRecord): void {
    this.add(op.charCodeAt(0), view, contentFrom(record), record.end)
  }

  addAll(other: Tally): void {
    for (let i = 0; i < this.counts.length; i++) this.counts[i]! += other.counts[i]!
    this.checksum.addAll(other.checksum)
  }

  removeAll(other: Tally): void {
    for (let i = 0; i < this.counts.length; i++) this.counts[i]! -= other.counts[i]!
    this.checksum.removeAll(other.checksum)
  }

  get records(): number {
    return this.checksum.rows
  }

  equals(other: Tally): boolean {
    return this.counts.every((count, i) => count === other.counts[i]) && this.checksum.toString() === other.checksum.toString()
  }

  toJSON(): TallyJson {
    return { ...this.byOp(), sum: this.checksum.toString() }
  }

  byOp(): LedgerCounts {
    return Object.fromEntries(LEDGER_OPS.flatMap((op, i) => (this.counts[i] === 0 ? [] : [[op, this.counts[i]!]])))
  }

  static of(json: TallyJson): Tally {
    const tally = new Tally()
    let records = 0
    for (const [i, op] of LEDGER_OPS.entries()) records += tally.counts[i] = json[op] ?? 0
    tally.checksum.addAll(RowChecksum.of(records, json.sum))
    return tally
  }
}

/** Where the bytes of a record begin that both sides sum: after the deltas and lengths that its frame gives it. */
export function contentFrom(record: FrameRecord): number {
  return record.keyFrom < 0 ? record.valueFrom : record.keyFrom
}

/**
 * The changes of one stream by window, at one place of its way. The newest windows are apart; when there are more than `most`, the oldest joins the
 * running total `before`, so what is older is coarser and never wrong. A change that comes late for its window counts where it still can.
 */
export class WindowLedger {
  readonly before: Tally
  readonly windows: Map<number, Tally>
  readonly #most: number
  #horizon: number
  /** The window asked for last, since most changes come in the one of the change before. */
  #last = Number.NaN
  #lastTally = new Tally()

  constructor(most: number, horizon: number | null = null, before = new Tally(), windows = new Map<number, Tally>()) {
    this.#most = most
    this.#horizon = horizon ?? Number.NEGATIVE_INFINITY
    this.before = before
    this.windows = windows
  }

  get horizon(): number | null {
    return Number.isFinite(this.#horizon) ? this.#horizon : null
  }

  /** Where changes of this window count. Ask for each change: a tally that was rolled up counts no more. */
  tally(window: number): Tally {
    if (window !== this.#last) {
      this.#lastTally = this.#find(window)
      this.#last = window
    }
    return this.#lastTally
  }

  #find(window: number): Tally {
    if (window < this.#horizon) return this.before
    const known = this.windows.get(window)
    if (known !== undefined) return known
    const fresh = new Tally()
    this.windows.set(window, fresh)
    if (this.windows.size > this.#most) {
      const oldest = Math.min(...this.windows.keys())
      this.before.addAll(this.windows.get(oldest)!)
      this.windows.delete(oldest)
      this.#horizon = oldest + 1
      if (oldest === window) return this.before
    }
    return fresh
  }

  addAll(other: WindowLedger): void {
    this.before.addAll(other.before)
    for (const [window, tally] of other.windows) this.tally(window).addAll(tally)
  }

  /** Takes out what was added before. */
  removeAll(other: WindowLedger): void {
    this.before.removeAll(other.before)
    for (const [window, tally] of other.windows) this.tally(window).removeAll(tally)
  }

  keys(): Iterable<number> {
    return this.windows.keys()
  }

  at(window: number): Tally {
    return this.windows.get(window) ?? new Tally()
  }

  /** All of it below a window that is at or above the horizon. */
  totalBelow(window: number): Tally {
    const total = new Tally()
    total.addAll(this.before)
    for (const [at, tally] of this.windows) if (at < window) total.addAll(tally)
    return total
  }

  get total(): Tally {
    return this.totalBelow(Number.POSITIVE_INFINITY)
  }

  toJSON(): LedgerJson {
    return { horizon: this.horizon, before: this.before.toJSON(), windows: Object.fromEntries([...this.windows].map(([at, tally]) => [at, tally.toJSON()])) }
  }

  static of(most: number, { horizon, before, windows }: LedgerJson): WindowLedger {
    return new WindowLedger(most, horizon, Tally.of(before), new Map(Object.entries(windows).map(([at, tally]) => [Number(at), Tally.of(tally)])))
  }
}

/** Prefix of the progress entries with what was captured of a topic before its windows; followed by the topic. */
export const LEDGER_ENTRY = 'ledger/'
/** Prefix of the progress entries of single windows: `window/<topic>/<window>`. Topics hold no slash. */
export const WINDOW_ENTRY = 'window/'
/** Windows of a topic that capture keeps apart. */
export const CAPTURED_WINDOWS = 60

/** What a source captured of each topic, from its durable progress. */
export function capturedLedgers(progress: ReadonlyMap<string, Json>): Map<string, WindowLedger> {
  const parts = new Map<string, { base: { horizon: number | null; before: TallyJson } | null; windows: Map<number, Tally> }>()
  const part = (topic: string) => {
    let known = parts.get(topic)
    if (known === undefined) parts.set(topic, (known = { base: null, windows: new Map() }))
    return known
  }
  for (const [key, entry] of progress) {
    if (key.startsWith(LEDGER_ENTRY)) part(key.slice(LEDGER_ENTRY.length)).base = entry as { horizon: number; before: TallyJson }
    else if (key.startsWith(WINDOW_ENTRY)) {
      const slash = key.lastIndexOf('/')
      part(key.slice(WINDOW_ENTRY.length, slash)).windows.set(Number(key.slice(slash + 1)), Tally.of(entry as TallyJson))
    }
  }
  return new Map(
    [...parts].map(([topic, { base, windows }]) => [
      topic,
      new WindowLedger(CAPTURED_WINDOWS, base?.horizon ?? null, base === null ? new Tally() : Tally.of(base.before), windows),
    ]),
  )
}

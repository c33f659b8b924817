import { type LedgerJson, Tally, WindowLedger } from '../event/window-ledger.ts'
import type { LogPosition } from '../log/log.ts'

/** Windows of a stream that a sink keeps apart: fewer than capture, since they are written with every commit. */
export const LANDED_WINDOWS = 30

interface LandedJson {
  readonly positions: readonly (readonly [partition: number, offset: string])[]
  readonly landed: LedgerJson
  readonly rejected: LedgerJson
  readonly superseded: LedgerJson
  readonly asOf?: number | null
  /** Identity of the log that the positions are of; null: it has none. */
  readonly log?: string | null
}

/**
 * What became of a stream's changes in one target, by window. It travels as text with each batch and lands in the commit that holds the positions, so
 * that a change which is delivered again is not counted again.
 */
export class LandedWindows {
  readonly landed: WindowLedger
  /** Changes that the target could not hold: dead letters. */
  readonly rejected: WindowLedger
  /** Updates that came before the row they belong to, which the snapshot brought later. */
  readonly superseded: WindowLedger
  /** A moment, epoch milliseconds, at which the target had all that was in the log, see `ReadFrom`; null: not known. */
  readonly asOfMs: number | null

  constructor(
    landed = new WindowLedger(LANDED_WINDOWS),
    rejected = new WindowLedger(LANDED_WINDOWS),
    superseded = new WindowLedger(LANDED_WINDOWS),
    asOfMs: number | null = null,
  ) {
    this.landed = landed
    this.rejected = rejected
    this.superseded = superseded
    this.asOfMs = asOfMs
  }

  /** As it is once a batch landed: `batch` counts all its changes, of which some did not land. */
  with(batch: WindowLedger, rejected: WindowLedger, superseded: WindowLedger, asOf: number | null = null): LandedWindows {
    const next = LandedWindows.of({ landed: this.landed.toJSON(), rejected: this.rejected.toJSON(), superseded: this.superseded.toJSON(), asOf })
    next.landed.addAll(batch)
    for (const missing of [rejected, superseded]) next.landed.removeAll(missing)
    next.rejected.addAll(rejected)
    next.superseded.addAll(superseded)
    return next
  }

  /** All that the target was given below a window; `Infinity` for everything. */
  totalBelow(window: number): Tally {
    const total = new Tally()
    for (const ledger of this.#parts()) total.addAll(ledger.totalBelow(window))
    return total
  }

  /** All that the target was given of a window. */
  at(window: number): Tally {
    const total = new Tally()
    for (const ledger of this.#parts()) total.addAll(ledger.at(window))
    return total
  }

  get horizon(): number | null {
    const horizon = Math.max(...this.#parts().map((ledger) => ledger.horizon ?? Number.NEGATIVE_INFINITY))
    return Number.isFinite(horizon) ? horizon : null
  }

  keys(): Iterable<number> {
    return new Set(this.#parts().flatMap((ledger) => [...ledger.keys()]))
  }

  #parts(): readonly WindowLedger[] {
    return [this.landed, this.rejected, this.superseded]
  }

  /** The text that lands with these positions of a log. */
  toText(positions: readonly LogPosition[], log: string | null): string {
    const { landed, rejected, superseded, asOfMs } = this
    const json: LandedJson = {
      positions: positions.map(({ partition, offset }) => [partition, String(offset)] as const),
      landed: landed.toJSON(),
      rejected: rejected.toJSON(),
      superseded: superseded.toJSON(),
      asOf: asOfMs,
      log,
    }
    return JSON.stringify(json)
  }

  private static of({ landed, rejected, superseded, asOf = null }: Omit<LandedJson, 'positions' | 'log'>): LandedWindows {
    const ledger = (json: LedgerJson) => WindowLedger.of(LANDED_WINDOWS, json)
    return new LandedWindows(ledger(landed), ledger(rejected), ledger(superseded), asOf)
  }

  /** What {@link toText} gave: the windows, and the positions of that commit with the identity of their log. */
  static parse(topic: string, text: string): { readonly windows: LandedWindows; readonly positions: readonly LogPosition[]; readonly log: string | null } {
    const json = JSON.parse(text) as LandedJson
    const positions = json.positions.map(([partition, offset]) => ({ topic, partition, offset: BigInt(offset) }))
    return { windows: LandedWindows.of(json), positions, log: json.log ?? null }
  }

  /** Counted anew from the log: what was rejected counts as landed. */
  static counted(count: WindowLedger): LandedWindows {
    return new LandedWindows(WindowLedger.of(LANDED_WINDOWS, count.toJSON()))
  }
}

/** Both say the same of every partition; one that is missing is at its start. */
export function samePositions(a: readonly LogPosition[], b: readonly LogPosition[]): boolean {
  const offsets = (positions: readonly LogPosition[]) => new Map(positions.map(({ partition, offset }) => [partition, offset]))
  const [x, y] = [offsets(a), offsets(b)]
  return [...new Set([...x.keys(), ...y.keys()])].every((partition) => (x.get(partition) ?? 0n) === (y.get(partition) ?? 0n))
}

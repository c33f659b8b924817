import type { Json } from '../event/offset.ts'
import { CAPTURED_WINDOWS, capturedLedgers, LEDGER_ENTRY, WINDOW_ENTRY, WindowLedger } from '../event/window-ledger.ts'

interface Entry {
  readonly ledger: WindowLedger
  /** Records of each window, and those before the horizon, as of the last progress. */
  readonly written: Map<number, number>
  horizon: number | null
  before: number
}

/** The ledgers of a capture's topics. What changed goes into the progress of the batch that holds the records, so both are durable together (I5). */
export class CapturedWindows {
  readonly #topics = new Map<string, Entry>()
  readonly #durable = new Map<string, Json>()

  constructor(progress: ReadonlyMap<string, Json>) {
    for (const [key, entry] of progress) if (isLedgerEntry(key)) this.#durable.set(key, entry)
    for (const [topic, ledger] of capturedLedgers(this.#durable)) this.#topics.set(topic, entryOf(ledger))
  }

  ledger(topic: string): WindowLedger {
    let entry = this.#topics.get(topic)
    if (entry === undefined) this.#topics.set(topic, (entry = entryOf(new WindowLedger(CAPTURED_WINDOWS))))
    return entry.ledger
  }

  /** Adds what changed in these topics since the last call. */
  takeProgress(topics: Iterable<string>, into: Map<string, Json | null>): void {
    for (const topic of topics) {
      const entry = this.#topics.get(topic)
      if (entry === undefined) continue
      const { ledger, written } = entry
      if (entry.horizon !== ledger.horizon || entry.before !== ledger.before.records) {
        into.set(LEDGER_ENTRY + topic, { horizon: ledger.horizon, before: ledger.before.toJSON() })
        entry.horizon = ledger.horizon
        entry.before = ledger.before.records
        for (const window of written.keys()) {
          if (ledger.windows.has(window)) continue
          into.set(`${WINDOW_ENTRY}${topic}/${window}`, null)
          written.delete(window)
        }
      }
      for (const [window, tally] of ledger.windows) {
        if (written.get(window) === tally.records) continue
        into.set(`${WINDOW_ENTRY}${topic}/${window}`, tally.toJSON())
        written.set(window, tally.records)
      }
    }
  }

  /** The batch with this progress is durable. */
  landed(progress: ReadonlyMap<string, Json | null>): void {
    for (const [key, entry] of progress) {
      if (!isLedgerEntry(key)) continue
      if (entry === null) this.#durable.delete(key)
      else this.#durable.set(key, entry)
    }
  }

  /** The entries as they are in the log: rises as batches land. */
  get durable(): ReadonlyMap<string, Json> {
    return this.#durable
  }
}

function entryOf(ledger: WindowLedger): Entry {
  const written = new Map([...ledger.windows].map(([window, tally]) => [window, tally.records]))
  return { ledger, written, horizon: ledger.horizon, before: ledger.before.records }
}

function isLedgerEntry(key: string): boolean {
  return key.startsWith(LEDGER_ENTRY) || key.startsWith(WINDOW_ENTRY)
}

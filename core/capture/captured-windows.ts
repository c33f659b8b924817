import type { Json } from '../event/offset.ts'
import { CAPTURED_WINDOWS, capturedLedgers, LEDGER_ENTRY, WINDOW_ENTRY, WindowLedger } from '../event/window-ledger.ts'

interface Entry {
  readonly ledger: WindowLedger
  /** Records of each window, and those before the horizon, as of the last progress. */
  readonly written: Map<number, number>
  horizon: number | null
  before: number
}

/** What is durable of a topic's windows: rises as batches land. */
export class DurableWindows {
  readonly #topic: string
  readonly #entries = new Map<string, Json>()
  #parsed: WindowLedger | null = null

  constructor(topic: string) {
    this.#topic = topic
  }

  set(key: string, entry: Json | null): void {
    if (entry === null) this.#entries.delete(key)
    else this.#entries.set(key, entry)
    this.#parsed = null
  }

  /** As of now. It does not change any more, and is the same object while nothing does. */
  get windows(): WindowLedger {
    this.#parsed ??= capturedLedgers(this.#entries).get(this.#topic) ?? new WindowLedger(CAPTURED_WINDOWS)
    return this.#parsed
  }
}

/** The ledgers of a capture's topics. What changed goes into the progress of the batch that holds the records, so both are durable together (I5). */
export class CapturedWindows {
  readonly #topics = new Map<string, Entry>()
  readonly #durable = new Map<string, DurableWindows>()

  constructor(progress: ReadonlyMap<string, Json>) {
    this.landed(progress)
    for (const [topic, ledger] of capturedLedgers(progress)) this.#topics.set(topic, entryOf(ledger))
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
      const topic = topicOfEntry(key)
      if (topic === null) continue
      let durable = this.#durable.get(topic)
      if (durable === undefined) this.#durable.set(topic, (durable = new DurableWindows(topic)))
      durable.set(key, entry)
    }
  }

  /** By topic. */
  get durable(): ReadonlyMap<string, DurableWindows> {
    return this.#durable
  }
}

function entryOf(ledger: WindowLedger): Entry {
  const written = new Map([...ledger.windows].map(([window, tally]) => [window, tally.records]))
  return { ledger, written, horizon: ledger.horizon, before: ledger.before.records }
}

function topicOfEntry(key: string): string | null {
  if (key.startsWith(LEDGER_ENTRY)) return key.slice(LEDGER_ENTRY.length)
  return key.startsWith(WINDOW_ENTRY) ? key.slice(WINDOW_ENTRY.length, key.lastIndexOf('/')) : null
}

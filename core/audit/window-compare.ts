import { LEDGER_OPS, type LedgerCounts, Tally, type TallyJson } from '../event/window-ledger.ts'

/** Changes by window at one place of a stream's way, however coarse what is old. */
export interface Windowed {
  /** Windows below are only in totals; null: none are. */
  readonly horizon: number | null
  keys(): Iterable<number>
  at(window: number): Tally
  totalBelow(window: number): Tally
}

/** One window at two places; null stands for all windows before `until`. */
export interface WindowPair {
  readonly window: number | null
  readonly until: number
  readonly captured: Tally
  readonly found: Tally
}

export interface Comparison {
  readonly equal: readonly WindowPair[]
  readonly different: readonly WindowPair[]
  /** Windows that took changes between the two looks at what was captured, as of the second: they are compared when they rest. */
  readonly open: readonly WindowPair[]
}

/**
 * Compares what was captured with what was found further on. `found` holds at least what `before` counts and at most what `after` does, so a window that is
 * the same in both must be the same in `found`: whatever came late, and without anything having to stop.
 */
export function compareWindows(before: Windowed, after: Windowed, found: Windowed, options: { readonly compacted: boolean }): Comparison {
  const sides = [before, after, found]
  const horizon = Math.max(...sides.map((side) => side.horizon ?? Number.NEGATIVE_INFINITY))
  const windows = [...new Set(sides.flatMap((side) => [...side.keys()]))].filter((window) => window >= horizon).sort((a, b) => a - b)
  const result = { equal: [] as WindowPair[], different: [] as WindowPair[], open: [] as WindowPair[] }
  const judge = (window: number | null, until: number, of: (side: Windowed) => Tally) => {
    const captured = of(before)
    if (!captured.equals(of(after))) {
      result.open.push({ window, until, captured: of(after), found: of(found) })
      return
    }
    const pair = { window, until, captured, found: of(found) }
    // what the cleaner took before a sink read it is no loss, and cannot be told from one
    const isEqual = captured.equals(pair.found) || (options.compacted && isWithin(pair.found, captured))
    ;(isEqual ? result.equal : result.different).push(pair)
  }
  if (Number.isFinite(horizon)) judge(null, horizon, (side) => side.totalBelow(horizon))
  for (const window of windows) judge(window, window + 1, (side) => side.at(window))
  return result
}

/** Fewer of some op, and more of none. */
export function isWithin(part: Tally, whole: Tally): boolean {
  return part.records < whole.records && part.counts.every((count, i) => count <= whole.counts[i]!)
}

/** What one side has and the other has not, as text that stays the same however much both have in common. */
export function deltaOf({ captured, found }: WindowPair): string {
  const delta = new Tally()
  delta.addAll(found)
  delta.removeAll(captured)
  return JSON.stringify(delta)
}

const NAMES = { r: 'read', c: 'insert', u: 'update', d: 'delete', t: 'truncation' } as const

/** "2 inserts missing, 1 update too many", or that the content differs. */
export function describeDelta({ captured, found }: WindowPair): string {
  const parts = LEDGER_OPS.flatMap((op, i) => {
    const more = found.counts[i]! - captured.counts[i]!
    if (more === 0) return []
    const count = Math.abs(more)
    return [`${count.toLocaleString('en-US')} ${NAMES[op]}${count === 1 ? '' : 's'} ${more < 0 ? 'missing' : 'too many'}`]
  })
  return parts.length === 0 ? 'the same number of changes, with other content' : parts.join(', ')
}

/** "1,200 (1,000 inserts, 200 updates)" */
export function describeCounts(counts: LedgerCounts): string {
  const parts = LEDGER_OPS.flatMap((op) =>
    counts[op] === undefined ? [] : [`${counts[op].toLocaleString('en-US')} ${NAMES[op]}${counts[op] === 1 ? '' : 's'}`],
  )
  const total = LEDGER_OPS.reduce((sum, op) => sum + (counts[op] ?? 0), 0)
  return parts.length === 0 ? '0' : `${total.toLocaleString('en-US')} (${parts.join(', ')})`
}

/** The same with the sum: "1,200 (1,000 inserts, 200 updates; sum 1f0c…)" */
export function describeTally(tally: TallyJson): string {
  return describeCounts(tally).replace(')', `; sum ${tally.sum})`)
}

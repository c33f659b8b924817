/** Where keys of a table can lie: the union of its data files' bounds of the first key column. What lies outside is not in the table. */
import { type Comparable, comparableBound, comparableKey, compareComparables } from './bounds.ts'
import type { DataFile } from './manifest.ts'

interface Range {
  readonly lower: Comparable
  upper: Comparable
}

export class KeyRanges {
  readonly #type: string
  readonly #ranges: Range[] = []
  #everything = false

  constructor(files: Iterable<DataFile>, fieldId: number, type: string) {
    this.#type = type
    const ranges: Range[] = []
    for (const file of files) {
      const bounds = boundsOf(file, fieldId, type)
      if (bounds === null) this.#everything = true
      else ranges.push(bounds)
    }
    if (this.#everything) return
    ranges.sort((a, b) => compareComparables(a.lower, b.lower))
    for (const range of ranges) {
      const last = this.#ranges.at(-1)
      if (last === undefined || compareComparables(range.lower, last.upper) > 0) this.#ranges.push(range)
      else if (compareComparables(range.upper, last.upper) > 0) last.upper = range.upper
    }
  }

  /** False only when no data file holds a row whose first key column is `value`. */
  mayHold(value: unknown): boolean {
    if (this.#everything) return true
    if (this.#ranges.length === 0) return false
    const key = comparableKey(this.#type, value)
    if (key === null) return true
    let from = 0
    let to = this.#ranges.length
    while (from < to) {
      const middle = (from + to) >> 1
      if (compareComparables(this.#ranges[middle]!.lower, key) <= 0) from = middle + 1
      else to = middle
    }
    return from > 0 && compareComparables(key, this.#ranges[from - 1]!.upper) <= 0
  }
}

function boundsOf(file: DataFile, fieldId: number, type: string): Range | null {
  const lower = file.lower_bounds?.find((entry) => entry.key === fieldId)
  const upper = file.upper_bounds?.find((entry) => entry.key === fieldId)
  if (lower === undefined || upper === undefined) return null
  const from = comparableBound(type, lower.value)
  const to = comparableBound(type, upper.value)
  return from === null || to === null ? null : { lower: from, upper: to }
}

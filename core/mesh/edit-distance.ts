/** Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`. Both are short: names and keys. */
export function editDistance(a: string, b: string): number {
  let before: number[] = []
  let last: number[] = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1)
      row.push(cost)
    }
    before = last
    last = row
  }
  return last[b.length]!
}

/** The candidate that a typing slip most likely meant, or null when none is near enough to name. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  const lower = word.toLowerCase()
  let best: string | null = null
  let bestCost = Number.POSITIVE_INFINITY
  for (const candidate of candidates) {
    const cost = editDistance(lower.slice(0, 64), candidate.toLowerCase())
    if (cost < bestCost) {
      best = candidate
      bestCost = cost
    }
  }
  return best !== null && bestCost <= Math.max(1, Math.floor(Math.min(word.length, best.length) / 3)) ? best : null
}

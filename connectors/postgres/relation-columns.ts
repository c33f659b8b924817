import { crc32 } from 'node:zlib'

/** A column of pgoutput's Relation message. */
export interface RelationColumn {
  readonly name: string
  readonly typeOid: number
  readonly typeModifier: number
  /** Part of the replica identity. */
  readonly key: boolean
}

/** What the catalog has of a column, also of one that was dropped. */
export interface Attribute {
  readonly attnum: number
  readonly attname: string
  readonly type: number
  readonly modifier: number
  readonly generated: boolean
  readonly dropped: boolean
}

/** Ids from here on are no attnums: they stand for columns of which the catalog no longer tells which they were. */
export const FIRST_LOST_ID = 100_000

/** How sure a name's place is: the catalog and the log agree; the catalog has it with the same type; the log has it; the catalog has it, of another type. */
const CERTAIN = 5
const SAME_TYPE = 4
const IN_LOG = 3
const OTHER_TYPE = 2

interface Candidate {
  /** Index of the relation's column. */
  readonly column: number
  readonly attnum: number
  readonly weight: number
}

/**
 * Finds the attnum of each column of a Relation message, which may be older than the catalog. Both are in attnum order and dropped attributes stay in the
 * catalog; `before` has the names of the last shape that the log knows. A column that was renamed or dropped since lies between its neighbours; when
 * several may be it, it gets an id of its own from {@link FIRST_LOST_ID} on, and the table must be read again once its shape is known.
 */
export function placeColumns(columns: readonly RelationColumn[], attributes: readonly Attribute[], before: ReadonlyMap<string, number>): readonly number[] {
  const placed: (number | null)[] = rising(candidates(columns, attributes, before), columns.length)
  const named = new Set(columns.map(({ name }) => name))
  const isLost = (row: Attribute) => row.dropped || (!named.has(row.attname) && !row.generated)
  for (let from = 0; from < columns.length; from++) {
    if (placed[from] !== null) continue
    let to = from
    while (to < columns.length && placed[to] === null) to++
    const low = from === 0 ? 0 : placed[from - 1]!
    const high = to === columns.length ? Number.POSITIVE_INFINITY : placed[to]!
    const between = attributes.filter((row) => row.attnum > low && row.attnum < high && isLost(row))
    // as many as are missing: each is in its place
    if (between.length === to - from) for (let i = from; i < to; i++) placed[i] = between[i - from]!.attnum
    from = to
  }
  const taken = new Set<number>()
  return placed.map((attnum, i) => {
    let id = attnum ?? lostId(columns[i]!)
    while (taken.has(id)) id++
    taken.add(id)
    return id
  })
}

function candidates(columns: readonly RelationColumn[], attributes: readonly Attribute[], before: ReadonlyMap<string, number>): readonly Candidate[] {
  const byName = new Map(attributes.flatMap((row) => (row.dropped ? [] : [[row.attname, row] as const])))
  const known = new Set(attributes.map(({ attnum }) => attnum))
  return columns.flatMap(({ name, typeOid, typeModifier }, column): Candidate[] => {
    const now = byName.get(name)
    const past = before.get(name)
    const fromLog = past !== undefined && known.has(past) ? past : null
    if (now !== undefined && (fromLog === null || fromLog === now.attnum)) {
      const same = now.type === typeOid && now.modifier === typeModifier
      return [{ column, attnum: now.attnum, weight: fromLog !== null ? CERTAIN : same ? SAME_TYPE : OTHER_TYPE }]
    }
    const found: Candidate[] = []
    if (now !== undefined) found.push({ column, attnum: now.attnum, weight: now.type === typeOid && now.modifier === typeModifier ? SAME_TYPE : OTHER_TYPE })
    if (fromLog !== null) found.push({ column, attnum: fromLog, weight: IN_LOG })
    return found
  })
}

/** The heaviest choice of candidates whose attnums rise with their columns. */
function rising(all: readonly Candidate[], columns: number): (number | null)[] {
  const total: number[] = []
  const previous: number[] = []
  let best = -1
  for (const [i, candidate] of all.entries()) {
    let from = -1
    for (let j = 0; j < i; j++) {
      const other = all[j]!
      if (other.column < candidate.column && other.attnum < candidate.attnum && (from < 0 || total[j]! > total[from]!)) from = j
    }
    total.push(candidate.weight + (from < 0 ? 0 : total[from]!))
    previous.push(from)
    if (best < 0 || total[i]! > total[best]!) best = i
  }
  const placed = new Array<number | null>(columns).fill(null)
  for (let i = best; i >= 0; i = previous[i]!) placed[all[i]!.column] = all[i]!.attnum
  return placed
}

/** The same for the same column at each start, so that a shape stays what it was. */
function lostId({ name, typeOid, typeModifier }: RelationColumn): number {
  return FIRST_LOST_ID + (crc32(`${name} ${typeOid} ${typeModifier}`) % 1_000_000_000)
}

import type { ErrorCode, MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import type { Position } from '../event/position.ts'

/** Prefix of the progress entries of parked tables; followed by the table's id. */
export const PARKED_ENTRY = 'parked/'

/** A table that cannot go on, as it lies in the progress of its source. Its changes are counted and left out until it is read again. */
export interface ParkedTable {
  readonly code: ErrorCode
  readonly message: string
  readonly fix: string
  /** Of the last change before, of whatever table. */
  readonly position: { readonly commit: string; readonly ordinal: number }
  /** ISO 8601 */
  readonly since: string
  /** Changes left out since; after a crash it may count a few twice. */
  readonly skipped: number
  /** It is gone, and somebody has taken note of it. */
  readonly accepted?: true
}

export interface ParkedStatus extends ParkedTable {
  readonly table: string
}

/** The entry of a table of `node` that is parked now; `position`: of the last change before. */
export function parkedTable(node: string, id: string, error: MillraceError, { commit, ordinal }: Position): ParkedTable {
  const { code, message } = error
  // nothing of it was captured: it is taken up by itself
  const repair = code === 'source.no_identity' ? '' : `; then \`millrace resnapshot FILE ${node}/${id}\``
  const fix = `${error.fix ?? 'correct the table'}${repair}`
  return { code, message, fix, position: { commit: commit.toString(), ordinal }, since: new Date().toISOString(), skipped: 0 }
}

/** The parked tables of a source node that somebody should look at. */
export function parkedIn(progress: ReadonlyMap<string, Json>): readonly ParkedStatus[] {
  return [...progress]
    .filter(([key]) => key.startsWith(PARKED_ENTRY))
    .map(([key, entry]) => ({ table: key.slice(PARKED_ENTRY.length), ...(entry as unknown as ParkedTable) }))
    .filter(({ accepted }) => accepted !== true)
}

/** The parked tables of a running capture, with what of them is not durable yet. */
export class ParkedTables {
  /** Rises when a table is left out, or no longer is. */
  version = 0
  readonly #tables = new Map<string, ParkedTable>()
  /** Left out since the last batch, by table. */
  readonly #skipped = new Map<string, number>()
  readonly #changed = new Set<string>()
  /** Those that will be read anew: their changes until then, which nobody can write, count for nothing. */
  readonly #awaited = new Set<string>()

  constructor(progress: ReadonlyMap<string, Json>) {
    for (const [key, entry] of progress) if (key.startsWith(PARKED_ENTRY)) this.#tables.set(key.slice(PARKED_ENTRY.length), entry as unknown as ParkedTable)
  }

  get(id: string): ParkedTable | undefined {
    return this.#tables.get(id)
  }

  /** How many tables are left out. */
  get size(): number {
    return this.#tables.size + this.#awaited.size
  }

  isLeftOut(id: string): boolean {
    return this.#tables.has(id) || this.#awaited.has(id)
  }

  /** The table's changes are left out until its reading arrives. */
  await(id: string): void {
    if (this.#awaited.has(id)) return
    this.#awaited.add(id)
    this.version++
  }

  /** What comes next of the table belongs to its reading, or follows it. */
  arrive(id: string): void {
    if (this.#awaited.delete(id)) this.version++
  }

  park(id: string, entry: ParkedTable): void {
    this.#tables.set(id, entry)
    this.#changed.add(id)
    this.#awaited.delete(id)
    this.version++
  }

  release(id: string): void {
    if (!this.#tables.delete(id)) return
    this.#skipped.delete(id)
    this.#changed.add(id)
    this.version++
  }

  skip(id: string): void {
    if (this.#tables.has(id)) this.#skipped.set(id, (this.#skipped.get(id) ?? 0) + 1)
  }

  get hasProgress(): boolean {
    return this.#changed.size > 0
  }

  takeProgress(into: Map<string, Json | null>): void {
    if (this.#skipped.size + this.#changed.size === 0) return
    for (const [id, count] of this.#skipped) {
      const parked = this.#tables.get(id)
      if (parked !== undefined) this.#tables.set(id, { ...parked, skipped: parked.skipped + count })
      this.#changed.add(id)
    }
    this.#skipped.clear()
    for (const id of this.#changed) into.set(PARKED_ENTRY + id, (this.#tables.get(id) ?? null) as unknown as Json | null)
    this.#changed.clear()
  }

  status(): readonly ParkedStatus[] {
    return [...this.#tables]
      .filter(([, { accepted }]) => accepted !== true)
      .map(([table, parked]) => ({ table, ...parked, skipped: parked.skipped + (this.#skipped.get(table) ?? 0) }))
  }
}

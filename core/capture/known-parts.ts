import type { Json } from '../event/offset.ts'

/** Prefix of the progress entries with the parts that a table's rows in the log are of; followed by the table's id. */
export const PARTS_ENTRY = 'parts/'

/** What a source said last of the parts of its tables, see `SourceConnector.parts`, with what of it is not durable yet. */
export class KnownParts {
  readonly #parts = new Map<string, Json>()
  readonly #fresh = new Set<string>()

  constructor(progress: ReadonlyMap<string, Json>) {
    for (const [key, entry] of progress) if (key.startsWith(PARTS_ENTRY)) this.#parts.set(key.slice(PARTS_ENTRY.length), entry)
  }

  get(id: string): Json | null {
    return this.#parts.get(id) ?? null
  }

  /** To land with the batch that says that what moved is to be read. */
  set(id: string, parts: Json): void {
    this.#parts.set(id, parts)
    this.#fresh.add(id)
  }

  get hasProgress(): boolean {
    return this.#fresh.size > 0
  }

  takeProgress(into: Map<string, Json | null>): void {
    for (const id of this.#fresh) into.set(PARTS_ENTRY + id, this.get(id))
    this.#fresh.clear()
  }
}

import type { TableSchema } from '../event/table-schema.ts'

/** What is told to be outdated again and again is looked at so often at most: statements without a pause must not hide new tables. */
const MOST_LOOKS = 3

/** The captured tables as a source's catalog has them, looked at no more often than a source needs. A look that failed is not kept. */
export class TableList {
  readonly #refreshMs: number
  readonly #look: () => Promise<readonly TableSchema[]>
  #last: Promise<readonly TableSchema[]> | null = null
  #lookedAt = 0
  /** How often `expire` was called. */
  #expired = 0

  /** @param refreshMs the catalog is looked at this often at most */
  constructor(refreshMs: number, look: () => Promise<readonly TableSchema[]>) {
    this.#refreshMs = refreshMs
    this.#look = look
  }

  /** See `SourceConnector.tables`. @throws what the look threw */
  tables(): Promise<readonly TableSchema[]> {
    const now = performance.now()
    if (this.#last === null || now - this.#lookedAt > this.#refreshMs) {
      this.#lookedAt = now
      const last = this.#lookUp()
      this.#last = last
      last.catch(() => {
        if (this.#last === last) this.#last = null
      })
    }
    return this.#last
  }

  async #lookUp(): Promise<readonly TableSchema[]> {
    for (let looks = 1; ; looks++) {
      const expired = this.#expired
      const tables = await this.#look()
      if (expired === this.#expired || looks === MOST_LOOKS) return tables
    }
  }

  /** What was seen last is known to be outdated: the next call looks anew, and so does one that waits for a look. */
  expire(): void {
    this.#expired++
    this.#last = null
  }
}

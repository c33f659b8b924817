import type { QueriedRow, RowQuery } from './row-query.ts'
import type { MappedTable } from './table-mapping.ts'

/** Rows of one SELECT, all of one partition. */
const ROWS_OF_SELECT = 64
const SELECTS_AT_ONCE = 16

export interface WantedRow {
  readonly mapped: MappedTable
  readonly partition: Buffer
  readonly clustering: Buffer
}

interface Select {
  readonly mapped: MappedTable
  readonly partition: Buffer
  readonly clusterings: Buffer[]
  readonly isNeeded: boolean
}

/**
 * Rows as they were read for one block of the log: later than its entries were written, so each of them may be told with the row. They are kept by the shape
 * of the table: one that was truncated or altered since is read again.
 */
export class RowLookUps {
  readonly #query: (table: MappedTable) => Pick<RowQuery, 'some'>
  readonly #rows = new Map<MappedTable, Map<string, QueriedRow | null>>()

  constructor(query: (table: MappedTable) => Pick<RowQuery, 'some'>) {
    this.#query = query
  }

  /** null: there is no such row; undefined: it was not read. */
  find({ mapped, partition, clustering }: WantedRow): QueriedRow | null | undefined {
    return this.#rows.get(mapped)?.get(nameOf(partition, clustering))
  }

  forget(): void {
    this.#rows.clear()
  }

  /**
   * Rows of one partition come together, and several partitions at once.
   * @param ahead may be needed soon: what fails of them is not read
   * @throws as `RowQuery.some`, of what is needed
   */
  async read(needed: readonly WantedRow[], ahead: readonly WantedRow[] = []): Promise<void> {
    const selects = selectsOf(needed, ahead).values()
    const failures: unknown[] = []
    const work = async () => {
      for (const { mapped, partition, clusterings, isNeeded } of selects) {
        try {
          const rows = await this.#query(mapped).some(partition, clusterings)
          let known = this.#rows.get(mapped)
          if (known === undefined) this.#rows.set(mapped, (known = new Map()))
          for (const [i, row] of rows.entries()) known.set(nameOf(partition, clusterings[i]!), row)
        } catch (error) {
          if (isNeeded) failures.push(error)
        }
        if (failures.length > 0) return
      }
    }
    await Promise.all(Array.from({ length: SELECTS_AT_ONCE }, work))
    if (failures.length > 0) throw failures[0]
  }
}

/** What is needed comes first, and fails with what is read beside it. */
function selectsOf(needed: readonly WantedRow[], ahead: readonly WantedRow[]): Select[] {
  const all: Select[] = []
  const last = new Map<MappedTable, Map<string, Select>>()
  for (const wanted of [needed, ahead]) {
    for (const { mapped, partition, clustering } of wanted) {
      let ofTable = last.get(mapped)
      if (ofTable === undefined) last.set(mapped, (ofTable = new Map()))
      const name = partition.toString('latin1')
      let select = ofTable.get(name)
      if (select?.clusterings.some((one) => one.equals(clustering)) === true) continue
      if (select === undefined || select.clusterings.length === ROWS_OF_SELECT) {
        select = { mapped, partition, clusterings: [], isNeeded: wanted === needed }
        ofTable.set(name, select)
        all.push(select)
      }
      select.clusterings.push(clustering)
    }
  }
  return all
}

function nameOf(partition: Buffer, clustering: Buffer): string {
  return `${partition.length} ${partition.toString('latin1')}${clustering.toString('latin1')}`
}

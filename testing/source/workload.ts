import type { Item, SourceCapabilities, Write } from './source-driver.ts'

/** What must come of a write in the log. `row` is what the row is then; `set` names the columns that may not be left out. */
export interface ExpectedChange {
  readonly table: string
  readonly op: 'c' | 'u' | 'd' | 't'
  readonly id: number | null
  readonly row: Item | null
  /** Columns of an update that did not change and may come as UNCHANGED. */
  readonly mayLack: readonly (keyof Item)[]
}

/** A seeded random number generator: `random(n)` gives 0 to n - 1. */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 4_294_967_296) * below)
  }
}

/** The oracle: what the tables hold, and which changes led there. Every write of a test goes through `apply`. */
export class Oracle {
  readonly #can: SourceCapabilities
  readonly #rows = new Map<string, Map<number, Item>>()
  readonly changes: ExpectedChange[] = []
  /** Index in `changes` after each transaction. */
  readonly boundaries: number[] = [0]
  /** Index in `changes` after each write that changed something: a change of the key is two changes. */
  readonly afterWrites: number[] = [0]

  constructor(can: SourceCapabilities) {
    this.#can = can
  }

  rows(table: string): Map<number, Item> {
    let rows = this.#rows.get(table)
    if (rows === undefined) {
      rows = new Map()
      this.#rows.set(table, rows)
    }
    return rows
  }

  get tables(): readonly string[] {
    return [...this.#rows.keys()]
  }

  apply(writes: readonly Write[]): void {
    for (const write of writes) {
      this.#apply(write)
      if (this.changes.length > this.afterWrites.at(-1)!) this.afterWrites.push(this.changes.length)
    }
    this.boundaries.push(this.changes.length)
  }

  #apply(write: Write): void {
    const { table } = write
    const rows = this.rows(table)
    const note = (op: ExpectedChange['op'], id: number | null, row: Item | null, mayLack: ExpectedChange['mayLack'] = []) =>
      this.changes.push({ table, op, id, row, mayLack })
    if (write.op === 'insert') {
      rows.set(write.row.id, write.row)
      note('c', write.row.id, write.row)
    } else if (write.op === 'delete') {
      if (rows.delete(write.id)) note('d', write.id, null)
    } else if (write.op === 'truncate') {
      rows.clear()
      note('t', null, null)
    } else {
      const old = rows.get(write.id)
      if (old === undefined) return
      if (this.#can.ignoresEqualUpdates === true && Object.entries(write.set).every(([name, value]) => old[name as keyof Item] === value)) return
      const row: Item = { ...old, ...write.set }
      rows.delete(write.id)
      rows.set(row.id, row)
      if (row.id === write.id) {
        const mayLack = (Object.keys(row) as (keyof Item)[]).filter((name) => name !== 'id' && write.set[name] === undefined)
        note('u', row.id, row, mayLack)
      } else {
        note('d', write.id, null)
        note('c', row.id, row)
      }
    }
  }
}

/** Random transactions that fit the oracle's rows: no insert of a key that is there, no update of one that is not. */
export class Workload {
  readonly #random: (below: number) => number
  readonly #oracle: Oracle
  readonly #can: SourceCapabilities
  /** Tables that have the column `extra`. */
  readonly extra = new Set<string>()
  #next = 1

  constructor(oracle: Oracle, can: SourceCapabilities, seed: number) {
    this.#oracle = oracle
    this.#can = can
    this.#random = seeded(seed)
  }

  item(table: string, id: number, bodyBytes = 20): Item {
    const random = this.#random
    const text = () => random(1 << 30).toString(36)
    return {
      id,
      name: random(10) === 0 ? null : `name ${text()} ä'"\\`,
      quantity: random(8) === 0 ? null : random(1_000_000) - 500_000,
      body: random(12) === 0 ? null : text().padEnd(bodyBytes, '·'),
      ...(this.extra.has(table) ? { extra: random(1000) } : {}),
    }
  }

  /** `count` new rows in one transaction; applied to the oracle already. */
  fill(table: string, count: number, bodyBytes = 20): readonly Write[] {
    return this.#take(Array.from({ length: count }, (): Write => ({ op: 'insert', table, row: this.item(table, this.#next++, bodyBytes) })))
  }

  /** A transaction of up to `most` writes on one of the tables; applied to the oracle already. */
  transaction(tables: readonly string[], most = 6): readonly Write[] {
    const random = this.#random
    const writes: Write[] = []
    // keys that this transaction touched: later writes see them through the scratch copy
    const scratch = new Map(tables.map((table) => [table, [...this.#oracle.rows(table).keys()]]))
    const count = 1 + random(this.#can.transactions === true ? most : 1)
    for (let n = 0; n < count; n++) {
      const table = tables[random(tables.length)]!
      writes.push(this.#write(table, scratch.get(table)!))
    }
    return this.#take(writes)
  }

  #write(table: string, ids: number[]): Write {
    const random = this.#random
    const dice = random(100)
    if (this.#can.appendOnly === true || ids.length < 3 || dice < 40) {
      const id = this.#next++
      ids.push(id)
      return { op: 'insert', table, row: this.item(table, id) }
    }
    const at = random(ids.length)
    const id = ids[at]!
    if (dice < 55) {
      ids.splice(at, 1)
      return { op: 'delete', table, id }
    }
    if (dice < 62 && this.#can.changesKeys === true) {
      const to = this.#next++
      ids[at] = to
      return { op: 'update', table, id, set: { id: to, quantity: random(1000) } }
    }
    if (dice === 99 && this.#can.truncates === true) {
      ids.length = 0
      return { op: 'truncate', table }
    }
    const { name, body } = this.item(table, id)
    return { op: 'update', table, id, set: [{ quantity: random(1000) }, { name }, { body, quantity: random(1000) }][random(3)]! }
  }

  #take(writes: readonly Write[]): readonly Write[] {
    this.#oracle.apply(writes)
    return writes
  }
}

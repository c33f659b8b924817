import { MillraceError } from '../errors.ts'
import { type TableSchema, tableId, type Value } from './table-schema.ts'
import { ValueWriter } from './value-writer.ts'

/**
 * Collects the columns that a source writes as a tuple of JavaScript values: for reading a table back (audit) and for tests. It takes the column calls
 * of a `ChangeWriter`; `begin` the row with {@link start} and take it with {@link row}.
 */
export class TupleWriter extends ValueWriter {
  readonly table: TableSchema
  #values: Value[] = []

  constructor(table: TableSchema) {
    super()
    this.table = table
  }

  start(): void {
    this.#values = []
  }

  row(): readonly Value[] {
    if (this.#values.length !== this.table.columns.length) {
      throw new MillraceError('invariant.broken', `${tableId(this.table)}: ${this.#values.length} of ${this.table.columns.length} columns were written`)
    }
    return this.#values
  }

  protected override take(value: Value): void {
    this.#values.push(value)
  }

  /** As it is read back from a stream. */
  override float(value: number): void {
    this.take(Math.fround(value))
  }

  // a tuple is one image: the rest of the contract has nothing to do
  begin(): boolean {
    this.start()
    return true
  }
  before(): void {}
  after(): void {}
  key(): void {}
  end(): void {}
  truncate(): void {}
}

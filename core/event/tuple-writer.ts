import { MillraceError } from '../errors.ts'
import { Special, type TableSchema, tableId, UNCHANGED, type Value } from './table-schema.ts'

/**
 * Collects the columns that a source writes as a tuple of JavaScript values: for reading a table back (audit) and for tests. It takes the column calls
 * of a `ChangeWriter`; `begin` the row with {@link start} and take it with {@link row}.
 */
export class TupleWriter {
  readonly table: TableSchema
  #values: Value[] = []

  constructor(table: TableSchema) {
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

  null(): void {
    this.#values.push(null)
  }
  unchanged(): void {
    this.#values.push(UNCHANGED)
  }
  special(text: string): void {
    this.#values.push(new Special(text))
  }
  boolean(value: boolean): void {
    this.#values.push(value)
  }
  int(value: number): void {
    this.#values.push(value)
  }
  long(value: number): void {
    this.#values.push(BigInt(value))
  }
  long64(high: number, low: number): void {
    this.#values.push((BigInt(high) << 32n) | BigInt(low))
  }
  bigint(value: bigint): void {
    this.#values.push(value)
  }
  float(value: number): void {
    this.#values.push(Math.fround(value))
  }
  double(value: number): void {
    this.#values.push(value)
  }
  decimal(unscaled: number): void {
    this.#values.push(BigInt(unscaled))
  }
  decimalBig(unscaled: bigint): void {
    this.#values.push(unscaled)
  }
  text(bytes: Buffer, from: number, to: number): void {
    this.#values.push(bytes.toString('utf8', from, to))
  }
  string(value: string): void {
    this.#values.push(value)
  }
  bytes(bytes: Buffer, from: number, to: number): void {
    this.#values.push(Uint8Array.prototype.slice.call(bytes, from, to))
  }
  value(value: Value): void {
    this.#values.push(value)
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

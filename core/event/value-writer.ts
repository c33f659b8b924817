import { Special, UNCHANGED, type Value } from './table-schema.ts'

/** Turns the column calls of a `ChangeWriter` into the JavaScript values that they stand for, see `ColumnType`. */
export abstract class ValueWriter {
  protected abstract take(value: Value): void

  null(): void {
    this.take(null)
  }
  unchanged(): void {
    this.take(UNCHANGED)
  }
  special(text: string): void {
    this.take(new Special(text))
  }
  boolean(value: boolean): void {
    this.take(value)
  }
  int(value: number): void {
    this.take(value)
  }
  long(value: number): void {
    this.take(BigInt(value))
  }
  long64(high: number, low: number): void {
    this.take((BigInt(high) << 32n) | BigInt(low))
  }
  bigint(value: bigint): void {
    this.take(value)
  }
  float(value: number): void {
    this.take(value)
  }
  double(value: number): void {
    this.take(value)
  }
  decimal(unscaled: number): void {
    this.take(BigInt(unscaled))
  }
  decimalBig(unscaled: bigint): void {
    this.take(unscaled)
  }
  text(bytes: Buffer, from: number, to: number): void {
    this.take(bytes.toString('utf8', from, to))
  }
  string(value: string): void {
    this.take(value)
  }
  bytes(bytes: Buffer, from: number, to: number): void {
    this.take(new Uint8Array(bytes.subarray(from, to)))
  }
  value(value: Value): void {
    this.take(value)
  }
}

/** Remembers the value of the last column call: for a reader of wire bytes that is asked for one value, and not for a change. */
export class SingleValue extends ValueWriter {
  readonly table = { namespace: '', name: '', columns: [], key: [] }
  taken: Value = null

  protected override take(value: Value): void {
    this.taken = value
  }

  // a value is no change: the rest of the contract has nothing to do
  begin(): boolean {
    return true
  }
  before(): void {}
  after(): void {}
  key(): void {}
  end(): void {}
  truncate(): void {}
}

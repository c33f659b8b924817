import { type ChangeWriter, MillraceError, type Value } from '../../core/plugin.ts'
import { type ColumnDefinition, typeText } from './column-definition.ts'
import type { WireReader } from './type-reader.ts'
import { literal } from './wire-connection.ts'

/** A key column's value in a row event as a literal that is equal to it in SQL, in a session whose times are in UTC. @throws source.schema_unsupported */
export function keyLiteral(column: ColumnDefinition, read: WireReader, bytes: Buffer, view: DataView, at: number, length: number): string {
  const value = new OneValue()
  read(bytes, view, at, length, value)
  return value.literal(column)
}

const MICROS = 1_000_000n

/** Takes the one value of one column, and how it is spelled. */
class OneValue implements ChangeWriter {
  readonly table = { namespace: '', name: '', columns: [], key: [] }
  #value: Value = null

  literal(column: ColumnDefinition): string {
    const value = this.#value
    const { base, args, name } = column
    if (base === 'float' || base === 'double') {
      throw new MillraceError('source.schema_unsupported', `rows lack columns, and cannot be found by their key column ${name} of type ${typeText(column)}`, {
        fix: `SET GLOBAL binlog_row_image = 'FULL', and in the server configuration`,
      })
    }
    if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString('hex')}'`
    if (base === 'bit') return `b'${typeof value === 'boolean' ? Number(value) : String(value)}'`
    if (base === 'date' && typeof value === 'number') return `'${new Date(value * 86_400_000).toISOString().slice(0, 10)}'`
    if ((base === 'datetime' || base === 'timestamp') && typeof value === 'bigint') return moment(value)
    if (base === 'decimal') return typeof value === 'bigint' ? decimal(value, args[1] ?? 0) : String(value)
    return typeof value === 'string' ? literal(value) : String(value)
  }

  begin(): boolean {
    return true
  }
  before(): void {}
  after(): void {}
  key(): void {}
  end(): void {}
  truncate(): void {}
  null(): void {}
  unchanged(): void {}
  special(text: string): void {
    this.#value = text
  }
  boolean(value: boolean): void {
    this.#value = value
  }
  int(value: number): void {
    this.#value = value
  }
  long(value: number): void {
    this.bigint(BigInt(value))
  }
  long64(high: number, low: number): void {
    this.bigint(BigInt(high) * 0x1_0000_0000n + BigInt(low))
  }
  bigint(value: bigint): void {
    this.#value = value
  }
  float(value: number): void {
    this.#value = value
  }
  double(value: number): void {
    this.#value = value
  }
  decimal(unscaled: number): void {
    this.#value = BigInt(unscaled)
  }
  decimalBig(unscaled: bigint): void {
    this.#value = unscaled
  }
  text(bytes: Buffer, from: number, to: number): void {
    this.#value = bytes.toString('utf8', from, to)
  }
  string(value: string): void {
    this.#value = value
  }
  bytes(bytes: Buffer, from: number, to: number): void {
    this.#value = new Uint8Array(bytes.subarray(from, to))
  }
  value(value: Value): void {
    this.#value = value
  }
}

/** Microseconds since epoch, years 1 to 9999. */
function moment(value: bigint): string {
  const micros = ((value % MICROS) + MICROS) % MICROS
  const text = new Date(Number((value - micros) / 1000n)).toISOString()
  return `'${text.slice(0, 19).replace('T', ' ')}.${String(micros).padStart(6, '0')}'`
}

function decimal(unscaled: bigint, scale: number): string {
  const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, '0')
  const whole = digits.slice(0, digits.length - scale)
  return `${unscaled < 0n ? '-' : ''}${whole}${scale === 0 ? '' : `.${digits.slice(-scale)}`}`
}

import { MillraceError, SingleValue, Special } from '../../core/plugin.ts'
import { type ColumnDefinition, typeText } from './column-definition.ts'
import type { WireReader } from './type-reader.ts'
import { literal } from './wire-connection.ts'

const MICROS = 1_000_000n

/** A key column's value in a row event as a literal that is equal to it in SQL, in a session whose times are in UTC. @throws source.schema_unsupported */
export function keyLiteral(column: ColumnDefinition, read: WireReader, bytes: Buffer, view: DataView, at: number, length: number): string {
  const { base, args, name } = column
  if (base === 'float' || base === 'double') {
    throw new MillraceError('source.schema_unsupported', `rows lack columns, and cannot be found by their key column ${name} of type ${typeText(column)}`, {
      fix: `SET GLOBAL binlog_row_image = 'FULL', and in the server configuration`,
    })
  }
  const single = new SingleValue()
  read(bytes, view, at, length, single)
  const value = single.taken instanceof Special ? single.taken.text : single.taken
  if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString('hex')}'`
  if (base === 'bit') return `b'${typeof value === 'boolean' ? Number(value) : String(value)}'`
  if (base === 'date' && typeof value === 'number') return `'${new Date(value * 86_400_000).toISOString().slice(0, 10)}'`
  if ((base === 'datetime' || base === 'timestamp') && typeof value === 'bigint') return moment(value)
  if (base === 'decimal') return typeof value === 'bigint' ? decimal(value, args[1] ?? 0) : String(value)
  return typeof value === 'string' ? literal(value) : String(value)
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

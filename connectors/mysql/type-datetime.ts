import type { ChangeWriter } from '../../core/plugin.ts'
import { expectLength, reader, type TypeReader, type WireReader } from './type-reader.ts'

const DAY_US = 86_400_000_000
const TWO_24 = 0x100_0000
const DAYS_IN_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** Days since 1970-01-01; NaN for a date that no calendar has (a zero year, month or day; 30 February). */
export function daysOf(year: number, month: number, day: number): number {
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > DAYS_IN_MONTH[month - 1]! + (leap && month === 2 ? 1 : 0)) return Number.NaN
  // Howard Hinnant, days_from_civil
  const y = month <= 2 ? year - 1 : year
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719_468
}

const two = (value: number) => String(value).padStart(2, '0')
export const dateText = (year: number, month: number, day: number) => `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}`
export const fractionText = (micros: number, digits: number) => (digits === 0 ? '' : `.${String(micros).padStart(6, '0').slice(0, digits)}`)
export const clockText = (hour: number, minute: number, second: number, micros: number, digits: number) =>
  `${two(hour)}:${two(minute)}:${two(second)}${fractionText(micros, digits)}`

function writeDate(year: number, month: number, day: number, writer: ChangeWriter): void {
  const days = daysOf(year, month, day)
  if (Number.isNaN(days)) writer.special(dateText(year, month, day))
  else writer.int(days)
}

export const date: TypeReader = reader(
  { kind: 'date' },
  (bytes, _view, at, length, writer) => {
    expectLength(length, 3)
    const packed = bytes.readUIntLE(at, 3)
    writeDate(packed >> 9, (packed >> 5) & 15, packed & 31, writer)
  },
  (bytes, view, at, length, writer) => {
    if (length === 0) writeDate(0, 0, 0, writer)
    else {
      expectLength(length, 4)
      writeDate(view.getUint16(at, true), bytes[at + 2]!, bytes[at + 3]!, writer)
    }
  },
  true,
)

/** Fractional seconds of a row event in microseconds: big-endian, in as few bytes as their digits need. */
function fraction(bytes: Buffer, at: number, digits: number): number {
  switch ((digits + 1) >> 1) {
    case 0:
      return 0
    case 1:
      return bytes[at]! * 10_000
    case 2:
      return bytes.readUInt16BE(at) * 100
    default:
      return bytes.readUIntBE(at, 3)
  }
}

/** What a datetime or timestamp is made of, written as microseconds, or as text when there is no such moment. */
function writeMoment(days: number, hour: number, minute: number, second: number, micros: number, text: () => string, writer: ChangeWriter): void {
  if (Number.isNaN(days)) writer.special(text())
  else writer.long(days * DAY_US + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

const momentResult =
  (digits: number): WireReader =>
  (bytes, view, at, length, writer) => {
    if (length !== 0 && length !== 4 && length !== 7) expectLength(length, 11)
    const [year, month, day] = length === 0 ? [0, 0, 0] : [view.getUint16(at, true), bytes[at + 2]!, bytes[at + 3]!]
    const [hour, minute, second] = length < 7 ? [0, 0, 0] : [bytes[at + 4]!, bytes[at + 5]!, bytes[at + 6]!]
    const micros = length < 11 ? 0 : view.getUint32(at + 7, true)
    const text = () => `${dateText(year, month, day)} ${clockText(hour, minute, second, micros, digits)}`
    writeMoment(daysOf(year, month, day), hour, minute, second, micros, text, writer)
  }

/** Year and month as year * 13 + month, day, hour, minute, second in 17, 5, 5, 6 and 6 bits below a sign bit. */
export function datetime(digits: number): TypeReader {
  const size = 5 + ((digits + 1) >> 1)
  const binlog: WireReader = (bytes, view, at, length, writer) => {
    expectLength(length, size)
    const high = view.getUint16(at) - 0x8000
    const low = bytes.readUIntBE(at + 2, 3)
    const yearMonth = (high << 2) | (low >> 22)
    const [year, month, day] = [Math.trunc(yearMonth / 13), yearMonth % 13, (low >> 17) & 31]
    const [hour, minute, second] = [(low >> 12) & 31, (low >> 6) & 63, low & 63]
    const micros = fraction(bytes, at + 5, digits)
    const text = () => `${dateText(year, month, day)} ${clockText(hour, minute, second, micros, digits)}`
    writeMoment(daysOf(year, month, day), hour, minute, second, micros, text, writer)
  }
  return reader({ kind: 'timestamp' }, binlog, momentResult(digits), true)
}

/** Seconds since 1970 in UTC; 0 is the zero timestamp. The session's zone is UTC, so results are, too. */
export function timestamp(digits: number): TypeReader {
  const size = 4 + ((digits + 1) >> 1)
  const binlog: WireReader = (bytes, view, at, length, writer) => {
    expectLength(length, size)
    const seconds = view.getUint32(at)
    const micros = fraction(bytes, at + 4, digits)
    if (seconds === 0 && micros === 0) writer.special(`0000-00-00 00:00:00${fractionText(0, digits)}`)
    else writer.long(seconds * 1_000_000 + micros)
  }
  return reader({ kind: 'timestamptz' }, binlog, momentResult(digits), true)
}

export function timeText(negative: boolean, hours: number, minutes: number, seconds: number, micros: number, digits: number): string {
  return `${negative ? '-' : ''}${clockText(hours, minutes, seconds, micros, digits)}`
}

/** The packed form of a time in a row event: 24 bits of clock and 24 bits of microseconds, signed as a whole. */
function packedTime(bytes: Buffer, at: number, digits: number): number {
  const size = (digits + 1) >> 1
  if (size === 3) return bytes.readUIntBE(at, 6) - 0x8000_0000_0000
  const clock = bytes.readUIntBE(at, 3) - 0x80_0000
  if (size === 0) return clock * TWO_24
  const part = bytes.readUIntBE(at + 3, size)
  const factor = size === 1 ? 10_000 : 100
  // a negative time is kept as the next lower clock and what is missing to it
  return clock < 0 && part !== 0 ? (clock + 1) * TWO_24 + (part - 256 ** size) * factor : clock * TWO_24 + part * factor
}

/** A span of up to 838:59:59, also below zero, which no clock time holds: the server's text. */
export function time(digits: number): TypeReader {
  const packedBytes = 3 + ((digits + 1) >> 1)
  const binlog: WireReader = (bytes, _view, at, length, writer) => {
    expectLength(length, packedBytes)
    const packed = packedTime(bytes, at, digits)
    const size = Math.abs(packed)
    const clock = Math.trunc(size / TWO_24)
    writer.string(timeText(packed < 0, (clock >> 12) & 1023, (clock >> 6) & 63, clock & 63, size % TWO_24, digits))
  }
  const result: WireReader = (bytes, view, at, length, writer) => {
    if (length === 0) writer.string(timeText(false, 0, 0, 0, 0, digits))
    else {
      if (length !== 8) expectLength(length, 12)
      const hours = view.getUint32(at + 1, true) * 24 + bytes[at + 5]!
      writer.string(timeText(bytes[at] === 1, hours, bytes[at + 6]!, bytes[at + 7]!, length < 12 ? 0 : view.getUint32(at + 8, true), digits))
    }
  }
  return reader({ kind: 'string' }, binlog, result)
}

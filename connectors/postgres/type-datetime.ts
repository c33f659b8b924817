/** Dates, times and timestamps. Source: src/backend/utils/adt/{date,timestamp,datetime}.c of PostgreSQL; text in DateStyle ISO. */
import type { ChangeWriter, Value } from '../../core/plugin.ts'
import { expectLength, malformed, scalar, textual } from './type-reader.ts'

const DAY_MICROS = 86_400_000_000
/** Days and microseconds from 1970-01-01 to 2000-01-01, Postgres' own epoch. */
const EPOCH_DAYS = 10_957
const EPOCH_MICROS = EPOCH_DAYS * DAY_MICROS
const TWO_32 = 4_294_967_296
const INT64_MAX = 2n ** 63n - 1n
/** Within this many days of 1970 microseconds are safe integers. */
const SAFE_DAYS = 100_000

/** Days since 1970-01-01 of a proleptic Gregorian date; year 0 is 1 BC. */
function daysOf(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear
  return era * 146_097 + dayOfEra - 719_468
}

/** The date as Postgres writes it, without its era. */
function dateParts(days: number): { readonly text: string; readonly era: string } {
  const shifted = days + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor((dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365)
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153)
  const day = dayOfYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  const shown = year > 0 ? year : 1 - year
  return { text: `${String(shown).padStart(4, '0')}-${two(month)}-${two(day)}`, era: year > 0 ? '' : ' BC' }
}

const two = (value: number) => String(value).padStart(2, '0')

/** Microseconds of a day as HH:MM:SS[.f]. */
function formatTime(micros: number): string {
  const seconds = Math.floor(micros / 1e6)
  const fraction = micros - seconds * 1e6
  const tail = fraction === 0 ? '' : `.${String(fraction).padStart(6, '0').replace(/0+$/, '')}`
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}${tail}`
}

function formatDate(days: number): string {
  const { text, era } = dateParts(days)
  return text + era
}

function formatTimestamp(micros: bigint, zone: '' | '+00'): string {
  const day = BigInt(DAY_MICROS)
  const ofDay = ((micros % day) + day) % day
  const { text, era } = dateParts(Number((micros - ofDay) / day))
  return `${text} ${formatTime(Number(ofDay))}${zone}${era}`
}

/** Offset east of UTC in seconds as Postgres writes it: +hh[:mm[:ss]]. */
function formatZone(seconds: number): string {
  const magnitude = Math.abs(seconds)
  const rest = magnitude % 3600
  const tail = rest === 0 ? '' : `:${two(Math.floor(rest / 60))}${rest % 60 === 0 ? '' : `:${two(rest % 60)}`}`
  return `${seconds < 0 ? '-' : '+'}${two(Math.floor(magnitude / 3600))}${tail}`
}

/** A cursor over date and time text; one for all, since reading is synchronous. */
const scan = { at: 0, end: 0, days: 0, micros: 0, zoneSeconds: 0 }

function number(bytes: Buffer, what: string): number {
  let value = 0
  const from = scan.at
  for (; scan.at < scan.end; scan.at++) {
    const digit = bytes[scan.at]! - 48
    if (digit < 0 || digit > 9) break
    value = value * 10 + digit
  }
  if (scan.at === from) malformed(what, 'text')
  return value
}

function skip(bytes: Buffer, code: number, what: string): void {
  if (scan.at >= scan.end || bytes[scan.at] !== code) malformed(what, 'text')
  scan.at++
}

function scanDate(bytes: Buffer, what: string): void {
  const from = scan.at
  let year = number(bytes, what)
  if (scan.at - from < 4) malformed(what, 'text')
  skip(bytes, 45, what)
  const month = number(bytes, what)
  skip(bytes, 45, what)
  const day = number(bytes, what)
  if (bytes[scan.end - 1] === 67 && bytes[scan.end - 2] === 66 && bytes[scan.end - 3] === 32) {
    scan.end -= 3
    year = 1 - year
  }
  scan.days = daysOf(year, month, day)
}

function scanTime(bytes: Buffer, what: string): void {
  const hours = number(bytes, what)
  skip(bytes, 58, what)
  const minutes = number(bytes, what)
  skip(bytes, 58, what)
  let micros = ((hours * 60 + minutes) * 60 + number(bytes, what)) * 1e6
  if (scan.at < scan.end && bytes[scan.at] === 46) {
    const from = ++scan.at
    let fraction = number(bytes, what)
    for (let digits = scan.at - from; digits < 6; digits++) fraction *= 10
    micros += fraction
  }
  scan.micros = micros
}

function scanZone(bytes: Buffer, what: string): void {
  const sign = bytes[scan.at] === 45 ? -1 : 1
  if (sign > 0) skip(bytes, 43, what)
  else scan.at++
  let seconds = number(bytes, what) * 3600
  for (let unit = 60; unit >= 1 && scan.at < scan.end && bytes[scan.at] === 58; unit /= 60) {
    scan.at++
    seconds += number(bytes, what) * unit
  }
  scan.zoneSeconds = sign * seconds
}

function finish(what: string): void {
  if (scan.at !== scan.end) malformed(what, 'text')
}

const LETTER_I = 105

/** `infinity` or `-infinity`, else null. */
function infinity(bytes: Buffer, at: number, length: number): string | null {
  // 8 and 9 letters, as none of the finite values that begin so
  if ((length !== 8 || bytes[at] !== LETTER_I) && (length !== 9 || bytes[at + 1] !== LETTER_I)) return null
  const text = bytes.toString('latin1', at, at + length)
  return text === 'infinity' || text === '-infinity' ? text : null
}

export const date = scalar(
  'date',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 4, 'date')
    const days = view.getInt32(at)
    if (days === 0x7fff_ffff) writer.special('infinity')
    else if (days === -0x8000_0000) writer.special('-infinity')
    else writer.int(days + EPOCH_DAYS)
  },
  (bytes, _view, at, length, writer) => {
    const special = infinity(bytes, at, length)
    if (special !== null) {
      writer.special(special)
      return
    }
    scan.at = at
    scan.end = at + length
    scanDate(bytes, 'date')
    finish('date')
    writer.int(scan.days)
  },
  (value) => formatDate(value as number),
  true,
)

/** Microseconds since midnight, 86400000000 (`24:00:00`) included. */
export const time = scalar(
  'time',
  (_bytes, view, at, length, writer) => {
    expectLength(length, 8, 'time')
    writer.long64(view.getInt32(at), view.getUint32(at + 4))
  },
  (bytes, _view, at, length, writer) => {
    scan.at = at
    scan.end = at + length
    scanTime(bytes, 'time')
    finish('time')
    writer.long(scan.micros)
  },
  (value) => formatTime(Number(value as bigint)),
)

/** Postgres' text: `04:05:06.789-08`. */
export const timetz = textual((_bytes, view, at, length) => {
  expectLength(length, 12, 'time with time zone')
  return formatTime(Number(view.getBigInt64(at))) + formatZone(-view.getInt32(at + 8))
})

function timestampReader(kind: 'timestamp' | 'timestamptz') {
  const zone = kind === 'timestamptz' ? '+00' : ''

  /** Microseconds since 1970 of a value that a number may not hold exactly. */
  const wide = (micros: bigint, writer: ChangeWriter) => {
    if (micros > INT64_MAX) writer.special(formatTimestamp(micros, zone))
    else writer.bigint(micros)
  }

  return scalar(
    kind,
    (_bytes, view, at, length, writer) => {
      expectLength(length, 8, kind)
      const high = view.getInt32(at)
      const low = view.getUint32(at + 4)
      if (high < 0x10_0000 && high >= -0x10_0000) writer.long(high * TWO_32 + low + EPOCH_MICROS)
      else if (high === 0x7fff_ffff && low === 0xffff_ffff) writer.special('infinity')
      else if (high === -0x8000_0000 && low === 0) writer.special('-infinity')
      else wide(view.getBigInt64(at) + BigInt(EPOCH_MICROS), writer)
    },
    (bytes, _view, at, length, writer) => {
      const special = infinity(bytes, at, length)
      if (special !== null) {
        writer.special(special)
        return
      }
      scan.at = at
      scan.end = at + length
      scanDate(bytes, kind)
      skip(bytes, 32, kind)
      scanTime(bytes, kind)
      scan.zoneSeconds = 0
      if (zone !== '') scanZone(bytes, kind)
      finish(kind)
      const micros = scan.micros - scan.zoneSeconds * 1e6
      if (scan.days < SAFE_DAYS && scan.days > -SAFE_DAYS) writer.long(scan.days * DAY_MICROS + micros)
      else wide(BigInt(scan.days) * BigInt(DAY_MICROS) + BigInt(micros), writer)
    },
    (value: Value) => formatTimestamp(value as bigint, zone),
    true,
  )
}

export const timestamp = timestampReader('timestamp')
export const timestamptz = timestampReader('timestamptz')

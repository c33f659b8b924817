import { expectLength, malformed, textual } from './type-reader.ts'

interface Interval {
  readonly months: number
  readonly days: number
  readonly micros: bigint
}

/** ISO 8601 as Postgres writes it with IntervalStyle iso_8601: each field with its own sign, `PT0S` for none. */
export function formatInterval({ months, days, micros }: Interval): string {
  const field = (value: number | bigint, letter: string) => (Number(value) === 0 ? '' : `${value}${letter}`)
  const date = field(Math.trunc(months / 12), 'Y') + field(months % 12, 'M') + field(days, 'D')
  const seconds = micros / 1_000_000n
  const fraction = micros % 1_000_000n
  const second = seconds % 60n
  let clock = field(seconds / 3600n, 'H') + field((seconds / 60n) % 60n, 'M')
  if (second !== 0n || fraction !== 0n) {
    const digits = String(fraction < 0n ? -fraction : fraction)
      .padStart(6, '0')
      .replace(/0+$/, '')
    clock += `${micros < 0n ? '-' : ''}${second < 0n ? -second : second}${digits === '' ? '' : `.${digits}`}S`
  }
  if (date === '' && clock === '') return 'PT0S'
  return `P${date}${clock === '' ? '' : `T${clock}`}`
}

/**
 * Any of Postgres' four interval styles in ISO 8601.
 * @throws source.protocol
 */
export function canonicalInterval(text: string): string {
  if (text === 'infinity' || text === '-infinity') return text
  const parsed = text.startsWith('P') ? parseIso(text) : /[a-z]/.test(text) ? parseWords(text) : parseSql(text)
  return formatInterval(parsed)
}

const MICROS: Readonly<Record<string, bigint>> = { hour: 3_600_000_000n, min: 60_000_000n, sec: 1_000_000n }
const MONTHS: Readonly<Record<string, number>> = { year: 12, mon: 1 }

function decimalMicros(seconds: string): bigint {
  const [, sign, whole, fraction = ''] = /^([+-]?)(\d+)(?:\.(\d{1,6}))?$/.exec(seconds) ?? malformed('interval', 'text')
  const micros = BigInt(whole!) * 1_000_000n + BigInt(fraction.padEnd(6, '0'))
  return sign === '-' ? -micros : micros
}

/** [-]h:mm[:ss[.f]] */
function clockMicros(text: string): bigint {
  const [, sign, hours, minutes, seconds = '0'] = /^([+-]?)(\d+):(\d\d)(?::(\d\d(?:\.\d{1,6})?))?$/.exec(text) ?? malformed('interval', 'text')
  const micros = BigInt(hours!) * MICROS.hour! + BigInt(minutes!) * MICROS.min! + decimalMicros(seconds)
  return sign === '-' ? -micros : micros
}

function parseIso(text: string): Interval {
  const [, years = '0', months = '0', days = '0', hours = '0', minutes = '0', seconds = '0'] =
    /^P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d+)?)S)?)?$/.exec(text) ?? malformed('interval', 'text')
  return {
    months: Number(years) * 12 + Number(months),
    days: Number(days),
    micros: BigInt(hours) * MICROS.hour! + BigInt(minutes) * MICROS.min! + decimalMicros(seconds),
  }
}

/** postgres (`1 year -2 mons +3 days -04:05:06`) and postgres_verbose (`@ 1 year 2 mins ago`). */
function parseWords(text: string): Interval {
  let months = 0
  let days = 0
  let micros = 0n
  const words = text.split(' ')
  const ago = words.at(-1) === 'ago'
  if (ago) words.pop()
  if (words[0] === '@') words.shift()
  for (let i = 0; i < words.length; i++) {
    const value = words[i]!
    if (value.includes(':')) micros += clockMicros(value)
    else if (!(value === '0' && words.length === 1)) {
      const unit = words[++i]?.replace(/s$/, '') ?? malformed('interval', 'text')
      if (unit === 'day') days += Number(value)
      else if (unit in MONTHS) months += Number(value) * MONTHS[unit]!
      else if (unit in MICROS) micros += unit === 'sec' ? decimalMicros(value) : BigInt(value) * MICROS[unit]!
      else malformed('interval', 'text')
    }
  }
  return ago ? { months: -months, days: -days, micros: -micros } : { months, days, micros }
}

/** sql_standard: `+1-2 -3 +4:05:06`, where one leading minus with nothing signed after it covers everything; and the zero of all styles. */
function parseSql(text: string): Interval {
  if (text === '@ 0' || text === '0') return { months: 0, days: 0, micros: 0n }
  let months = 0
  let days = 0
  let micros = 0n
  const fields = text.split(' ')
  const covering = fields.length > 1 && fields[0]!.startsWith('-') && fields.slice(1).every((field) => /^\d/.test(field))
  if (covering) fields[0] = fields[0]!.slice(1)
  for (const field of fields) {
    const yearMonth = /^([+-]?)(\d+)-(\d+)$/.exec(field)
    if (yearMonth !== null) months += (yearMonth[1] === '-' ? -1 : 1) * (Number(yearMonth[2]) * 12 + Number(yearMonth[3]))
    else if (field.includes(':')) micros += clockMicros(field)
    else if (/^[+-]?\d+$/.test(field)) days += Number(field)
    else malformed('interval', 'text')
  }
  return covering ? { months: -months, days: -days, micros: -micros } : { months, days, micros }
}

const INT32_MAX = 0x7fff_ffff
const INT32_MIN = -0x8000_0000

/** Binary: microseconds, days, months; all at their ends for infinity (Postgres 17). */
export const interval = textual((_bytes, view, at, length) => {
  expectLength(length, 16, 'interval')
  const micros = view.getBigInt64(at)
  const days = view.getInt32(at + 8)
  const months = view.getInt32(at + 12)
  if (months === INT32_MAX && days === INT32_MAX && micros === 2n ** 63n - 1n) return 'infinity'
  if (months === INT32_MIN && days === INT32_MIN && micros === -(2n ** 63n)) return '-infinity'
  return formatInterval({ months, days, micros })
}, canonicalInterval)

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { arrayOf, hstore, multirangeOf, rangeOf, recordOf, vector } from '../../../../connectors/postgres/type-container.ts'
import { date, timestamp, timestamptz } from '../../../../connectors/postgres/type-datetime.ts'
import { canonicalInterval, formatInterval } from '../../../../connectors/postgres/type-interval.ts'
import { decimal, float4, float8, formatDecimal, int8 } from '../../../../connectors/postgres/type-number.ts'
import { readText, readValue, type TypeReader } from '../../../../connectors/postgres/type-reader.ts'
import { bytea, text, uuid } from '../../../../connectors/postgres/type-text.ts'
import { MillraceError, Special, type Value, viewOf } from '../../../../core/plugin.ts'

function readBinary(reader: TypeReader, bytes: Buffer): Value {
  // not at the start of its memory, as on the wire
  const shifted = Buffer.concat([Buffer.from('abc'), bytes])
  return readValue(reader.binary!, shifted, viewOf(shifted), 3, bytes.length)
}

describe('numbers', () => {
  it('reads any decimal text into its unscaled value', () => {
    fc.assert(
      fc.property(fc.bigInt(-(10n ** 38n) + 1n, 10n ** 38n - 1n), fc.integer({ min: 0, max: 38 }), (unscaled, scale) => {
        expect(readText(decimal(38, scale), formatDecimal(unscaled, scale))).toBe(unscaled)
      }),
    )
  })

  it('is exact around 2^53', () => {
    for (const delta of [-2n, -1n, 0n, 1n, 2n]) {
      for (const sign of [1n, -1n]) {
        const value = sign * (2n ** 53n + delta)
        expect(readText(int8, String(value))).toBe(value)
        expect(readText(decimal(38, 3), formatDecimal(value, 3))).toBe(value)
      }
    }
  })

  it('makes digits beyond the scale special instead of dropping them', () => {
    expect(readText(decimal(10, 2), '1.005')).toEqual(new Special('1.005'))
    expect(readText(decimal(10, 2), '1.500')).toBe(150n)
    // 1.005 as base-10000 digits 1, 50
    const binary = Buffer.from([0, 2, 0, 0, 0, 0, 0, 3, 0, 1, 0, 50])
    expect(readBinary(decimal(10, 2), binary)).toEqual(new Special('1.005'))
    expect(readBinary(decimal(10, 3), binary)).toBe(1005n)
  })

  it('formats floats so that they read back as themselves', () => {
    fc.assert(fc.property(fc.double(), (value) => void expect(readText(float8, float8.format(value))).toBe(value)))
    fc.assert(fc.property(fc.float(), (value) => void expect(readText(float4, float4.format(value))).toBe(value)))
    expect([1e15, 1e14, 1e-4, 1e-5, 123.5].map((value) => float8.format(value))).toEqual(['1e+15', '100000000000000', '0.0001', '1e-05', '123.5'])
  })
})

describe('dates and times', () => {
  it('formats and reads back every date and timestamp that Postgres has', () => {
    fc.assert(fc.property(fc.integer({ min: -2_440_588, max: 2_145_042_905 }), (days) => void expect(readText(date, date.format(days))).toBe(days)))
    for (const reader of [timestamp, timestamptz]) {
      fc.assert(
        fc.property(fc.bigInt(-210_866_803_200_000_000n, 2n ** 63n - 1n), (micros) => void expect(readText(reader, reader.format(micros))).toBe(micros)),
      )
    }
  })

  it('agrees with JavaScript in the years that both have', () => {
    fc.assert(
      fc.property(fc.date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }), (when) => {
        const iso = when.toISOString()
        expect(readText(timestamp, `${iso.slice(0, 10)} ${iso.slice(11, -1)}`)).toBe(BigInt(when.getTime()) * 1000n)
        expect(readText(timestamptz, `${iso.slice(0, 10)} ${iso.slice(11, -1)}+00`)).toBe(BigInt(when.getTime()) * 1000n)
      }),
    )
  })

  it('gives intervals one text, whatever the style', () => {
    for (const style of [
      'P1Y2M-3DT-4H-5M-6.789S',
      '1 year 2 mons -3 days -04:05:06.789',
      '@ 1 year 2 mons -3 days -4 hours -5 mins -6.789 secs',
      '+1-2 -3 -4:05:06.789',
    ]) {
      expect(canonicalInterval(style)).toBe('P1Y2M-3DT-4H-5M-6.789S')
    }
    expect(canonicalInterval('@ 1 day 2 hours ago')).toBe('P-1DT-2H')
    expect(canonicalInterval('-1 4:00:00')).toBe('P-1DT-4H')
    const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
    fc.assert(
      fc.property(int32, int32, fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), (months, days, micros) => {
        const formatted = formatInterval({ months, days, micros })
        expect(canonicalInterval(formatted)).toBe(formatted)
      }),
    )
  })
})

describe('containers', () => {
  const strings = fc.option(fc.string({ unit: 'grapheme' }))

  it('read back what they format', () => {
    const list = arrayOf(text, ',', 0)
    fc.assert(fc.property(fc.array(strings), (values) => void expect(readText(list, list.format(values))).toEqual(values)))
    const record = recordOf(['a', 'b', 'c'].map((name) => ({ name, reader: name === 'b' ? list : text })))
    fc.assert(fc.property(strings, fc.array(strings), strings, (a, b, c) => void expect(readText(record, record.format([a, b, c]))).toEqual([a, b, c])))
    fc.assert(
      fc.property(fc.uniqueArray(fc.tuple(fc.string(), strings), { selector: ([key]) => key }), (entries) => {
        const map = new Map(entries)
        expect(readText(hstore, hstore.format(map))).toEqual(map)
      }),
    )
  })

  it('reads a vector from both forms', () => {
    const binary = Buffer.alloc(4 + 12)
    binary.writeInt16BE(3)
    for (const [i, value] of [1, -2.5, 0.1].entries()) binary.writeFloatBE(value, 4 + 4 * i)
    expect(readBinary(vector, binary)).toEqual([1, -2.5, Math.fround(0.1)])
    expect(readText(vector, '[1,-2.5,0.1]')).toEqual([1, -2.5, Math.fround(0.1)])
  })

  it('reads bytes and uuids from both forms', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        expect(readText(bytea, bytea.format(bytes))).toEqual(bytes)
        expect(readBinary(bytea, Buffer.from(bytes))).toEqual(bytes)
      }),
    )
    fc.assert(fc.property(fc.uuid(), (value) => void expect(readBinary(uuid, Buffer.from(value.replaceAll('-', ''), 'hex'))).toBe(value)))
  })
})

describe('texts that Postgres does not write', () => {
  it('end in a MillraceError or a value, never in a hang or another error', () => {
    const readers = [
      arrayOf(int8, ',', 0),
      recordOf([{ name: 'a', reader: int8 }]),
      rangeOf(timestamptz),
      multirangeOf(text),
      hstore,
      date,
      timestamp,
      timestamptz,
      float8,
      int8,
      decimal(10, 2),
    ]
    const pieces = fc.string({
      unit: fc.constantFrom(
        '{',
        '}',
        '[',
        ']',
        '(',
        ')',
        ',',
        '"',
        '\\',
        '=',
        '>',
        ' ',
        '-',
        ':',
        '.',
        '1',
        '0',
        '2026-01-01',
        'NULL',
        'empty',
        'BC',
        '+00',
        'x',
      ),
    })
    fc.assert(
      fc.property(fc.constantFrom(...readers), pieces, (reader, input) => {
        try {
          readText(reader, input)
        } catch (error) {
          expect(error).toBeInstanceOf(MillraceError)
          expect((error as MillraceError).code).toBe('source.protocol')
        }
      }),
      { numRuns: 3000 },
    )
    fc.assert(
      fc.property(pieces, (input) => {
        try {
          canonicalInterval(input)
        } catch (error) {
          expect(error).toBeInstanceOf(MillraceError)
        }
      }),
    )
  })
})

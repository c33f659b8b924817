import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Comparable, comparableBound, comparableKey, compareComparables, encodeBound } from '../../../../connectors/iceberg/bounds.ts'
import { KeyRanges } from '../../../../connectors/iceberg/key-ranges.ts'
import type { DataFile } from '../../../../connectors/iceberg/manifest.ts'

const long = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const TYPES: readonly (readonly [string, fc.Arbitrary<unknown>, (value: unknown) => unknown])[] = [
  ['int', fc.integer(), (value) => value],
  ['long', long, (value) => value],
  ['timestamptz', long, (value) => value],
  ['decimal(38, 2)', fc.bigInt({ min: -(10n ** 38n), max: 10n ** 38n }), (value) => value],
  ['string', fc.string({ unit: 'grapheme', maxLength: 60 }), (value) => value],
  ['string', fc.constantFrom('\u{10ffff}'.repeat(30), '\ud7ff'.repeat(30), '\uffff'.repeat(17), '\u{10000}'.repeat(17)), (value) => value],
  ['binary', fc.uint8Array({ maxLength: 40 }), (value) => value],
  ['binary', fc.constant(new Uint8Array(30).fill(255)), (value) => value],
  ['uuid', fc.uuid(), (value) => Buffer.from((value as string).replaceAll('-', ''), 'hex')],
]

test.each(TYPES)('bounds of %s hold every value, and keys between them are found', (type, arbitrary, physical) => {
  fc.assert(
    fc.property(fc.array(arbitrary, { minLength: 1, maxLength: 8 }), arbitrary, (values, other) => {
      const key = (value: unknown) => comparableKey(type, value) as Comparable
      const ordered = [...values].sort((a, b) => compareComparables(key(a), key(b)))
      const lower = encodeBound(type, physical(ordered[0]), false)!
      const upper = encodeBound(type, physical(ordered.at(-1)), true)
      for (const value of values) {
        expect(compareComparables(comparableBound(type, lower) as Comparable, key(value))).toBeLessThanOrEqual(0)
        if (upper !== null) expect(compareComparables(comparableBound(type, upper) as Comparable, key(value))).toBeGreaterThanOrEqual(0)
      }
      if (upper === null) return
      const file = { lower_bounds: [{ key: 1, value: lower }], upper_bounds: [{ key: 1, value: upper }] } as unknown as DataFile
      const ranges = new KeyRanges([file], 1, type)
      for (const value of values) expect(ranges.mayHold(value)).toBe(true)
      const inside =
        compareComparables(comparableBound(type, lower) as Comparable, key(other)) <= 0 &&
        compareComparables(comparableBound(type, upper) as Comparable, key(other)) >= 0
      expect(ranges.mayHold(other)).toBe(inside)
    }),
  )
})

test('a bound keeps no more memory than it has bytes', () => {
  const text = 'a text of more than sixteen bytes'
  const values = { string: text, binary: Buffer.from(text), uuid: Buffer.from(text.slice(0, 16)), 'decimal(9, 2)': 12_345n, long: 1n }
  for (const [type, value] of Object.entries(values))
    for (const upper of [false, true]) {
      const bound = encodeBound(type, value, upper)!
      expect(bound.buffer.byteLength, type).toBe(bound.length)
    }
})

test('the union of many ranges holds a key exactly when one of them does', () => {
  const range = fc.tuple(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 10 }))
  fc.assert(
    fc.property(fc.array(range, { maxLength: 20 }), fc.integer({ min: -5, max: 120 }), (spans, probe) => {
      const files = spans.map(
        ([from, width]) =>
          ({
            lower_bounds: [{ key: 1, value: encodeBound('int', from, false) }],
            upper_bounds: [{ key: 1, value: encodeBound('int', from + width, true) }],
          }) as unknown as DataFile,
      )
      expect(new KeyRanges(files, 1, 'int').mayHold(probe)).toBe(spans.some(([from, width]) => probe >= from && probe <= from + width))
    }),
  )
})

test('a file without bounds may hold any key', () => {
  expect(new KeyRanges([{ lower_bounds: null, upper_bounds: null } as unknown as DataFile], 1, 'int').mayHold(3)).toBe(true)
})

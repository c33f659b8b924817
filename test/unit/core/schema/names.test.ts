import fc from 'fast-check'
import { expect, test } from 'vitest'
import { avroName, avroNamespace, originalName } from '../../../../core/schema/names.ts'

/** Strings around the escape's own letters, where a reversible scheme breaks first. */
const names = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }),
  fc.array(fc.constantFrom('_', 'x', '__x', '__x5f_', '_x', 'é', '1', 'a', 'f', ' ', '\ud800', '__x_'), { maxLength: 8 }).map((parts) => parts.join('')),
)

test('every string has an Avro name that gives it back, so no two strings share one', () => {
  fc.assert(
    fc.property(names, (name) => {
      expect(avroName(name)).toMatch(/^[A-Za-z_][A-Za-z0-9_]*$/)
      expect(originalName(avroName(name))).toBe(name)
    }),
    { numRuns: 3000 },
  )
})

test('ordinary names are unchanged', () => {
  for (const name of ['id', '_id', 'max_x', 'tax__rate', 'A1', '__v', '__', '_x41_']) {
    expect(avroName(name)).toBe(name)
    expect(originalName(name)).toBe(name)
  }
})

test.each([
  ['', '__x_'],
  ['1st', '__x31_st'],
  ['order no', 'order__x20_no'],
  ['naïve', 'na__xef_ve'],
  ['😀', '__xd83d___xde00_'],
  ['a__x20_b', 'a__x5f__x20_b'],
])('%j becomes %s', (name, avro) => expect(avroName(name)).toBe(avro))

test('namespaces keep their dots and their valid parts', () => {
  expect(avroNamespace('shop-db.public.order items')).toBe('shop__x2d_db.public.order__x20_items')
  expect(avroNamespace('shop__x2d_db.public')).toBe('shop__x2d_db.public')
})

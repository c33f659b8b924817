import fc from 'fast-check'
import { expect, test } from 'vitest'
import { editDistance, nearest } from '../../../../core/mesh/edit-distance.ts'

test('counts inserts, deletes, replacements and swaps', () => {
  expect(editDistance('', 'abc')).toBe(3)
  expect(editDistance('tabels', 'tables')).toBe(1)
  expect(editDistance('kitten', 'sitting')).toBe(3)
})

test('is a distance: zero only for equals, symmetric, at most the longer length', () => {
  const word = fc.string({ maxLength: 8 })
  fc.assert(
    fc.property(word, word, (a, b) => {
      const distance = editDistance(a, b)
      expect(distance === 0).toBe(a === b)
      expect(editDistance(b, a)).toBe(distance)
      expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length))
    }),
  )
})

test('names what was meant and nothing far away', () => {
  expect(nearest('postgras', ['postgres', 'iceberg'])).toBe('postgres')
  expect(nearest('mysql', ['postgres', 'iceberg'])).toBeNull()
  expect(nearest('x', [])).toBeNull()
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseLosslessJson, stringifyLosslessJson } from '../../../../connectors/iceberg/lossless-json.ts'

test('whole numbers of any size survive, also inside strings that look like them', () => {
  const id = fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n })
  fc.assert(
    fc.property(id, fc.maxSafeInteger(), fc.string(), fc.double({ noNaN: true, noDefaultInfinity: true }), (big, small, text, real) => {
      const value = { a: [big, small, `${big}`], b: { c: text, d: -big }, e: real + 0.5 }
      const again = parseLosslessJson(stringifyLosslessJson(value)) as typeof value
      expect(again.a).toEqual([big, small, `${big}`])
      expect(again.b).toEqual({ c: text, d: -big })
    }),
  )
})

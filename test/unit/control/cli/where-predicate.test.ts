import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileWhere } from '../../../../control/cli/where-predicate.ts'

const row = { id: 7, big: '9007199254740993', price: '10.50', status: "it's paid", note: null, ok: true, 'odd name': 'x', list: [1] }

describe('--where', () => {
  test.each([
    ['id = 7', true],
    ['id = 7.0', true],
    ['id > 7', false],
    ['id >= 7 and id <= 7 AND id <> 8', true],
    ['big = 9007199254740992', false],
    ['big > 9007199254740992', true],
    ['price = 10.5', true],
    ['price < 1.06e1', true],
    ["status = 'it''s paid'", true],
    ["status != 'open'", true],
    ['note is null', true],
    ['note is not null', false],
    ["note != 'x'", false],
    ['absent is null', false],
    ['absent != 1', false],
    ['ok = true', true],
    ['ok = false', false],
    ['"odd name" = \'x\'', true],
    ['list = 1', false],
    ['status > 5', false],
  ])('%s is %s', (text, expected) => {
    expect(compileWhere(text).matches(row)).toBe(expected)
  })

  test.each([
    '',
    'id',
    'id =',
    'id = = 1',
    "id = 'a",
    'id = paid',
    'id is 5',
    'id = null',
    'id = 1 or id = 2',
    'id = 1 and',
    '; drop',
    "'a' = 1",
  ])('%j is refused with a fix', (text) => {
    expect(() => compileWhere(text)).toThrow(expect.objectContaining({ code: 'config.invalid', fix: expect.stringContaining('status =') }))
  })

  test('numbers compare as numbers, exactly', () => {
    fc.assert(
      fc.property(fc.bigInt(-(2n ** 80n), 2n ** 80n), fc.bigInt(-(2n ** 80n), 2n ** 80n), fc.integer({ min: 0, max: 20 }), (a, b, scale) => {
        const text = (value: bigint) =>
          `${value < 0n ? '-' : ''}${(value < 0n ? -value : value)
            .toString()
            .padStart(scale + 1, '0')
            .replace(new RegExp(`(\\d{${scale}})$`), scale > 0 ? '.$1' : '$1')}`
        expect(compileWhere(`x < ${text(b)}`).matches({ x: text(a) })).toBe(a < b)
        expect(compileWhere(`x = ${text(b)}`).matches({ x: text(a) })).toBe(a === b)
      }),
    )
  })

  test('any text is understood or refused as ours', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          compileWhere(text).matches(row)
        } catch (error) {
          expect(error).toMatchObject({ code: 'config.invalid' })
        }
      }),
    )
  })
})

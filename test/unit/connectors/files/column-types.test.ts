import { expect, test } from 'vitest'
import { type Cell, parseType, valueAs } from '../../../../connectors/files/column-types.ts'
import type { Value } from '../../../../core/plugin.ts'

const read = (type: string, text: string, kind: Cell['kind'] = 'cell') => valueAs(parseType(type)!, { kind, text })

const TAKEN: Readonly<Record<string, readonly (readonly [string, Value])[]>> = {
  int32: [
    ['0', 0],
    ['-1', -1],
    ['2147483647', 2147483647],
  ],
  int64: [['9223372036854775807', 2n ** 63n - 1n]],
  float64: [
    ['0.1', 0.1],
    ['1.10', 1.1],
    ['1e3', 1000],
    ['100', 100],
    ['-0', -0],
    ['1.7976931348623157e308', Number.MAX_VALUE],
  ],
  'decimal(5,2)': [
    ['999.99', 99_999n],
    ['-1.5', -150n],
    ['7.000', 700n],
    ['0', 0n],
  ],
  date: [
    ['1970-01-02', 1],
    ['2024-02-29', 19_782],
  ],
  timestamptz: [['1970-01-01T00:00:00-00:30', 1_800_000_000n]],
}

test.each(Object.keys(TAKEN))('%s takes what it holds exactly', (type) => {
  for (const [text, value] of TAKEN[type]!) expect([text, read(type, text)]).toEqual([text, value])
})

const REFUSED: Readonly<Record<string, readonly string[]>> = {
  boolean: ['TRUE', '1', ''],
  int32: ['2147483648', '01', '+1', '1.0', '1e2', ' 1', '-0'],
  int64: ['9223372036854775808', '0x1'],
  float64: ['0.12345678901234567890', '9007199254740993', '1e400', 'NaN', 'Infinity', '1e-400'],
  'decimal(5,2)': ['1000', '0.001', '1e1', '.5'],
  date: ['2023-02-29', '2023-2-1', '20230201'],
  timestamp: ['1970-01-01T24:00:00', '1970-01-01T00:00:00Z', '1970-01-01T00:00:00.0000001'],
  timestamptz: ['1970-01-01T00:00:00'],
  string: ['\ud800'],
}

test.each(Object.keys(REFUSED))('%s refuses what it would have to change', (type) => {
  for (const text of REFUSED[type]!) expect([text, read(type, text)]).toEqual([text, undefined])
})

test('a JSON string is no number, and a number no text', () => {
  expect(read('int64', '1', 'text')).toBe(undefined)
  expect(read('string', '1', 'number')).toBe(undefined)
  expect(read('decimal(5,2)', '1.5', 'text')).toBe(150n)
  expect(read('json', '[1, 2]', 'nested')).toBe('[1, 2]')
  expect(parseType('decimal(39,1)')).toBe(null)
})

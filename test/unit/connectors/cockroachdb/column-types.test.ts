import { describe, expect, test } from 'vitest'
import { columnType, readValue } from '../../../../connectors/cockroachdb/column-types.ts'
import { elements, members, NoJson } from '../../../../connectors/cockroachdb/json-text.ts'
import { Special, type Value } from '../../../../core/plugin.ts'

/** undefined: it is none of the type. */
const read = (type: string, json: string, isEnum = false): Value | undefined => readValue(columnType(type, isEnum), elements(`[${json}]`)[0]!)

describe('types and their JSON', () => {
  test('numbers keep every digit, whatever form they are written in', () => {
    expect(read('INT8', '9007199254740993')).toBe(9_007_199_254_740_993n)
    expect(read('INT8', '1E+3')).toBe(1000n)
    expect(read('DECIMAL(10,2)', '1E+2')).toBe(10_000n)
    expect(read('DECIMAL(10,2)', '-0.50')).toBe(-50n)
    expect(read('DECIMAL(10,2)', '12.500')).toBe(1250n)
    expect(read('DECIMAL(4,3)', '5E-3')).toBe(5n)
    expect(read('DECIMAL(10)', '0E-20')).toBe(0n)
    expect(read('DECIMAL', '1.10')).toBe('1.10')
    expect(read('DECIMAL(40,2)', '1E+38')).toBe('1E+38')
    expect(read('FLOAT8', 'NaN')).toBeNaN()
    expect(read('FLOAT8', '"Infinity"')).toBe(Number.POSITIVE_INFINITY)
    expect(read('FLOAT8', '-0')).toBe(-0)
  })

  test('what is none of the type is none of it', () => {
    const wrong: readonly (readonly [string, string])[] = [
      ['INT2', '"1"'],
      ['INT4', '2147483648'],
      ['INT8', '9223372036854775808'],
      ['INT8', '1.5'],
      ['DECIMAL(4,2)', '123.45'],
      ['DECIMAL(4,2)', '1.234'],
      ['BOOL', '1'],
      ['STRING', '{}'],
      ['BYTES', '"abc"'],
      ['BYTES', '"\\\\x0"'],
      ['UUID', '"x"'],
      ['DATE', '"2023-02-30"'],
      ['DATE', '"2023-2-3"'],
      ['TIME', '"24:00:00.000001"'],
      ['TIMESTAMP', '"2019-01-02T03:04:05Z"'],
      ['TIMESTAMP', '"2019-01-02T24:00:00"'],
      ['TIMESTAMPTZ', '"2019-01-02T03:04:05"'],
      ['INT8[]', '["a"]'],
      ['INT8[]', '1'],
      ['FLOAT8', '"1"'],
    ]
    for (const [type, json] of wrong) expect([type, json, read(type, json)]).toEqual([type, json, undefined])
  })

  test('what Avro does not hold is special, also within an array', () => {
    expect(read('DATE', '"infinity"')).toEqual(new Special('infinity'))
    expect(read('DATE', '"-infinity"')).toEqual(new Special('-infinity'))
    expect(read('TIMESTAMPTZ', '"infinity"')).toEqual(new Special('infinity'))
    expect(read('DECIMAL(4,2)', '"NaN"')).toEqual(new Special('NaN'))
    expect(read('DATE[]', '["2020-01-01", "infinity"]')).toEqual(new Special('["2020-01-01", "infinity"]'))
  })

  test('leap days, years before Christ and offsets', () => {
    expect(read('DATE', '"2000-02-29"')).toBe(11_016)
    expect(read('DATE', '"1900-02-29"')).toBe(undefined)
    expect(read('DATE', '"0001-12-31 BC"')).toBe(-719_163)
    expect(read('TIMESTAMPTZ', '"1970-01-01T02:00:00+02:00"')).toBe(0n)
    expect(read('TIMESTAMP', '"0000-12-31T00:00:00"')).toBe(-719_163n * 86_400_000_000n)
  })

  test('of a type that is not known its JSON is kept', () => {
    expect(columnType('public.address', false)).toEqual({ kind: 'json' })
    expect(read('public.address', '{"f1": 1.10}')).toBe('{"f1": 1.10}')
    expect(read('JSONPATH', '"$.a"')).toBe('"$.a"')
  })
})

describe('JSON', () => {
  test('is taken apart without change', () => {
    expect([...members('{"a" : 1.10 ,"b":{"c":[1, 2]},"d":"x\\"}","e":null}')].map(([name, { kind, raw }]) => [name, kind, raw])).toEqual([
      ['a', 'number', '1.10'],
      ['b', 'object', '{"c":[1, 2]}'],
      ['d', 'string', '"x\\"}"'],
      ['e', 'null', 'null'],
    ])
  })

  test('is refused where it is wrong', () => {
    const at = (text: string) => {
      try {
        members(text)
        return null
      } catch (error) {
        return (error as NoJson).at
      }
    }
    expect(['{"a":}', '{"a":1,}', '{"a":1}x', '{"a":01}', '{"a":1,"a":2}', '[1]', '{"a":"\n"}', '{"a":tru}', '{a:1}'].map(at)).toEqual([
      5, 7, 7, 6, 7, 0, 5, 5, 1,
    ])
    expect(at(`{"a":${'['.repeat(600)}`)).toBeGreaterThan(500)
    expect(() => members('{')).toThrow(NoJson)
  })
})

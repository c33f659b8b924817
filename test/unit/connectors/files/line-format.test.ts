import { expect, test } from 'vitest'
import { csvCells, jsonMembers } from '../../../../connectors/files/line-format.ts'

test('takes a JSON object apart as it is written', () => {
  const text = ' {"a" : 1.50, "b\\"": "x\\u0041,}", "c": [1, {"d": "]"}] ,"e":null,"f":true, "g": {} } '
  expect(Object.fromEntries(jsonMembers(text))).toEqual({
    a: { kind: 'number', text: '1.50' },
    'b"': { kind: 'text', text: 'xA,}' },
    c: { kind: 'nested', text: '[1, {"d": "]"}]' },
    e: null,
    f: { kind: 'boolean', text: 'true' },
    g: { kind: 'nested', text: '{}' },
  })
  expect(jsonMembers('{}').size).toBe(0)
  for (const bad of ['{"a":1', '[1]', 'null', '{"a":1,"a":2}', '1']) expect(() => jsonMembers(bad)).toThrow()
})

test('takes a CSV record apart, and tells NULL from an empty text', () => {
  expect(csvCells('1,,"",a b,"x,""y"""', ',', '')).toEqual(['1', null, '', 'a b', 'x,"y"'])
  expect(csvCells('a;\\N;', ';', '\\N')).toEqual(['a', null, ''])
  expect(csvCells('"a"', ',', '')).toEqual(['a'])
  for (const bad of ['"a', '"a"b', 'a"b']) expect(() => csvCells(bad, ',', '')).toThrow()
})

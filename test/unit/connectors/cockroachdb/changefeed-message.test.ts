import { describe, expect, test } from 'vitest'
import type { CatalogTable } from '../../../../connectors/cockroachdb/catalog.ts'
import { committedAt, imagesOf, keyValues, resolvedOf, rowValues } from '../../../../connectors/cockroachdb/changefeed-message.ts'
import { columnType } from '../../../../connectors/cockroachdb/column-types.ts'
import { endOf, parseHlc } from '../../../../connectors/cockroachdb/hlc.ts'
import { DELETE, EMPLOYEES, FULL_FIDELITY, INSERT_WITH_DIFF, JSON_NULLS, VEHICLE } from './documents.ts'

const where = () => 'message 3'

function table(columns: readonly (readonly [name: string, type: string])[], key: readonly string[]): CatalogTable {
  const described = columns.map(([name, sourceType], n) => {
    const type = columnType(sourceType, false)
    return { name, id: n + 1, type, sourceType, nullable: true, mayBeUnchanged: false, maybeSpecial: false }
  })
  const keyOrder = key.map((name) => columns.findIndex(([column]) => column === name))
  const schema = { namespace: 'public', name: 'items', columns: described, key: [...keyOrder].sort((a, b) => a - b) }
  return { schema, sqlName: '', topics: [], keyOrder, filled: new Set() }
}

const PRODUCTS = table(
  [
    ['id', 'UUID'],
    ['name', 'STRING'],
    ['description', 'STRING'],
    ['price', 'DECIMAL(10,2)'],
    ['in_stock', 'BOOL'],
    ['category', 'STRING'],
    ['created_at', 'TIMESTAMP'],
  ],
  ['id'],
)

describe('messages as they are documented', () => {
  test('wrapped', () => {
    const employees = table(
      [
        ['id', 'INT8'],
        ['name', 'STRING'],
        ['office', 'STRING'],
      ],
      ['id'],
    )
    const value = Buffer.from(EMPLOYEES[4]!)
    expect(committedAt(value, where)).toEqual({ wall: 1_701_102_320_607_990_564n, logical: 0 })
    const { after, before, saysBefore } = imagesOf(value, where)
    expect(rowValues(employees, after!)).toEqual([1n, 'Terrence', 'new york city'])
    expect([before, saysBefore]).toEqual([null, false])
  })

  test('of the webhook sink, with a key of two columns', () => {
    const vehicles = table(
      [
        ['id', 'UUID'],
        ['city', 'VARCHAR'],
        ['type', 'VARCHAR'],
        ['dog_owner_id', 'UUID'],
        ['creation_time', 'TIMESTAMP'],
        ['status', 'VARCHAR'],
        ['current_location', 'VARCHAR'],
        ['ext', 'JSONB'],
      ],
      ['city', 'id'],
    )
    const { after } = imagesOf(Buffer.from(VEHICLE), where)
    expect(rowValues(vehicles, after!)).toEqual([
      'd7b18299-c0c4-4304-9ef7-05ae46fd5ee1',
      'rome',
      'bike',
      '5d0c85b5-8866-47cf-a6bc-d032f198e48f',
      BigInt(Date.parse('2019-01-02T03:04:05Z')) * 1000n,
      'in_use',
      '39141 Travis Curve Suite 87',
      '{"brand":"Schwinn","color":"red"}',
    ])
    // in the order of the primary index there, in that of the table here
    expect(keyValues(vehicles, Buffer.from('["rome","d7b18299-c0c4-4304-9ef7-05ae46fd5ee1"]'))).toEqual(['d7b18299-c0c4-4304-9ef7-05ae46fd5ee1', 'rome'])
  })

  test('enriched, with its schema', () => {
    const value = Buffer.from(FULL_FIDELITY)
    expect(committedAt(value, where)).toEqual({ wall: 1_747_243_394_200_039_000n, logical: 0 })
    const { after, before, saysBefore } = imagesOf(value, where)
    const row = [
      '98879aa0-72bc-4b12-a128-325a4753162e',
      'Coffee Mug',
      'Ceramic mug with 350ml capacity',
      1250n,
      true,
      'Home & Kitchen',
      BigInt(Date.parse('2025-04-30T20:02:35.403Z')) * 1000n + 160n,
    ]
    expect(rowValues(PRODUCTS, after!)).toEqual(row)
    expect(rowValues(PRODUCTS, before!)).toEqual(row)
    expect(saysBefore).toBe(true)
    expect(keyValues(PRODUCTS, Buffer.from('{ "id": "98879aa0-72bc-4b12-a128-325a4753162e" }'))).toEqual([row[0]])
  })

  test('an insert with diff, a delete, a resolved timestamp, and both nulls', () => {
    expect(imagesOf(Buffer.from(INSERT_WITH_DIFF), where)).toMatchObject({ after: { kind: 'object' }, before: null, saysBefore: true })
    expect(() => committedAt(Buffer.from(INSERT_WITH_DIFF), where)).toThrow('message 3 cannot be read')
    expect(imagesOf(Buffer.from(DELETE.value), where)).toEqual({ after: null, before: null, saysBefore: false })
    expect(keyValues(table([['id', 'INT8']], ['id']), Buffer.from(DELETE.key))).toEqual([5n])
    expect(resolvedOf(Buffer.from('{"resolved":"1536242855577149065.0000000000"}'), where)).toEqual({ wall: 1_536_242_855_577_149_065n, logical: 0 })
    const data = table(
      [
        ['id', 'INT8'],
        ['data', 'JSONB'],
      ],
      ['id'],
    )
    expect(JSON_NULLS.map((text) => rowValues(data, imagesOf(Buffer.from(text), where).after!))).toEqual([
      [1n, null],
      [2n, 'null'],
    ])
  })

  test('a row of another shape is told, and never bent', () => {
    const { after } = imagesOf(Buffer.from('{"after": {"a": 1, "b": "x"}}'), where)
    const of = (...columns: readonly (readonly [string, string])[]) => rowValues(table(columns, []), after!)
    expect(of(['a', 'INT8'], ['b', 'STRING'])).toEqual([1n, 'x'])
    expect(of(['a', 'INT8'])).toBe(null)
    expect(of(['a', 'INT8'], ['c', 'STRING'])).toBe(null)
    expect(of(['a', 'STRING[]'], ['b', 'STRING'])).toBe(null)
    expect(of(['a', 'INT8'], ['b', 'INT8'])).toBe(null)
  })
})

test('every prefix of a message is refused with its place, and none gives a row', () => {
  for (const text of [VEHICLE, FULL_FIDELITY]) {
    for (let end = 0; end < text.length; end++) {
      expect(() => imagesOf(Buffer.from(text.slice(0, end)), where)).toThrow(/^message 3 cannot be read: .* was expected at character \d+$/)
    }
  }
})

test('times are read as they are written', () => {
  expect(parseHlc('1701102296662969433.0000000007')).toEqual({ wall: 1_701_102_296_662_969_433n, logical: 7 })
  for (const text of ['', '1701102296662969433.7', '-1.0000000000', '17e8', '9223372036854775808.0000000000', '1.2147483648']) expect(parseHlc(text)).toBe(null)
  expect(parseHlc(endOf(5n))).toEqual({ wall: 5n, logical: 0x7fff_ffff })
})

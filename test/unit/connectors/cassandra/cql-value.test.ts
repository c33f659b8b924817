import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { cqlTypeText, parseCqlType, type UserTypes } from '../../../../connectors/cassandra/cql-type.ts'
import { cqlReader, frozenForm } from '../../../../connectors/cassandra/cql-value.ts'
import { MillraceError } from '../../../../core/errors.ts'
import { Special, type TableSchema, type Value } from '../../../../core/event/table-schema.ts'
import { TupleWriter } from '../../../../core/event/tuple-writer.ts'

const userTypes: UserTypes = (name) =>
  new Map([
    ['place', { fieldNames: ['street', 'number'], fieldTypes: ['text', 'int'] }],
    ['Ad"dress', { fieldNames: ['place', 'tags'], fieldTypes: ['place', 'set<text>'] }],
  ]).get(name)

const parse = (text: string) => parseCqlType(text, userTypes)
const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')

/** By both ways of reading, from the middle of other bytes. */
function read(type: string, bytes: Buffer): Value {
  const reader = cqlReader(parse(type))
  const around = Buffer.concat([Buffer.from([0xee]), bytes, Buffer.from([0xee])])
  const value = reader.value(around, 1, 1 + bytes.length)
  const column = { name: 'c', id: 1, type: reader.type, sourceType: type, nullable: true, mayBeUnchanged: false, maybeSpecial: true }
  const table: TableSchema = { namespace: 'n', name: 't', columns: [column], key: [] }
  const writer = new TupleWriter(table)
  writer.start()
  reader.write(around, 1, 1 + bytes.length, writer)
  expect(writer.row().map((one) => (one instanceof Uint8Array ? new Uint8Array(one) : one))).toEqual([value])
  if (value instanceof Special) expect(reader.canBeSpecial).toBe(true)
  return value
}

describe('types', () => {
  test.each([
    'text',
    'frozen<map<text, frozen<list<int>>>>',
    'map<uuid, frozen<tuple<int, text>>>',
    'place',
    'frozen<"Ad""dress">',
    'vector<float, 1536>',
    'list<vector<text, 2>>',
  ])('%s is read and written', (text) => expect(cqlTypeText(parse(text))).toBe(text))

  test('what is inside a user type is frozen', () => {
    const type = parse('"Ad""dress"')
    expect(type).toMatchObject({ frozen: false, fields: [{ type: { kind: 'udt', frozen: true } }, { type: { kind: 'set', frozen: true } }] })
  })

  test.each(['money', 'list<int', 'list<>', 'int>', "'org.example.Own'", 'map<int>', ''])('%s is not known', (text) =>
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'source.schema_unsupported' })))
})

describe('values', () => {
  test.each<[string, string, Value]>([
    ['boolean', '01', true],
    ['boolean', '00', false],
    ['tinyint', '80', -128],
    ['smallint', '7fff', 32767],
    ['int', '80000000', -2147483648],
    ['bigint', '8000000000000000', -(2n ** 63n)],
    ['float', '7f7fffff', 3.4028234663852886e38],
    ['double', 'ffefffffffffffff', -Number.MAX_VALUE],
    ['double', '8000000000000000', -0],
    ['double', '7ff8000000000000', Number.NaN],
    ['text', 'c5bc', 'ż'],
    ['text', '', ''],
    ['blob', '', new Uint8Array()],
    ['blob', '00ff', new Uint8Array([0, 255])],
    ['uuid', '6ba7b8109dad11d180b400c04fd430c8', '6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
    ['date', '80000000', 0],
    ['date', '00000000', -2147483648],
    ['date', 'ffffffff', 2147483647],
    ['time', '00004e94914effff', '23:59:59.999999999'],
    ['time', '0000000000000000', '00:00:00.000000000'],
    ['timestamp', '0000000000000001', 1000n],
    ['timestamp', 'ffffffffffffffff', -1000n],
    ['timestamp', '0020c49ba5e353f7', 9223372036854775000n],
    ['timestamp', '0020c49ba5e353f8', new Special('9223372036854776')],
    ['timestamp', '8000000000000000', new Special('-9223372036854775808')],
    ['varint', '00', '0'],
    ['varint', 'ff', '-1'],
    ['varint', '0080', '128'],
    ['varint', 'ff7fffffffffffffffffffffffffffffff', '-170141183460469231731687303715884105729'],
    ['decimal', '00000002 03e7', '9.99'],
    ['decimal', '00000002 00', '0.00'],
    ['decimal', 'ffffffd8 01', '1E+40'],
    ['decimal', '0000000a 01', '1E-10'],
    ['decimal', '00000006 01', '0.000001'],
    ['decimal', '00000001 85', '-12.3'],
    ['decimal', 'fffffffe 7b', '1.23E+4'],
    ['decimal', '7fffffff 01', '1E-2147483647'],
    ['duration', '00 0e 00', '7d'],
    ['duration', '00 00 00', '0ns'],
    ['duration', '01 00 00', '-1mo'],
    ['inet', 'c0a801fe', '192.168.1.254'],
    ['inet', '20010db8000000000000000000000001', '2001:db8::1'],
    ['inet', '00000000000000000000000000000000', '::'],
    ['inet', '00000000000000000000ffff01020304', '::ffff:1.2.3.4'],
    ['inet', '00000000000000000000000001020304', '::1.2.3.4'],
    ['inet', '00010000000000010000000000000001', '1:0:0:1::1'],
    ['int', '', new Special('')],
    ['list<int>', '00000002 00000004 00000007 00000004 ffffffff', [7, -1]],
    ['set<text>', '00000000', []],
    ['list<int>', '00000001 00000000', new Special('0x0000000100000000')],
    ['map<text, text>', '00000001 00000001 61 00000000', new Map([['a', '']])],
    ['map<int, text>', '00000001 00000004 00000009 00000001 61', [[9, 'a']]],
    ['tuple<int, text>', '00000004 00000001 ffffffff', [1, null]],
    ['place', '00000001 73', ['s', null]],
    ['frozen<"Ad""dress">', '0000000d 00000001 73 00000004 00000005 ffffffff', [['s', 5], null]],
    ['vector<float, 2>', '3fc00000 be800000', [1.5, -0.25]],
    ['vector<text, 2>', '01 61 02 6263', ['a', 'bc']],
  ])('%s %s', (type, bytes, expected) => {
    expect(read(type, hex(bytes))).toEqual(expected)
  })

  test.each<[string, string]>([
    ['int', '00'],
    ['bigint', '0000000000'],
    ['boolean', '0000'],
    ['date', '00'],
    ['time', '7fffffffffffffff'],
    ['uuid', '00'],
    ['inet', '0000000000'],
    ['decimal', '00000000'],
    ['duration', '0000'],
    ['duration', '00000000'],
    ['list<int>', '7fffffff'],
    ['list<int>', '00000001 00000005 00000000'],
    ['list<int>', '00000000 00'],
    ['map<int, int>', '00000001 00000004 00000001'],
    ['vector<float, 2>', '00000000'],
    ['vector<text, 1>', '02 61'],
    ['vector<text, 1>', 'ff'],
  ])('%s %s is none', (type, bytes) => expect(() => read(type, hex(bytes))).toThrow(expect.objectContaining({ code: 'source.protocol' })))

  test('a user type with fields that are not described asks for another description', () => {
    expect(() => read('place', hex('ffffffff ffffffff ffffffff'))).toThrow(expect.objectContaining({ code: 'source.schema_unsupported' }))
    const type = parse('place')
    expect(() => frozenForm(type, [{ path: hex('0002'), value: hex('') }])).toThrow(expect.objectContaining({ code: 'source.schema_unsupported' }))
  })

  test('cells that are alive make the whole of a column', () => {
    const whole = (type: string, cells: [string, string][]) => {
      const bytes = frozenForm(
        parse(type),
        cells.map(([path, value]) => ({ path: hex(path), value: hex(value) })),
      )
      return bytes && read(type, bytes)
    }
    expect(whole('set<int>', [])).toBeNull()
    expect(whole('set<int>', [['00000001', '']])).toEqual([1])
    expect(whole('list<int>', [['0'.repeat(32), '00000005']])).toEqual([5])
    expect(whole('map<text, text>', [['61', '62']])).toEqual(new Map([['a', 'b']]))
    expect(whole('map<int, int>', [['00000001', '00000002']])).toEqual([[1, 2]])
    expect(whole('place', [['0001', '00000002']])).toEqual([null, 2])
  })

  test('any bytes of any type are a value or an error', () => {
    const types = [
      ...['int', 'bigint', 'text', 'boolean', 'date', 'time', 'timestamp', 'decimal', 'varint', 'duration', 'inet', 'uuid', 'double', 'empty'],
      ...['list<int>', 'map<text, text>', 'map<int, frozen<set<text>>>', 'tuple<int, text>', 'place', '"Ad""dress"', 'vector<int, 3>', 'vector<varint, 2>'],
    ]
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.array(fc.constantFrom(0, 1, 2, 4, 0xff), { maxLength: 40 }).map((list) => Uint8Array.from(list)),
    )
    fc.assert(
      fc.property(fc.constantFrom(...types), bytes, (type, noise) => {
        try {
          read(type, Buffer.from(noise))
        } catch (error) {
          if (!(error instanceof MillraceError)) throw error
          expect(['source.protocol', 'source.schema_unsupported']).toContain(error.code)
        }
      }),
      { numRuns: 3000 },
    )
  })
})

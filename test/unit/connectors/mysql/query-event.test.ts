import { expect, test } from 'vitest'
import { BinlogEvent, EVENT } from '../../../../connectors/mysql/binlog-event.ts'
import { readQuery } from '../../../../connectors/mysql/query-event.ts'
import { viewOf } from '../../../../core/plugin.ts'

const CHARSETS = {
  ofCollation: new Map([
    [8, 'latin1'],
    [28, 'gbk'],
    [45, 'utf8mb4'],
    [63, 'binary'],
  ]),
  widths: new Map(),
}
const FLAGS = Buffer.from([0, 0, 0, 0, 0])
const CATALOG = Buffer.from([6, 3, 115, 116, 100])
const INCREMENT = Buffer.from([3, 1, 0, 1, 0])

function mode(bits: number): Buffer {
  const value = Buffer.alloc(9, 1)
  value.writeUInt32LE(bits, 1)
  return value
}

const collation = (id: number) => Buffer.from([4, id, 0, 45, 0, 45, 0])

function read(variables: readonly Buffer[], text: Buffer) {
  const all = Buffer.concat(variables)
  const head = Buffer.alloc(19 + 13)
  head[4] = EVENT.query
  head[19 + 8] = 4
  head.writeUInt16LE(all.length, 19 + 11)
  const bytes = Buffer.concat([head, all, Buffer.from('shop\0'), text])
  bytes.writeUInt32LE(bytes.length, 9)
  const event = new BinlogEvent()
  event.readInner(bytes, viewOf(bytes), 0, bytes.length)
  return readQuery(event, bytes, CHARSETS)
}

test.each([
  ['no variables', [], Buffer.from('truncate table é')],
  ['UTF-8', [FLAGS, mode(0), CATALOG, INCREMENT, collation(45)], Buffer.from('truncate table é')],
  ['latin1', [FLAGS, mode(0), CATALOG, collation(8)], Buffer.from('truncate table é', 'latin1')],
  ['a character set of several bytes', [collation(28)], Buffer.from([...Buffer.from('truncate table '), 0xa8, 0xa6])],
  ['binary, of which the server converts nothing', [collation(63)], Buffer.from('truncate table é')],
  ['a collation that is not known', [collation(99)], Buffer.from('truncate table é')],
])('a statement is in the character set of its session: %s', (_, variables, text) => {
  expect(read(variables, text)).toMatchObject({ text: 'truncate table é', session: { namespace: 'shop', ansiQuotes: false, noBackslashEscapes: false } })
})

test('the session says how quotes are read', () => {
  expect(read([FLAGS, mode(4)], Buffer.from('x')).session).toMatchObject({ ansiQuotes: true, noBackslashEscapes: false })
  expect(read([FLAGS, mode(1 << 20)], Buffer.from('x')).session).toMatchObject({ ansiQuotes: false, noBackslashEscapes: true })
  const spaces = [8, 28, 45, 63, 99].map((id) => read([collation(id)], Buffer.from('x')).session.nbspIsSpace)
  expect(spaces).toEqual([true, false, false, false, false])
})

test('variables that are not known end those that are', () => {
  expect(read([FLAGS, mode(4), collation(45), Buffer.from([200, 1, 4, 8, 0])], Buffer.from('é')).text).toBe('é')
})

test('a statement that is cut off is an error with its place', () => {
  const cut = () => read([Buffer.alloc(0)], Buffer.alloc(0))
  expect(cut().text).toBe('')
  const event = new BinlogEvent()
  const bytes = Buffer.alloc(19 + 14)
  bytes.writeUInt32LE(bytes.length, 9)
  bytes[19 + 8] = 40
  event.readInner(bytes, viewOf(bytes), 0, bytes.length)
  expect(() => readQuery(event, bytes, CHARSETS)).toThrow(expect.objectContaining({ code: 'source.protocol' }))
})

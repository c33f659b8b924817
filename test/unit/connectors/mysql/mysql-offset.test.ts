import { expect, test } from 'vitest'
import { fileMark, placeText, readPlace } from '../../../../connectors/mysql/binlog-place.ts'
import { isSameOffset, lastCommit, readOffset, requireForm, resumePlace, writeOffset } from '../../../../connectors/mysql/mysql-offset.ts'
import type { Server } from '../../../../connectors/mysql/server.ts'
import type { SourceOffset } from '../../../../core/plugin.ts'

const UUID = 'aaaaaaaa-0000-0000-0000-000000000000'

/** As they lie in logs, and must be read for ever. */
const GOLDEN = [
  { flavor: 'mysql', gtids: `${UUID}:1-7` },
  { flavor: 'mysql', gtids: `${UUID}:1-7`, prepared: `${UUID}:5`, ahead: ['shop.items'] },
  { flavor: 'mariadb', gtids: '0-1-7,1-1-3', prepared: '0-1-5' },
  { flavor: 'mysql', server: UUID, file: 'binlog.000003', position: 1234, created: 1_732_640_000 },
  { flavor: 'mysql', server: UUID, file: 'a:b.1000000', position: 4, created: 1, prepared: 'a:b.999999:157:0', ahead: ['shop.items'] },
]

test.each(GOLDEN)('the offset %j is read, and written as it was', (offset) => {
  expect(writeOffset(readOffset(offset))).toEqual(offset)
  expect(isSameOffset(readOffset(offset), readOffset({ ...offset }))).toBe(true)
})

const file = readOffset(GOLDEN[3]!)

test.each([
  { file: 'binlog.000004' },
  { position: 1235 },
  { created: 1 },
  { prepared: 'binlog.000003:4:1' },
  { ahead: ['shop.items'] },
])('%j is another one', (other) => {
  expect(isSameOffset(file, readOffset({ ...GOLDEN[3], ...other }))).toBe(false)
})

test.each([
  { flavor: 'mariadb' },
  { server: undefined },
  { file: 3 },
  { position: '4' },
  { position: 0.5 },
  { created: null },
  { prepared: `${UUID}:1` },
  { ahead: 1 },
])('an offset by file with %j is none of this source', (other) => {
  const { server, ...rest } = { ...GOLDEN[3], ...other } as Readonly<Record<string, unknown>>
  const offset = (server === undefined ? rest : { server, ...rest }) as SourceOffset
  expect(() => readOffset(offset)).toThrow(expect.objectContaining({ code: 'source.identity_changed' }))
})

test('what is prepared is streamed again from before its file and position', () => {
  expect(resumePlace(readOffset(GOLDEN[4]!) as never)).toEqual({ file: 'a:b.999999', position: 157, created: 0 })
  expect(resumePlace(file as never)).toMatchObject({ file: 'binlog.000003', position: 1234, created: 1_732_640_000 })
})

test('places rise with position and file, whatever the file numbers, and stay below 2^63', () => {
  const places = [
    ['binlog.000001', 4],
    ['binlog.000001', 2 ** 32 + 5],
    ['binlog.000002', 4],
    ['binlog.131071', 2 ** 36 - 1],
    ['binlog.131072', 4],
    ['binlog.999999', 4],
    ['binlog.1000000', 4],
    ['binlog.134217727', 2 ** 36 - 1],
  ] as const
  const marks = places.map(([name, position]) => fileMark(name, position))
  for (const [i, mark] of marks.entries()) expect(i === 0 || mark > marks[i - 1]!).toBe(true)
  expect(marks.at(-1)! < 2n ** 63n).toBe(true)
  for (const [name, position] of [
    ['binlog.134217728', 4],
    ['binlog', 4],
    ['binlog.000001', 2 ** 36],
    ['binlog.000001', Number.NaN],
  ] as const) {
    expect(() => fileMark(name, position)).toThrow(expect.objectContaining({ code: 'source.protocol' }))
  }
})

test('the text of a place is read as it was, and no other', () => {
  const place = { file: 'a:b.000001', position: 2 ** 33, created: 4_000_000_000 }
  expect(readPlace(placeText(place))).toEqual(place)
  for (const text of ['', 'binlog.000001:4', 'binlog:4:1', '0-1-5', `${UUID}:1-5`]) expect(readPlace(text)).toBe(null)
})

test('the last commit up to an offset is the size of a set, a sum, or the place', () => {
  expect(GOLDEN.slice(0, 4).map((offset) => lastCommit(readOffset(offset)))).toEqual([7n, 7n, 10n, fileMark('binlog.000003', 1234)])
})

test('progress goes on only where transactions are known by the same names', () => {
  const server = (gtidMode: string, flavor = 'mysql') => ({ flavor, gtidMode, versionText: '9.7', byFile: flavor === 'mysql' && gtidMode !== 'ON' }) as Server
  const gtid = readOffset(GOLDEN[0]!)
  for (const mode of ['OFF', 'OFF_PERMISSIVE', 'ON_PERMISSIVE']) {
    expect(() => requireForm(file, server(mode), 'shop')).not.toThrow()
    const lost = expect.objectContaining({
      code: 'source.history_lost',
      message: expect.stringContaining(mode),
      fix: expect.stringContaining('--resnapshot shop'),
    })
    expect(() => requireForm(gtid, server(mode), 'shop')).toThrow(lost)
  }
  expect(() => requireForm(gtid, server('ON'), 'shop')).not.toThrow()
  const lost = expect.objectContaining({
    code: 'source.history_lost',
    message: expect.stringContaining('binlog.000003:1234'),
    fix: expect.stringContaining('ON_PERMISSIVE'),
  })
  expect(() => requireForm(file, server('ON'), 'shop')).toThrow(lost)
  expect(() => requireForm(file, server('ON', 'mariadb'), 'shop')).toThrow(expect.objectContaining({ code: 'source.identity_changed' }))
})

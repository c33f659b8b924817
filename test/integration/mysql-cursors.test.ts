import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { describeTable } from '../../connectors/mysql/catalog.ts'
import { connectOptions } from '../../connectors/mysql/mysql-config.ts'
import { readServer } from '../../connectors/mysql/server.ts'
import { MysqlSnapshotReader, SNAPSHOT_SESSION } from '../../connectors/mysql/snapshot-reader.ts'
import { SqlConnections } from '../../connectors/mysql/sql-connection.ts'
import { mapTable } from '../../connectors/mysql/type-mapping.ts'
import { TupleWriter } from '../../core/event/tuple-writer.ts'
import type { Json, Value } from '../../core/plugin.ts'
import { FLAVORS, type Flavor, type MysqlDatabase, mysqlDatabase, mysqlSkipReason } from '../services/mysql.ts'
import { mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

/** Of the columns of a key `k0`, `k1`… */
interface KeyCase {
  readonly types: readonly string[]
  /** SQL expressions with commas between; no two rows are equal under the key. */
  readonly rows: readonly string[]
  readonly only?: Flavor
  /** As the key is declared: `k0(1500)`. */
  readonly key?: string
}

const one = (type: string, rows: readonly string[], more: Omit<KeyCase, 'types' | 'rows'> = {}): KeyCase => ({ types: [type], rows, ...more })
const binary = (...values: readonly string[]) => values.map((hex) => `x'${hex}'`)
const quoted = (...values: readonly string[]) => values.map((text) => `'${text}'`)

const WORDS = quoted('', 'a', 'B', 'b2', 'Ä', 'äB', 'aa', 'É', 'ß1', 'Z', 'zz', '_', '1', '10', '9', '~', 'ÿ')
/** Where spaces at the end count for nothing. */
const PADDED = quoted('', 'a', 'a\\t', 'a\\n', 'a!', ' a', '  ', 'b').filter((text) => text !== "'  '")
/** Where they count. */
const SPACED = quoted('', ' ', '  ', 'a', 'a ', 'a  ', 'a\\t', ' a', 'b')
const LATIN1 = quoted('', 'a', 'B', 'c', 'é', 'E1', '€', 'œ', 'ÿ', 'Ø', 'z')

const EVERYWHERE: readonly KeyCase[] = [
  one('tinyint', ['-128', '-1', '0', '1', '127']),
  one('tinyint unsigned', ['0', '1', '128', '254', '255']),
  one('smallint', ['-32768', '-1', '0', '1', '32767']),
  one('smallint unsigned', ['0', '32768', '65535']),
  one('mediumint', ['-8388608', '-1', '0', '8388607']),
  one('mediumint unsigned', ['0', '8388608', '16777215']),
  one('int', ['-2147483648', '-1', '0', '2147483647']),
  one('int(8) unsigned zerofill', ['0', '42', '2147483648', '4294967294', '4294967295']),
  one('bigint', ['-9223372036854775808', '-9007199254740993', '-9007199254740992', '0', '9007199254740993', '9223372036854775806', '9223372036854775807']),
  one('bigint unsigned', [
    '0',
    '9007199254740992',
    '9007199254740993',
    '9223372036854775807',
    '9223372036854775808',
    '18446744073709551614',
    '18446744073709551615',
  ]),
  one('float', ['-3.4028234e38', '-0.1', '0', '1.4e-45', '0.1', '0.10000001', '0.3', '16777216', '16777218', '1e20', '3.4028234e38']),
  one('float(7,3)', ['-1.125', '0.1', '0.101', '9999.125', '9999.126']),
  one('double', [
    '-1.7976931348623157e308',
    '-0.1',
    '0',
    '2.2250738585072014e-308',
    '0.1',
    '0.30000000000000004',
    '0.3',
    '9007199254740992',
    '9007199254740994',
    '1e15',
    '1e21',
    '1.7976931348623157e308',
  ]),
  one('decimal(10,2)', ['-99999999.99', '-0.01', '0', '0.01', '0.10', '99999999.98', '99999999.99']),
  one('decimal(65,30)', [
    `-${'9'.repeat(35)}.${'9'.repeat(30)}`,
    '-0.000000000000000000000000000001',
    '0',
    '0.000000000000000000000000000001',
    '0.000000000000000000000000000002',
    `${'9'.repeat(35)}.${'9'.repeat(29)}8`,
    `${'9'.repeat(35)}.${'9'.repeat(30)}`,
  ]),
  one('bit(1)', ["b'0'", "b'1'"]),
  one('bit(10)', ["b'0'", "b'1'", "b'10'", "b'11111111'", "b'100000000'", "b'1111111111'"]),
  one('bit(64)', ["b'0'", "b'1'", `b'1${'0'.repeat(63)}'`, `b'1${'0'.repeat(62)}1'`, `b'${'1'.repeat(64)}'`]),
  one('year', ['0', '1901', '1970', '2000', '2024', '2155']),
  one('date', quoted('0000-00-00', '0001-01-01', '1969-12-31', '2024-00-00', '2024-00-15', '2024-02-29', '2024-03-00', '9999-12-31')),
  // what only ALLOW_INVALID_DATES takes
  one('date', quoted('2024-02-28', '2024-02-30', '2024-02-31', '2024-03-01', '2024-04-31', '2024-05-01')),
  one('datetime', quoted('0000-00-00 00:00:00', '1000-01-01 00:00:00', '2024-02-31 10:11:12', '2024-03-01 00:00:00', '9999-12-31 23:59:59')),
  one(
    'datetime(6)',
    quoted(
      '0000-00-00 00:00:00',
      '2024-02-00 01:02:03.4',
      '2024-02-29 00:00:00',
      '2024-02-29 00:00:00.000001',
      '2024-02-29 00:00:00.999999',
      '2024-02-29 12:00:00',
    ),
  ),
  one(
    'timestamp',
    quoted('0000-00-00 00:00:00', '1970-01-01 00:00:01', '2024-03-31 01:59:59', '2024-03-31 02:30:00', '2024-10-27 01:30:00', '2038-01-19 03:14:07'),
  ),
  one('timestamp(6)', quoted('0000-00-00 00:00:00', '1970-01-01 00:00:01', '2024-06-30 23:59:59.999998', '2024-06-30 23:59:59.999999', '2038-01-19 03:14:07')),
  one('time', quoted('-838:59:59', '-100:00:00', '-00:00:01', '00:00:00', '00:00:01', '23:59:59', '99:00:00', '100:00:00', '838:59:59')),
  one('time(6)', quoted('-838:59:59', '-00:00:01.000001', '-00:00:00.000001', '00:00:00', '00:00:00.000001', '00:00:00.1', '100:00:00', '838:59:58.999999')),
  one("enum('z','a','é','m','it''s','back\\\\slash')", ["'z'", "'a'", "'é'", "'m'", "'it''s'", "'back\\\\slash'", "''"]),
  one("enum('z','é','a') character set latin1", ["'z'", "'a'", "'é'", "''"]),
  one("set('z','é','a','m')", ["''", "'z'", "'é'", "'z,é'", "'a'", "'z,a'", "'é,a'", "'z,é,a,m'"]),
  one(`set(${Array.from({ length: 64 }, (_, i) => `'m${i}'`).join()})`, ['0', '1', '2', '3', "'m63'", "'m0,m63'", "'m1,m63'", "'m62,m63'", "'m0,m62,m63'"]),
  one('binary(4)', binary('00000000', '00000001', '00ff0000', '20202020', '61000000', '61200000', 'ffffffff')),
  one('varbinary(8)', binary('', '00', '0000', '0001', '20', '61', '6100', '6120', '61ff', 'ff', 'ff00')),
  one('char(5) character set utf8mb4 collate utf8mb4_bin', WORDS),
  one('varchar(20) character set utf8mb4 collate utf8mb4_bin', [...WORDS.filter((word) => word !== "''"), ...PADDED.slice(2), "'🏔'", "'🏔a'", "''"]),
  one('varchar(20) character set utf8mb4 collate utf8mb4_general_ci', [...quoted('', 'a', 'B', 'c', 'É', 'f', 'Ö1', 'zz'), ...PADDED.slice(2, 5)]),
  one('varchar(20) character set utf8mb4 collate utf8mb4_unicode_ci', quoted('', 'a', 'B', 'c', 'É', 'f', 'ö1', 'ss', 'st', 'zz', '🏔')),
  one('varchar(20) character set utf8mb3 collate utf8mb3_general_ci', quoted('', 'a', 'B', 'c', 'É', 'zz')),
  one('varchar(20) character set latin1', LATIN1),
  one('varchar(20) character set latin1 collate latin1_bin', [...LATIN1, ...PADDED.slice(2, 5)]),
  one('varchar(20) character set latin1 collate latin1_german2_ci', quoted('', 'a', 'ae1', 'Ä2', 'az', 'b', 'ß', 'sT', 'ü3', 'uf')),
  // bytes that code page 1252 leaves open
  one('varchar(20) character set latin1 collate latin1_bin', binary('c381', 'c38d', '8f90', '9d', '80', '81')),
  one('char(5) character set latin1', LATIN1),
  one('varchar(20) character set ascii', quoted('', 'a', 'B', 'c', '~')),
  one('varchar(20) character set ucs2', quoted('', 'a', 'B', 'Ω', 'é', '日')),
  one('varchar(20) character set utf16', quoted('', 'a', 'B', '🏔', '🏔b', 'é')),
  one('varchar(20) character set utf32', quoted('', 'a', 'B', '🏔', '🏔b', 'é')),
  one('varchar(20) character set sjis', quoted('', 'a', '日本', '日', '表', 'ソ')),
  one('varchar(20) character set gbk', quoted('', 'a', '中文', '中', '誠')),
  one('varchar(20) character set cp1251', quoted('', 'a', 'Привет', 'п1', 'я')),
  one('text character set utf8mb4 collate utf8mb4_bin', WORDS, { key: 'k0(5)' }),
  one('blob', binary('', '00', '0000', '61', '6100', 'ff'), { key: 'k0(8)' }),
  // no two differ in the bytes that a sort of the server looks at by default
  one(
    'text character set latin1 collate latin1_bin',
    ['a', 'b', 'c', 'd', 'e'].map((end) => `concat(repeat('x', 1100), '${end}')`),
    { key: 'k0(1500)' },
  ),
  {
    types: ['int', 'varchar(10) character set utf8mb4 collate utf8mb4_general_ci', 'datetime(3)'],
    rows: [
      "1, 'a', '2024-01-01'",
      "1, 'A', '2024-01-01 00:00:00.001'",
      "1, 'á', '2024-01-02'",
      "1, 'b', '2000-01-01'",
      "2, '', '0000-00-00'",
      "2, 'A', '2024-01-01'",
      "-1, 'z', '2024-01-01'",
    ],
  },
  {
    types: ["enum('b','a')", 'decimal(6,2)', 'varbinary(4)'],
    rows: ["'b', 1, x'00'", "'b', 1, x'0000'", "'b', 1.01, x''", "'a', -1, x'ff'", "'a', -1, x'ff00'", "'a', 0, x''", "'', 0, x''"],
  },
  // not in the order of the table's columns
  {
    types: ['bigint unsigned', 'time(2)'],
    rows: ["18446744073709551615, '-01:00:00.5'", "0, '-01:00:00.5'", "9, '-01:00:00.49'", "9, '01:00:00'"],
    key: 'k1, k0',
  },
]

const MYSQL: readonly KeyCase[] = [
  one('varchar(20) character set utf8mb4 collate utf8mb4_0900_ai_ci', [
    ...quoted('a', 'B', 'c', 'É', 'f', 'ö1', 'ss', 'st', 'zz', '🏔'),
    ...SPACED.filter((text) => text !== "'a'" && text !== "'b'"),
  ]),
  one('varchar(20) character set utf8mb4 collate utf8mb4_0900_as_cs', [
    ...quoted('a', 'A', 'á', 'Á', 'b', 'B'),
    ...SPACED.filter((text) => text !== "'a'" && text !== "'b'"),
  ]),
  one('varchar(20) character set utf8mb4 collate utf8mb4_0900_bin', [
    ...quoted('a', 'A', 'á', 'Á', 'b', 'B'),
    ...SPACED.filter((text) => text !== "'a'" && text !== "'b'"),
  ]),
  one('varchar(20) character set utf8mb4 collate utf8mb4_ja_0900_as_cs_ks', quoted('', 'か', 'カ', 'が', 'ガ', '日', '本', 'a')),
  one('char(8) character set utf8mb4 collate utf8mb4_0900_ai_ci', quoted('', 'a', ' a', 'b', 'É', 'zz')),
  one('int', ['5', '-1', '0', '7'], { key: 'k0 desc' }),
  { types: ['int', 'varchar(5)'], rows: ["1, 'a'", "1, 'b'", "1, 'c'", "0, 'z'", "2, ''"], key: 'k0 desc, k1' },
]

const MARIADB: readonly KeyCase[] = [
  one(
    'uuid',
    quoted(
      '00000000-0000-0000-0000-000000000000',
      'ffffffff-ffff-ffff-ffff-ffffffffffff',
      '01890000-0000-7000-8000-000000000001',
      '6ccd780c-baba-1026-9564-5b8c656024db',
      '123e4567-e89b-12d3-a456-426655440000',
      '123e4567-e89b-42d3-a456-426655440000',
    ),
  ),
  one('inet4', quoted('0.0.0.0', '9.255.255.255', '10.0.0.0', '192.168.0.1', '255.255.255.255')),
  one('inet6', quoted('::', '::1', '::ffff:1.2.3.4', '2001:db8::1', 'fe80::1', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')),
  one('varchar(20) character set utf8mb4 collate utf8mb4_uca1400_ai_ci', quoted('', 'a', 'B', 'c', 'É', 'ö1', 'ss', 'zz', '🏔')),
  one('varchar(20) character set utf8mb4 collate utf8mb4_nopad_bin', [...SPACED, "'A'", "'á'"]),
  one('varchar(20) character set utf8mb4 collate utf8mb4_general_nopad_ci', [...SPACED, "'é'"]),
]

const LIMITS = { maxRows: 2, maxBytes: 1 << 26 }
const NEVER = new AbortController().signal

describe.skipIf(skip !== null).each(FLAVORS)(`chunks of two rows of %s${skip === null ? '' : ` (${skip})`}`, (flavor) => {
  let db: MysqlDatabase
  let connections: SqlConnections
  let reader: MysqlSnapshotReader
  beforeAll(async () => {
    db = await mysqlDatabase(flavor)
    connections = new SqlConnections(connectOptions(mysqlSettings(db)), SNAPSHOT_SESSION)
    const server = await connections.run('to look at the server', readServer)
    reader = new MysqlSnapshotReader({ connections, server, mapping: { unrepresentable: 'text' } })
  })
  afterAll(async () => {
    await connections[Symbol.asyncDispose]()
    await db.drop()
  })

  test.each(
    [...EVERYWHERE, ...(flavor === 'mysql' ? MYSQL : MARIADB)].map((one) => ({ ...one, name: `${one.types.join(', ')} ${one.key ?? ''}` })),
  )('go over every row, in the order of the key: $name', async ({ types, rows, key = types.map((_, i) => `k${i}`).join() }) => {
    const session = await db.connect()
    await session.query(`set sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', explicit_defaults_for_timestamp = on`)
    await session.query('drop table if exists t')
    await session.query(`create table t (n int not null, ${types.map((type, i) => `k${i} ${type} not null`).join(', ')}, primary key (${key}))`)
    // as they come, so that the key is what orders them
    const shuffled = rows.map((row, n) => ({ row, n })).sort((a, b) => ((a.n * 7 + 3) % 11) - ((b.n * 7 + 3) % 11))
    for (const { row, n } of shuffled) await session.query(`insert into t values (${n}, ${row})`)
    const ordered = key.replaceAll(/\(\d+\)| desc/g, '')
    await session.query('set max_sort_length = 4096')
    const [expected] = await session.query({ sql: `select n from t order by ${ordered}`, rowsAsArray: true })
    await session.end()
    expect(expected).toHaveLength(rows.length)

    const found = await connections.run('to describe', (connection) => describeTable(connection, db.database, 't'))
    const { table } = mapTable(found!, { unrepresentable: 'text' })
    const read: Value[][] = []
    let chunks = 0
    for (let cursor: Json | null = null; ; chunks++) {
      const chunk = await reader.read(table, cursor, LIMITS, () => {}, NEVER)
      const writer = new TupleWriter(chunk.table)
      chunk.write(
        writer,
        () => writer.start(),
        () => read.push([writer.row()[0]!]),
      )
      cursor = chunk.next
      if (cursor === null || chunks > rows.length) break
    }
    expect(read).toEqual(expected)
    expect(chunks).toBe(rows.length >> 1)
  })
})

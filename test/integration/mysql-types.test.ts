import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { TupleWriter } from '../../core/event/tuple-writer.ts'
import { Special, type TableSchema, UNCHANGED, type Value } from '../../core/plugin.ts'
import {
  databaseOn,
  type Flavor,
  flavorOf,
  type MysqlDatabase,
  type MysqlServer,
  mysqlDatabase,
  mysqlSkipReason,
  RELEASES,
  type Release,
  startMysql,
} from '../services/mysql.ts'
import { MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

interface Case {
  readonly type: string
  /** SQL expressions and the values that they are. */
  readonly values: readonly (readonly [sql: string, value: Value])[]
  readonly only?: Flavor
  /** Not known to the older releases. */
  readonly newest?: true
}

const day = (text: string) => Date.parse(`${text}T00:00:00Z`) / 86_400_000
const micros = (text: string, more = 0n) => BigInt(Date.parse(`${text}Z`)) * 1000n + more
const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'))

const CASES: readonly Case[] = [
  {
    type: 'tinyint',
    values: [
      ['-128', -128],
      ['127', 127],
    ],
  },
  {
    type: 'tinyint unsigned',
    values: [
      ['255', 255],
      ['128', 128],
    ],
  },
  {
    type: 'tinyint(1)',
    values: [
      ['-128', -128],
      ['1', 1],
    ],
  },
  {
    type: 'smallint',
    values: [
      ['-32768', -32768],
      ['32767', 32767],
    ],
  },
  { type: 'smallint unsigned', values: [['65535', 65535]] },
  {
    type: 'mediumint',
    values: [
      ['-8388608', -8388608],
      ['8388607', 8388607],
      ['-1', -1],
    ],
  },
  { type: 'mediumint unsigned', values: [['16777215', 16777215]] },
  {
    type: 'year',
    values: [
      ['0', 0],
      ['1901', 1901],
      ['2155', 2155],
    ],
  },
  {
    type: 'int',
    values: [
      ['-2147483648', -2147483648],
      ['2147483647', 2147483647],
    ],
  },
  {
    type: 'int unsigned',
    values: [
      ['4294967295', 4294967295n],
      ['0', 0n],
    ],
  },
  { type: 'int(8) unsigned zerofill', values: [['42', 42n]] },
  {
    type: 'bigint',
    values: [
      ['-9223372036854775808', -(2n ** 63n)],
      ['9223372036854775807', 2n ** 63n - 1n],
      ['-1', -1n],
    ],
  },
  {
    type: 'bigint unsigned',
    values: [
      ['18446744073709551615', 2n ** 64n - 1n],
      ['9007199254740993', 9007199254740993n],
      ['0', 0n],
    ],
  },
  {
    type: 'float',
    values: [
      ['3.4028234e38', Math.fround(3.4028234e38)],
      ['16777216', 16777216],
      ['-0.1', Math.fround(-0.1)],
    ],
  },
  {
    type: 'double',
    values: [
      ['1.7976931348623157e308', Number.MAX_VALUE],
      ['2.2250738585072014e-308', 2.2250738585072014e-308],
      ['0.1', 0.1],
      ['-1e15', -1e15],
    ],
  },
  {
    type: 'decimal(1,0)',
    values: [
      ['9', 9n],
      ['-9', -9n],
    ],
  },
  {
    type: 'decimal(10,2)',
    values: [
      ['99999999.99', 9999999999n],
      ['-0.01', -1n],
      ['0', 0n],
    ],
  },
  {
    type: 'decimal(15,15)',
    values: [
      ['0.999999999999999', 999999999999999n],
      ['-0.000000000000001', -1n],
    ],
  },
  {
    type: 'decimal(20,10)',
    values: [
      ['-9999999999.9999999999', -99999999999999999999n],
      ['0.0000000001', 1n],
    ],
  },
  {
    type: 'decimal(38,19)',
    values: [
      ['9999999999999999999.9999999999999999999', 10n ** 38n - 1n],
      ['-1.5', -15n * 10n ** 18n],
    ],
  },
  {
    type: 'decimal(65,30)',
    values: [
      ['99999999999999999999999999999999999.999999999999999999999999999999', `${'9'.repeat(35)}.${'9'.repeat(30)}`],
      ['-0.000000000000000000000000000001', `-0.${'0'.repeat(29)}1`],
      ['12.5', `12.5${'0'.repeat(29)}`],
    ],
  },
  {
    type: 'bit(1)',
    values: [
      ["b'1'", true],
      ["b'0'", false],
    ],
  },
  {
    type: 'bit(10)',
    values: [
      ["b'1000000001'", '1000000001'],
      ["b'11'", '0000000011'],
    ],
  },
  { type: 'bit(64)', values: [[`b'1${'0'.repeat(62)}1'`, `1${'0'.repeat(62)}1`]] },
  {
    type: 'date',
    values: [
      ["'1000-01-01'", day('1000-01-01')],
      ["'9999-12-31'", day('9999-12-31')],
      ["'2024-02-29'", day('2024-02-29')],
    ],
  },
  {
    type: 'date',
    values: [
      ["'0000-00-00'", new Special('0000-00-00')],
      ["'2024-00-15'", new Special('2024-00-15')],
      ["'0001-01-01'", day('0001-01-01')],
    ],
  },
  {
    type: 'time',
    values: [
      ["'-838:59:59'", '-838:59:59'],
      ["'838:59:59'", '838:59:59'],
      ["'00:00:00'", '00:00:00'],
      ["'-00:00:01'", '-00:00:01'],
    ],
  },
  {
    type: 'time(2)',
    values: [
      ["'-00:00:00.01'", '-00:00:00.01'],
      ["'12:34:56.78'", '12:34:56.78'],
      ["'-10:20:30.50'", '-10:20:30.50'],
    ],
  },
  {
    type: 'time(4)',
    values: [
      ["'-00:00:01.0001'", '-00:00:01.0001'],
      ["'25:00:00.9999'", '25:00:00.9999'],
    ],
  },
  {
    type: 'time(6)',
    values: [
      ["'-838:59:58.999999'", '-838:59:58.999999'],
      ["'-00:00:00.000001'", '-00:00:00.000001'],
      ["'01:02:03'", '01:02:03.000000'],
    ],
  },
  {
    type: 'datetime',
    values: [
      ["'1000-01-01 00:00:00'", micros('1000-01-01T00:00:00')],
      ["'9999-12-31 23:59:59'", micros('9999-12-31T23:59:59')],
    ],
  },
  { type: 'datetime(1)', values: [["'2024-02-29 12:34:56.7'", micros('2024-02-29T12:34:56.700')]] },
  { type: 'datetime(3)', values: [["'1969-12-31 23:59:59.999'", micros('1969-12-31T23:59:59.999')]] },
  {
    type: 'datetime(6)',
    values: [
      ["'2024-02-29 12:34:56.789012'", micros('2024-02-29T12:34:56.789', 12n)],
      ["'0000-00-00 00:00:00'", new Special('0000-00-00 00:00:00.000000')],
      ["'2024-02-00 01:02:03.4'", new Special('2024-02-00 01:02:03.400000')],
    ],
  },
  {
    type: 'timestamp null',
    values: [
      ["'1970-01-01 00:00:01'", 1_000_000n],
      ["'2038-01-19 03:14:07'", micros('2038-01-19T03:14:07')],
      ["'0000-00-00 00:00:00'", new Special('0000-00-00 00:00:00')],
    ],
  },
  {
    type: 'timestamp(6) null',
    only: 'mariadb',
    newest: true,
    values: [
      ["'2038-01-19 03:14:08'", micros('2038-01-19T03:14:08')],
      ["'2106-02-07 06:28:15.999999'", micros('2106-02-07T06:28:15.999', 999n)],
    ],
  },
  { type: 'timestamp(6) null', values: [["'2024-06-30 23:59:59.999999'", micros('2024-06-30T23:59:59.999', 999n)]] },
  {
    type: 'char(5)',
    values: [
      ["'ab'", 'ab'],
      ["'ab   '", 'ab'],
      ["''", ''],
    ],
  },
  { type: 'char(255)', values: [["repeat('é', 255)", 'é'.repeat(255)]] },
  {
    type: 'varchar(40)',
    values: [
      ["'  x '", '  x '],
      ["'Zürich 🏔'", 'Zürich 🏔'],
    ],
  },
  { type: 'varchar(300)', values: [["repeat('ß', 300)", 'ß'.repeat(300)]] },
  { type: 'varchar(50) character set latin1', values: [["'café € œ'", 'café € œ']] },
  // bytes that code page 1252 leaves open: UTF-8 that was stored as latin1 is full of them
  { type: 'varchar(51) character set latin1', values: [["x'c381c38d8f909d80'", 'Ã\u0081Ã\u008d\u008f\u0090\u009d€']] },
  { type: 'varchar(50) character set ucs2', values: [["'Ωmega'", 'Ωmega']] },
  { type: 'varchar(50) character set utf16', values: [["'a🏔b'", 'a🏔b']] },
  { type: 'varchar(50) character set utf32', values: [["'a🏔b'", 'a🏔b']] },
  { type: 'varchar(50) character set sjis', values: [["'日本語'", '日本語']] },
  { type: 'varchar(50) character set ujis', values: [["'日本語'", '日本語']] },
  { type: 'varchar(50) character set gbk', values: [["'中文'", '中文']] },
  { type: 'varchar(50) character set big5', values: [["'中文'", '中文']] },
  { type: 'varchar(50) character set euckr', values: [["'한국'", '한국']] },
  { type: 'varchar(50) character set cp1251', values: [["'Привет'", 'Привет']] },
  { type: 'varchar(50) character set koi8r', values: [["'Привет'", 'Привет']] },
  { type: 'varchar(50) character set greek', values: [["'Ελλάδα'", 'Ελλάδα']] },
  { type: 'tinytext', values: [["'t'", 't']] },
  { type: 'text', values: [["repeat('x', 60000)", 'x'.repeat(60000)]] },
  { type: 'mediumtext', values: [["repeat('ab', 50000)", 'ab'.repeat(50000)]] },
  { type: 'longtext', values: [["''", '']] },
  {
    type: 'binary(4)',
    values: [
      ["x'00ff'", bytes('00ff0000')],
      ["x'01020304'", bytes('01020304')],
      ["x'00000000'", bytes('00000000')],
    ],
  },
  { type: 'varbinary(10)', values: [["x'00ff00'", bytes('00ff00')]] },
  { type: 'tinyblob', values: [["x'00'", bytes('00')]] },
  { type: 'blob', values: [["x'deadbeef'", bytes('deadbeef')]] },
  { type: 'mediumblob', values: [["repeat(x'ff', 70000)", new Uint8Array(70000).fill(255)]] },
  { type: 'longblob', values: [["''", bytes('')]] },
  {
    type: "enum('a','b''c','é')",
    values: [
      ["'é'", 'é'],
      ['2', "b'c"],
      ["'nothing'", ''],
    ],
  },
  {
    type: `enum(${Array.from({ length: 300 }, (_, i) => `'v${i}'`).join(',')})`,
    values: [
      ["'v299'", 'v299'],
      ["'v0'", 'v0'],
    ],
  },
  { type: "enum('a','é') character set latin1", values: [["'é'", 'é']] },
  { type: "set('ä','ö') character set latin2", values: [["'ä,ö'", 'ä,ö']] },
  {
    type: "set('x','y','z')",
    values: [
      ["'z,x'", 'x,z'],
      ["''", ''],
      ["'x,y,z'", 'x,y,z'],
    ],
  },
  { type: `set(${Array.from({ length: 64 }, (_, i) => `'m${i}'`).join(',')})`, values: [["'m0,m63'", 'm0,m63']] },
  { type: 'point', values: [["ST_GeomFromText('POINT(1 2)')", bytes('000000000101000000000000000000f03f0000000000000040')]] },
  {
    type: 'geometry',
    values: [["ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)", bytes(`e6100000010200000002000000${'00'.repeat(16)}000000000000f03f000000000000f03f`)]],
  },
  { type: 'vector(3)', only: 'mysql', values: [["string_to_vector('[1,-2.5,3e10]')", [1, -2.5, Math.fround(3e10)]]] },
  { type: 'vector(2) not null', only: 'mariadb', newest: true, values: [["vec_fromtext('[1,-2.5]')", [1, -2.5]]] },
  {
    type: 'uuid',
    only: 'mariadb',
    values: [
      ["'123e4567-e89b-12d3-a456-426655440000'", '123e4567-e89b-12d3-a456-426655440000'],
      ["'018f3a5e-7c1a-7e0a-9e3a-0123456789ab'", '018f3a5e-7c1a-7e0a-9e3a-0123456789ab'],
      ["'00000000-0000-0000-0000-000000000000'", '00000000-0000-0000-0000-000000000000'],
    ],
  },
  { type: 'inet4', only: 'mariadb', values: [["'192.0.2.0'", '192.0.2.0']] },
  {
    type: 'inet6',
    only: 'mariadb',
    values: [
      ["'2001:db8::ff00:42:8329'", '2001:db8::ff00:42:8329'],
      ["'::'", '::'],
      ["'::ffff:192.0.2.1'", '::ffff:192.0.2.1'],
      ["'1::'", '1::'],
    ],
  },
  { type: 'json', only: 'mariadb', values: [[`'{"a":1}'`, '{"a":1}']] },
  {
    type: 'text compressed',
    only: 'mariadb',
    values: [
      ["'short'", 'short'],
      ["repeat('é', 30000)", 'é'.repeat(30000)],
      ["''", ''],
    ],
  },
  { type: 'tinytext compressed', only: 'mariadb', values: [["repeat('t', 250)", 't'.repeat(250)]] },
  {
    type: 'varchar(1000) compressed',
    only: 'mariadb',
    values: [
      ["'ß'", 'ß'],
      ["repeat('ab ', 300)", 'ab '.repeat(300)],
      ["''", ''],
    ],
  },
  { type: 'varchar(255) compressed character set latin1', only: 'mariadb', values: [["repeat('€é', 100)", '€é'.repeat(100)]] },
  { type: 'longtext compressed character set utf16', only: 'mariadb', values: [["repeat('a🏔', 1000)", 'a🏔'.repeat(1000)]] },
  {
    type: 'mediumblob compressed',
    only: 'mariadb',
    values: [
      ["repeat(x'80ff', 70000)", bytes('80ff'.repeat(70000))],
      ["x'80ff'", bytes('80ff')],
      ["''", bytes('')],
    ],
  },
  {
    type: 'varbinary(300) compressed',
    only: 'mariadb',
    values: [
      ["repeat(x'00', 300)", new Uint8Array(300)],
      ["x'00'", bytes('00')],
    ],
  },
]

/** The text of each JSON document must be the server's own. */
const DOCUMENTS = [
  `'{}'`,
  `'[]'`,
  `'null'`,
  `'true'`,
  `'"text with \\\\"quotes\\\\" and \\\\u0001 \\\\n é 🏔"'`,
  `'{"b": 1, "a": [1, -32769, 65536, -2147483649, 4294967296, 18446744073709551615, -9223372036854775808]}'`,
  `'[0.1, 1.0, -0.0, 1e15, 1e16, 123456789012345680000, 1e-14, 1e-15, 1.5e300, 2.2250738585072014e-308, 0.30000000000000004]'`,
  `'{"deep": {"er": {"est": [[[[]]]]}}, "": "", "k": null}'`,
  `json_object('date', cast('2024-02-29' as date), 'time', cast('-838:59:59.5' as time(6)), 'at', cast('2024-02-29 12:34:56.789' as datetime(6)))`,
  `json_array(cast(1.50 as decimal(10,2)), cast(-12345678901234567890.123 as decimal(40,10)), cast(0 as decimal(5,5)))`,
  `json_array(x'00ff', b'1', cast('x' as binary))`,
  `json_array(repeat('long', 20000), json_object(repeat('k', 300), 1))`,
  `(select json_arrayagg(i) from (with recursive n (i) as (select 1 union all select i + 1 from n where i < 900) select i * 70000 as i from n) x)`,
]

let db: MysqlDatabase

const columnOf = (i: number) => `c${i}`

/** Looked up past the capture's cache. */
async function tableNamed(name: string, more: object = { unrepresentable: 'text' }): Promise<TableSchema> {
  const reader = await mysql.openReader(mysqlSettings(db, more), mysqlContext(db))
  try {
    return (await reader.tables()).find((table) => table.name === name)!
  } finally {
    await reader[Symbol.asyncDispose]()
  }
}

async function chunk(capture: MysqlCapture, table: TableSchema): Promise<readonly (readonly Value[])[]> {
  const limits = { maxRows: 10_000, maxBytes: 1 << 26 }
  const read = await capture.connector.snapshot.read(table, null, limits, () => {}, new AbortController().signal)
  const writer = new TupleWriter(read.table)
  const rows: (readonly Value[])[] = []
  read.write(
    writer,
    () => writer.start(),
    () => rows.push(writer.row()),
  )
  return rows
}

/** The run's own servers, and those that write no more about rows than servers do unless they are told to. */
const CONFIGURED: readonly (readonly [name: string, release: Release, settings: Readonly<Record<string, string>> | null])[] = [
  ...RELEASES.map((release) => [release, release, null] as const),
  ['mysql without names of columns and without checksums', 'mysql', { 'binlog-row-metadata': 'MINIMAL', 'binlog-checksum': 'NONE' }],
  ['mariadb without metadata and without checksums', 'mariadb', { 'binlog-row-metadata': 'NO_LOG', 'binlog-checksum': 'NONE' }],
]

describe.skipIf(skip !== null).each(CONFIGURED)(`types of %s${skip === null ? '' : ` (${skip})`}`, (_, release, settings) => {
  const flavor = flavorOf(release)
  let capture: MysqlCapture
  let own: { readonly server: MysqlServer; readonly dir: string } | null = null
  beforeAll(async () => {
    if (settings === null) db = await mysqlDatabase(release)
    else {
      const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-types-'))
      own = { dir, server: await startMysql({ flavor, dir, settings }) }
      db = await databaseOn(flavor, own.server.port)
    }
    capture = await MysqlCapture.start(db, { unrepresentable: 'text' })
  })
  afterAll(async () => {
    await capture.stop()
    await db.drop()
    await own?.server.stop()
    if (own !== null) rmSync(own.dir, { recursive: true, force: true })
  })
  const cases = CASES.filter(({ only, newest }) => (only === undefined || only === flavor) && (newest !== true || release === flavor))

  test('every type at its extremes is the same in the stream, in a chunk and as it was written', async () => {
    const names = cases.map((_, i) => columnOf(i))
    const session = await db.connect()
    await session.query(`set sql_mode = ''`)
    await session.query(`set time_zone = '+00:00'`)
    await session.query(`create table t (id int primary key, ${cases.map(({ type }, i) => `${columnOf(i)} ${type}`).join(', ')}) character set utf8mb4`)
    const count = Math.max(...cases.map(({ values }) => values.length))
    for (let row = 0; row < count; row++) {
      const filled = cases.flatMap(({ values, type }, i) =>
        row < values.length ? [[columnOf(i), values[row]![0]]] : type.includes('not null') ? [[columnOf(i), values[0]![0]]] : [],
      )
      await session.query(`insert into t (id, ${filled.map(([name]) => name).join(', ')}) values (${row}, ${filled.map(([, sql]) => sql).join(', ')})`)
    }
    await session.query(`set time_zone = '+07:00'`)
    await session.query('update t set id = id + 100')
    await session.end()
    await capture.caughtUp()
    const table = await tableNamed('t')
    const chunked = await chunk(capture, table)
    const streamed = capture
      .of('t')
      .filter(({ op }) => op === 'u')
      .map(({ after }) => Object.values(after as object))
    const inserted = capture
      .of('t')
      .filter(({ op }) => op === 'c')
      .map(({ after }) => after as Record<string, Value>)
    expect(table.columns.map(({ name }) => name)).toEqual(['id', ...names])
    for (const [i, { type, values }] of cases.entries()) {
      for (const [row, [sql, value]] of values.entries()) {
        expect({ type, sql, value: inserted[row]![columnOf(i)] }).toEqual({ type, sql, value })
        expect({ type, sql, value: streamed[row]![i + 1] }).toEqual({ type, sql, value })
        expect({ type, sql, value: chunked[row]![i + 1] }).toEqual({ type, sql, value })
      }
      if (values.length < count && !type.includes('not null')) expect(chunked[count - 1]![i + 1]).toBeNull()
    }
  })

  const documents = async () => {
    const session = await db.connect()
    await session.query(`set sql_mode = ''`)
    await session.query('create table docs (id int primary key, doc json)')
    for (const [i, document] of DOCUMENTS.entries()) await session.query(`insert into docs values (${i}, ${document})`)
    const [rows] = await session.query('select cast(doc as char) as text from docs order by id')
    await session.end()
    await capture.caughtUp()
    const expected = (rows as { text: string }[]).map(({ text }) => text)
    expect(capture.of('docs').map(({ after }) => (after as { doc: string }).doc)).toEqual(expected)
    const table = await tableNamed('docs')
    expect((await chunk(capture, table)).map(([, doc]) => doc)).toEqual(expected)
  }
  // MariaDB's JSON is text
  if (flavor === 'mysql') test('JSON documents read as the server writes them', documents)

  const compressed = async () => {
    const session = await db.connect()
    await session.query('create table packed (id int primary key, body longtext, n int)')
    const long = 'many words '.repeat(50)
    for (const [id, sql] of [
      `insert into packed values (0, repeat('many words ', 50), 0)`,
      'alter table packed modify body longtext compressed',
      `insert into packed values (2, repeat('many words ', 50), 0)`,
      'set session column_compression_zlib_wrap = ON',
      `insert into packed values (4, repeat('many words ', 50), 0)`,
      'set session column_compression_threshold = 0, column_compression_zlib_wrap = OFF',
      `insert into packed values (6, 'x', 0), (7, null, 0), (8, random_bytes(0), 0)`,
      `set session binlog_row_image = 'MINIMAL'`,
      `update packed set body = concat(body, 'more') where id = 4`,
      'update packed set id = 5 where id = 2',
      'alter table packed modify body longtext',
      `update packed set body = concat(body, 'most') where id = 4`,
    ].entries()) {
      await session.query(sql)
      if (id > 8) await capture.caughtUp()
    }
    await session.end()
    expect(capture.of('packed').map(({ op, after }) => [op, ...Object.values(after as object)])).toEqual([
      ['c', 0, long, 0],
      ['c', 2, long, 0],
      ['c', 4, long, 0],
      ['c', 6, 'x', 0],
      ['c', 7, null, 0],
      ['c', 8, '', 0],
      ['u', 4, `${long}more`, UNCHANGED],
      ['u', 5, long, 0],
      ['u', 4, `${long}moremost`, UNCHANGED],
    ])
  }
  if (flavor === 'mariadb') test('values that the server keeps compressed are those that were written, however it does so', compressed)

  test('a table of a character set that is not known is left out by name, and stops no other', async () => {
    await db.sql('create table odd (id int primary key, v varchar(10) character set dec8)')
    const source = await mysql.open(mysqlSettings(db), { ...mysqlContext(db), node: 'other' }, null)
    try {
      expect((await source.tables()).map(({ name }) => name)).not.toContain('odd')
      const error = expect.objectContaining({ code: 'source.schema_unsupported', message: expect.stringContaining('dec8') })
      expect(source.unfit!()).toEqual([expect.objectContaining({ table: expect.objectContaining({ name: 'odd' }), error })])
    } finally {
      await source[Symbol.asyncDispose]()
      await db.sql('drop table odd')
    }
  })

  test('a value without an Avro type stops the source unless text is asked for', async () => {
    await db.sql(`set sql_mode = ''; create table zero (id int primary key, d date); insert into zero values (1, '0000-00-00')`)
    await capture.caughtUp()
    expect(capture.of('zero')).toEqual([{ op: 'c', after: { id: 1, d: new Special('0000-00-00') } }])
    const strict = await tableNamed('zero', {})
    expect(strict.columns.map(({ maybeSpecial }) => maybeSpecial)).toEqual([false, false])
  })
})

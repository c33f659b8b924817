import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FIRST_LOST_ID } from '../../connectors/postgres/relation-columns.ts'
import { copyRows } from '../../connectors/postgres/snapshot-copy.ts'
import { describeTable, type MappedTable, SESSION_SETTINGS, type TypeMappingOptions } from '../../connectors/postgres/type-mapping.ts'
import { formatValue, viewOf } from '../../connectors/postgres/type-reader.ts'
import { Special, type Value } from '../../core/plugin.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'

/** `expected` is the value by hand; where it is left out, binary and text forms are compared with each other and with the server's own text. */
interface Sample {
  readonly type: string
  readonly kind: string
  readonly values: readonly (readonly [literal: string, expected?: Value])[]
}

const special = (text: string) => new Special(text)
const text = (type: string, ...literals: string[]): Sample => ({ type, kind: 'string', values: literals.map((literal) => [literal, literal] as const) })

const SAMPLES: readonly Sample[] = [
  {
    type: 'bool',
    kind: 'boolean',
    values: [
      ['t', true],
      ['f', false],
    ],
  },
  {
    type: 'int2',
    kind: 'int32',
    values: [
      ['-32768', -32768],
      ['32767', 32767],
      ['0', 0],
    ],
  },
  {
    type: 'int4',
    kind: 'int32',
    values: [
      ['-2147483648', -2147483648],
      ['2147483647', 2147483647],
    ],
  },
  {
    type: 'int8',
    kind: 'int64',
    values: [
      ['-9223372036854775808', -(2n ** 63n)],
      ['9223372036854775807', 2n ** 63n - 1n],
      ['-4294967297', -4294967297n],
      ['9007199254740993', 9007199254740993n],
      ['-1', -1n],
    ],
  },
  {
    type: 'oid',
    kind: 'int64',
    values: [
      ['4294967295', 4294967295n],
      ['0', 0n],
    ],
  },
  { type: 'xid', kind: 'int64', values: [['4294967295', 4294967295n]] },
  text('xid8', '18446744073709551615', '0'),
  text('pg_lsn', '16/B374D848', 'FFFFFFFF/FFFFFFFF', '0/0'),
  text('tid', '(4294967295,65535)', '(0,1)'),
  {
    type: 'float4',
    kind: 'float32',
    values: [
      ['0.1', Math.fround(0.1)],
      ['NaN', Number.NaN],
      ['-Infinity', Number.NEGATIVE_INFINITY],
      ['3.4028235e+38', Math.fround(3.4028235e38)],
      ['1e-45', Math.fround(1.4e-45)],
      ['-0', -0],
    ],
  },
  {
    type: 'float8',
    kind: 'float64',
    values: [
      ['0.1', 0.1],
      ['NaN', Number.NaN],
      ['Infinity', Number.POSITIVE_INFINITY],
      ['1.7976931348623157e+308', Number.MAX_VALUE],
      ['5e-324', 5e-324],
      ['-0', -0],
    ],
  },
  {
    type: 'numeric(12,2)',
    kind: 'decimal',
    values: [
      ['1234567890.12', 123456789012n],
      ['-0.01', -1n],
      ['0', 0n],
      ['9999999999.99', 999999999999n],
      ['10000', 1000000n],
      ['NaN', special('NaN')],
    ],
  },
  {
    type: 'numeric(38,10)',
    kind: 'decimal',
    values: [
      ['-1234567890123456789012345678.0123456789', -12345678901234567890123456780123456789n],
      ['0.0000000001', 1n],
      ['1e27', 10n ** 37n],
    ],
  },
  {
    type: 'numeric(18,5)',
    kind: 'decimal',
    values: [
      ['9007199254740.99301', 900719925474099301n],
      ['90071992547.40991', 9007199254740991n],
      ['-90071992547.40992', -9007199254740992n],
    ],
  },
  {
    type: 'numeric(3,-2)',
    kind: 'decimal',
    values: [
      ['12345', 12300n],
      ['-99949', -99900n],
    ],
  },
  {
    type: 'numeric(3,5)',
    kind: 'decimal',
    values: [
      ['0.00123', 123n],
      ['-0.00999', -999n],
    ],
  },
  text('numeric', '0', '0.00', '-12345678901234567890.00012300', '0.00000000000000000001', 'NaN', 'Infinity', '-Infinity', `1${'0'.repeat(60)}`),
  text('numeric(50,2)', '123456789012345678901234567890123456789012345678.12'),
  {
    type: 'money',
    kind: 'decimal',
    values: [
      ['$1,234.56', 123456n],
      ['-$0.07', -7n],
      ['92233720368547758.07', 2n ** 63n - 1n],
      ['-92233720368547758.08', -(2n ** 63n)],
    ],
  },
  text('text', '', 'Zoë 🐘 "x" \\ \u0001', 'x'.repeat(5000)),
  text('varchar(10)', 'abc'),
  text('name', 'a name'),
  text('citext', 'MiXed'),
  text('xml', '<a b="1">ü</a>', '<?xml version="1.1"?><a/>'),
  { type: 'char(5)', kind: 'string', values: [['ab', 'ab   ']] },
  {
    type: '"char"',
    kind: 'string',
    values: [
      ['x', 'x'],
      ['', ''],
      ['\\377', '\\377'],
    ],
  },
  {
    type: 'bytea',
    kind: 'bytes',
    values: [
      ['\\x00ff5c27', new Uint8Array([0, 255, 92, 39])],
      ['\\x', new Uint8Array()],
    ],
  },
  { type: 'uuid', kind: 'uuid', values: [['A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']] },
  { type: 'json', kind: 'json', values: [['{"b":  1, "a": [null]}', '{"b":  1, "a": [null]}']] },
  { type: 'jsonb', kind: 'json', values: [['{"b":  1, "a": [null], "n": 1.10}', '{"a": [null], "b": 1, "n": 1.10}']] },
  text('jsonpath', '$."a"[*]?(@ > 1)'),
  {
    type: 'date',
    kind: 'date',
    values: [
      ['1970-01-01', 0],
      ['2026-11-23', 20780],
      ['0044-03-15 BC', -735160],
      ['5874897-12-31', 2145042905],
      ['infinity', special('infinity')],
      ['-infinity', special('-infinity')],
    ],
  },
  {
    type: 'time',
    kind: 'time',
    values: [
      ['00:00:00', 0n],
      ['23:59:59.999999', 86399999999n],
      ['24:00:00', 86400000000n],
    ],
  },
  text('timetz', '04:05:06.789-08', '00:00:00+00', '23:59:59.999999+05:45', '01:02:03-15:59:59'),
  {
    type: 'timestamp',
    kind: 'timestamp',
    values: [
      ['2026-11-23 07:49:55.123456', 1795420195123456n],
      ['1969-12-31 23:59:59.5', -500000n],
      ['4713-01-01 00:00:00 BC', -210863520000000000n],
      ['infinity', special('infinity')],
      ['294276-12-31 23:59:59.999999', special('294276-12-31 23:59:59.999999')],
    ],
  },
  {
    type: 'timestamptz',
    kind: 'timestamptz',
    values: [
      ['2026-11-23 07:49:55.123456+00', 1795420195123456n],
      ['2026-11-23 07:49:55.123456+05:45', 1795399495123456n],
      ['1500-06-01 12:00:00+00', -14818680000000000n],
      ['-infinity', special('-infinity')],
      ['294276-12-31 23:59:59.999999+00', special('294276-12-31 23:59:59.999999+00')],
    ],
  },
  {
    type: 'interval',
    kind: 'string',
    values: [
      ['1 year 2 months 3 days 04:05:06.789', 'P1Y2M3DT4H5M6.789S'],
      ['-1 month 3 days -00:00:00.5', 'P-1M3DT-0.5S'],
      ['0', 'PT0S'],
      ['-14 months', 'P-1Y-2M'],
      ['infinity', 'infinity'],
      ['-infinity', '-infinity'],
      ['178000000 years', 'P178000000Y'],
      ['-2562047788:00:54.775807', 'PT-2562047788H-54.775807S'],
    ],
  },
  text('bit(5)', '10101'),
  text('varbit', '', '1', '101010101'),
  text('inet', '192.168.0.1', '10.1.2.3/8', '::1', '2001:db8::1/64', '::ffff:1.2.3.4', '::', '1:0:0:2::3', 'fe80::1:2:3:4'),
  text('cidr', '10.0.0.0/8', '2001:db8::/32', '::/0', '1.2.3.4/32'),
  text('macaddr', '08:00:2b:01:02:03'),
  text('macaddr8', '08:00:2b:01:02:03:04:05'),
  text('point', '(1.5,-2)', '(1e+300,1e-10)', '(NaN,Infinity)'),
  text('line', '{1,-2.5,3}'),
  text('lseg', '[(1,2),(3,4)]'),
  text('box', '(3,4),(1,2)'),
  text('path', '((1,2),(3,4))', '[(1,2),(3,4),(0.1,1e+15)]'),
  text('polygon', '((1,2),(3,4),(5,6))'),
  text('circle', '<(1,2),3.25>'),
  text('tsvector', `'a':1A,2B,3C,4 'b''c\\\\d' 'é':16383`, ''),
  text('tsquery', `'fat' & ( 'rat' | !'cat':AB )`),
  {
    type: 'int4range',
    kind: 'string',
    values: [
      ['[1,5)', '[1,5)'],
      ['(,)', '(,)'],
      ['empty', 'empty'],
      ['[1,5]', '[1,6)'],
    ],
  },
  text('numrange', '[1.10,2.200]', '(,0.5)'),
  text('tstzrange', '["2026-01-01 00:00:00+00","2026-01-02 00:00:00.5+00")', '[-infinity,infinity)'),
  text('daterange', '[2026-01-01,2026-02-01)', '["0044-03-15 BC",)'),
  text('textrange', '[a,"b c")', '["a""b\\\\",z]', '["",z)'),
  text('int4multirange', '{[1,3),[5,9)}', '{}'),
  text('textmultirange', '{[a,b),["c,d",e}f)}'),
  {
    type: 'mood',
    kind: 'enum',
    values: [
      ['so so', 'so so'],
      ['happy', 'happy'],
    ],
  },
  { type: 'positive', kind: 'decimal', values: [['12.5', 1250n]] },
  {
    type: 'hstore',
    kind: 'map',
    values: [
      [
        'a=>1, "b\\"c"=>NULL, ""=>"x=>y, \\\\"',
        new Map([
          ['', 'x=>y, \\'],
          ['a', '1'],
          ['b"c', null],
        ]),
      ],
      ['', new Map()],
    ],
  },
  text('ltree', 'Top.Science.Astronomy'),
  text('lquery', 'Top.*{1,2}'),
  {
    type: 'int4[]',
    kind: 'array',
    values: [
      ['{1,NULL,-3}', [1, null, -3]],
      ['{}', []],
      ['{{1,2},{3,4}}', special('{{1,2},{3,4}}')],
      ['[0:1]={7,8}', special('[0:1]={7,8}')],
      ['[-1:0][2:3]={{1,2},{3,NULL}}', special('[-1:0][2:3]={{1,2},{3,NULL}}')],
    ],
  },
  {
    type: 'int4[][]',
    kind: 'string',
    values: [
      ['{{1,2},{3,4}}', '{{1,2},{3,4}}'],
      ['{1}', '{1}'],
    ],
  },
  {
    type: 'text[]',
    kind: 'array',
    values: [
      ['{a,"b,c","d\\"e\\\\",NULL,"NULL","",é,"{}"}', ['a', 'b,c', 'd"e\\', null, 'NULL', '', 'é', '{}']],
      ['{{"a b","null"}}', special('{{"a b","null"}}')],
    ],
  },
  {
    type: 'numeric(10,2)[]',
    kind: 'array',
    values: [
      ['{1.5,NULL}', [150n, null]],
      ['{1.5,NaN}', special('{1.50,NaN}')],
    ],
  },
  {
    type: 'timestamptz[]',
    kind: 'array',
    values: [
      ['{2026-11-23 07:49:55.123456+00}', [1795420195123456n]],
      ['{2026-11-23 07:49:55+00,infinity}', special('{"2026-11-23 07:49:55+00",infinity}')],
    ],
  },
  { type: 'box[]', kind: 'array', values: [['{(3,4),(1,2);(1,1),(0,0)}', ['(3,4),(1,2)', '(1,1),(0,0)']]] },
  { type: 'mood[]', kind: 'array', values: [['{happy,"so so"}', ['happy', 'so so']]] },
  { type: 'int4range[]', kind: 'array', values: [['{"[1,5)",empty}', ['[1,5)', 'empty']]] },
  {
    type: 'address',
    kind: 'record',
    values: [
      ['(1,"a, ""b"" \\\\","{1,2}",)', [1, 'a, "b" \\', [1, 2], null]],
      ['(,,,"")', [null, null, null, '']],
      ['(1,,"{{1}}",x)', special('(1,,{{1}},x)')],
    ],
  },
  { type: 'address[]', kind: 'array', values: [['{"(1,x,\\"{1,2}\\",)",NULL}', [[1, 'x', [1, 2], null], null]]] },
  text('regclass', 'pg_class'),
  text('int2vector', '1 2 3'),
  text('pg_snapshot', '10:20:10,14'),
  text('aclitem', 'postgres=r/postgres'),
  { type: 'aclitem[]', kind: 'array', values: [['{postgres=r/postgres}', ['postgres=r/postgres']]] },
]

let db: TestDatabase
let client: pg.Client
const signal = new AbortController().signal
const mapping: TypeMappingOptions = { unrepresentable: 'text' }

beforeAll(async () => {
  db = await testDatabase()
  await db.sql(`
    create extension citext; create extension hstore; create extension ltree;
    create type mood as enum ('sad', 'so so', 'happy');
    create domain positive as numeric(8,2) check (value > 0);
    create type address as (number int, street text, codes int[], rest varchar);
    create type textrange as range (subtype = text, multirange_type_name = textmultirange)`)
  client = new pg.Client({ connectionString: db.url })
  await client.connect()
  await settings()
})

afterAll(async () => {
  await client?.end()
  await db?.drop()
})

async function settings(): Promise<void> {
  for (const [name, value] of Object.entries(SESSION_SETTINGS)) await client.query(`set ${name} = '${value}'`)
}

async function describeNamed(name: string, options = mapping): Promise<MappedTable> {
  const { rows } = await client.query<{ oid: number }>('select $1::regclass::oid as oid', [name])
  return describeTable(client, rows[0]!.oid, options)
}

/** Every row of the table through the readers of the binary form (where there is one) and of the text form. */
async function bothForms(mapped: MappedTable, from: string): Promise<{ readonly binary: RecordingWriter; readonly text: RecordingWriter }> {
  const binary = new RecordingWriter(mapped.table)
  const textual = new RecordingWriter(mapped.table)
  const quoted = mapped.columns.map(({ column }) => `"${column.name}"`)
  const readable = mapped.columns.map(({ reader, binaryReadable }) => reader.binary !== null && binaryReadable)
  const copied = await copyRows(
    client,
    `copy (select ${quoted.map((name, i) => (readable[i] ? name : `${name}::text`)).join(', ')} from ${from}) to stdout (format binary)`,
    2 ** 30,
    signal,
  )
  const view = viewOf(copied.bytes)
  let at = copied.first
  for (let row = 0; row < copied.rows; row++) {
    at += 2
    binary.row()
    for (const [i, column] of mapped.columns.entries()) {
      const length = view.getInt32(at)
      at += 4
      if (length < 0) binary.null()
      else (readable[i] ? column.binary : column.text)(copied.bytes, view, at, length, binary)
      at += Math.max(0, length)
    }
    binary.end()
  }
  const { rows } = await client.query({
    text: `select ${quoted.join(', ')} from ${from}`,
    rowMode: 'array',
    types: { getTypeParser: () => (value: string) => value } as never,
  })
  for (const row of rows as unknown as readonly (readonly (string | null)[])[]) {
    textual.row()
    for (const [i, column] of mapped.columns.entries()) {
      const value = row[i]
      // within other bytes, as on the wire
      const bytes = Buffer.from(`<<${value ?? ''}>>`)
      if (value === null || value === undefined) textual.null()
      else column.text(bytes, viewOf(bytes), 2, bytes.length - 4, textual)
    }
    textual.end()
  }
  return { binary, text: textual }
}

describe('each type, from both wire forms', () => {
  it.each(SAMPLES)('$type', async ({ type, kind, values }) => {
    await client.query(`drop table if exists sample; create table sample (n int primary key, v ${type})`)
    for (const [n, [literal]] of values.entries()) await client.query(`insert into sample values (${n}, $1::text::${type})`, [literal])
    await client.query(`insert into sample values (-1, null)`)
    const mapped = await describeNamed('sample')
    expect(mapped.columns[1]!.column.type.kind).toBe(kind)
    const { binary, text } = await bothForms(mapped, '(select * from sample order by n) sample')
    const expected = [null, ...values.map(([, value]) => value)]
    expect(text.rows.map((row) => row[1])).toEqual(expected)
    expect(binary.rows.map((row) => row[1])).toEqual(expected)
    // what is formatted is the same value to the server
    for (const [i, row] of binary.rows.entries()) {
      if (row[1] === null) continue
      const formatted = formatValue(mapped.columns[1]!.reader, row[1]!)
      const { rows } = await client.query(`select $1::text::${type}::text is not distinct from v::text as same from sample where n = $2`, [formatted, i - 1])
      expect([formatted, rows[0]]).toEqual([formatted, { same: true }])
    }
  })
})

describe('both forms of random values, made by the server from its own seeds', () => {
  const random: Record<string, string> = {
    numeric: `(random() - 0.5)::numeric * 10::numeric ^ (g % 60 - 30)`,
    'numeric(20,6)': `trunc(((random() - 0.5) * 10 ^ (g % 14))::numeric, 6)`,
    'numeric(38,0)': `trunc((random() - 0.5)::numeric * 10::numeric ^ (g % 38))`,
    float8: `(random() - 0.5) * 10 ^ (g % 600 - 300)`,
    float4: `((random() - 0.5) * 10 ^ (g % 70 - 35))::float4`,
    point: `point((random() - 0.5) * 10 ^ (g % 40 - 20), random())`,
    date: `'1970-01-01'::date + ((random() - 0.4) * 10 ^ (g % 7))::int`,
    timestamp: `'1970-01-01'::timestamp + ((random() - 0.3) * 10 ^ (g % 7)) * interval '1 day' + random() * interval '1 day'`,
    timestamptz: `'1970-01-01'::timestamptz + ((random() - 0.3) * 10 ^ (g % 7)) * interval '1 day' + random() * interval '1 day'`,
    time: `random() * interval '23 hours'`,
    interval: `make_interval(months => ((random() - 0.5) * 10 ^ (g % 6))::int, days => ((random() - 0.5) * 10 ^ (g % 5))::int, secs => (random() - 0.5) * 10 ^ (g % 8))`,
    int8: `((random() - 0.5) * 2 * 10 ^ (g % 19))::int8`,
    money: `((random() - 0.5) * 10 ^ (g % 14))::numeric::money`,
    uuid: `gen_random_uuid()`,
    inet: `('::'::inet + (random() * 10 ^ (g % 18))::int8)`,
    'float8[]': `array[random(), -random() * 10 ^ (g % 30)]`,
    tstzrange: `tstzrange('2000-01-01'::timestamptz + random() * interval '1 year', null)`,
    bytea: `decode(md5(random()::text), 'hex')`,
  }
  const sessions = [
    { IntervalStyle: 'postgres', bytea_output: 'hex' },
    { IntervalStyle: 'postgres_verbose', bytea_output: 'escape' },
    { IntervalStyle: 'sql_standard' },
    { IntervalStyle: 'iso_8601' },
  ]
  it.each(sessions)('%o', async (session) => {
    for (const [name, value] of Object.entries(session)) await client.query(`set ${name} = '${value}'`)
    const types = Object.keys(random)
    await client.query(`drop table if exists random_values; create table random_values (${types.map((type, i) => `c${i} ${type}`).join(', ')})`)
    await client.query(`insert into random_values select ${Object.values(random).join(', ')} from generate_series(1, 1500) g`)
    const mapped = await describeNamed('random_values')
    const { binary, text } = await bothForms(mapped, 'random_values')
    expect(binary.rows.length).toBe(1500)
    for (const [i, type] of types.entries()) expect([type, binary.rows.map((row) => row[i])]).toEqual([type, text.rows.map((row) => row[i])])
    await client.query('reset IntervalStyle; reset bytea_output')
  })

  it('texts of any characters, alone and in containers', async () => {
    await client.query('drop table if exists texts; create table texts (t text, a text[], m hstore, r address, g textrange, j jsonb)')
    const mapped = await describeNamed('texts')
    const anyText = fc.string({
      unit: fc.constantFrom('a', 'B', ' ', '"', '\\', ',', '{', '}', '(', ')', '[', "'", '\n', '\t', 'é', '🐘', '=', '>', 'N', 'U', 'L', ';', '.', '\v'),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(anyText, anyText, anyText), { minLength: 1, maxLength: 30 }), async (rows) => {
        await client.query('truncate texts')
        for (const [a, b, c] of rows) {
          await client.query(
            `insert into texts values ($1, array[$1, $2, null, $3]::text[], hstore(array[[$1, $2], [$2 || 'x', null]]), row(1, $2, array[1], $3)::address,
             textrange(least($1, $2), greatest($1, $2), '[]'), to_jsonb($3::text))`,
            [a, b, c],
          )
        }
        const { binary, text } = await bothForms(mapped, 'texts')
        expect(binary.rows).toEqual(text.rows)
        for (const [i, [a, b, c]] of rows.entries()) {
          expect(binary.rows[i]!.slice(0, 2)).toEqual([a, [a, b, null, c]])
          expect(binary.rows[i]![3]).toEqual([1, b, [1], c])
          expect(JSON.parse(binary.rows[i]![5] as string)).toBe(c)
        }
      }),
      { numRuns: 15 },
    )
  })
})

describe('the description of a table', () => {
  it('gives keys, nullability, storage and source types', async () => {
    await client.query(`create table described (b text not null, a int, "Odd ""name" mood[], n numeric(12,2), gen int generated always as (a + 1) stored, dropped int, primary key (b, a));
      alter table described drop column dropped; alter table described add column big text`)
    const { table, replicaIdentity } = await describeNamed('described')
    expect(replicaIdentity).toBe('d')
    expect(table.key).toEqual([0, 1])
    expect(
      table.columns.map(({ name, id, sourceType, nullable, mayBeUnchanged, maybeSpecial }) => [name, id, sourceType, nullable, mayBeUnchanged, maybeSpecial]),
    ).toEqual([
      ['b', 1, 'text', false, false, false],
      ['a', 2, 'integer', false, false, false],
      ['Odd "name', 3, 'public.mood[]', true, true, true],
      ['n', 4, 'numeric(12,2)', true, true, true],
      ['big', 7, 'text', true, true, false],
    ])
    expect((await describeNamed('described', { unrepresentable: 'error' })).table.columns.some(({ maybeSpecial }) => maybeSpecial)).toBe(false)
  })

  it('takes the key from the replica identity', async () => {
    await client.query(`create table identified (id int primary key, u text not null unique, v text)`)
    const key = async () => {
      const { table } = await describeNamed('identified')
      return [table.key.map((i) => table.columns[i]!.name), table.columns.filter((column) => column.mayBeUnchanged).map(({ name }) => name)]
    }
    expect(await key()).toEqual([['id'], ['u', 'v']])
    await client.query('alter table identified replica identity full')
    expect(await key()).toEqual([['id'], []])
    await client.query('alter table identified replica identity using index identified_u_key')
    expect(await key()).toEqual([['u'], ['v']])
    await client.query('alter table identified replica identity nothing')
    expect(await key()).toEqual([[], ['u', 'v']])
  })

  it('finds the identity of columns that were renamed or dropped after the message', async () => {
    await client.query('drop table if exists moved; create table moved (id int primary key, a text, b int, c int)')
    const { rows } = await client.query<{ oid: number }>(`select 'moved'::regclass::oid as oid`)
    const column = (name: string, typeOid: number, key = false) => ({ name, typeOid, typeModifier: -1, key })
    const streamed = { namespace: 'public', name: 'moved', columns: [column('id', 23, true), column('a', 25), column('b', 23), column('c', 23)], before: null }
    await client.query('alter table moved drop column b; alter table moved rename a to z; alter table moved alter c type int8')
    const { table } = await describeTable(client, rows[0]!.oid, mapping, streamed)
    expect(table.columns.map(({ name, id, sourceType, type }) => [name, id, sourceType, type.kind])).toEqual([
      ['id', 1, 'integer', 'int32'],
      ['a', 2, 'text', 'string'],
      ['b', 3, 'integer', 'int32'],
      ['c', 4, 'integer', 'int32'],
    ])
    expect(table.key).toEqual([0])
    await client.query('alter table moved drop column c; alter table moved add column d int')
    const later = await describeTable(client, rows[0]!.oid, mapping, { ...streamed, before: table })
    expect(later.table.columns.map(({ id, type }) => [id, type.kind])).toEqual([
      [1, 'int32'],
      [2, 'string'],
      [3, 'int32'],
      [4, 'int32'],
    ])
    // three were renamed or dropped, and four may be they
    const { columns } = (await describeTable(client, rows[0]!.oid, mapping, streamed)).table
    expect(columns.map(({ name, id, sourceType }) => [name, id < FIRST_LOST_ID ? id : 'lost', sourceType])).toEqual([
      ['id', 1, 'integer'],
      ['a', 'lost', 'text'],
      ['b', 'lost', 'integer'],
      ['c', 'lost', 'integer'],
    ])
    await client.query('alter table moved rename to elsewhere')
    expect((await describeTable(client, rows[0]!.oid, mapping, streamed)).table.name).toBe('moved')
    await client.query('drop table elsewhere')
    await expect(describeTable(client, rows[0]!.oid, mapping, streamed)).rejects.toMatchObject({ code: 'source.table_gone' })
  })

  it('refuses the binary form of a type it does not know, by name and with the way out', async () => {
    await client.query('drop table if exists unknown_type; create table unknown_type (q tsquery, a aclitem)')
    const mapped = await describeNamed('unknown_type')
    expect(mapped.columns.map(({ binaryReadable }) => binaryReadable)).toEqual([false, true])
    const bytes = Buffer.alloc(8)
    expect(() => mapped.columns[0]!.binary(bytes, viewOf(bytes), 0, 8, new RecordingWriter(mapped.table))).toThrow(/column q.*tsquery/)
  })
})

/** Values of each type by hand, for the tests of both wire forms. `TYPES` of postgres-session.ts are there. */
import { Special, type Value } from '../../core/plugin.ts'

/** `expected` is the value by hand; where it is left out, binary and text forms are compared with each other and with the server's own text. */
export interface Sample {
  readonly type: string
  /** Major of the server from which on it takes the type, or `values` of it. */
  readonly since?: number
  readonly kind: string
  readonly values: readonly (readonly [literal: string, expected?: Value])[]
}

const special = (text: string) => new Special(text)
const text = (type: string, ...literals: string[]): Sample => ({ type, kind: 'string', values: literals.map((literal) => [literal, literal] as const) })

export const SAMPLES: readonly Sample[] = [
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
    since: 15,
    kind: 'decimal',
    values: [
      ['12345', 12300n],
      ['-99949', -99900n],
    ],
  },
  {
    type: 'numeric(3,5)',
    since: 15,
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
    ],
  },
  { type: '"char"', since: 16, kind: 'string', values: [['\\377', '\\377']] },
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
      ['178000000 years', 'P178000000Y'],
    ],
  },
  {
    type: 'interval',
    since: 17,
    kind: 'string',
    values: [
      ['infinity', 'infinity'],
      ['-infinity', '-infinity'],
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
  { type: 'cid', kind: 'int64', values: [['4294967295', 4294967295n]] },
  text('refcursor', 'a cursor'),
  text('ltxtquery', 'a & b*'),
  text('regclass', 'pg_class'),
  text('regproc', 'now'),
  text('regprocedure', 'abs(numeric)'),
  text('regoper', '||/'),
  text('regoperator', '+(integer,integer)'),
  text('regtype', 'timestamp with time zone'),
  text('regrole', 'postgres'),
  text('regnamespace', 'pg_catalog'),
  text('regconfig', 'english'),
  text('regdictionary', 'simple'),
  text('regcollation', '"C"'),
  text('int2vector', '1 2 3', ''),
  text('oidvector', '1 4294967295'),
  text('pg_snapshot', '10:20:10,14'),
  text('txid_snapshot', '10:20:10,14'),
  text('relation', 'pg_class'),
  { type: 'regclass[]', kind: 'array', values: [['{pg_class,NULL}', ['pg_class', null]]] },
  { type: 'tsquery[]', kind: 'array', values: [[`{"'a' & 'b'"}`, [`'a' & 'b'`]]] },
  text('aclitem', 'postgres=r/postgres'),
  { type: 'granted', kind: 'record', values: [['(postgres=r/postgres,x)', ['postgres=r/postgres', 'x']]] },
  { type: 'aclitem[]', kind: 'array', values: [['{postgres=r/postgres}', ['postgres=r/postgres']]] },
]

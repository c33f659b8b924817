import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, describe } from 'vitest'
import cassandra from '../../connectors/cassandra/index.ts'
import { Special, type Value } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type ProvisionedSource, sourceContract, type TypedTable, type Write } from '../../testing/source.contract.ts'
import { type CassandraAccess, type CassandraServer, connect, keyspaceOn, LOCAL_DC, RELEASES, startCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason, type Release } from '../services/cassandra-jvm.ts'
import { Authority, opensslSkipReason } from '../services/certificates.ts'

const skip = cassandraSkipReason() ?? opensslSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

/** Type, and pairs of what CQL writes and what must come. */
type TypeCase = readonly [type: string, ...values: (readonly [string, Value])[]]

const TYPES: readonly TypeCase[] = [
  ['boolean', ['true', true], ['false', false], ['null', null]],
  ['tinyint', ['127', 127], ['-128', -128], ['null', null]],
  ['smallint', ['32767', 32767], ['-32768', -32768], ['null', null]],
  ['int', ['2147483647', 2147483647], ['-2147483648', -2147483648], ['blobAsInt(0x)', new Special('')]],
  ['bigint', ['9223372036854775807', 2n ** 63n - 1n], ['-9223372036854775808', -(2n ** 63n)], ['9007199254740993', 9007199254740993n]],
  ['float', ['3.4028235e38', Math.fround(3.4028235e38)], ['-0.1', Math.fround(-0.1)], ['NaN', Number.NaN]],
  ['double', ['0.1', 0.1], ['-1e15', -1e15], ['1.7976931348623157e308', Number.MAX_VALUE]],
  ['decimal', ['9999999999999999999999999999.9999999999', '9999999999999999999999999999.9999999999'], ['0', '0'], ['-0.0000000001', '-1E-10']],
  ['varint', ['123456789012345678901234567890', '123456789012345678901234567890'], ['-1', '-1'], ['null', null]],
  ['text', ["''", ''], ["'ünïcödé 🜚'", 'ünïcödé 🜚'], ['null', null]],
  ['ascii', ["'a'", 'a'], ["''", ''], ['null', null]],
  ['blob', ['0x', new Uint8Array(0)], ['0x00ff', Uint8Array.from([0, 255])], ['null', null]],
  ['uuid', ['123e4567-e89b-12d3-a456-426614174000', '123e4567-e89b-12d3-a456-426614174000'], ['null', null], ['null', null]],
  ['date', ["'1970-01-01'", 0], ["'1969-12-31'", -1], ['null', null]],
  ['time', ["'23:59:59.999999999'", '23:59:59.999999999'], ["'00:00:00'", '00:00:00.000000000'], ['null', null]],
  ['timestamp', ["'1969-12-31 23:59:59.999+0000'", -1000n], ["'9999-12-31 00:00:00+0000'", 253402214400000000n], ['null', null]],
  ['duration', ['1y2mo3d4h5m6s7ms8us9ns', '1y2mo3d4h5m6s7ms8us9ns'], ['-1d', '-1d'], ['null', null]],
  ['inet', ["'127.0.0.1'", '127.0.0.1'], ["'::1'", '::1'], ['null', null]],
  ['list<int>', ['[3, 1, 2]', [3, 1, 2]], ['[]', null], ['null', null]],
  ['set<text>', ["{'b', 'a'}", ['a', 'b']], ['{}', null], ['null', null]],
  ['map<text, text>', ["{'k': 'v'}", new Map([['k', 'v']])], ['{}', null], ['null', null]],
  [
    'map<int, int>',
    [
      '{2: 20, 1: 10}',
      [
        [1, 10],
        [2, 20],
      ],
    ],
    ['null', null],
    ['null', null],
  ],
  ['frozen<list<text>>', ["['x', 'y']", ['x', 'y']], ['[]', []], ['null', null]],
  ['tuple<int, text>', ["(1, 'one')", [1, 'one']], ['(null, null)', [null, null]], ['null', null]],
  // elements at the ends of their types, and some that JavaScript has no value of
  ['list<bigint>', ['[9223372036854775807, -9223372036854775808]', [2n ** 63n - 1n, -(2n ** 63n)]], ['[-1]', [-1n]], ['null', null]],
  [
    'list<timestamp>',
    ['[8640000000000001, -8640000000000001]', [8640000000000001000n, -8640000000000001000n]],
    ['[9223372036854775807]', new Special('0x00000001000000087fffffffffffffff')],
    ["['1969-12-31 23:59:59.999+0000']", [-1000n]],
  ],
  ['list<date>', ['[0, 4294967295]', [-(2 ** 31), 2 ** 31 - 1]], ["['1969-12-31']", [-1]], ['null', null]],
  ['list<time>', ["['00:00:00', '23:59:59.999999999']", ['00:00:00.000000000', '23:59:59.999999999']], ['null', null], ['[]', null]],
  ['list<duration>', ['[-1y2mo3d4h5m6s7ms8us9ns, 0ns]', ['-1y2mo3d4h5m6s7ms8us9ns', '0ns']], ['null', null], ['null', null]],
  ['list<decimal>', ['[1E+40, -0.00, 1E-40]', ['1E+40', '0.00', '1E-40']], ['null', null], ['null', null]],
  [
    'set<varint>',
    ['{-170141183460469231731687303715884105729, 128, -128}', ['-170141183460469231731687303715884105729', '-128', '128']],
    ['null', null],
    ['{0}', ['0']],
  ],
  ['set<double>', ['{0.0, -0.0, NaN, -Infinity}', [Number.NEGATIVE_INFINITY, -0, 0, Number.NaN]], ['null', null], ['null', null]],
  ['list<int>', ['[blobAsInt(0x), 1]', new Special('0x00000002000000000000000400000001')], ['[-2147483648]', [-2147483648]], ['null', null]],
  ['list<tinyint>', ['[-128, 127]', [-128, 127]], ['null', null], ['null', null]],
  ['list<boolean>', ['[true, false]', [true, false]], ['null', null], ['null', null]],
  [
    'map<inet, float>',
    [
      "{'::ffff:1.2.3.4': 3.4028235e38, '2001:db8::1': NaN}",
      [
        ['1.2.3.4', Math.fround(3.4028235e38)],
        ['2001:db8::1', Number.NaN],
      ],
    ],
    ['null', null],
    ['null', null],
  ],
  ['set<blob>', ['{0x, 0x00ff}', [new Uint8Array(0), Uint8Array.from([0, 255])]], ['null', null], ['null', null]],
  // user types: each field a cell of its own, or frozen
  [
    '"Address"',
    [`{place: {street: 'ü🜚', number: -2147483648}, tags: {'q', 'p'}, "Zip": 32767}`, [['ü🜚', -2147483648], ['p', 'q'], 32767]],
    ['{"Zip": -32768}', [null, null, -32768]],
    ['null', null],
  ],
  [
    'frozen<"Address">',
    [`{place: {street: '', number: null}, tags: {}, "Zip": null}`, [['', null], [], null]],
    [`{place: null}`, [null, null, null]],
    ['null', null],
  ],
  [
    'list<frozen<place>>',
    [
      `[{street: 's', number: 1}, {number: 2}]`,
      [
        ['s', 1],
        [null, 2],
      ],
    ],
    ['[]', null],
    ['null', null],
  ],
  // collections in collections
  [
    'map<text, frozen<list<frozen<place>>>>',
    [
      `{'k': [{street: 'a', number: 1}, {street: null, number: 2}], '': []}`,
      [
        ['', []],
        [
          'k',
          [
            ['a', 1],
            [null, 2],
          ],
        ],
      ],
    ],
    ['null', null],
    ['null', null],
  ],
  [
    'map<frozen<tuple<int, text>>, frozen<set<bigint>>>',
    [
      "{(2, null): {}, (1, 'one'): {9223372036854775807, -1}}",
      [
        [
          [1, 'one'],
          [-1n, 2n ** 63n - 1n],
        ],
        [[2, null], []],
      ],
    ],
    ['null', null],
    ['null', null],
  ],
  [
    'frozen<map<text, frozen<map<text, text>>>>',
    [
      "{'a': {'b': 'c'}, 'd': {}}",
      [
        ['a', new Map([['b', 'c']])],
        ['d', new Map()],
      ],
    ],
    ['{}', []],
    ['null', null],
  ],
  ['frozen<list<list<list<int>>>>', ['[[], [[], [1, 2]]]', [[], [[], [1, 2]]]], ['[]', []], ['null', null]],
  [
    'tuple<bigint, frozen<list<decimal>>, frozen<tuple<date, time>>, frozen<"Address">>',
    [
      "(-9223372036854775808, [1.50], ('1969-12-31', '23:59:59.999999999'), {\"Zip\": 1})",
      [-(2n ** 63n), ['1.50'], [-1, '23:59:59.999999999'], [null, null, 1]],
    ],
    ['(1)', [1n, null, null, null]],
    ['null', null],
  ],
]

/** Of 5.0 */
const VECTORS: readonly TypeCase[] = [
  ['vector<float, 3>', ['[1.5, -3.4028235e38, NaN]', [1.5, Math.fround(-3.4028235e38), Number.NaN]], ['[0, -0.0, 1]', [0, -0, 1]], ['null', null]],
  ['vector<text, 2>', ["['', 'ü🜚']", ['', 'ü🜚']], [`['${'x'.repeat(300)}', 'y']`, ['x'.repeat(300), 'y']], ['null', null]],
  ['vector<frozen<list<int>>, 2>', ['[[], [1, 2]]', [[], [1, 2]]], ['[[3], []]', [[3], []]], ['null', null]],
  ['vector<frozen<place>, 1>', [`[{street: 's', number: 1}]`, [['s', 1]]], ['[{number: 2}]', [[null, 2]]], ['null', null]],
  [
    'list<frozen<vector<int, 2>>>',
    [
      '[[1, 2], [-2147483648, 2147483647]]',
      [
        [1, 2],
        [-2147483648, 2147483647],
      ],
    ],
    ['[]', null],
    ['null', null],
  ],
  ['frozen<map<text, vector<bigint, 1>>>', ["{'k': [9223372036854775807]}", [['k', [2n ** 63n - 1n]]]], ['{}', []], ['null', null]],
]

/** The table of types has this key: more than one column in the partition's, and an order that is reversed. */
const KEY = 'primary key ((a, b), c)) with clustering order by (c desc)'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-cassandra-contract-'))
const servers = new Map<Release, Promise<CassandraServer>>()

const authority = new Authority(dir, 'authority')
const stranger = new Authority(dir, 'stranger')
/** The superuser that a cluster with logins begins with. */
const ADMIN: CassandraAccess = {
  user: 'cassandra',
  password: 'cassandra',
  ssl: skip === null ? { ca: authority.certificate, ...authority.issue('client') } : { ca: '', cert: '', key: '' },
}
/** Of the source: may do what the README says, and no more. */
const CAPTURE = { user: 'capture', password: 'of the capture' }

/** Logins, privileges, and TLS of both sides. */
function strictYaml(): string {
  const { cert, key } = authority.issue('server')
  const pem = (text: string) => JSON.stringify(text)
  return `authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
client_encryption_options:
  enabled: true
  optional: false
  require_client_auth: true
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
    parameters:
      private_key: ${pem(key + cert)}
      trusted_certificates: ${pem(authority.certificate)}
`
}

async function start(release: Release): Promise<CassandraServer> {
  const server = await startCassandra({ release, dir: path.join(dir, release), yaml: strictYaml(), access: ADMIN })
  const admin = connect({ port: server.port, access: ADMIN })
  for (const { user, password } of [CAPTURE, { user: 'stranger', password: 'of nobody' }]) {
    await admin.execute(`create role ${user} with password = '${password}' and login = true`)
  }
  await admin.execute(`grant select on system_views.settings to ${CAPTURE.user}`)
  await admin.shutdown()
  return server
}

/** Servers of this file's own: their segments are taken away. */
function server(release: Release): Promise<CassandraServer> {
  let started = servers.get(release)
  if (started === undefined) {
    started = start(release)
    servers.set(release, started)
  }
  return started
}

afterAll(async () => {
  for (const started of servers.values()) await (await started).stop('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

/** Writes that fill a table. */
const MANY = 300

const column = (i: number) => `v${String(i).padStart(2, '0')}`

async function provision(release: Release): Promise<ProvisionedSource> {
  const { port, cdcRaw, restart } = await server(release)
  const { keyspace, client, cql, drop, synced } = await keyspaceOn(release, port, cdcRaw, 1, ADMIN)
  await cql(`grant select on keyspace ${keyspace} to ${CAPTURE.user}`)
  const settings = {
    contactPoints: [`127.0.0.1:${port}`],
    localDataCenter: LOCAL_DC,
    tables: [`${keyspace}.*`, `!${keyspace}.filler`],
    cdcRaw,
    consistency: 'ONE',
    unrepresentable: 'text',
    pollMs: 10,
    ...CAPTURE,
    ssl: ADMIN.ssl,
  }
  const cases = release === '5.0' ? [...TYPES, ...VECTORS] : TYPES
  const types: TypedTable = {
    rows: [0, 1, 2].map((n) => [n, `b${n}`, 'dec'[n]!, ...cases.map(([, ...values]) => values[n]![1])]),
    create: async (table) => {
      await cql('create type if not exists place (street text, number int)')
      await cql('create type if not exists "Address" (place frozen<place>, tags frozen<set<text>>, "Zip" smallint)')
      await cql(`create table ${table} (a int, b text, c text, ${cases.map(([type], i) => `${column(i)} ${type}`).join()}, ${KEY} and cdc = true`)
    },
    load: async (table) => {
      const names = cases.map((_, i) => column(i))
      for (const n of [0, 1, 2]) {
        const values = cases.map(([, ...each]) => each[n]![0])
        await cql(`insert into ${table} (a, b, c, ${names.join()}) values (${n}, 'b${n}', '${'dec'[n]}', ${values.join()})`)
      }
      await synced()
    },
  }
  const write = async (one: Write) => {
    const { table } = one
    if (one.op === 'insert') {
      const names = Object.keys(one.row)
      await cql(`insert into ${table} (${names.join()}) values (${names.map(() => '?').join()})`, Object.values(one.row))
    } else if (one.op === 'delete') await cql(`delete from ${table} where id = ?`, [one.id])
    else if (one.op === 'update') {
      await cql(`update ${table} set ${Object.keys(one.set).map((name) => `${name} = ?`)} where id = ?`, [...Object.values(one.set), one.id])
    }
  }
  return {
    plugin: cassandra,
    settings,
    namespace: keyspace,
    types,
    wrong: [
      { what: 'wrong password', settings: { ...settings, password: 'no' }, code: 'source.forbidden' },
      { what: 'no login', settings: { ...settings, user: undefined, password: undefined }, code: 'source.forbidden' },
      { what: 'no privilege', settings: { ...settings, user: 'stranger', password: 'of nobody' }, code: 'source.forbidden' },
      { what: 'a certificate of another authority', settings: { ...settings, ssl: { ...ADMIN.ssl, ca: stranger.certificate } }, code: 'source.forbidden' },
      { what: 'no client certificate', settings: { ...settings, ssl: { ca: ADMIN.ssl.ca } }, code: 'source.forbidden' },
      { what: 'another data center', settings: { ...settings, localDataCenter: 'elsewhere' }, code: 'source.unprepared' },
      { what: 'no TLS', settings: { ...settings, ssl: undefined }, code: 'source.unreachable' },
      { what: 'no server', settings: { ...settings, contactPoints: ['127.0.0.1:1'] }, code: 'source.unreachable' },
      { what: 'no folder', settings: { ...settings, cdcRaw: path.join(dir, 'nowhere') }, code: 'source.unprepared' },
    ],
    createTable: async (table) => {
      await cql(`create table ${table} (id int primary key, name text, quantity int, body text) with cdc = true`)
    },
    async transact(writes) {
      for (const one of writes) await write(one)
      // a start begins where the log on disk ends
      if (writes.length >= MANY) await synced()
    },
    async restart() {
      await restart()
      await until('the client is connected again', async () => (await cql('select key from system.local').catch(() => [])).length > 0)
    },
    /** Takes all segments away, and fills the one that is written then, which nobody finds any more. */
    async loseHistory() {
      for (const name of readdirSync(cdcRaw)) rmSync(path.join(cdcRaw, name), { force: true })
      await cql(`create table filler (id int primary key, body text) with cdc = true`)
      await until('another segment is begun', async () => {
        await cql('insert into filler (id, body) values (1, ?)', ['x'.repeat(200_000)])
        return readdirSync(cdcRaw).filter((name) => name.endsWith('.idx') && readdirSync(cdcRaw).includes(name.replace('_cdc.idx', '.log'))).length > 0
      })
    },
    async dispose() {
      await drop()
      await client.shutdown()
    },
  }
}

// a partition's changes have an order, the others none; after a kill rows are read; the catalog keeps no order of columns, and keys are not updated
const can = { keepsNothing: true, exclusive: true, fixedColumns: true, unorderedColumns: true, readsBack: true, rounds: 6 }
describe.skipIf(skip !== null)(`cassandra${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  for (const release of RELEASES) sourceContract(`cassandra ${release}`, () => provision(release), can)
})

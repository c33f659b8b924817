import { setTimeout as delay } from 'node:timers/promises'
import cockroachdb from '../../connectors/cockroachdb/index.ts'
import { Special, type Value } from '../../core/plugin.ts'
import type { Item, ProvisionedSource, TypedTable, Write } from '../../testing/source.contract.ts'
import { CockroachFixture, type FixtureColumn, type FixtureWrite, JSON_NULL, Json } from '../services/cockroachdb.ts'

export const ITEM: readonly FixtureColumn[] = [
  { name: 'id', type: 'INT8', isKey: true },
  { name: 'name', type: 'STRING' },
  { name: 'quantity', type: 'INT4' },
  { name: 'body', type: 'STRING' },
]

type Extreme = readonly [json: string, value: Value]

/** Types with the JSON that CockroachDB gives their extremes (sql/sem/tree: AsJSON), and what must come of it. */
const TYPES: readonly (readonly [type: string, ...values: Extreme[]])[] = [
  ['BOOL', ['true', true], ['false', false]],
  ['INT2', ['32767', 32767], ['-32768', -32768]],
  ['INT4', ['2147483647', 2147483647], ['-2147483648', -2147483648]],
  ['INT8', ['9223372036854775807', 2n ** 63n - 1n], ['-9223372036854775808', -(2n ** 63n)]],
  ['FLOAT4', ['3.4028234663852886E+38', 3.4028234663852886e38], ['-0.10000000149011612', -0.10000000149011612]],
  ['FLOAT8', ['5E-324', 5e-324], ['1.7976931348623157E+308', 1.7976931348623157e308]],
  ['DECIMAL(38,10)', ['9999999999999999999999999999.9999999999', 10n ** 38n - 1n], ['1E-10', 1n]],
  ['DECIMAL(10,2)', ['12.50', 1250n], ['NaN', new Special('NaN')]],
  ['DECIMAL', ['1234567890123456789012345678901234567890.1234567890', '1234567890123456789012345678901234567890.1234567890'], ['-Infinity', '-Infinity']],
  ['STRING', ['"ünïcödé \\ud83d\\udf1a\\n"', 'ünïcödé 🜚\n'], ['""', '']],
  ['VARCHAR(10) COLLATE en', ['"ä"', 'ä'], ['null', null]],
  ['BYTES', ['"\\\\x00ff"', Buffer.from([0, 255])], ['"\\\\x"', Buffer.alloc(0)]],
  ['UUID', ['"ffffffff-ffff-ffff-ffff-ffffffffffff"', 'ffffffff-ffff-ffff-ffff-ffffffffffff'], ['null', null]],
  ['DATE', ['"4714-11-24 BC"', -2_440_588], ['"5874897-12-31"', 2_145_042_905]],
  ['TIME', ['"24:00:00"', 86_400_000_000n], ['"00:00:00.000001"', 1n]],
  ['TIMETZ', ['"24:00:00-15:59"', '24:00:00-15:59'], ['"00:00:00.000001+00"', '00:00:00.000001+00']],
  ['TIMESTAMP', ['"1969-12-31T23:59:59.999999"', -1n], ['"294276-12-31T23:59:59.999999"', new Special('294276-12-31T23:59:59.999999')]],
  ['TIMESTAMPTZ', ['"1970-01-01T00:00:00.000001Z"', 1n], ['"-4713-11-24T00:00:00Z"', -210_866_803_200_000_000n]],
  ['INTERVAL', ['"1 year 2 mons 3 days 04:05:06.789"', '1 year 2 mons 3 days 04:05:06.789'], ['"-00:00:00.000001"', '-00:00:00.000001']],
  ['JSONB', ['{"n": 123456789012345678901234567890.10, "a": [1, null]}', '{"n": 123456789012345678901234567890.10, "a": [1, null]}'], [JSON_NULL, 'null']],
  ['INT8[]', ['[9007199254740993, null]', [9007199254740993n, null]], ['[]', []]],
  ['STRING[]', ['["a,b", null, ""]', ['a,b', null, '']], ['null', null]],
  ['INET', ['"2001:db8::1/64"', '2001:db8::1/64'], ['"192.168.0.1"', '192.168.0.1']],
  ['BIT(8)', ['"10010101"', '10010101'], ['null', null]],
  ['VARBIT', ['""', ''], ['"1"', '1']],
  ['public.status', ['"in_use"', 'in_use'], ['null', null]],
  ['public.status[]', ['["in_use", null]', ['in_use', null]], ['null', null]],
  ['GEOGRAPHY(POINT,4326)', ['{"coordinates": [-0.5, 51.25], "type": "Point"}', '{"coordinates": [-0.5, 51.25], "type": "Point"}'], ['null', null]],
  ['VECTOR(3)', ['"[1,-2.5,0.1]"', [1, -2.5, Math.fround(0.1)]], ['null', null]],
  ['TSVECTOR', ["\"'fat':2 'rat':3\"", "'fat':2 'rat':3"], ['null', null]],
]

function fixtureWrites(rows: Map<string, Item>, writes: readonly Write[]): readonly FixtureWrite[] {
  return writes.flatMap((write): FixtureWrite[] => {
    const { table } = write
    if (write.op === 'truncate') throw new Error('a changefeed does not survive it')
    const id = write.op === 'insert' ? write.row.id : write.id
    const old = rows.get(`${table}/${id}`)
    if (write.op === 'delete') {
      rows.delete(`${table}/${id}`)
      return [{ op: 'delete', table, key: [id] }]
    }
    const row = write.op === 'insert' ? write.row : { ...old!, ...write.set }
    if (row.id !== id) rows.delete(`${table}/${id}`)
    rows.set(`${table}/${row.id}`, row)
    const put: FixtureWrite = { op: 'put', table, row: { ...row } }
    return row.id === id ? [put] : [{ op: 'delete', table, key: [id] }, put]
  })
}

/** A cluster of its own, with the tables of the contract suite. */
export async function provisionCockroachdb(more: Readonly<Record<string, unknown>> = {}): Promise<ProvisionedSource & { readonly cluster: CockroachFixture }> {
  const cluster = await CockroachFixture.start()
  const rows = new Map<string, Item>()
  const settings = { ...cluster.settings, tables: ['public.*'], resolvedMs: 15, memoryBytes: 64 * 1024, unrepresentable: 'text', ...more }
  const types: TypedTable = {
    rows: [0, 1].map((n) => [n, ...TYPES.map(([, ...values]) => values[n]![1])]),
    create: async (table) => cluster.createTable(table, [{ name: 'id', type: 'INT4', isKey: true }, ...TYPES.map(([type], n) => ({ name: `c${n}`, type }))]),
    load: async (table) => {
      for (const n of [0, 1]) {
        const cells = TYPES.map(([, ...values], i) => [`c${i}`, new Json(values[n]![0])] as const)
        cluster.write([{ op: 'put', table, row: { id: n, ...Object.fromEntries(cells) } }])
      }
    },
  }
  return {
    cluster,
    plugin: cockroachdb,
    settings,
    namespace: 'public',
    types,
    wrong: [
      { what: 'wrong password', settings: { ...settings, password: 'no' }, code: 'source.forbidden' },
      { what: 'nobody there', settings: { ...settings, port: 1 }, code: 'source.unreachable' },
    ],
    createTable: async (table) => cluster.createTable(table, ITEM),
    transact: async (writes) => {
      cluster.write(fixtureWrites(rows, writes))
      // ten thousand rows a second, as a cluster might take them: rows in memory would flood the source
      await delay(writes.length / 10)
    },
    addColumn: async (table) => cluster.alterTable(table, (columns) => [...columns, { name: 'extra', type: 'INT4' }]),
    restart: () => cluster.restart(),
    loseHistory: async () => cluster.collectGarbage(),
    dispose: () => cluster[Symbol.asyncDispose](),
  }
}

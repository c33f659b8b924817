import pg from 'pg'
import postgres from '../../connectors/postgres/index.ts'
import { Special, type Value } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type ProvisionedSource, sourceContract, type TypedTable, type Write } from '../../testing/source.contract.ts'
import { testDatabase } from '../services/postgres.ts'

const DRIVER = 'contract-driver'
const quote = (name: string) => pg.escapeIdentifier(name)

/** A statement with its parameters; neighbouring inserts of one shape are one statement. */
function statements(writes: readonly Write[]): { text: string; values: unknown[] }[] {
  const made: { text: string; values: unknown[] }[] = []
  let shape = ''
  for (const write of writes) {
    const table = quote(write.table)
    const values: unknown[] = []
    const parameter = (value: unknown) => `$${values.push(value)}`
    if (write.op === 'insert') {
      const columns = Object.keys(write.row)
      const last = made.at(-1)
      const mine = `insert into ${table} (${columns.map(quote).join()}) values `
      if (last !== undefined && shape === mine && last.values.length < 4000) {
        last.text += `, (${columns.map((_, i) => `$${last.values.length + i + 1}`).join()})`
        last.values.push(...Object.values(write.row))
        continue
      }
      shape = mine
      made.push({ text: `${mine}(${Object.values(write.row).map(parameter).join()})`, values })
      continue
    }
    shape = ''
    if (write.op === 'truncate') made.push({ text: `truncate ${table}`, values })
    else if (write.op === 'delete') made.push({ text: `delete from ${table} where id = ${parameter(write.id)}`, values })
    else {
      const set = Object.entries(write.set).map(([name, value]) => `${quote(name)} = ${parameter(value)}`)
      made.push({ text: `update ${table} set ${set.join()} where id = ${parameter(write.id)}`, values })
    }
  }
  return made
}

/** Column, type, and pairs of what SQL writes and what must come. */
const TYPES: readonly (readonly [type: string, ...values: (readonly [string, Value])[]])[] = [
  ['bool', ['true', true], ['false', false], ['null', null]],
  ['int2', ['32767', 32767], ['-32768', -32768], ['0', 0]],
  ['int8', ['9223372036854775807', 2n ** 63n - 1n], ['-9223372036854775808', -(2n ** 63n)], ['9007199254740993', 9007199254740993n]],
  ['float4', ["'NaN'", Number.NaN], ["'-Infinity'", -Infinity], ['3.4028235e38', Math.fround(3.4028235e38)]],
  ['float8', ['5e-324', 5e-324], ["'-0'", -0], ['1.7976931348623157e308', Number.MAX_VALUE]],
  ['numeric(38,10)', ['9999999999999999999999999999.9999999999', 10n ** 38n - 1n], ["'NaN'", new Special('NaN')], ['-0.0000000001', -1n]],
  ['text', ["''", ''], ["'ünïcödé 🜚'", 'ünïcödé 🜚'], [`repeat('x', 100000)`, 'x'.repeat(100_000)]],
  ['bytea', ["''", new Uint8Array(0)], ["'\\x00ff'", Uint8Array.from([0, 255])], ['null', null]],
  ['uuid', ["'ffffffff-ffff-ffff-ffff-ffffffffffff'", 'ffffffff-ffff-ffff-ffff-ffffffffffff'], ['null', null], ['null', null]],
  ['json', [`'{"a": 1.0,  "a": 2}'`, '{"a": 1.0,  "a": 2}'], ["'null'", 'null'], ['null', null]],
  ['date', ["'4713-01-01 BC'", -2_440_550], ["'infinity'", new Special('infinity')], ["'1969-12-31'", -1]],
  ['time', ["'00:00:00.000001'", 1n], ["'23:59:59.999999'", 86_399_999_999n], ['null', null]],
  ['timestamp', ["'1969-12-31 23:59:59.999999'", -1n], ["'-infinity'", new Special('-infinity')], ['null', null]],
  ['timestamptz', ["'1970-01-01 02:00:00+02'", 0n], ["'infinity'", new Special('infinity')], ['null', null]],
  ['int8[]', ["'{1,NULL}'", [1n, null]], ["'{}'", []], ['null', null]],
  ['interval', ["'1 year -2 days 03:04:05.000001'", 'P1Y-2DT3H4M5.000001S'], ['null', null], ['null', null]],
]

async function provision(): Promise<ProvisionedSource> {
  const db = await testDatabase()
  const pool = new pg.Pool({ connectionString: db.url, max: 2, application_name: DRIVER })
  pool.on('error', () => {})
  const settings = { url: db.url, tables: ['public.*'], unrepresentable: 'text' }
  const types: TypedTable = {
    rows: [0, 1, 2].map((n) => [n, ...TYPES.map(([, ...values]) => values[n]![1])]),
    create: async (table) => {
      await db.sql(`create table ${quote(table)} (id int primary key, ${TYPES.map(([type], i) => `c${i} ${type}`).join()})`)
    },
    load: async (table) => {
      for (const n of [0, 1, 2]) await db.sql(`insert into ${quote(table)} values (${n}, ${TYPES.map(([, ...values]) => values[n]![0]).join()})`)
    },
  }
  return {
    plugin: postgres,
    settings,
    namespace: 'public',
    types,
    wrong: [
      { what: 'no server', settings: { ...settings, url: 'postgres://postgres@127.0.0.1:1/x' }, code: 'source.unreachable' },
      { what: 'no database', settings: { ...settings, url: db.url.replace(/\/[^/]*$/, '/nowhere') }, code: 'source.unprepared' },
    ],
    async createTable(table) {
      await db.sql(
        `create table ${quote(table)} (id bigint primary key, name text, quantity int, body text); alter table ${quote(table)} alter body set storage external`,
      )
    },
    async transact(writes) {
      const client = await pool.connect()
      try {
        await client.query('begin')
        for (const { text, values } of statements(writes)) await client.query(text, values)
        await client.query('commit')
      } finally {
        client.release()
      }
    },
    async addColumn(table) {
      await db.sql(`alter table ${quote(table)} add column extra int`)
    },
    async lockTable(table) {
      const client = new pg.Client({ connectionString: db.url, application_name: DRIVER })
      await client.connect()
      await client.query(`begin; lock table ${quote(table)} in access exclusive mode`)
      return { [Symbol.asyncDispose]: () => client.end() }
    },
    /** Every connection but the driver's is cut; whole servers are restarted in test/fault. */
    async restart() {
      await pool.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name <> $1', [DRIVER])
    },
    async loseHistory() {
      // the server notices in its own time that nobody captures any more
      await until('the slots are dropped', async () => {
        await db.sql('select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active')
        return (await db.sql('select from pg_replication_slots where database = current_database()')).rowCount === 0
      })
    },
    async leftovers() {
      const { rows } = await db.sql(
        'select slot_name::text as name from pg_replication_slots where database = current_database() union all select pubname::text from pg_publication',
      )
      return rows.map(({ name }) => name)
    },
    async dispose() {
      await pool.end()
      await db.drop()
    },
  }
}

sourceContract('postgres', provision, { changesKeys: true, truncates: true, transactions: true, exclusive: true, locksReaders: true })

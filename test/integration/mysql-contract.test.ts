import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { RowDataPacket } from 'mysql2'
import { afterAll, describe } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { Special, type Value } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type ProvisionedSource, sourceContract, type TypedTable, type Write } from '../../testing/source.contract.ts'
import { databaseOn, KINDS, type MysqlServer, type MysqlServerOptions, mysqlSkipReason, startMysql } from '../services/mysql.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const quote = (name: string) => `\`${name.replaceAll('`', '``')}\``

/** A statement with its parameters; neighbouring inserts of one shape are one statement. */
function statements(writes: readonly Write[]): { text: string; values: unknown[] }[] {
  const made: { text: string; values: unknown[] }[] = []
  let shape = ''
  for (const write of writes) {
    const table = quote(write.table)
    if (write.op === 'insert') {
      const columns = Object.keys(write.row)
      const row = `(${columns.map(() => '?').join()})`
      const mine = `insert into ${table} (${columns.map(quote).join()}) values `
      const last = made.at(-1)
      if (last !== undefined && shape === mine && last.values.length < 400) {
        last.text += `, ${row}`
        last.values.push(...Object.values(write.row))
      } else made.push({ text: `${mine}${row}`, values: Object.values(write.row) })
      shape = mine
      continue
    }
    shape = ''
    if (write.op === 'truncate') made.push({ text: `truncate ${table}`, values: [] })
    else if (write.op === 'delete') made.push({ text: `delete from ${table} where id = ?`, values: [write.id] })
    else {
      const set = Object.keys(write.set).map((name) => `${quote(name)} = ?`)
      made.push({ text: `update ${table} set ${set.join()} where id = ?`, values: [...Object.values(write.set), write.id] })
    }
  }
  return made
}

/** Column, type, and pairs of what SQL writes and what must come. */
const TYPES: readonly (readonly [type: string, ...values: (readonly [string, Value])[]])[] = [
  ['bit(1)', ["b'1'", true], ["b'0'", false], ['null', null]],
  ['tinyint', ['127', 127], ['-128', -128], ['0', 0]],
  ['int unsigned', ['4294967295', 4294967295n], ['0', 0n], ['null', null]],
  ['bigint', ['9223372036854775807', 2n ** 63n - 1n], ['-9223372036854775808', -(2n ** 63n)], ['9007199254740993', 9007199254740993n]],
  ['bigint unsigned', ['18446744073709551615', 2n ** 64n - 1n], ['0', 0n], ['null', null]],
  ['float', ['3.4028234e38', Math.fround(3.4028234e38)], ['-0.1', Math.fround(-0.1)], ['null', null]],
  ['double', ['0.1', 0.1], ['-1e15', -1e15], ['1.7976931348623157e308', Number.MAX_VALUE]],
  ['decimal(38,10)', ['9999999999999999999999999999.9999999999', 10n ** 38n - 1n], ['0', 0n], ['-0.0000000001', -1n]],
  ['longtext', ["''", ''], ["'ünïcödé 🜚'", 'ünïcödé 🜚'], [`repeat('x', 100000)`, 'x'.repeat(100_000)]],
  ['varchar(20) character set latin1', ["'é'", 'é'], ["' x '", ' x '], ['null', null]],
  ['longblob', ["''", new Uint8Array(0)], ["x'00ff'", Uint8Array.from([0, 255])], ['null', null]],
  ['date', ["'0000-00-00'", new Special('0000-00-00')], ["'9999-12-31'", 2_932_896], ["'1969-12-31'", -1]],
  ['time(6)', ["'-00:00:00.000001'", '-00:00:00.000001'], ["'838:59:59'", '838:59:59.000000'], ['null', null]],
  ['datetime(6)', ["'1969-12-31 23:59:59.999999'", -1n], ["'0000-00-00'", new Special('0000-00-00 00:00:00.000000')], ['null', null]],
  ['timestamp(6) null', ["'1970-01-01 00:00:01.000001'", 1_000_001n], ["'2038-01-19 03:14:07'", 2n ** 31n * 1_000_000n - 1_000_000n], ['null', null]],
  ["enum('a','b')", ["'b'", 'b'], ["'a'", 'a'], ['null', null]],
  ["set('x','y')", ["'y,x'", 'x,y'], ["''", ''], ['null', null]],
]

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-contract-'))
/** Servers that the source tells apart, and the oldest. */
const SERVERS: Readonly<Record<string, Omit<MysqlServerOptions, 'dir'>>> = {
  ...Object.fromEntries(KINDS.map(([kind, flavor, settings]) => [kind, { flavor, settings }])),
  'mariadb-10.11': { flavor: 'mariadb', release: 'mariadb-10.11' },
}
const servers = new Map<string, Promise<MysqlServer>>()

function start(name: string, port?: number): Promise<MysqlServer> {
  const started = startMysql({ ...SERVERS[name]!, dir: path.join(dir, name), ...(port === undefined ? {} : { port }) })
  servers.set(name, started)
  return started
}

/** Servers of this file's own: their binlogs are purged. */
function server(name: string): Promise<MysqlServer> {
  return servers.get(name) ?? start(name)
}

afterAll(async () => {
  for (const started of servers.values()) await (await started).stop()
  rmSync(dir, { recursive: true, force: true })
})

async function provision(name: string): Promise<ProvisionedSource> {
  const db = await databaseOn(SERVERS[name]!.flavor, (await server(name)).port)
  const settings = { url: db.url, tables: [`${db.database}.*`], unrepresentable: 'text' }
  let client = await db.connect()
  client.on('error', () => {})
  await client.query(`set sql_mode = '', time_zone = '+00:00'`)
  await client.query(`create user if not exists reader@'127.0.0.1' identified by 'cdc'; grant select on *.* to reader@'127.0.0.1'`)
  const types: TypedTable = {
    rows: [0, 1, 2].map((n) => [n, ...TYPES.map(([, ...values]) => values[n]![1])]),
    create: async (table) => {
      await client.query(`create table ${quote(table)} (id int primary key, ${TYPES.map(([type], i) => `c${i} ${type}`).join()}) character set utf8mb4`)
    },
    load: async (table) => {
      for (const n of [0, 1, 2]) await client.query(`insert into ${quote(table)} values (${n}, ${TYPES.map(([, ...values]) => values[n]![0]).join()})`)
    },
  }
  return {
    plugin: mysql,
    settings,
    namespace: db.database,
    types,
    wrong: [
      { what: 'no server', settings: { ...settings, url: 'mysql://cdc:cdc@127.0.0.1:1' }, code: 'source.unreachable' },
      { what: 'wrong password', settings: { ...settings, url: db.url.replace(':cdc@', ':other@') }, code: 'source.forbidden' },
      { what: 'no privilege to replicate', settings: { ...settings, url: db.url.replace('//cdc:', '//reader:') }, code: 'source.forbidden' },
    ],
    async createTable(table) {
      await client.query(`create table ${quote(table)} (id bigint primary key, name text, quantity int, body longtext) character set utf8mb4`)
    },
    async transact(writes) {
      await client.query('start transaction')
      for (const { text, values } of statements(writes)) await client.query(text, values)
      await client.query('commit')
    },
    async addColumn(table) {
      await client.query(`alter table ${quote(table)} add column extra int`)
    },
    async lockTable(table) {
      const other = await db.connect()
      await other.query(`lock tables ${quote(table)} write`)
      return { [Symbol.asyncDispose]: () => other.end() }
    },
    async restart() {
      const { port, stop } = await server(name)
      await stop()
      client.destroy()
      await start(name, port)
      client = await db.connect()
    },
    async loseHistory() {
      // a file is let go once the server has noticed that its reader is gone, and MariaDB once it wrote a checkpoint after it
      await client.query('flush binary logs')
      await until('the older binlogs are purged', async () => {
        const [logs] = await client.query<RowDataPacket[]>('show binary logs')
        if (logs.length === 1) return true
        await client.query(`purge binary logs to '${logs.at(-1)!.Log_name}'`)
        return false
      })
    },
    async dispose() {
      await client.end()
      await db.drop()
    },
  }
}

// a truncation commits what came before it in its transaction, which the suite's oracle does not know
const can = { changesKeys: true, transactions: true, ignoresEqualUpdates: true, keepsNothing: true, locksReaders: true }
describe.skipIf(skip !== null)(`mysql${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  for (const name of Object.keys(SERVERS)) sourceContract(name, () => provision(name), can)
})

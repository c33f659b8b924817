import { expect, test } from 'vitest'
import type { CatalogTable } from '../../../../connectors/mysql/catalog.ts'
import { fitTables, type TableSettings, unloggedTables } from '../../../../connectors/mysql/fit-tables.ts'
import { lacks, type Server } from '../../../../connectors/mysql/server.ts'
import type { Row, WireConnection } from '../../../../connectors/mysql/wire-connection.ts'

const server: Server = {
  flavor: 'mysql',
  version: 90_700,
  versionText: '9.7.0',
  uuid: '',
  serverId: 1,
  logBin: true,
  format: 'ROW',
  image: 'FULL',
  metadata: 'FULL',
  checksum: 'CRC32',
  gtidMode: 'ON',
  byFile: false,
  performanceSchema: false,
  retentionSeconds: 0,
  lowerCase: false,
  logsCascades: true,
  omitsReplicated: false,
}
const tables = ['shop', 'crm', 'tmp'].map((namespace) => ({ namespace, name: 'a' }) as CatalogTable)

test.each([
  ['', '', []],
  ['shop,crm', '', ['tmp.a']],
  ['', 'tmp,shop', ['shop.a', 'tmp.a']],
  // MySQL asks the second only when the first is empty
  ['shop', 'shop', ['crm.a', 'tmp.a']],
])('tables of databases that binlog-do-db (%s) and binlog-ignore-db (%s) leave out are named', async (only, without, left) => {
  const connection = { query: async () => [['binlog.000001', '4', only, without, '']] } as unknown as WireConnection
  const found = await unloggedTables(connection, server, tables, { cascades: 'refuse' })
  expect([...found.keys()].sort()).toEqual(left)
})

test('a replica that does not log what it replicates lacks that', () => {
  expect(lacks(server)).toEqual([])
  expect(lacks({ ...server, omitsReplicated: true }).map(({ subject }) => subject)).toEqual(['log_replica_updates'])
})

test('MySQL tells the foreign keys of all tables at once, with each look', async () => {
  const columns = ['a', 'b', 'c'].map((name): Row => ['shop', name, 'id', 'int', null, 'NO', '0'])
  const cascading: Row[] = []
  const statements: string[] = []
  const connection = {
    query: async (statement: string): Promise<readonly Row[]> => {
      statements.push(statement)
      if (statement.startsWith('select table_schema, table_name from')) return columns.map(([namespace, name]) => [namespace!, name!])
      return statement.includes('referential_constraints') ? cascading : [['binlog.000001', '4', '', '', '']]
    },
    queries: async (): Promise<readonly (readonly Row[])[]> => [
      columns,
      columns.map(([, name]): Row => ['shop', name!, 'PRIMARY', 'id', '']),
      columns.map(([, name]): Row => ['shop', name!, 'InnoDB', '2026-01-01 00:00:00', '1']),
    ],
  } as unknown as WireConnection
  const settings: TableSettings = { tables: ['shop.*'], cascades: 'refuse', unrepresentable: 'error' }
  let found: Awaited<ReturnType<typeof fitTables>> | undefined
  const look = async () => {
    found = await fitTables(connection, { ...server, version: 80_400, logsCascades: false }, settings, found)
    return { asked: statements.splice(0).filter((text) => /constraint|show create/.test(text)).length, unfit: found.unfit.map(({ why }) => why) }
  }
  expect(await look()).toEqual({ asked: 1, unfit: [] })
  cascading.push(['shop', 'b', 'to_a'], ['crm', 'c', 'of_another'])
  expect(await look()).toEqual({ asked: 1, unfit: [expect.stringContaining('foreign key to_a')] })
  cascading.length = 0
  expect(await look()).toEqual({ asked: 1, unfit: [] })
})

test('foreign keys are asked for again only of tables that changed, or may have since without a trace', async () => {
  const made = new Map([
    ['old', { at: '2026-01-01 00:00:00', isSettled: '1' }],
    ['fresh', { at: '2026-01-02 00:00:00', isSettled: '0' }],
  ])
  const cascading = new Set<string>()
  const asked: string[] = []
  const connection = {
    query: async (statement: string): Promise<readonly Row[]> => {
      if (statement.startsWith('select table_schema, table_name from')) return [...made.keys()].map((name) => ['shop', name])
      const [, name] = /^show create table `shop`.`(\w+)`/.exec(statement) ?? []
      if (name === undefined) return [['binlog.000001', '4', '', '', '']]
      asked.push(name)
      return [
        [name, cascading.has(name) ? 'CREATE TABLE t (\n  CONSTRAINT `f` FOREIGN KEY (`p`) REFERENCES `q` (`id`) ON DELETE CASCADE\n)' : 'CREATE TABLE t ()'],
      ]
    },
    queries: async (): Promise<readonly (readonly Row[])[]> => [
      [...made.keys()].map((name): Row => ['shop', name, 'id', 'int', null, 'NO', '0']),
      [...made.keys()].map((name): Row => ['shop', name, 'PRIMARY', 'id', '']),
      [...made].map(([name, { at, isSettled }]): Row => ['shop', name, 'InnoDB', at, isSettled]),
    ],
  } as unknown as WireConnection
  const settings: TableSettings = { tables: ['shop.*'], cascades: 'refuse', unrepresentable: 'error' }
  let found: Awaited<ReturnType<typeof fitTables>> | undefined
  const look = async () => {
    found = await fitTables(connection, { ...server, flavor: 'mariadb', logsCascades: false }, settings, found)
    return { asked: asked.splice(0), unfit: found.unfit.map(({ table }) => table.name) }
  }
  expect(await look()).toEqual({ asked: ['old', 'fresh'], unfit: [] })
  cascading.add('fresh')
  expect(await look()).toEqual({ asked: ['fresh'], unfit: ['fresh'] })
  made.set('fresh', { at: '2026-01-02 00:00:00', isSettled: '1' })
  expect(await look()).toEqual({ asked: ['fresh'], unfit: ['fresh'] })
  expect(await look()).toEqual({ asked: [], unfit: ['fresh'] })
  cascading.clear()
  cascading.add('old')
  made.set('old', { at: '2026-01-02 00:00:10', isSettled: '0' })
  made.set('fresh', { at: '2026-01-02 00:00:10', isSettled: '0' })
  expect(await look()).toEqual({ asked: ['old', 'fresh'], unfit: ['old'] })
})

import { expect, test } from 'vitest'
import type { CatalogTable } from '../../../../connectors/mysql/catalog.ts'
import { unloggedTables } from '../../../../connectors/mysql/fit-tables.ts'
import { lacks, type Server } from '../../../../connectors/mysql/server.ts'
import type { WireConnection } from '../../../../connectors/mysql/wire-connection.ts'

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
  retentionSeconds: 0,
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

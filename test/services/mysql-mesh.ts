import type { MysqlDatabase } from './mysql.ts'

/** A mesh that captures the whole database into a lake and a search index. */
export function mysqlMeshYaml({ database, url }: Pick<MysqlDatabase, 'database' | 'url'>, chunkRows: number): string {
  return `mesh: ${database.replaceAll('_', '-')}
dataDir: state
sources:
  shop: { kind: mysql, url: '${url}', tables: ['${database}.*'], snapshot: { chunkRows: ${chunkRows}, parallel: 2 } }
sinks:
  lake: { kind: iceberg, from: [shop], warehouse: ./lake, commitRows: 5000, commitMs: 200 }
  search: { kind: search, from: [shop], path: ./search.db }
`
}

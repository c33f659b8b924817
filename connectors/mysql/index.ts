import { definePlugin } from '../../core/plugin.ts'
import { type MysqlConfig, mysqlConfig } from './mysql-config.ts'
import { openMysqlReader } from './mysql-reader.ts'
import { openMysql } from './open-mysql.ts'
import { checkMysql } from './preflight.ts'

export default definePlugin<MysqlConfig>({
  kind: 'source',
  name: 'mysql',
  summary: 'Captures committed changes of MySQL 8.0 to 9.x and MariaDB 10.6 to 11.x from the binlog, by GTID.',
  config: mysqlConfig,
  sourceFields: [
    { name: 'gtid', type: 'string' },
    { name: 'file', type: 'string' },
    { name: 'pos', type: 'long' },
  ],
  check: checkMysql,
  open: openMysql,
  openReader: openMysqlReader,
})

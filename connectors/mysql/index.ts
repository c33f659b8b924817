import { definePlugin } from '../../core/plugin.ts'
import { type MysqlConfig, mysqlConfig } from './mysql-config.ts'
import { openMysqlReader } from './mysql-reader.ts'
import { openMysql } from './open-mysql.ts'
import { checkMysql } from './preflight.ts'
import { SERVERS } from './server.ts'

const { mysql, mariadb } = SERVERS

export default definePlugin<MysqlConfig>({
  kind: 'source',
  name: 'mysql',
  summary:
    `Captures committed changes of MySQL and MariaDB from the binlog, by GTID, or by file and position where MySQL gives none; tested on MySQL ${mysql.tested} and MariaDB ${mariadb.tested}, ` +
    `takes MySQL ${mysql.from}, MariaDB ${mariadb.from} and later.`,
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

/** The MySQL or MariaDB that a benchmark's rows come from. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { databaseOn, type Flavor, type MysqlDatabase, type MysqlServer, startMysql } from '../test/services/mysql.ts'
import type { Lab } from './lab.ts'

export const PER_TRANSACTION = 1000

/** Session or global settings with which a transaction is compressed in the binlog; MariaDB leaves events of up to 256 bytes as they are by default. */
const COMPRESSED = {
  mysql: { on: ['set session binlog_transaction_compression = on'], off: [] },
  mariadb: {
    on: ['set global log_bin_compress = on', 'set global log_bin_compress_min_len = 10'],
    off: ['set global log_bin_compress = off', 'set global log_bin_compress_min_len = 256'],
  },
} as const

const labs = new Map<Flavor, Promise<BinlogLab>>()

export class BinlogLab implements AsyncDisposable {
  readonly flavor: Flavor
  readonly server: MysqlServer
  readonly db: MysqlDatabase

  private constructor(flavor: Flavor, server: MysqlServer, db: MysqlDatabase) {
    this.flavor = flavor
    this.server = server
    this.db = db
  }

  /** The lab's server of this kind; ends with the lab. */
  static of(lab: Lab, flavor: Flavor): Promise<BinlogLab> {
    const known = labs.get(flavor) ?? BinlogLab.#start(lab, flavor)
    labs.set(flavor, known)
    return known
  }

  static async #start(lab: Lab, flavor: Flavor): Promise<BinlogLab> {
    process.env.MILLRACE_TEST_RUN ??= lab.folder('services')
    const server = await startMysql({ flavor, dir: lab.folder(flavor), settings: { 'innodb-buffer-pool-size': '512M', 'max-binlog-size': '1073741824' } })
    return lab.own(new BinlogLab(flavor, server, await databaseOn(flavor, server.port, 'bench')))
  }

  /** An empty bench table and the load procedures. */
  async freshTable(): Promise<void> {
    for (const statement of readFileSync(path.join(import.meta.dirname, 'load.mysql.sql'), 'utf8').split(/^-- next$/m)) await this.db.sql(statement)
  }

  /** All in one transaction. */
  async loadTransaction(first: number, rows: number, isCompressed: boolean): Promise<void> {
    const { on, off } = COMPRESSED[this.flavor]
    const connection = await this.db.connect()
    try {
      if (isCompressed) for (const statement of on) await connection.query(statement)
      await connection.query(`call load_insert(${first}, ${rows}, ${first + rows + 1})`)
      if (isCompressed) for (const statement of off) await connection.query(statement)
    } finally {
      await connection.end()
    }
  }

  /** Whether anyone reads the binlog. */
  async isStreamed(): Promise<boolean> {
    return (await this.db.sql('show processlist')).some(({ Command }) => String(Command).startsWith('Binlog Dump'))
  }

  /** GTIDs of what is in the binlog. */
  async gtids(): Promise<string> {
    const [row] = await this.db.sql(`select @@global.${this.flavor === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos'} as gtids`)
    return String(row!.gtids).replaceAll('\n', '')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.db.drop()
    await this.server.stop('SIGKILL')
  }
}

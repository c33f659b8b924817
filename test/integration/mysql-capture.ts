import { rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { fileMark } from '../../connectors/mysql/binlog-place.ts'
import mysql from '../../connectors/mysql/index.ts'
import { isByFile, lastCommit, readOffset } from '../../connectors/mysql/mysql-offset.ts'
import { asMillraceError, type MillraceError, type PluginContext, type SourceConnector, type SourceOffset } from '../../core/plugin.ts'
import { type Flavor, type MysqlDatabase, mysqlDatabase } from '../services/mysql.ts'
import { RecordingOutput } from './recording-output.ts'

const PATIENCE_MS = 120_000

export function mysqlContext(db: MysqlDatabase): PluginContext {
  return { mesh: 'test', node: db.database, dataDir: path.join(os.tmpdir(), `millrace-${db.database}`), logger: pino({ level: 'silent' }), metric: () => {} }
}

export const mysqlSettings = (db: MysqlDatabase, more: object = {}) => mysql.config.parse({ url: db.url, tables: [`${db.database}.*`], ...more })

/** A source that streams into a recording output until it is stopped. */
export class MysqlCapture {
  readonly connector: SourceConnector
  readonly output: RecordingOutput
  offset: SourceOffset
  failure: MillraceError | null = null
  readonly #db: MysqlDatabase
  readonly #stop = new AbortController()
  readonly #done: Promise<void>

  private constructor(connector: SourceConnector, from: SourceOffset, db: MysqlDatabase, output: RecordingOutput) {
    this.connector = connector
    this.output = output
    this.offset = from
    this.#db = db
    this.#done = this.#run(from)
  }

  static async start(db: MysqlDatabase, more: object = {}, resume: SourceOffset | null = null, output = new RecordingOutput()): Promise<MysqlCapture> {
    const connector = await mysql.open(mysqlSettings(db, more), mysqlContext(db), resume)
    return new MysqlCapture(connector, resume ?? connector.start, db, output)
  }

  async #run(from: SourceOffset): Promise<void> {
    try {
      for await (const offset of this.connector.changes(from, this.output, this.#stop.signal)) this.offset = offset
    } catch (error) {
      this.failure = asMillraceError(error)
    }
  }

  /** Waits until all that was committed on the server is streamed. @throws the stream's own error */
  async caughtUp(): Promise<void> {
    const goal = await this.#end()
    const reached = () => lastCommit(readOffset(this.offset))
    for (const deadline = Date.now() + PATIENCE_MS; reached() < goal; await delay(5)) {
      if (this.failure !== null) throw this.failure
      if (Date.now() > deadline) throw new Error(`the stream stands at ${JSON.stringify(this.offset)}, ${reached()}, not at ${goal}`)
    }
  }

  async #end(): Promise<bigint> {
    const { flavor } = this.#db
    if (isByFile(readOffset(this.offset))) {
      const [row] = await this.#db.sql('show binary log status')
      return fileMark(String(row!.File), Number(row!.Position))
    }
    const [row] = await this.#db.sql(flavor === 'mysql' ? 'select @@global.gtid_executed as g' : 'select @@global.gtid_binlog_pos as g')
    return lastCommit({ flavor, gtids: String(row!.g) })
  }

  /** Waits for the stream to fail. */
  async failed(): Promise<MillraceError> {
    await Promise.race([this.#done, delay(PATIENCE_MS)])
    if (this.failure === null) throw new Error('the stream did not fail')
    return this.failure
  }

  of(table: string): readonly Record<string, unknown>[] {
    return this.output.of(`${this.#db.database}.${table}`).map(({ op, key, before, after }) => ({
      op,
      ...(key === undefined ? {} : { key }),
      ...(before === undefined ? {} : { before }),
      ...(after === undefined ? {} : { after }),
    }))
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#done
    await this.connector[Symbol.asyncDispose]()
    rmSync(mysqlContext(this.#db).dataDir, { recursive: true, force: true })
  }
}

/** A database of a test's own with these tables, captured from here on. */
export async function captureOf(flavor: Flavor, tables: string): Promise<{ readonly db: MysqlDatabase; readonly capture: MysqlCapture }> {
  const db = await mysqlDatabase(flavor)
  await db.sql(tables)
  return { db, capture: await MysqlCapture.start(db) }
}

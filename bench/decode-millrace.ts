/** Child of `decode`: rows of the binlog as objects, read by our connector. */
import os from 'node:os'
import pino from 'pino'
import mysql from '../connectors/mysql/index.ts'
import { writeOffset } from '../connectors/mysql/mysql-offset.ts'
import { ValueWriter } from '../core/event/value-writer.ts'
import type { CaptureOutput, ChangeWriter, TableSchema, Value } from '../core/plugin.ts'
import { DecodeMeter, type DecodeTask } from './decode.ts'

const task = JSON.parse(process.argv[2]!) as DecodeTask
const meter = new DecodeMeter(task.rows)
const stop = new AbortController()

class RowWriter extends ValueWriter implements ChangeWriter {
  readonly table: TableSchema
  row: Record<string, Value> = {}
  #column = 0

  constructor(table: TableSchema) {
    super()
    this.table = table
  }

  protected override take(value: Value): void {
    this.row[this.table.columns[this.#column++]!.name] = value
  }

  begin(): boolean {
    return true
  }
  before(): void {}
  after(): void {
    this.row = {}
    this.#column = 0
  }
  key(): void {}
  end(): void {
    if (meter.count(1)) stop.abort()
  }
  truncate(): void {}
}

const output: CaptureOutput = {
  tablesVersion: 0,
  chunks: { size: 0, onWaiting: null, emit: () => null },
  table: async (schema) => new RowWriter(schema),
  park: (_table, error) => {
    throw error
  },
  skip: () => {},
  reread: () => {},
  shape: () => null,
  transaction: () => {},
}
const from = writeOffset({ flavor: task.flavor, gtids: task.gtids })
const config = mysql.config.parse({ url: `mysql://cdc:cdc@${task.host}:${task.port}/bench`, tables: ['bench.bench'] })
const context = { mesh: 'bench', node: 'decode', dataDir: os.tmpdir(), logger: pino({ level: 'silent' }), metric: () => {} }
await using connector = await mysql.open(config, context, from)
for await (const _offset of connector.changes(from, output, stop.signal)) if (stop.signal.aborted) break
meter.print()

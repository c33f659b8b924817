/**
 * What it costs to leave the audit on: the CPU of the whole process that drains a backlog, with and without it, in turns; and the change writer alone, with
 * and without its totals, in one process, which is less of it, and more exact.
 */
import path from 'node:path'
import { TableWriter } from '../core/capture/change-writer.ts'
import { FrameAssembler } from '../core/capture/frame-assembler.ts'
import { WriterState } from '../core/capture/writer-state.ts'
import type { ColumnType, TableSchema } from '../core/event/table-schema.ts'
import { Tally, WindowLedger } from '../core/event/window-ledger.ts'
import { type BenchCase, backlog } from './cases.ts'
import { round } from './drain.ts'

const TYPES: readonly ColumnType[] = [
  { kind: 'int64' },
  { kind: 'int32' },
  { kind: 'string' },
  { kind: 'string' },
  { kind: 'decimal', precision: 12, scale: 2 },
  { kind: 'timestamptz' },
  { kind: 'boolean' },
  { kind: 'json' },
]
const TABLE: TableSchema = {
  namespace: 'public',
  name: 'bench',
  key: [0],
  columns: TYPES.map((type, i) => ({ name: `c${i}`, id: i + 1, type, sourceType: type.kind, nullable: i > 0, mayBeUnchanged: false, maybeSpecial: false })),
}

class NoTally extends Tally {
  override add(): void {}
}

class NoWindows extends WindowLedger {
  readonly #tally = new NoTally()
  override tally(): Tally {
    return this.#tally
  }
}

function writeRows(rows: number, ledger: WindowLedger): number {
  const frames = new FrameAssembler()
  const state = new WriterState()
  const fields = Array.from({ length: 5 }, () => null)
  state.describe(1n, fields)
  const target = { topic: 'bench', partitions: 1, keySchemaId: 1, valueSchemaId: 2, sourcePrefix: Buffer.alloc(60), truncationKeyId: null, ledger }
  const writer = new TableWriter(TABLE, target, state, frames)
  const text = Buffer.from('x'.repeat(200))
  const begin = process.cpuUsage()
  for (let i = 0; i < rows; i++) {
    if (i % 1000 === 0) {
      state.commit = BigInt(i)
      state.lastOrdinal = 0
      state.describe(1n, fields)
    }
    writer.begin('c', (i % 1000) * 2 + 1)
    writer.after()
    writer.long64(0, i)
    writer.int(i % 1000)
    writer.text(text, 0, 20)
    writer.text(text, 20, 80)
    writer.decimal(i * 3)
    writer.long64(400_000, i)
    writer.boolean(true)
    writer.text(text, 80, 110)
    writer.end()
    if (frames.count >= 2000) for (const frame of frames.take()) frames.give(frame.buffer)
  }
  const { user, system } = process.cpuUsage(begin)
  return ((user + system) * 1e6) / rows / 1e6
}

const WITHOUT = { name: 'without the audit', nodeArgs: ['--import', path.join(import.meta.dirname, 'without-audit.ts')] }
const WITH = { name: 'with the audit', nodeArgs: [] }

export const auditCost: BenchCase = async (options) => {
  const { rows, report, repetition } = options
  // whatever the machine does meanwhile is done to both
  for (const variant of repetition % 2 === 0 ? [WITH, WITHOUT] : [WITHOUT, WITH]) await backlog(options, 'embedded', 'insert', variant)
  if (repetition > 0) return
  const figures = { with: [] as number[], without: [] as number[] }
  writeRows(rows, new WindowLedger(60))
  writeRows(rows, new NoWindows(1))
  for (let turn = 0; turn < 3; turn++) {
    figures.with.push(writeRows(rows, new WindowLedger(60)))
    figures.without.push(writeRows(rows, new NoWindows(1)))
  }
  for (const [name, values] of Object.entries(figures)) {
    report({
      label: `change writer ${name} the audit's totals`,
      rows,
      rowsPerSecond: Number.NaN,
      firstRecordS: null,
      cpuPerMillion: round(Math.min(...values), 3),
      cpuFromLaunchPerMillion: Number.NaN,
      walsenderCpuPerMillion: null,
      brokerCpuPerMillion: null,
      peakRssMb: 0,
    })
  }
}

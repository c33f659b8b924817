import type { CaptureOutput, ChangeWriter, PendingChunks, SnapshotFence, TableSchema, TransactionStart, Value } from '../../core/plugin.ts'
import { asMillraceError, Special, tableId, UNCHANGED } from '../../core/plugin.ts'

export interface RecordedChange {
  readonly table: string
  readonly op: 'c' | 'u' | 'd' | 't'
  readonly commit: bigint
  readonly ordinal: number
  readonly txId: bigint
  /** Values by column name; UNCHANGED where the source did not send one. */
  key?: Record<string, Value>
  before?: Record<string, Value>
  after?: Record<string, Value>
}

/** A CaptureOutput that keeps what a source writes as plain values, and checks that calls follow the contract. */
export class RecordingOutput implements CaptureOutput {
  readonly changes: RecordedChange[] = []
  readonly tables: TableSchema[] = []
  readonly rereads: TableSchema[] = []
  readonly emitted: { readonly fence: SnapshotFence; readonly after: number }[] = []
  readonly chunks: PendingChunks & { waiting: Set<SnapshotFence> }
  start: TransactionStart | null = null
  readonly parked = new Map<string, { readonly error: unknown; skipped: number }>()
  tablesVersion = 0
  isRewritten: (before: TableSchema, now: TableSchema) => Promise<boolean> = async () => false

  constructor() {
    const { emitted, changes } = this
    this.chunks = {
      waiting: new Set(),
      onWaiting: null,
      get size() {
        return this.waiting.size
      },
      emit(isDue) {
        for (const fence of this.waiting) {
          if (!isDue(fence)) continue
          this.waiting.delete(fence)
          emitted.push({ fence, after: changes.length })
        }
        return null
      },
    }
  }

  async table(schema: TableSchema): Promise<ChangeWriter | null> {
    if (this.parked.has(tableId(schema))) return null
    const before = this.tables.findLast((known) => tableId(known) === tableId(schema))
    if (before !== undefined && JSON.stringify(before) !== JSON.stringify(schema) && (await this.isRewritten(before, schema))) this.rereads.push(schema)
    this.tables.push(schema)
    return recordingWriter(schema, this)
  }

  park(table: Pick<TableSchema, 'namespace' | 'name'>, error: unknown): void {
    if (asMillraceError(error).category !== 'schema') throw error
    this.parked.set(tableId(table), { error, skipped: 0 })
    this.tablesVersion++
  }

  skip(table: Pick<TableSchema, 'namespace' | 'name'>): void {
    this.parked.get(tableId(table))!.skipped++
  }

  shape(table: Pick<TableSchema, 'namespace' | 'name'>): TableSchema | null {
    return this.tables.findLast((known) => tableId(known) === tableId(table)) ?? null
  }

  transaction(start: TransactionStart): void {
    if (this.start !== null && start.commit <= this.start.commit) throw new Error(`commit ${start.commit} does not follow ${this.start.commit}`)
    this.start = start
  }

  of(table: string): readonly RecordedChange[] {
    return this.changes.filter((change) => change.table === table)
  }
}

function recordingWriter(table: TableSchema, output: RecordingOutput): ChangeWriter {
  let change: RecordedChange | null = null
  let image: Record<string, Value> | null = null
  let names: readonly string[] = []
  let column = 0
  const all = table.columns.map(({ name }) => name)
  const place = (op: RecordedChange['op'], ordinal: number): RecordedChange => {
    const { start } = output
    if (start === null) throw new Error('a change before its transaction')
    return { table: tableId(table), op, commit: start.commit, ordinal, txId: start.source[0] as bigint }
  }
  const close = () => {
    if (image !== null && column !== names.length) throw new Error(`${column} of ${names.length} columns of ${tableId(table)}`)
  }
  const open = (columns: readonly string[]) => {
    close()
    image = {}
    names = columns
    column = 0
    return image
  }
  const put = (value: Value) => {
    if (image === null || column >= names.length) throw new Error('a column too many')
    image[names[column++]!] = value
  }
  return {
    table,
    begin(op, ordinal) {
      change = place(op, ordinal)
      image = null
      return true
    },
    before() {
      change!.before = open(all)
    },
    after() {
      change!.after = open(all)
    },
    key() {
      change!.key = open(table.key.map((i) => all[i]!))
    },
    end() {
      close()
      output.changes.push(change!)
    },
    truncate(ordinal) {
      output.changes.push(place('t', ordinal))
    },
    null: () => put(null),
    unchanged: () => put(UNCHANGED),
    special: (text) => put(new Special(text)),
    boolean: put,
    int: put,
    long: (value) => put(BigInt(value)),
    long64: (high, low) => put(BigInt(high) * 0x1_0000_0000n + BigInt(low)),
    bigint: put,
    float: put,
    double: put,
    decimal: (unscaled) => put(BigInt(unscaled)),
    decimalBig: put,
    text: (bytes, from, to) => put(bytes.toString('utf8', from, to)),
    string: put,
    bytes: (bytes, from, to) => put(new Uint8Array(bytes.subarray(from, to))),
    value: put,
  }
}

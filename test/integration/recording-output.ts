import { ValueWriter } from '../../core/event/value-writer.ts'
import type { CaptureOutput, ChangeWriter, PendingChunks, SnapshotFence, TableSchema, TransactionStart, Value } from '../../core/plugin.ts'
import { asMillraceError, tableId } from '../../core/plugin.ts'

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
    return new RecordingWriter(schema, this)
  }

  park(table: Pick<TableSchema, 'namespace' | 'name'>, error: unknown): void {
    if (asMillraceError(error).category !== 'schema') throw error
    this.parked.set(tableId(table), { error, skipped: 0 })
    this.tablesVersion++
  }

  skip(table: Pick<TableSchema, 'namespace' | 'name'>): void {
    this.parked.get(tableId(table))!.skipped++
  }

  reread(table: Pick<TableSchema, 'namespace' | 'name'>): void {
    this.rereads.push(this.shape(table)!)
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

class RecordingWriter extends ValueWriter implements ChangeWriter {
  readonly table: TableSchema
  readonly #output: RecordingOutput
  readonly #all: readonly string[]
  #change: RecordedChange | null = null
  #image: Record<string, Value> | null = null
  #names: readonly string[] = []
  #column = 0

  constructor(table: TableSchema, output: RecordingOutput) {
    super()
    this.table = table
    this.#output = output
    this.#all = table.columns.map(({ name }) => name)
  }

  begin(op: 'c' | 'u' | 'd', ordinal: number): boolean {
    this.#change = this.#place(op, ordinal)
    this.#image = null
    return true
  }
  before(): void {
    this.#change!.before = this.#open(this.#all)
  }
  after(): void {
    this.#change!.after = this.#open(this.#all)
  }
  key(): void {
    this.#change!.key = this.#open(this.table.key.map((i) => this.#all[i]!))
  }
  end(): void {
    this.#close()
    this.#output.changes.push(this.#change!)
  }
  truncate(ordinal: number): void {
    this.#output.changes.push(this.#place('t', ordinal))
  }

  protected override take(value: Value): void {
    if (this.#image === null || this.#column >= this.#names.length) throw new Error('a column too many')
    this.#image[this.#names[this.#column++]!] = value
  }

  #place(op: RecordedChange['op'], ordinal: number): RecordedChange {
    const { start } = this.#output
    if (start === null) throw new Error('a change before its transaction')
    return { table: tableId(this.table), op, commit: start.commit, ordinal, txId: start.source[0] as bigint }
  }

  #close(): void {
    if (this.#image !== null && this.#column !== this.#names.length) {
      throw new Error(`${this.#column} of ${this.#names.length} columns of ${tableId(this.table)}`)
    }
  }

  #open(columns: readonly string[]): Record<string, Value> {
    this.#close()
    this.#image = {}
    this.#names = columns
    this.#column = 0
    return this.#image
  }
}

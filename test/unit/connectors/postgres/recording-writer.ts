import { ValueWriter } from '../../../../core/event/value-writer.ts'
import type { ChangeWriter, OpLetter, TableSchema, Value } from '../../../../core/plugin.ts'

export interface RecordedChange {
  readonly op: OpLetter
  readonly ordinal: number
  before?: readonly Value[]
  after?: readonly Value[]
  key?: readonly Value[]
}

/** Collects what a source writes: one entry per change, its images as values. `row` begins a row outside a transaction (a chunk's). */
export class RecordingWriter extends ValueWriter implements ChangeWriter {
  readonly table: TableSchema
  readonly changes: RecordedChange[] = []
  #values: Value[] = []

  constructor(table: TableSchema) {
    super()
    this.table = table
  }

  /** The `after` images of all changes. */
  get rows(): readonly (readonly Value[])[] {
    return this.changes.flatMap(({ after }) => (after === undefined ? [] : [after]))
  }

  row(): void {
    this.changes.push({ op: 'r', ordinal: -1 })
    this.after()
  }
  begin(op: 'c' | 'u' | 'd', ordinal: number): boolean {
    this.changes.push({ op, ordinal })
    return true
  }
  before(): void {
    this.#image('before')
  }
  after(): void {
    this.#image('after')
  }
  key(): void {
    this.#image('key')
  }
  #image(name: 'before' | 'after' | 'key'): void {
    this.#values = []
    this.changes.at(-1)![name] = this.#values
  }
  end(): void {
    const { before, after, key } = this.changes.at(-1)!
    for (const image of [before, after]) {
      if (image !== undefined && image.length !== this.table.columns.length)
        throw new Error(`an image has ${image.length} of ${this.table.columns.length} columns`)
    }
    if (key !== undefined && key.length !== this.table.key.length) throw new Error(`a key has ${key.length} of ${this.table.key.length} columns`)
  }
  truncate(ordinal: number): void {
    this.changes.push({ op: 't', ordinal })
  }

  protected override take(value: Value): void {
    this.#values.push(value)
  }
  override int(value: number): void {
    if (!Number.isInteger(value)) throw new Error(`int(${value})`)
    super.int(value)
  }
  override long(value: number): void {
    if (!Number.isSafeInteger(value)) throw new Error(`long(${value})`)
    super.long(value)
  }
  override decimal(unscaled: number): void {
    if (!Number.isSafeInteger(unscaled)) throw new Error(`decimal(${unscaled})`)
    super.decimal(unscaled)
  }
}

import { asMillraceError, isOfOneTable, type MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import type { Position } from '../event/position.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { TableGate, TableWriter } from './change-writer.ts'
import type { ChunkedSnapshot } from './chunked-snapshot.ts'
import { whyNotCompactable } from './compactable.ts'
import { KnownParts } from './known-parts.ts'
import { LogShapes } from './log-shapes.ts'
import { type ParkedStatus, ParkedTables, parkedTable } from './parked-tables.ts'
import type { SourceConnector } from './source-connector.ts'
import { TableWatch } from './table-watch.ts'

type TableName = Pick<TableSchema, 'namespace' | 'name'>

export interface TableIntakeOptions {
  readonly node: string
  readonly connector: Pick<SourceConnector, 'isRewritten' | 'whyAbsent' | 'parts' | 'unfit'>
  readonly progress: ReadonlyMap<string, Json>
  readonly snapshot: ChunkedSnapshot
  /** The writer for a shape; registers its schemas. */
  readonly writerFor: (table: TableSchema) => Promise<TableWriter>
  /** Of the last change that was written. */
  readonly position: () => Position
  /** Its topics are compacted: tables whose last record of a key may not say the whole row are parked. */
  readonly compacted: boolean
}

/** Decides what becomes of a table as its shape changes: written on, read again, or parked, so that the others go on. */
export class TableIntake {
  readonly #options: TableIntakeOptions
  readonly #shapes: LogShapes
  readonly #parked: ParkedTables
  readonly #parts: KnownParts
  readonly #watch: TableWatch

  constructor(options: TableIntakeOptions) {
    this.#options = options
    const { connector, progress, snapshot } = options
    const shapes = new LogShapes(progress)
    const parked = new ParkedTables(progress)
    this.#shapes = shapes
    this.#parked = parked
    const parts = new KnownParts(progress)
    this.#parts = parts
    this.#watch = new TableWatch({
      connector,
      progress,
      snapshot,
      shapes,
      parked,
      parts,
      park: (table, error) => this.#park(table, error),
      name: (table, error) => this.#name(tableId(table), error),
    })
  }

  /** The source's tables as they are listed now. */
  take(tables: readonly TableSchema[]): Promise<void> {
    return this.#watch.take(tables)
  }

  /** Rises when a table is left out, or no longer is. */
  get version(): number {
    return this.#parked.version
  }

  shape(table: TableName): TableSchema | null {
    return this.#shapes.get(tableId(table)) ?? null
  }

  /** The writer of a table's changes from here on. Null: they are left out. */
  async writer(schema: TableSchema): Promise<TableWriter | null> {
    const { connector, snapshot, writerFor } = this.#options
    const id = tableId(schema)
    if (this.#parked.isLeftOut(id)) return null
    try {
      this.#checkCompactable(schema)
      const table = this.#shapes.widened(schema)
      const change = this.#shapes.change(table, snapshot.isEmptied(id))
      const writer = await writerFor(table)
      // I5: both facts land with one batch, before the first row of the new shape
      const again = change === 'changed' ? await connector.isRewritten(this.#shapes.get(id)!, table) : change === 'replaced'
      if (this.#parked.isLeftOut(id)) return null
      if (again) snapshot.reread(table, change === 'replaced')
      this.#shapes.adopt(table)
      return writer
    } catch (error) {
      this.leaveOut(schema, error)
      return null
    }
  }

  /** A change of the table cannot be written. @throws what is not of one table */
  leaveOut(table: TableName, thrown: unknown): void {
    const error = ofOneTable(thrown)
    const id = tableId(table)
    // its truncation and its reading come after this change
    if (this.#options.snapshot.isEmptied(id)) this.#parked.await(id)
    else this.#park(table, error)
  }

  skip(table: TableName): void {
    this.#parked.skip(tableId(table))
  }

  /** What the table's writers ask before each change, and tell of one that they cannot write. */
  gate(table: TableName): TableGate {
    const id = tableId(table)
    const parked = this.#parked
    return {
      get closed() {
        return parked.size > 0 && parked.isLeftOut(id)
      },
      skip: () => parked.skip(id),
      refuse: (error) => {
        this.leaveOut(table, error)
        parked.skip(id)
      },
    }
  }

  /** A chunk of the table cannot be read or written. @throws what is not of one table */
  failReading(table: TableName, thrown: unknown): void {
    const error = ofOneTable(thrown)
    // it lived between two lists, and left nothing behind
    if (error.code === 'source.table_gone' && this.shape(table) === null) this.#options.snapshot.drop(tableId(table))
    else this.#park(table, error)
  }

  #park(table: TableName, error: MillraceError): void {
    // I10: named and durable with the next batch, and the source goes on
    const id = tableId(table)
    if (this.#name(id, error)) this.#options.snapshot.drop(id)
  }

  /** @returns false when it is parked already */
  #name(id: string, error: MillraceError): boolean {
    const { node, position } = this.#options
    if (this.#parked.get(id) !== undefined) return false
    this.#parked.park(id, parkedTable(node, id, error, position()))
    return true
  }

  /** The writer for a chunk's shape. */
  async chunkWriter(schema: TableSchema): Promise<TableWriter> {
    this.#checkCompactable(schema)
    const table = this.#shapes.widened(schema)
    // a key of other columns must not come beside the rows of the old one
    this.#shapes.change(table, this.#options.snapshot.isEmptied(tableId(table)))
    return await this.#options.writerFor(table)
  }

  /** As the source has the table now: what earlier shapes left out is no matter once the table was read again. */
  #checkCompactable(schema: TableSchema): void {
    const why = this.#options.compacted ? whyNotCompactable(schema) : null
    if (why !== null) throw why
  }

  /** The first rows of a table's reading come next. @returns whether the log's rows have to go first */
  beforeReading(schema: TableSchema): boolean {
    // later chunks may be of a newer shape: the oldest rows decide whether to read again
    const table = this.#shapes.widened(schema)
    const id = tableId(table)
    const replaced = !this.#options.snapshot.isEmptied(id) && this.#shapes.change(table, false) === 'replaced'
    this.#shapes.adopt(table)
    this.#parked.arrive(id)
    return replaced
  }

  get hasProgress(): boolean {
    return this.#parked.hasProgress || this.#parts.hasProgress
  }

  takeProgress(into: Map<string, Json | null>): void {
    this.#shapes.takeProgress(into)
    this.#parked.takeProgress(into)
    this.#parts.takeProgress(into)
  }

  parked(): readonly ParkedStatus[] {
    return this.#parked.status()
  }
}

/** The error of one table, whose neighbours can go on. @throws any other */
function ofOneTable(thrown: unknown): MillraceError {
  const error = asMillraceError(thrown)
  if (!isOfOneTable(error)) throw error
  return error
}

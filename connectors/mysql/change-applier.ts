import { type CaptureOutput, type ChangeWriter, MillraceError, tableId } from '../../core/plugin.ts'
import { EVENT } from './binlog-event.ts'
import type { DescribedTable } from './captured-tables.ts'
import type { DescribedAhead } from './described-ahead.ts'
import { keyLiteral } from './key-literal.ts'
import { compressedValue } from './mariadb-compressed.ts'
import { protocolError } from './mysql-error.ts'
import { isFull, RowImages } from './row-images.ts'
import type { Flavor } from './server.ts'
import { areEqual } from './short-bytes.ts'
import type { FoundRow } from './snapshot-reader.ts'
import { isCompressed, readTableMap, type TableMap } from './table-map.ts'
import type { MappedTable, WireReader } from './type-mapping.ts'
import { readLength } from './wire-connection.ts'

/** Ordinals of a transaction stay below 2^31, and a change takes two. */
const MOST_CHANGES = 0x3fff_ffff
/** A table has a new id whenever the server opens it anew; its map comes before the rows of each statement. */
const MOST_RELATIONS = 1000
/** Comes with no table map: it only ends a statement. */
const DUMMY_TABLE = 0xff_ffff

/** The event at hand. Its place is a text for messages, so it is asked for only when there is one. */
interface Placed {
  readonly place: string
}

/** What was looked up for a row: nothing, or these columns; the row may be gone. */
type Found = { readonly columns: ReadonlySet<number>; readonly row: FoundRow | null } | null

/** A table map and, once a row needed it, its table. */
interface Relation {
  readonly map: TableMap
  /** The event's body, to see whether the next one says the same. */
  readonly body: Buffer
  readonly images: RowImages
  /** The same for the row before an update. */
  readonly old: RowImages
  /** Its rows lack columns. */
  isSparse: boolean
  /** Null: not described since definitions may have changed. */
  mapped: MappedTable | null
  /** See `DescribedTable`. */
  asOf: bigint | null
  state: 'unbound' | 'bound' | 'skipped' | 'parked'
  writer: ChangeWriter | null
  readers: readonly WireReader[]
}

export interface TransactionFacts {
  readonly commit: bigint
  readonly committedAt: bigint
  readonly source: readonly (bigint | string | null)[]
}

export interface ChangeApplierOptions {
  readonly flavor: Flavor
  readonly output: CaptureOutput
  readonly isCaptured: (namespace: string, name: string) => boolean
  /** The table as the rows with this map have it; null: they are of no table. */
  readonly describe: (map: TableMap) => Promise<DescribedTable | null>
  readonly ahead: DescribedAhead
  /** The table as it is defined now; null: there is none. */
  readonly current: (namespace: string, name: string) => Promise<MappedTable | null>
  /** Columns of the row with this key as they are now; null: it is gone. */
  readonly find: (mapped: MappedTable, columns: readonly number[], key: readonly string[]) => Promise<FoundRow | null>
}

/**
 * Turns table maps and row events of one transaction after the other into calls of change writers. Synchronous but for a table's first row. Every row counts,
 * captured or not, so that ordinals are the same after a restart.
 */
export class ChangeApplier {
  readonly #options: ChangeApplierOptions
  readonly #relations = new Map<number, Relation>()
  #mostRelations = MOST_RELATIONS
  readonly #shapes = new Map<string, { readonly shape: string; readonly writer: ChangeWriter }>()
  #facts: TransactionFacts | null = null
  #announced = false
  #count = 0
  #tablesVersion = 0

  constructor(options: ChangeApplierOptions) {
    this.#options = options
  }

  begin(facts: TransactionFacts): void {
    if (this.#relations.size > this.#mostRelations) this.#forgetOld()
    this.#facts = facts
    this.#announced = false
    this.#count = 0
  }

  /** I8: of a captured table the last one may come again, of others it costs nothing to have it anew. */
  #forgetOld(): void {
    const last = new Map<string, number>()
    for (const [id, { map, state }] of this.#relations) if (state !== 'skipped') last.set(tableId(map), id)
    const kept = new Set(last.values())
    for (const id of [...this.#relations.keys()]) if (!kept.has(id)) this.#relations.delete(id)
    this.#mostRelations = Math.max(MOST_RELATIONS, 2 * kept.size)
  }

  /** Definitions may have changed: each table is described anew with its next row. */
  forget(): void {
    for (const relation of this.#relations.values()) {
      if (relation.state === 'skipped') continue
      relation.state = 'unbound'
      relation.mapped = null
    }
  }

  /** Tables were parked or are no longer: all writers are asked for again. */
  #unbind(): void {
    this.#tablesVersion = this.#options.output.tablesVersion
    this.#shapes.clear()
    for (const relation of this.#relations.values()) if (relation.state !== 'skipped') relation.state = 'unbound'
  }

  tableMap(bytes: Buffer, at: number, end: number, event: Placed): void {
    const id = bytes.readUIntLE(at, 6)
    const known = this.#relations.get(id)
    if (known !== undefined && areEqual(known.body, bytes, at, end)) return
    const map = readTableMap(bytes, at, end, this.#options.flavor, event.place)
    const body = Buffer.from(bytes.subarray(at, end))
    const images = new RowImages(map.columns)
    const old = new RowImages(map.columns)
    const state = this.#options.isCaptured(map.namespace, map.name) ? 'unbound' : 'skipped'
    this.#relations.set(id, { map, body, images, old, isSparse: false, mapped: null, asOf: null, state, writer: null, readers: [] })
  }

  /** Applies a row event. A promise: wait for it before the next event; the bytes must stay until then. */
  rows(type: number, bytes: Buffer, view: DataView, at: number, end: number, event: Placed): Promise<void> | undefined {
    const id = view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32
    if (id === DUMMY_TABLE) return undefined
    const relation = this.#relations.get(id)
    if (this.#options.output.tablesVersion !== this.#tablesVersion) this.#unbind()
    if (relation === undefined) throw protocolError(`rows of table ${id}, which no table map names,`, event.place)
    if (relation.state === 'unbound') return this.#bind(relation).then(() => this.#rows(relation, type, bytes, view, at, end, event))
    return this.#rows(relation, type, bytes, view, at, end, event)
  }

  async #bind(relation: Relation): Promise<void> {
    try {
      if (relation.map.unknownType !== undefined) throw unknownType(relation.map)
      if (relation.mapped === null) {
        const described = await this.#options.describe(relation.map)
        if (described === null) {
          relation.state = 'skipped'
          return
        }
        Object.assign(relation, described)
      }
      const described = relation.mapped!
      const mapped = relation.isSparse ? sparse(described) : described
      relation.mapped = mapped
      relation.writer = await this.#open(mapped)
      relation.readers = mapped.readers.map(({ binlog }, i) => (isCompressed(relation.map.columns[i]!) ? compressedValue(binlog) : binlog))
      relation.state = relation.writer === null ? 'parked' : 'bound'
      if (relation.writer !== null && relation.asOf !== null) this.#options.ahead.note(tableId(relation.map), relation.asOf)
    } catch (error) {
      this.#park(relation, error)
    }
  }

  /** The rows of a table are not those that were captured any more. */
  setAside(table: Pick<TableMap, 'namespace' | 'name'>, error: MillraceError): void {
    this.#options.ahead.forget(tableId(table))
    if (this.#options.output.shape(table) === null) return
    this.#announce()
    this.#options.output.park(table, error)
  }

  /** Rows of the table that exist may read differently from here on. */
  reread(table: Pick<TableMap, 'namespace' | 'name'>): void {
    if (this.#options.output.shape(table) !== null) this.#options.output.reread(table)
  }

  /** A table was created: what the log has under its name are rows of another. */
  async recreate(namespace: string, name: string): Promise<void> {
    if (this.#options.output.shape({ namespace, name }) !== null) await this.truncate(namespace, name)
  }

  /** @throws what is not of this table alone */
  #park(relation: Relation, error: unknown): void {
    this.#announce()
    this.#options.output.park(relation.map, error)
    relation.state = 'parked'
  }

  /** Null: the table is parked. */
  async #open({ table }: Pick<MappedTable, 'table'>): Promise<ChangeWriter | null> {
    const { output } = this.#options
    const id = tableId(table)
    const shape = JSON.stringify(table)
    let known = this.#shapes.get(id)
    if (known?.shape !== shape) {
      const writer = await output.table(table)
      if (writer === null) return null
      known = { shape, writer }
      this.#shapes.set(id, known)
    }
    return known.writer
  }

  #rows(relation: Relation, type: number, bytes: Buffer, view: DataView, from: number, end: number, event: Placed): Promise<void> | undefined {
    try {
      let at = from + 8
      if (type >= EVENT.writeRows) at += view.getUint16(at, true)
      const { value: columns, next } = readLength(bytes, at)
      if (relation.map.unknownType === undefined && columns !== relation.images.columns) throw new RangeError(`rows of ${columns} columns`)
      const bitmap = (columns + 7) >> 3
      const isPartial = type === EVENT.partialUpdateRows
      const isUpdate = type === EVENT.updateRows || type === EVENT.updateRowsV1 || isPartial
      const first = next
      const second = isUpdate ? next + bitmap : next
      at = second + bitmap
      if (relation.state === 'skipped' || relation.state === 'parked') this.#skip(relation, bytes, at, end, first, isUpdate ? second : -1, isPartial)
      else {
        const op = type === EVENT.writeRows || type === EVENT.writeRowsV1 ? 'c' : isUpdate ? 'u' : 'd'
        // what the server hides comes last, and need not be there
        const shown = relation.readers.length
        if (isPartial || !isFull(bytes, first, shown) || !isFull(bytes, second, shown)) {
          return this.#writeSparse(relation, op, bytes, view, at, end, first, second, isPartial).catch((error) => unreadable(relation, event, error))
        }
        this.#write(relation, op, bytes, view, at, end, first, second)
      }
      return undefined
    } catch (error) {
      return unreadable(relation, event, error)
    }
  }

  /** Rows of a table that is left out need not be readable: from where they are not, the event's count as one. */
  #skip({ images, map, state }: Relation, bytes: Buffer, from: number, end: number, first: number, second: number, isPartial: boolean): void {
    for (let at = from; at < end; ) {
      try {
        if (map.unknownType !== undefined) throw new RangeError(`a column of type ${map.unknownType}`)
        at = images.locate(bytes, at, end, first)
        if (second >= 0) at = isPartial ? images.locatePartial(bytes, at, end, second) : images.locate(bytes, at, end, second)
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        at = end
      }
      this.#take()
      if (state === 'parked') this.#options.output.skip(map)
    }
  }

  #write(relation: Relation, op: 'c' | 'u' | 'd', bytes: Buffer, view: DataView, from: number, end: number, first: number, second: number): void {
    const { images, readers } = relation
    const writer = relation.writer!
    for (let at = from; at < end; ) {
      const ordinal = this.#take()
      this.#announce()
      const taken = writer.begin(op, ordinal)
      if (op !== 'c') {
        at = images.locate(bytes, at, end, first)
        if (taken) {
          writer.before()
          images.write(bytes, view, readers, writer)
        }
      }
      if (op !== 'd') {
        at = images.locate(bytes, at, end, second)
        if (taken) {
          writer.after()
          images.write(bytes, view, readers, writer)
        }
      }
      if (taken) writer.end()
    }
  }

  /** Rows that came without some columns (`binlog_row_image` other than FULL), or with only what changed of a document. */
  async #writeSparse(
    relation: Relation,
    op: 'c' | 'u' | 'd',
    bytes: Buffer,
    view: DataView,
    from: number,
    end: number,
    first: number,
    second: number,
    isPartial: boolean,
  ): Promise<void> {
    const { images, old } = relation
    for (let at = from; at < end; ) {
      if (isParked(relation)) return this.#skip(relation, bytes, at, end, first, op === 'u' ? second : -1, isPartial)
      const row = at
      if (op !== 'c') at = old.locate(bytes, at, end, first)
      if (op !== 'd') at = isPartial ? images.locatePartial(bytes, at, end, second) : images.locate(bytes, at, end, second)
      try {
        const found = await this.#complete(relation, op, bytes, view)
        while (this.#options.output.tablesVersion !== this.#tablesVersion) {
          this.#unbind()
          await this.#bind(relation)
        }
        // the table is parked, or waits: its rows from this one on are left out
        if (!isParked(relation)) this.#writeSparseRow(relation, op, bytes, view, found)
        else at = row
      } catch (error) {
        this.#park(relation, error)
        at = row
      }
    }
  }

  /** Looks for what a row lacks that must be whole. Not found: it is NULL, for its delete, or the change of its key, is yet to come. */
  async #complete(relation: Relation, op: 'c' | 'u' | 'd', bytes: Buffer, view: DataView): Promise<Found> {
    const { images, old } = relation
    const { table, definition } = relation.mapped!
    if (op === 'd') {
      if (table.key.some((i) => !old.has(i))) throw withoutKey(relation.map)
      return null
    }
    // MariaDB sends no computed column with an update, MySQL not all of them: what it was before says nothing
    const isComputed = (i: number) => definition.columns[i]!.generated && !table.key.includes(i)
    const isKnown = (i: number) => images.has(i) || (op === 'u' && old.has(i) && !images.isPartial(i) && !isComputed(i))
    const missing = table.columns.flatMap((_, i) => (isKnown(i) ? [] : [i]))
    if (missing.length === 0) return null
    if (table.key.length === 0 || !table.key.every(isKnown)) throw withoutKey(relation.map)
    const wanted = op === 'u' && !this.#isMoved(relation, bytes) ? missing.filter((i) => images.isPartial(i) || isComputed(i)) : missing
    if (missing.some((i) => !wanted.includes(i) && !relation.writer!.table.columns[i]!.mayBeUnchanged)) {
      relation.isSparse = true
      await this.#bind(relation)
    }
    // parked, or in the log already
    if (wanted.length === 0 || isParked(relation) || !this.#isTaken(relation, op)) return null
    const key = table.key.map((i) => {
      const image = images.has(i) ? images : old
      return keyLiteral(definition.columns[i]!, relation.readers[i]!, bytes, view, image.starts[i]!, image.lengths[i]!)
    })
    return { columns: new Set(wanted), row: await this.#options.find(relation.mapped!, wanted, key) }
  }

  #isTaken(relation: Relation, op: 'c' | 'u' | 'd'): boolean {
    this.#announce()
    return relation.writer!.begin(op, this.#nextOrdinal)
  }

  #isMoved({ images, old, mapped }: Relation, bytes: Buffer): boolean {
    return mapped!.table.key.some((i) => {
      if (!images.has(i)) return false
      if (!old.has(i)) throw withoutKey(mapped!.table)
      const from = images.starts[i]!
      return bytes.compare(bytes, old.starts[i]!, old.starts[i]! + old.lengths[i]!, from, from + images.lengths[i]!) !== 0
    })
  }

  #writeSparseRow(relation: Relation, op: 'c' | 'u' | 'd', bytes: Buffer, view: DataView, found: Found): void {
    const { images, old, readers } = relation
    const writer = relation.writer!
    const ordinal = this.#take()
    this.#announce()
    if (!writer.begin(op, ordinal)) return
    if (op !== 'c') {
      if (readers.every((_, i) => old.has(i))) {
        writer.before()
        old.write(bytes, view, readers, writer)
      } else if (op === 'd' || this.#isMoved(relation, bytes)) {
        writer.key()
        for (const i of writer.table.key) old.writeColumn(i, bytes, view, readers[i]!, writer)
      }
    }
    if (op !== 'd') {
      writer.after()
      for (const [i, read] of readers.entries()) {
        if (images.has(i)) images.writeColumn(i, bytes, view, read, writer)
        else if (found?.columns.has(i) === true) {
          if (found.row === null) writer.null()
          else found.row.writeColumn(i, writer)
        } else if (op === 'u' && old.has(i)) old.writeColumn(i, bytes, view, read, writer)
        else writer.unchanged()
      }
    }
    writer.end()
  }

  /** All rows of a table are gone. */
  async truncate(namespace: string, name: string): Promise<void> {
    const ordinal = this.#take()
    const { output, current, ahead } = this.#options
    ahead.forget(tableId({ namespace, name }))
    if (output.tablesVersion !== this.#tablesVersion) this.#unbind()
    let writer = this.#shapes.get(tableId({ namespace, name }))?.writer ?? null
    if (writer === null) {
      // gone by now, it still has rows in the log
      const table = (await current(namespace, name))?.table ?? output.shape({ namespace, name })
      if (table === null) return
      writer = await this.#open({ table })
    }
    this.#announce()
    if (writer === null) output.skip({ namespace, name })
    else writer.truncate(ordinal)
  }

  /** @returns the change's ordinal */
  #take(): number {
    if (this.#count >= MOST_CHANGES) {
      throw new MillraceError('config.unsupported', `a transaction has more than ${MOST_CHANGES} changes`, {
        fix: 'capture its tables anew: `millrace run FILE --resnapshot NODE`',
      })
    }
    const ordinal = this.#nextOrdinal
    this.#count++
    return ordinal
  }

  get #nextOrdinal(): number {
    return this.#count * 2 + 1
  }

  #announce(): void {
    if (this.#announced) return
    this.#announced = true
    this.#options.output.transaction(this.#facts!)
  }
}

function unreadable(relation: Relation, event: Placed, error: unknown): never {
  if (error instanceof MillraceError) throw error
  throw protocolError(`rows of ${tableId(relation.map)} that do not read as its columns`, event.place, error)
}

function unknownType({ unknownType: type, ...table }: TableMap): MillraceError {
  return new MillraceError('source.schema_unsupported', `rows of ${tableId(table)} have a column of type ${type}, which is not known to Millrace`, {
    fix: `leave out '!${tableId(table)}' in tables of the source, and report this with the server version`,
  })
}

/** Binding may have parked it. */
function isParked(relation: Relation): boolean {
  return relation.state === 'parked'
}

function withoutKey(table: Pick<TableMap, 'namespace' | 'name'>): MillraceError {
  return new MillraceError('source.schema_unsupported', `rows of ${tableId(table)} came without all their columns, and without their key`, {
    fix: `SET GLOBAL binlog_row_image = 'FULL', and end the sessions that set another; or add a primary key`,
  })
}

/** The table when its rows may come without any column that is not of the key. */
function sparse(mapped: MappedTable): MappedTable {
  const { table } = mapped
  const columns = table.columns.map((column, i) => (table.key.includes(i) ? column : { ...column, mayBeUnchanged: true }))
  return { ...mapped, table: { ...table, columns } }
}

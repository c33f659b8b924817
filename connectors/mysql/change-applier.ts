import { type CaptureOutput, type ChangeWriter, MillraceError, tableId } from '../../core/plugin.ts'
import { EVENT } from './binlog-event.ts'
import { protocolError } from './mysql-error.ts'
import { isFull, RowImages } from './row-images.ts'
import type { Flavor } from './server.ts'
import { readTableMap, type TableMap } from './table-map.ts'
import type { MappedTable, WireReader } from './type-mapping.ts'
import { readLength } from './wire-connection.ts'

/** Ordinals of a transaction stay below 2^31, and a change takes two. */
const MOST_CHANGES = 0x3fff_ffff
/** Comes with no table map: it only ends a statement. */
const DUMMY_TABLE = 0xff_ffff

/** A table map and, once a row needed it, its table. */
interface Relation {
  readonly map: TableMap
  /** The event's body, to see whether the next one says the same. */
  readonly body: Buffer
  readonly images: RowImages
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
  /** The table as the rows with this map have it. */
  readonly describe: (map: TableMap) => Promise<MappedTable>
  /** The table as it is defined now; null: there is none. */
  readonly current: (namespace: string, name: string) => Promise<MappedTable | null>
}

/**
 * Turns table maps and row events of one transaction after the other into calls of change writers. Synchronous but for a table's first row. Every row counts,
 * captured or not, so that ordinals are the same after a restart.
 */
export class ChangeApplier {
  readonly #options: ChangeApplierOptions
  readonly #relations = new Map<number, Relation>()
  readonly #shapes = new Map<string, { readonly shape: string; readonly writer: ChangeWriter }>()
  #facts: TransactionFacts | null = null
  #announced = false
  #count = 0
  #tablesVersion = 0

  constructor(options: ChangeApplierOptions) {
    this.#options = options
  }

  begin(facts: TransactionFacts): void {
    this.#facts = facts
    this.#announced = false
    this.#count = 0
  }

  /** Definitions may have changed: each table is described anew with its next row. */
  forget(): void {
    for (const relation of this.#relations.values()) if (relation.state !== 'skipped') relation.state = 'unbound'
  }

  /** Tables were parked or are no longer: all writers are asked for again. */
  #unbind(): void {
    this.#tablesVersion = this.#options.output.tablesVersion
    this.#shapes.clear()
    this.forget()
  }

  tableMap(bytes: Buffer, at: number, end: number, place: string): void {
    const id = bytes.readUIntLE(at, 6)
    const known = this.#relations.get(id)
    if (known?.body.length === end - at && known.body.compare(bytes, at, end) === 0) return
    const map = readTableMap(bytes, at, end, this.#options.flavor, place)
    const body = Buffer.from(bytes.subarray(at, end))
    let images: RowImages
    try {
      images = new RowImages(map.columns)
    } catch (cause) {
      throw protocolError(`a table map of ${tableId(map)} with unknown types`, place, cause)
    }
    const state = this.#options.isCaptured(map.namespace, map.name) ? 'unbound' : 'skipped'
    this.#relations.set(id, { map, body, images, state, writer: null, readers: [] })
  }

  /** Applies a row event. A promise: wait for it before the next event; the bytes must stay until then. */
  rows(type: number, bytes: Buffer, view: DataView, at: number, end: number, place: string): Promise<void> | undefined {
    const id = bytes.readUIntLE(at, 6)
    if (id === DUMMY_TABLE) return undefined
    const relation = this.#relations.get(id)
    if (this.#options.output.tablesVersion !== this.#tablesVersion) this.#unbind()
    if (relation === undefined) throw protocolError(`rows of table ${id}, which no table map names,`, place)
    if (relation.state === 'unbound') return this.#bind(relation).then(() => this.#rows(relation, type, bytes, view, at, end, place))
    this.#rows(relation, type, bytes, view, at, end, place)
    return undefined
  }

  async #bind(relation: Relation): Promise<void> {
    try {
      const mapped = await this.#options.describe(relation.map)
      relation.writer = await this.#open(mapped)
      relation.readers = mapped.readers.map(({ binlog }) => binlog)
      relation.state = relation.writer === null ? 'parked' : 'bound'
    } catch (error) {
      this.#announce()
      this.#options.output.park(relation.map, error)
      relation.state = 'parked'
    }
  }

  /** Null: the table is parked. */
  async #open({ table }: MappedTable): Promise<ChangeWriter | null> {
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

  #rows(relation: Relation, type: number, bytes: Buffer, view: DataView, from: number, end: number, place: string): void {
    try {
      let at = from + 8
      if (type >= EVENT.writeRows) at += view.getUint16(at, true)
      const { value: columns, next } = readLength(bytes, at)
      if (columns !== relation.images.columns) throw new RangeError(`rows of ${columns} columns`)
      const bitmap = (columns + 7) >> 3
      const isUpdate = type === EVENT.updateRows || type === EVENT.updateRowsV1
      const first = next
      const second = isUpdate ? next + bitmap : next
      at = second + bitmap
      if (relation.state === 'skipped' || relation.state === 'parked') this.#skip(relation, bytes, at, end, first, isUpdate ? second : -1)
      else this.#write(relation, type, bytes, view, at, end, first, second)
    } catch (error) {
      if (error instanceof MillraceError) throw error
      throw protocolError(`rows of ${tableId(relation.map)} that do not read as its columns`, place, error)
    }
  }

  #skip({ images, map, state }: Relation, bytes: Buffer, from: number, end: number, first: number, second: number): void {
    for (let at = from; at < end; ) {
      at = images.locate(bytes, at, end, first)
      if (second >= 0) at = images.locate(bytes, at, end, second)
      this.#take()
      if (state === 'parked') this.#options.output.skip(map)
    }
  }

  #write(relation: Relation, type: number, bytes: Buffer, view: DataView, from: number, end: number, first: number, second: number): void {
    const { images, readers } = relation
    const writer = relation.writer!
    if (!isFull(bytes, first, images.columns) || !isFull(bytes, second, images.columns)) throw partialImage(relation.map)
    const op = type === EVENT.writeRows || type === EVENT.writeRowsV1 ? 'c' : second === first ? 'd' : 'u'
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

  /** All rows of a table are gone. */
  async truncate(namespace: string, name: string): Promise<void> {
    const ordinal = this.#take()
    if (this.#options.output.tablesVersion !== this.#tablesVersion) this.#unbind()
    const mapped = await this.#options.current(namespace, name)
    if (mapped === null) return
    const writer = this.#shapes.get(`${namespace}.${name}`)?.writer ?? (await this.#open(mapped))
    this.#announce()
    if (writer === null) this.#options.output.skip(mapped.table)
    else writer.truncate(ordinal)
  }

  /** @returns the change's ordinal */
  #take(): number {
    if (this.#count >= MOST_CHANGES) {
      throw new MillraceError('config.unsupported', `a transaction has more than ${MOST_CHANGES} changes`, {
        fix: 'capture its tables anew: `millrace run FILE --resnapshot NODE`',
      })
    }
    return this.#count++ * 2 + 1
  }

  #announce(): void {
    if (this.#announced) return
    this.#announced = true
    this.#options.output.transaction(this.#facts!)
  }
}

function partialImage(map: TableMap): MillraceError {
  return new MillraceError('source.unprepared', `a row of ${tableId(map)} came without all its columns: binlog_row_image was not FULL where it was written`, {
    fix: `SET GLOBAL binlog_row_image = 'FULL', end the sessions that set another, and read the tables anew: \`millrace run FILE --resnapshot NODE\``,
  })
}

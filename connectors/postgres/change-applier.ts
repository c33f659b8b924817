import { type CaptureOutput, type ChangeWriter, MillraceError, type TableSchema, tableId, viewOf } from '../../core/plugin.ts'
import { formatLsn } from './lsn.ts'
import { KIND, OLD_KEY, OLD_ROW, type PgoutputDecoder, protocolError, type RelationMessage, TAG } from './pgoutput.ts'
import type { MappedTable, StreamedTable, WireReader } from './type-mapping.ts'
import { unreadable } from './type-reader.ts'

/** The table that logical messages appear in. */
const MESSAGE_TABLE: TableSchema = {
  namespace: 'millrace',
  name: 'message',
  columns: [
    { name: 'prefix', id: 1, type: { kind: 'string' }, sourceType: 'text', nullable: false, mayBeUnchanged: false, maybeSpecial: false },
    { name: 'content', id: 2, type: { kind: 'bytes' }, sourceType: 'bytea', nullable: false, mayBeUnchanged: false, maybeSpecial: false },
    { name: 'transactional', id: 3, type: { kind: 'boolean' }, sourceType: 'boolean', nullable: false, mayBeUnchanged: false, maybeSpecial: false },
  ],
  key: [0],
}

/** Ordinals of a transaction stay below 2^31, and a change takes two. */
const MOST_CHANGES = 0x3fff_ffff

/** A Relation message and, once a row needed it, its table. */
interface Relation {
  readonly message: RelationMessage
  /** How many Relation messages had come before. */
  readonly arrival: number
  state: 'unbound' | 'bound' | 'skipped' | 'parked'
  mapped: MappedTable | null
  writer: ChangeWriter | null
  binary: readonly WireReader[]
  text: readonly WireReader[]
}

export interface ChangeApplierOptions {
  readonly output: CaptureOutput
  readonly isCaptured: (namespace: string, name: string) => boolean
  /** Describes a table as its Relation message has it, once transaction `xid` can be seen: until then the catalog lacks what that did to the table. */
  readonly describe: (oid: number, streamed: StreamedTable, xid: number) => Promise<MappedTable>
  /**
   * Values of `columns` in text form, of the row with this key, as they are once transaction `xid` can be seen; null: there is no such row any more. Binary
   * key values are Buffers.
   */
  readonly select: (
    table: MappedTable,
    columns: readonly number[],
    key: readonly (string | Buffer)[],
    xid: number,
  ) => Promise<readonly (string | null)[] | null>
}

/**
 * Turns decoded row messages of one transaction after the other into calls of change writers. `apply` is synchronous but for rare pauses:
 * a table's first row, and a changed key whose row has columns that were not sent.
 */
export class ChangeApplier {
  /** Relation messages so far. */
  arrivals = 0
  readonly #options: ChangeApplierOptions
  readonly #decoder: PgoutputDecoder
  readonly #relations = new Map<number, Relation>()
  readonly #shapes = new Map<number, { readonly shape: string; readonly writer: ChangeWriter }>()
  /** Relations that a transaction in replay brought itself: what came later outside of it must not decide how its rows read. */
  #own: Map<number, Relation> | null = null
  #current: Relation | null = null
  /** null: not asked for yet. */
  #messages: ChangeWriter | 'parked' | null = null
  #tablesVersion = 0
  #count = 0
  #commit = 0n
  #committedAt = 0n
  #xid = 0
  #announced = false
  /** Values that replace unchanged columns of the change at hand, by column. */
  #fetched: ReadonlyMap<number, string | null> | null = null

  constructor(decoder: PgoutputDecoder, options: ChangeApplierOptions) {
    this.#decoder = decoder
    this.#options = options
  }

  /** `replayed`: its messages were held back, and carry the count of Relation messages that came before them. */
  begin(commit: bigint, committedAt: bigint, xid: number, replayed: boolean): void {
    this.#commit = commit
    this.#committedAt = committedAt
    this.#xid = xid
    this.#count = 0
    this.#announced = false
    this.#own = replayed ? new Map() : null
    this.#current = null
  }

  end(): void {
    this.#current = null
    if (this.#own === null) return
    for (const [oid, relation] of this.#own) {
      const known = this.#relations.get(oid)
      if (known === undefined || known.arrival < relation.arrival) this.#relations.set(oid, relation)
    }
    this.#own = null
  }

  /** The decoder's Relation message; `arrival` as counted when it came. */
  relation(arrival: number): void {
    const message = this.#decoder.relation!
    const relation: Relation = { message, arrival, state: 'unbound', mapped: null, writer: null, binary: [], text: [] }
    if (!this.#options.isCaptured(message.namespace, message.name)) relation.state = 'skipped'
    const relations = this.#own ?? this.#relations
    relations.set(message.oid, relation)
    this.#current = null
  }

  /**
   * Applies the decoder's insert, update, delete, truncate or message, which lies in `bytes`. Every one that the server sends counts, captured or
   * not: so ordinals are the same after a restart. A promise: wait for it before the next message; the bytes must stay until then.
   */
  apply(bytes: Buffer, view: DataView): Promise<void> | undefined {
    const decoder = this.#decoder
    if (this.#options.output.tablesVersion !== this.#tablesVersion) this.#unbind()
    if (decoder.tag === TAG.truncate) return this.#truncate()
    if (decoder.tag === TAG.message) return this.#message(bytes)
    let relation = this.#current
    if (relation === null || relation.message.oid !== decoder.relationOid) {
      relation = this.#find(decoder.relationOid)
      this.#current = relation
    }
    if (relation.state === 'skipped') {
      this.#take()
      return undefined
    }
    if (relation.state === 'unbound') return this.#bind(relation).then(() => this.apply(bytes, view))
    if (relation.state === 'parked') {
      this.#take()
      this.#options.output.skip(relation.message)
      return undefined
    }
    if (decoder.oldKind === OLD_KEY && decoder.tag === TAG.update) {
      const missing = this.#columnsToFetch(relation, bytes, view)
      if (missing.length > 0) return this.#fetchAndWrite(relation, missing, bytes, view)
    }
    this.#write(relation, bytes, view)
    return undefined
  }

  /** Tables were parked or are no longer: all writers are asked for again. */
  #unbind(): void {
    this.#tablesVersion = this.#options.output.tablesVersion
    this.#shapes.clear()
    this.#messages = null
    for (const relation of [...this.#relations.values(), ...(this.#own?.values() ?? [])]) if (relation.state !== 'skipped') relation.state = 'unbound'
  }

  /** Sets one table aside, whose changes are left out from here on. @throws an error that is not of one table */
  #park(relation: Relation, error: unknown): void {
    this.#announce()
    this.#options.output.park(relation.message, error)
    relation.state = 'parked'
  }

  #find(oid: number): Relation {
    const relation = this.#own?.get(oid) ?? this.#relations.get(oid)
    if (relation === undefined) throw protocolError(`a row of the unknown relation ${oid}`, this.#decoder.tag, Number(this.#commit))
    return relation
  }

  /** @returns the change's ordinal */
  #take(): number {
    if (this.#count >= MOST_CHANGES) {
      throw new MillraceError('config.unsupported', `transaction ${this.#xid} at ${formatLsn(this.#commit)} has more than ${MOST_CHANGES} changes`, {
        fix: 'capture the tables of this transaction anew: `millrace run FILE --resnapshot NODE`',
      })
    }
    return this.#count++ * 2 + 1
  }

  #announce(): void {
    if (this.#announced) return
    this.#announced = true
    this.#options.output.transaction({ commit: this.#commit, committedAt: this.#committedAt, source: [BigInt(this.#xid), this.#commit] })
  }

  async #bind(relation: Relation): Promise<void> {
    try {
      await this.#describe(relation)
    } catch (error) {
      this.#park(relation, error)
    }
  }

  async #describe(relation: Relation): Promise<void> {
    const { message } = relation
    const { output, describe } = this.#options
    const inLog = output.shape(message)
    // a table of this name that was dropped says nothing about the columns of this one
    const before = inLog?.incarnation === String(message.oid) ? inLog : null
    const mapped = await describe(message.oid, { ...message, before }, this.#xid)
    const { columns, table } = mapped
    // An old key comes with the replica identity's columns only, so a key outside of them would be NULL in deletes.
    const absent = message.replicaIdentity === 'd' || message.replicaIdentity === 'i' ? table.key.find((i) => !message.columns[i]!.key) : undefined
    if (absent !== undefined) {
      throw new MillraceError('source.schema_unsupported', `key column ${columns[absent]!.column.name} of ${tableId(table)} is not in its replica identity`, {
        fix: `ALTER TABLE ${quoted(table.namespace)}.${quoted(table.name)} REPLICA IDENTITY FULL`,
      })
    }
    const shape = JSON.stringify(table)
    let known = this.#shapes.get(message.oid)
    if (known === undefined || known.shape !== shape) {
      const writer = await output.table(table)
      if (writer === null) {
        relation.state = 'parked'
        return
      }
      known = { shape, writer }
      this.#shapes.set(message.oid, known)
    }
    relation.mapped = mapped
    relation.writer = known.writer
    relation.binary = columns.map((column) => column.binary)
    relation.text = columns.map((column) => column.text)
    relation.state = 'bound'
  }

  /** Writes the change; of a column whose type is not known, or no longer readable, the whole table is set aside. */
  #write(relation: Relation, bytes: Buffer, view: DataView): void {
    const ordinal = this.#take()
    this.#announce()
    try {
      this.#images(relation, ordinal, bytes, view)
    } catch (error) {
      this.#park(relation, error)
      this.#options.output.skip(relation.message)
    }
  }

  #images(relation: Relation, ordinal: number, bytes: Buffer, view: DataView): void {
    const decoder = this.#decoder
    const writer = relation.writer!
    const { tag } = decoder
    if (!writer.begin(tag === TAG.insert ? 'c' : tag === TAG.update ? 'u' : 'd', ordinal)) return
    if (decoder.oldKind === OLD_ROW) {
      writer.before()
      this.#row(relation, bytes, view, decoder.oldAt, -1)
    } else if (decoder.oldKind === OLD_KEY) {
      writer.key()
      this.#key(relation, bytes, view, decoder.oldAt)
    }
    if (decoder.newAt >= 0) {
      writer.after()
      this.#row(relation, bytes, view, decoder.newAt, decoder.oldAt)
    }
    writer.end()
  }

  /** Writes every column of the tuple at `at`; those that were not sent are taken from the old tuple at `oldAt` where it has them. */
  #row(relation: Relation, bytes: Buffer, view: DataView, at: number, oldAt: number): void {
    const count = view.getInt16(at)
    const { binary, text } = relation
    if (count !== binary.length) this.#badCount(relation, count)
    at += 2
    for (let i = 0; i < count; i++) {
      const kind = bytes[at++]
      if (kind === KIND.null) relation.writer!.null()
      else if (kind === KIND.unchanged) this.#unsent(relation, i, bytes, view, oldAt)
      else {
        const length = view.getInt32(at)
        at += 4
        this.#column(relation, i, kind === KIND.binary ? binary[i]! : text[i]!, bytes, view, at, length)
        at += length
      }
    }
  }

  #column(relation: Relation, i: number, read: WireReader, bytes: Buffer, view: DataView, at: number, length: number): void {
    try {
      read(bytes, view, at, length, relation.writer!)
    } catch (error) {
      const { message } = relation
      throw unreadable(error, `column ${message.columns[i]!.name} of ${message.namespace}.${message.name} at ${formatLsn(this.#commit)}`, length)
    }
  }

  #unsent(relation: Relation, i: number, bytes: Buffer, view: DataView, oldAt: number): void {
    const writer = relation.writer!
    const fetched = this.#fetched?.get(i)
    if (fetched === null) writer.null()
    else if (fetched !== undefined) {
      const value = Buffer.from(fetched)
      this.#column(relation, i, relation.text[i]!, value, viewOf(value), 0, value.length)
    } else if (oldAt >= 0 && (this.#decoder.oldKind === OLD_ROW || relation.message.columns[i]!.key)) {
      // A value that was not sent did not change, so the old row has it, and so has the old key when it was sent for its own sake.
      this.#oldValue(relation, i, bytes, view, columnAt(bytes, view, oldAt, i))
    } else writer.unchanged()
  }

  #oldValue(relation: Relation, i: number, bytes: Buffer, view: DataView, at: number): void {
    const kind = bytes[at]
    if (kind === KIND.null) relation.writer!.null()
    else if (kind === KIND.unchanged) relation.writer!.unchanged()
    else this.#column(relation, i, kind === KIND.binary ? relation.binary[i]! : relation.text[i]!, bytes, view, at + 5, view.getInt32(at + 1))
  }

  #key(relation: Relation, bytes: Buffer, view: DataView, at: number): void {
    const count = view.getInt16(at)
    if (count !== relation.binary.length) this.#badCount(relation, count)
    for (const i of relation.mapped!.table.key) {
      const old = columnAt(bytes, view, at, i)
      const kind = bytes[old]
      if (kind === KIND.null || kind === KIND.unchanged) relation.writer!.null()
      else this.#column(relation, i, kind === KIND.binary ? relation.binary[i]! : relation.text[i]!, bytes, view, old + 5, view.getInt32(old + 1))
    }
  }

  /** Columns that an insert under the new key needs and the server did not send; none when the key did not change. */
  #columnsToFetch(relation: Relation, bytes: Buffer, view: DataView): readonly number[] {
    const { newAt, oldAt } = this.#decoder
    const count = view.getInt16(newAt)
    if (count !== relation.binary.length) this.#badCount(relation, count)
    if (view.getInt16(oldAt) !== count) this.#badCount(relation, view.getInt16(oldAt))
    const missing: number[] = []
    let at = newAt + 2
    for (let i = 0; i < count; i++) {
      const kind = bytes[at]
      if (kind === KIND.unchanged && !relation.message.columns[i]!.key) missing.push(i)
      at = afterColumn(bytes, view, at)
    }
    if (missing.length === 0) return missing
    for (const i of relation.mapped!.table.key) {
      const from = columnAt(bytes, view, newAt, i)
      if (bytes[from] === KIND.unchanged) continue
      const old = columnAt(bytes, view, oldAt, i)
      if (bytes.compare(bytes, old, afterColumn(bytes, view, old), from, afterColumn(bytes, view, from)) !== 0) return missing
    }
    return []
  }

  /**
   * A changed key makes an insert under the new key, and an insert must be whole; the server leaves out large values that did not change. They
   * are read from the table as they are now: a later change of them follows in the stream. A row that is gone by now has its delete there, too.
   */
  async #fetchAndWrite(relation: Relation, missing: readonly number[], bytes: Buffer, view: DataView): Promise<void> {
    const { newAt, oldAt } = this.#decoder
    const key = relation.mapped!.table.key.map((i) => {
      let at = columnAt(bytes, view, newAt, i)
      if (bytes[at] === KIND.unchanged) at = columnAt(bytes, view, oldAt, i)
      const from = at + 5
      const to = from + view.getInt32(at + 1)
      return bytes[at] === KIND.binary ? Buffer.from(bytes.subarray(from, to)) : bytes.toString('utf8', from, to)
    })
    const values = await this.#options.select(relation.mapped!, missing, key, this.#xid)
    this.#fetched = values === null ? null : new Map(missing.map((column, i) => [column, values[i]!]))
    try {
      this.#write(relation, bytes, view)
    } finally {
      this.#fetched = null
    }
  }

  #badCount(relation: Relation, count: number): never {
    const { message } = relation
    throw protocolError(
      `a row of ${count} columns for ${message.namespace}.${message.name}, which has ${message.columns.length},`,
      this.#decoder.tag,
      Number(this.#commit),
    )
  }

  #truncate(): Promise<void> | undefined {
    const relations = this.#decoder.truncated.map((oid) => this.#find(oid))
    const unbound = relations.filter((relation) => relation.state === 'unbound')
    if (unbound.length > 0) return this.#bindAll(unbound).then(() => this.#truncateAll(relations))
    this.#truncateAll(relations)
    return undefined
  }

  async #bindAll(relations: readonly Relation[]): Promise<void> {
    for (const relation of relations) await this.#bind(relation)
  }

  #truncateAll(relations: readonly Relation[]): void {
    for (const relation of relations) {
      const ordinal = this.#take()
      if (relation.state === 'skipped') continue
      this.#announce()
      if (relation.state === 'parked') this.#options.output.skip(relation.message)
      else relation.writer!.truncate(ordinal)
    }
  }

  #message(bytes: Buffer): Promise<void> | undefined {
    if (this.#messages === null) {
      return this.#options.output.table(MESSAGE_TABLE).then((writer) => {
        this.#messages = writer ?? 'parked'
        return this.#message(bytes)
      })
    }
    const { prefix, contentAt, contentEnd, transactional } = this.#decoder
    const ordinal = this.#take()
    this.#announce()
    const writer = this.#messages
    if (writer === 'parked') this.#options.output.skip(MESSAGE_TABLE)
    else if (writer.begin('c', ordinal)) {
      writer.after()
      writer.string(prefix)
      writer.bytes(bytes, contentAt, contentEnd)
      writer.boolean(transactional)
      writer.end()
    }
    return undefined
  }
}

/** Where column `index` of the tuple at `at` starts: its kind. */
function columnAt(bytes: Buffer, view: DataView, at: number, index: number): number {
  at += 2
  for (let i = 0; i < index; i++) at = afterColumn(bytes, view, at)
  return at
}

function afterColumn(bytes: Buffer, view: DataView, at: number): number {
  const kind = bytes[at]
  return kind === KIND.null || kind === KIND.unchanged ? at + 1 : at + 5 + view.getInt32(at + 1)
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

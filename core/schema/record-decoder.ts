import { MillraceError } from '../errors.ts'
import type { ChangeEvent } from '../event/change-event.ts'
import { DELETE_BYTES, DELETE_HEADER, POSITION_BYTES, POSITION_HEADER, type Position } from '../event/position.ts'
import { type FrameRecord, recordHeader, records } from '../event/record-batch.ts'
import { type TableSchema, type Tuple, tableId } from '../event/table-schema.ts'
import { columnsOf } from './avro-mapping.ts'
import { AvroReader, malformed } from './avro-reader.ts'
import { parseAvroSchema } from './avro-schema.ts'
import { compileEnvelopeDecoder, type Envelope, type EnvelopeDecoder } from './envelope-decoder.ts'
import type { SchemaRegistry } from './registry.ts'
import { compileKeyDecoder } from './row-decoder.ts'

/** Bytes before the Avro in Confluent's wire format: 0 and the schema id. */
export const WIRE_HEADER_BYTES = 5

/** The header `pos` as capture writes it when it is the only one: count 1, "pos", 12 bytes. */
const LONE_POSITION_HEADER = Buffer.from([2, POSITION_HEADER.length * 2, ...Buffer.from(POSITION_HEADER), POSITION_BYTES * 2])

const NO_BYTES = Buffer.alloc(0)

interface KeyDecoder {
  /** The key's columns as text, to see that it is the key of a table. */
  readonly shape: string
  readonly read: (reader: AvroReader) => Tuple
}

/**
 * Decodes the records of a stream into changes. One instance serves any number of topics of one registry; it keeps every schema it has seen.
 * `decode` is synchronous and not reentrant; `prepare` may run meanwhile.
 */
export class RecordDecoders {
  readonly #registry: SchemaRegistry
  /** By schema id; an error where the schema is none of ours or is not known. */
  readonly #values = new Map<number, EnvelopeDecoder | MillraceError>()
  readonly #keys = new Map<number, KeyDecoder | MillraceError>()
  readonly #reader = new AvroReader()
  readonly #envelope: Envelope = { op: 't', before: null, after: null, committedAt: 0n }
  /** Of the last record: records of one transaction share it. */
  #commit = 0n
  #commitHigh = 0
  #commitLow = 0
  /** The pairs (key id, value id) last seen to belong together. */
  readonly #pairs = new Set<number>()

  constructor(registry: SchemaRegistry) {
    this.#registry = registry
  }

  /**
   * Loads the schemas of all records in the frame that are not known yet. A schema that is not in the registry, or not ours, is no error here:
   * `decode` throws it for the records that have it. Ids that were unknown are asked for again.
   * @returns an id that the registry does not know, or null
   * @throws registry.unreachable, registry.refused, log.corrupt
   */
  async prepare(frame: Buffer): Promise<number | null> {
    let values: Set<number> | null = null
    let keys: Set<number> | null = null
    for (const record of records(frame)) {
      const valueId = record.valueFrom < 0 ? (deletedFacts(frame, record)?.readInt32BE(0) ?? -1) : wireId(frame, record.valueFrom, record.valueTo)
      if (valueId >= 0 && isMissing(this.#values, valueId)) (values ??= new Set()).add(valueId)
      const keyId = wireId(frame, record.keyFrom, record.keyTo)
      if (keyId >= 0 && isMissing(this.#keys, keyId)) (keys ??= new Set()).add(keyId)
    }
    if (values === null && keys === null) return null
    await Promise.all([
      ...[...(values ?? [])].map((id) => this.#load(this.#values, id, compileEnvelopeDecoder)),
      ...[...(keys ?? [])].map((id) => this.#load(this.#keys, id, compileKey)),
    ])
    return [...(values ?? [])].find((id) => isMissing(this.#values, id)) ?? [...(keys ?? [])].find((id) => isMissing(this.#keys, id)) ?? null
  }

  /**
   * The change in a record of a prepared frame: a tombstone is the delete that it stands for, once more. Null for a tombstone that capture did not write.
   * @throws record.malformed when the bytes are not a change of their schema; schema.unknown; schema.invalid when the schema is not one that
   * Millrace made. Messages name the record's offset and never show a value.
   */
  decode(frame: Buffer, record: FrameRecord): ChangeEvent | null {
    try {
      return record.valueFrom < 0 ? this.#tombstone(frame, record) : this.#decode(frame, record)
    } catch (error) {
      throw at(record, error)
    }
  }

  /**
   * Op, commit time and position of a change, without decoding its rows; null for a tombstone, `malformed` where {@link decode} would throw so of the
   * envelope or the position.
   */
  glance(frame: Buffer, record: FrameRecord): (Pick<Envelope, 'op' | 'committedAt'> & { readonly position: Position }) | 'malformed' | null {
    if (record.valueFrom < 0) return null
    try {
      const decoder = known(this.#values, this.#idOf(frame, record.valueFrom, record.valueTo, 'value'))
      const reader = this.#reader
      reader.open(frame, record.valueFrom + WIRE_HEADER_BYTES, record.valueTo)
      decoder.glance(reader, this.#envelope)
      reader.close()
      const { op, committedAt } = this.#envelope
      return { op, committedAt, position: this.#position(frame, record) }
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'record.malformed') return 'malformed'
      throw at(record, error)
    }
  }

  /** The table of a record's value: the same object for all records of one schema id. Null for a tombstone. Throws as {@link decode} does. */
  tableOfValue(frame: Buffer, record: FrameRecord): TableSchema | null {
    if (record.valueFrom < 0) return null
    try {
      return known(this.#values, this.#idOf(frame, record.valueFrom, record.valueTo, 'value')).table
    } catch (error) {
      throw at(record, error)
    }
  }

  /** Lets go of the last frame. Schemas stay. */
  release(): void {
    this.#reader.open(NO_BYTES, 0, 0)
  }

  #decode(frame: Buffer, record: FrameRecord): ChangeEvent {
    const valueId = this.#idOf(frame, record.valueFrom, record.valueTo, 'value')
    const decoder = known(this.#values, valueId)
    const { table } = decoder
    const reader = this.#reader
    const envelope = this.#envelope
    reader.open(frame, record.valueFrom + WIRE_HEADER_BYTES, record.valueTo)
    decoder.read(reader, envelope)
    reader.close()
    const { op, before, after, committedAt } = envelope
    const position = this.#position(frame, record)
    if (op === 't') return { kind: 'truncate', table, position, committedAt, ...(record.keyFrom < 0 ? {} : { isKeyed: true }) }
    if (op === 'm') malformed('a logical message does not travel in the envelope of a table')
    if ((after === null) !== (op === 'd')) malformed(op === 'd' ? 'a delete has an after image' : `a change with op ${op} has no after image`)
    return { kind: 'row', op, table, key: this.#key(frame, record, table, valueId), before, after, position, committedAt }
  }

  #tombstone(frame: Buffer, record: FrameRecord): ChangeEvent | null {
    const facts = deletedFacts(frame, record)
    if (facts === null) return null
    const valueId = facts.readInt32BE(0)
    const { table } = known(this.#values, valueId)
    const key = this.#key(frame, record, table, valueId)
    if (key === null) return malformed(`a tombstone of ${tableId(table)}, which has no key`)
    const position = this.#position(frame, record)
    return { kind: 'row', op: 'd', table, key, before: null, after: null, position, committedAt: facts.readBigInt64BE(4), isTombstone: true }
  }

  #key(frame: Buffer, record: FrameRecord, table: TableSchema, valueId: number): Tuple | null {
    if (table.key.length === 0) {
      if (record.keyFrom >= 0) malformed(`${tableId(table)} has no key, but the record has one`)
      return null
    }
    if (record.keyFrom < 0) malformed(`a change of ${tableId(table)} has no key`)
    const keyId = this.#idOf(frame, record.keyFrom, record.keyTo, 'key')
    const decoder = known(this.#keys, keyId)
    const pair = keyId * 0x8000_0000 + valueId
    if (!this.#pairs.has(pair)) {
      if (decoder.shape !== shapeOfKey(table.key.map((i) => table.columns[i]!))) {
        malformed(`the key's schema ${keyId} does not belong to the table of the value's schema ${valueId}`)
      }
      this.#pairs.add(pair)
    }
    const reader = this.#reader
    reader.open(frame, record.keyFrom + WIRE_HEADER_BYTES, record.keyTo)
    const key = decoder.read(reader)
    reader.close()
    return key
  }

  #position(frame: Buffer, record: FrameRecord): Position {
    let from = record.headersFrom + LONE_POSITION_HEADER.length
    if (record.end - from !== POSITION_BYTES || frame.compare(LONE_POSITION_HEADER, 0, LONE_POSITION_HEADER.length, record.headersFrom, from) !== 0) {
      const header = recordHeader(frame, record, POSITION_HEADER)
      if (header?.length !== POSITION_BYTES) malformed(`the record has no header ${POSITION_HEADER} of ${POSITION_BYTES} bytes`)
      from = header.byteOffset - frame.byteOffset
    }
    const { view } = this.#reader
    const high = view.getUint32(from)
    const low = view.getUint32(from + 4)
    if (high !== this.#commitHigh || low !== this.#commitLow) {
      this.#commit = view.getBigUint64(from)
      this.#commitHigh = high
      this.#commitLow = low
    }
    return { commit: this.#commit, ordinal: view.getUint32(from + 8) }
  }

  #idOf(frame: Buffer, from: number, to: number, what: 'key' | 'value'): number {
    const id = wireId(frame, from, to)
    if (id < 0) malformed(`the ${what} is not in the Confluent wire format`)
    return id
  }

  async #load<T>(into: Map<number, T | MillraceError>, id: number, compile: (schema: string) => T): Promise<void> {
    try {
      into.set(id, compile(await this.#registry.schema(id)))
    } catch (error) {
      if (!(error instanceof MillraceError) || (error.code !== 'schema.unknown' && error.code !== 'schema.invalid')) throw error
      into.set(id, new MillraceError(error.code, `schema ${id}: ${error.message}`, { cause: error, ...(error.fix === undefined ? {} : { fix: error.fix }) }))
    }
  }
}

function compileKey(schema: string): KeyDecoder {
  const record = parseAvroSchema(schema)
  if (record.type !== 'record') throw new MillraceError('schema.invalid', `not the schema of a Millrace key: it is of the type ${record.type}`)
  const columns = columnsOf(record)
  const stray = columns.find(({ key }) => !key)
  if (stray !== undefined) throw new MillraceError('schema.invalid', `not the schema of a Millrace key: ${stray.column.name} is no key column`)
  return { shape: shapeOfKey(columns.map(({ column }) => column)), read: compileKeyDecoder(columns.map(({ column }) => column.type)) }
}

function shapeOfKey(columns: TableSchema['columns']): string {
  return JSON.stringify(columns.map(({ name, type }) => [name, type]))
}

function deletedFacts(frame: Buffer, record: FrameRecord): Buffer | null {
  const header = recordHeader(frame, record, DELETE_HEADER)
  return header?.length === DELETE_BYTES ? header : null
}

/** The schema id of bytes in the wire format; -1 when they are not, or there are none. */
function wireId(frame: Buffer, from: number, to: number): number {
  return from < 0 || to - from < WIRE_HEADER_BYTES || frame[from] !== 0 ? -1 : frame.readInt32BE(from + 1)
}

function isMissing(map: ReadonlyMap<number, unknown>, id: number): boolean {
  const entry = map.get(id)
  return entry === undefined || (entry instanceof MillraceError && entry.code === 'schema.unknown')
}

function known<T extends object>(map: ReadonlyMap<number, T | MillraceError>, id: number): T {
  const entry = map.get(id)
  if (entry instanceof MillraceError) throw entry
  if (entry === undefined) throw new MillraceError('invariant.broken', `the schema ${id} was not loaded: call prepare with the frame first`)
  return entry
}

function at(record: FrameRecord, error: unknown): unknown {
  const place = `the record at offset ${record.offset}`
  if (error instanceof MillraceError && error.code === 'invariant.broken') return error
  if (error instanceof MillraceError)
    return new MillraceError(error.code, `${place}: ${error.message}`, { cause: error, ...(error.fix === undefined ? {} : { fix: error.fix }) })
  // A recursive schema of someone else and bytes that nest without end.
  if (error instanceof RangeError) return new MillraceError('record.malformed', `${place} nests too deep`, { cause: error })
  return error
}

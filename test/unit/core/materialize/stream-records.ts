import { MillraceError } from '../../../../core/errors.ts'
import { DELETE_BYTES, DELETE_HEADER, type Position, packPosition } from '../../../../core/event/position.ts'
import type { PlainRecord } from '../../../../core/event/record-batch.ts'
import type { Column, TableSchema, Tuple } from '../../../../core/event/table-schema.ts'
import { TRUNCATION_KEY_SCHEMA } from '../../../../core/schema/avro-mapping.ts'
import type { SchemaRegistry } from '../../../../core/schema/registry.ts'
import { avscEnvelope, envelopeToAvsc, keyToAvsc } from '../schema/avsc-envelope.ts'

export const TOPIC = 'shop.public.items'

const column = (name: string, id: number, kind: 'int64' | 'int32' | 'string', more: Partial<Column> = {}): Column => ({
  name,
  id,
  type: { kind },
  sourceType: kind,
  nullable: true,
  mayBeUnchanged: false,
  maybeSpecial: false,
  ...more,
})

const id = column('id', 1, 'int64', { nullable: false })
const name = column('name', 2, 'string')
const body = column('body', 3, 'string', { mayBeUnchanged: true })
const shape = (...columns: Column[]): TableSchema => ({ namespace: 'public', name: 'items', columns, key: [0] })

/** A table's life: as made, a column added, another widened and renamed, one dropped, and the first shape with a new column of the old name. */
export const SHAPES: readonly TableSchema[] = [
  shape(id, name, body),
  shape(id, name, body, column('quantity', 4, 'int32')),
  shape(id, { ...name, name: 'title' }, body, column('quantity', 4, 'int64')),
  shape(id, { ...name, name: 'title' }, body),
  shape(id, { ...name, name: 'title' }, body, column('quantity', 5, 'int32')),
]

export interface StreamChange {
  readonly op: 'r' | 'c' | 'u' | 'd' | 't'
  readonly before?: Tuple | null
  /** The row; for a delete the row whose key goes. */
  readonly row: Tuple
}

/** Encodes changes as the log has them, with avsc; a registry that knows the schemas. */
export class StreamRecords {
  readonly #schemas = new Map<number, string>()
  readonly #shapes = new Map<TableSchema, ReturnType<typeof avscEnvelope> & { readonly id: number }>()
  /** Called at every look-up; may throw. */
  fault: (point: string) => void = () => {}

  readonly registry: { -readonly [K in keyof SchemaRegistry]: SchemaRegistry[K] } = {
    schema: async (schemaId) => {
      this.fault('registry')
      const schema = this.#schemas.get(schemaId)
      if (schema === undefined) throw new MillraceError('schema.unknown', `no schema ${schemaId}`)
      return schema
    },
    register: () => Promise.reject(new Error('not asked for here')),
    subjects: () => Promise.reject(new Error('not asked for here')),
    versions: () => Promise.reject(new Error('not asked for here')),
    incompatibilities: () => Promise.reject(new Error('not asked for here')),
    compatibility: () => Promise.reject(new Error('not asked for here')),
    setCompatibility: () => Promise.reject(new Error('not asked for here')),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }

  record(table: TableSchema, change: StreamChange, position: Position): PlainRecord {
    let shape = this.#shapes.get(table)
    if (shape === undefined) {
      const envelope = avscEnvelope(table)
      const id = 100 + 2 * this.#shapes.size
      shape = { ...envelope, id }
      this.#shapes.set(table, shape)
      this.#schemas.set(id, envelope.valueSchema)
      this.#schemas.set(id + 1, envelope.keySchema!)
    }
    const { op, before = null, row } = change
    const image = {
      op,
      before: op === 't' ? null : before,
      after: op === 'd' || op === 't' ? null : row,
      committedAt: committedAt(position),
    }
    return {
      key: op === 't' ? null : wire(shape.id + 1, shape.key!.toBuffer(keyToAvsc(table, row))),
      value: wire(shape.id, shape.value.toBuffer(envelopeToAvsc(table, image))),
      headers: [['pos', packPosition(position)]],
    }
  }

  /** A delete as compacted topics have it: its record and its tombstone. */
  deletion(table: TableSchema, row: Tuple, position: Position): readonly [PlainRecord, PlainRecord] {
    const gone = this.record(table, { op: 'd', row }, position)
    const facts = Buffer.alloc(DELETE_BYTES)
    facts.writeInt32BE(gone.value!.readInt32BE(1), 0)
    facts.writeBigInt64BE(committedAt(position), 4)
    return [gone, { ...gone, value: null, headers: [...gone.headers!, [DELETE_HEADER, facts]] }]
  }

  /** A truncation as compacted topics have it. */
  keyedTruncation(table: TableSchema, position: Position): PlainRecord {
    this.#schemas.set(99, TRUNCATION_KEY_SCHEMA)
    return { ...this.record(table, { op: 't', row: [] }, position), key: wire(99, Buffer.alloc(0)) }
  }

  /** One that capture did not write. */
  tombstone(record: PlainRecord): PlainRecord {
    return { ...record, value: null }
  }

  malformed(record: PlainRecord): PlainRecord {
    return { ...record, value: record.value!.subarray(0, record.value!.length - 3) }
  }
}

const committedAt = (position: Position) => 1_700_000_000_000_000n + position.commit * 23_000_000n

function wire(schemaId: number, avro: Buffer): Buffer {
  const header = Buffer.alloc(5)
  header.writeInt32BE(schemaId, 1)
  return Buffer.concat([header, avro])
}

import { MillraceError } from '../errors.ts'
import type { OpLetter } from '../event/change-event.ts'
import type { TableSchema, Tuple } from '../event/table-schema.ts'
import { tableOfEnvelope } from './avro-mapping.ts'
import { type AvroReader, malformed } from './avro-reader.ts'
import { type AvroField, type AvroRecord, type AvroSchema, parseAvroSchema } from './avro-schema.ts'
import { compileRowDecoder } from './row-decoder.ts'

/** What a decoder fills in: one object serves all records. */
export interface Envelope {
  op: OpLetter
  before: Tuple | null
  after: Tuple | null
  /** Microseconds since epoch. */
  committedAt: bigint
}

export interface EnvelopeDecoder {
  readonly table: TableSchema
  /** Reads the envelope at the reader's place. @throws record.malformed */
  readonly read: (reader: AvroReader, into: Envelope) => void
  /** Reads op and commit time only; rows are passed over. @throws record.malformed */
  readonly glance: (reader: AvroReader, into: Envelope) => void
}

const OPS: readonly (OpLetter | undefined)[] = Array.from({ length: 128 }, (_, code) =>
  (['r', 'c', 'u', 'd', 't', 'm'] as const).find((op) => op.charCodeAt(0) === code),
)

type Step = (reader: AvroReader, into: Envelope) => void

/**
 * Compiles the decoder of an envelope's schema. Fields that are not Millrace's, in the envelope or in `source`, are skipped.
 * @throws schema.invalid when the schema is not one that Millrace made
 */
export function compileEnvelopeDecoder(schema: string): EnvelopeDecoder {
  const { table, envelope } = tableOfEnvelope(parseAvroSchema(schema))
  const row = compileRowDecoder(table)
  const source = field(envelope, 'source').schema
  if (source.type !== 'record' || field(source, 'ts_us').schema.type !== 'long') foreign('the field source is not a record with a long ts_us')
  if (field(envelope, 'op').schema.type !== 'string') foreign('the field op is not a string')
  // changes of one transaction share the time
  let last = 0n
  let lastCount = 0
  const committedAt: Step = (reader, into) => {
    const { at } = reader
    const count = reader.count()
    if (count !== lastCount || !Number.isSafeInteger(count)) {
      reader.at = at
      last = reader.long()
      lastCount = count
    }
    into.committedAt = last
  }
  const facts = ({ name, schema }: AvroField): Step[] => {
    if (name === 'source') return source.fields.map((inner) => (inner.name === 'ts_us' ? committedAt : skipper(inner.schema)))
    return [name === 'op' ? readOp : skipper(schema)]
  }
  const steps = envelope.fields.flatMap((part): Step[] => {
    switch (part.name) {
      case 'before':
        return [
          (reader, into) => {
            into.before = reader.branch(2) === 0 ? null : row(reader)
          },
        ]
      case 'after':
        return [
          (reader, into) => {
            into.after = reader.branch(2) === 0 ? null : row(reader)
          },
        ]
      default:
        return facts(part)
    }
  })
  const glances = envelope.fields.flatMap(facts)
  const run = (each: readonly Step[]): Step => {
    return (reader, into) => {
      for (let i = 0; i < each.length; i++) each[i]!(reader, into)
    }
  }
  return { table, read: run(steps), glance: run(glances) }
}

function readOp(reader: AvroReader, into: Envelope): void {
  const length = reader.count()
  const op = length === 1 && reader.at < reader.end ? OPS[reader.buffer[reader.at++]!] : undefined
  if (op === undefined) malformed('the op is none of r, c, u, d, t, m')
  into.op = op
}

/** Reads past a value of the schema. */
function skipper(schema: AvroSchema, inside: ReadonlyMap<AvroRecord, (reader: AvroReader) => void> = new Map()): (reader: AvroReader) => void {
  switch (schema.type) {
    case 'null':
      return () => {}
    case 'boolean':
      return (reader) => void reader.boolean()
    case 'int':
      return (reader) => void reader.int()
    case 'enum':
      return (reader) => {
        const index = reader.int()
        if (index < 0 || index >= schema.symbols.length) malformed(`an enum has no symbol ${index}`)
      }
    case 'long':
      return (reader) => void reader.count()
    case 'float':
      return (reader) => reader.skip(4)
    case 'double':
      return (reader) => reader.skip(8)
    case 'fixed':
      return (reader) => reader.skip(schema.sizeBytes)
    case 'bytes':
      return (reader) => reader.skipBytes()
    case 'string':
      return (reader) => reader.skipBytes()
    case 'union': {
      const branches = schema.branches.map((branch) => skipper(branch, inside))
      return (reader) => branches[reader.branch(branches.length)]!(reader)
    }
    case 'array': {
      const item = skipper(schema.items, inside)
      return (reader) => void reader.array(item)
    }
    case 'map': {
      const value = skipper(schema.values, inside)
      return (reader) => void reader.map(value)
    }
    case 'record': {
      const again = inside.get(schema)
      if (again !== undefined) return again
      let fields: ((reader: AvroReader) => void)[] = []
      const skip = (reader: AvroReader): void => {
        for (const next of fields) next(reader)
      }
      fields = schema.fields.map((inner) => skipper(inner.schema, new Map([...inside, [schema, skip]])))
      return skip
    }
  }
}

function field(record: AvroRecord, name: string): AvroField {
  return record.fields.find((candidate) => candidate.name === name) ?? foreign(`the record ${record.name} has no field ${name}`)
}

function foreign(what: string): never {
  throw new MillraceError('schema.invalid', `not the schema of a Millrace envelope: ${what}`, { fix: 'read only topics that a Millrace source writes' })
}

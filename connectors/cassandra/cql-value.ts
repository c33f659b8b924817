/**
 * Values of CQL types from their serialized form, which is the same in the log, in frozen collections and in results of the native protocol.
 * Source: org.apache.cassandra.serializers and db.marshal.{TupleType, VectorType} of Cassandra 4.0 to 5.0.
 */
import { type ChangeWriter, type ColumnType, ipv6Text, MillraceError, Special, type Value } from '../../core/plugin.ts'
import { type CqlType, fixedLength, type NativeType } from './cql-type.ts'

/** How a type is read from [from, to) of `bytes`. Both throw source.protocol for bytes that are no value of the type. */
export interface CqlReader {
  readonly type: ColumnType
  /** Some values are written with `special`: a timestamp that microseconds cannot hold, and the empty value that most types have beside null. */
  readonly canBeSpecial: boolean
  /** Makes exactly one call on `writer`. */
  readonly write: (bytes: Buffer, from: number, to: number, writer: ChangeWriter) => void
  readonly value: (bytes: Buffer, from: number, to: number) => Value
}

/** An element of a collection or user type that is not frozen: path and value of its cell. */
export interface ElementBytes {
  readonly path: Buffer
  readonly value: Buffer
}

/** Of a text or a blob it is a value as others. */
const EMPTY = new Special('')
const TWO_32 = 0x1_0000_0000
const TWO_31 = 0x8000_0000
const TWO_53 = 2 ** 53
/** Milliseconds whose microseconds are 64 bits. */
const MOST_MILLIS = 9_223_372_036_854_775n
/** Milliseconds whose microseconds are exact as a number. */
const EXACT_MILLIS = TWO_53 / 1000
const NANOS_PER_DAY = 86_400_000_000_000n

/** Reads a column or an element; of a collection or user type that is not frozen: its frozen form, see {@link frozenForm}. */
export function cqlReader(type: CqlType): CqlReader {
  switch (type.kind) {
    case 'native':
      return NATIVE[type.name]
    case 'list':
    case 'set':
      return listOf(type.kind, cqlReader(type.element))
    case 'map':
      return isText(type.key) && isText(type.value) ? textMap : mapOf(cqlReader(type.key), cqlReader(type.value))
    case 'tuple':
      return recordOf(
        'tuple',
        type.elements.map((element, i) => ({ name: `field${i + 1}`, reader: cqlReader(element) })),
      )
    case 'udt':
      return recordOf(
        `user type ${type.name}`,
        type.fields.map((field) => ({ name: field.name, reader: cqlReader(field.type) })),
      )
    case 'vector':
      return vectorOf(cqlReader(type.element), type.dimension, fixedLength(type.element))
  }
}

/**
 * A collection or user type as a frozen one would be, from the cells that are alive, in the order of their paths. Null when there are none: then it is null,
 * or empty, which Cassandra does not tell apart.
 * @throws source.schema_unsupported when the user type has more fields than it was described with: describe the table again
 */
export function frozenForm(type: CqlType, cells: readonly ElementBytes[]): Buffer | null {
  if (cells.length === 0) return null
  const parts: Buffer[] = []
  const sized = (bytes: Buffer | undefined) => {
    parts.push(int32(bytes === undefined ? -1 : bytes.length))
    if (bytes !== undefined) parts.push(bytes)
  }
  if (type.kind === 'udt') {
    const byField = new Map(cells.map(({ path, value }) => [path.length === 2 ? path.readUInt16BE(0) : malformed(`number of a field of ${type.name}`), value]))
    for (const field of byField.keys()) if (field >= type.fields.length) tooManyFields(`user type ${type.name}`)
    for (let i = 0; i < type.fields.length; i++) sized(byField.get(i))
    return Buffer.concat(parts)
  }
  parts.push(int32(cells.length))
  for (const { path, value } of cells) {
    if (type.kind !== 'list') sized(path)
    if (type.kind !== 'set') sized(value)
  }
  return Buffer.concat(parts)
}

function scalar(type: ColumnType, write: CqlReader['write'], value: CqlReader['value'], canBeSpecial = true): CqlReader {
  return {
    type,
    canBeSpecial,
    write: canBeSpecial ? (bytes, from, to, writer) => (from === to ? writer.special('') : write(bytes, from, to, writer)) : write,
    value: canBeSpecial ? (bytes, from, to) => (from === to ? EMPTY : value(bytes, from, to)) : value,
  }
}

/** @param length of every value */
function int32Of(name: string, kind: 'int32' | 'date', length: number, read: (bytes: Buffer, from: number) => number): CqlReader {
  const value = (bytes: Buffer, from: number, to: number) => (to - from === length ? read(bytes, from) : malformed(name))
  return scalar({ kind }, (bytes, from, to, writer) => writer.int(value(bytes, from, to)), value)
}

function stringOf(kind: 'string' | 'uuid', value: (bytes: Buffer, from: number, to: number) => string): CqlReader {
  return scalar({ kind }, (bytes, from, to, writer) => writer.string(value(bytes, from, to)), value)
}

const text: CqlReader = scalar(
  { kind: 'string' },
  (bytes, from, to, writer) => writer.text(bytes, from, to),
  (bytes, from, to) => bytes.toString('utf8', from, to),
  false,
)

const blob: CqlReader = scalar(
  { kind: 'bytes' },
  (bytes, from, to, writer) => writer.bytes(bytes, from, to),
  (bytes, from, to) => new Uint8Array(bytes.subarray(from, to)),
  false,
)

const bigint: CqlReader = scalar(
  { kind: 'int64' },
  (bytes, from, to, writer) => {
    expectLength(to - from, 8, 'bigint')
    writer.long64(bytes.readInt32BE(from), bytes.readUInt32BE(from + 4))
  },
  (bytes, from, to) => {
    expectLength(to - from, 8, 'bigint')
    return bytes.readBigInt64BE(from)
  },
)

const uuid: CqlReader = stringOf('uuid', (bytes, from, to) => {
  expectLength(to - from, 16, 'uuid')
  const hex = bytes.toString('hex', from, to)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
})

/** Milliseconds, any 64 bits; what microseconds cannot hold is special, in milliseconds as CQL takes them. */
const timestamp: CqlReader = scalar(
  { kind: 'timestamptz' },
  (bytes, from, to, writer) => {
    expectLength(to - from, 8, 'timestamp')
    const millis = bytes.readInt32BE(from) * TWO_32 + bytes.readUInt32BE(from + 4)
    if (millis < EXACT_MILLIS && millis > -EXACT_MILLIS) writer.long(millis * 1000)
    else writer.value(wideTimestamp(bytes.readBigInt64BE(from)))
  },
  (bytes, from, to) => {
    expectLength(to - from, 8, 'timestamp')
    return wideTimestamp(bytes.readBigInt64BE(from))
  },
)

function wideTimestamp(millis: bigint): Value {
  return millis > MOST_MILLIS || millis < -MOST_MILLIS ? new Special(millis.toString()) : millis * 1000n
}

/** Nanoseconds since midnight, which microseconds do not hold. */
function timeText(bytes: Buffer, from: number, to: number): string {
  expectLength(to - from, 8, 'time')
  const nanos = bytes.readBigInt64BE(from)
  if (nanos < 0n || nanos >= NANOS_PER_DAY) malformed('time')
  const seconds = Number(nanos / 1_000_000_000n)
  const two = (value: number) => String(value).padStart(2, '0')
  const fraction = String(nanos % 1_000_000_000n).padStart(9, '0')
  return `${two(Math.trunc(seconds / 3600))}:${two(Math.trunc(seconds / 60) % 60)}:${two(seconds % 60)}.${fraction}`
}

function varint(bytes: Buffer, from: number, to: number): bigint {
  if (to === from) malformed('varint')
  return BigInt.asIntN((to - from) * 8, BigInt(`0x${bytes.toString('hex', from, to)}`))
}

/** As java.math.BigDecimal writes it: digits and scale are kept, and a scale of any size takes few characters. */
export function decimalText(unscaled: bigint, scale: number): string {
  const sign = unscaled < 0n ? '-' : ''
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString()
  const exponent = digits.length - 1 - scale
  if (scale === 0) return sign + digits
  if (scale > 0 && exponent >= -6) {
    const padded = digits.padStart(scale + 1, '0')
    return `${sign}${padded.slice(0, -scale)}.${padded.slice(-scale)}`
  }
  const fraction = digits.length > 1 ? `.${digits.slice(1)}` : ''
  return `${sign}${digits[0]}${fraction}${exponent === 0 ? '' : `E${exponent > 0 ? '+' : ''}${exponent}`}`
}

function decimal(bytes: Buffer, from: number, to: number): string {
  if (to - from < 5) malformed('decimal')
  return decimalText(varint(bytes, from + 4, to), bytes.readInt32BE(from))
}

const DURATION_UNITS: readonly (readonly [string, bigint])[] = [
  ['h', 3_600_000_000_000n],
  ['m', 60_000_000_000n],
  ['s', 1_000_000_000n],
  ['ms', 1_000_000n],
  ['us', 1_000n],
  ['ns', 1n],
]

/** Months, days and nanoseconds as CQL writes them, with one sign before: `-1y2mo3d4h5m6s7ms8us9ns`. */
function duration(bytes: Buffer, from: number, to: number): string {
  let at = from
  const next = (): bigint => {
    if (at >= to) malformed('duration')
    const first = bytes[at++]!
    const extra = first === 0xff ? 8 : first < 0x80 ? 0 : Math.clz32((~first & 0xff) << 24)
    if (at + extra > to) malformed('duration')
    let value = BigInt(extra >= 7 ? 0 : first & (0xff >> extra))
    for (let i = 0; i < extra; i++) value = (value << 8n) | BigInt(bytes[at++]!)
    return (value >> 1n) ^ -(value & 1n)
  }
  const parts = [next(), next(), next()] as const
  if (at !== to) malformed('duration')
  const [months, days, nanos] = parts.map((value) => (value < 0n ? -value : value)) as [bigint, bigint, bigint]
  let rest = nanos
  const clock = DURATION_UNITS.map(([unit, size]) => {
    const count = rest / size
    rest %= size
    return count === 0n ? '' : `${count}${unit}`
  })
  const amount = (count: bigint, unit: string) => (count === 0n ? '' : `${count}${unit}`)
  const whole = amount(months / 12n, 'y') + amount(months % 12n, 'mo') + amount(days, 'd') + clock.join('')
  return (parts.some((value) => value < 0n) ? '-' : '') + (whole === '' ? '0ns' : whole)
}

function inet(bytes: Buffer, from: number, to: number): string {
  if (to - from === 4) return bytes.subarray(from, to).join('.')
  expectLength(to - from, 16, 'inet')
  return ipv6Text(bytes, from)
}

const NATIVE: Readonly<Record<NativeType, CqlReader>> = {
  ascii: text,
  text,
  blob,
  empty: blob,
  bigint,
  counter: bigint,
  uuid,
  timeuuid: uuid,
  timestamp,
  boolean: scalar(
    { kind: 'boolean' },
    (bytes, from, to, writer) => {
      expectLength(to - from, 1, 'boolean')
      writer.boolean(bytes[from] !== 0)
    },
    (bytes, from, to) => {
      expectLength(to - from, 1, 'boolean')
      return bytes[from] !== 0
    },
  ),
  tinyint: int32Of('tinyint', 'int32', 1, (bytes, from) => bytes.readInt8(from)),
  smallint: int32Of('smallint', 'int32', 2, (bytes, from) => bytes.readInt16BE(from)),
  int: int32Of('int', 'int32', 4, (bytes, from) => bytes.readInt32BE(from)),
  // days, with 1970-01-01 in the middle of the unsigned numbers
  date: int32Of('date', 'date', 4, (bytes, from) => bytes.readUInt32BE(from) - TWO_31),
  float: scalar(
    { kind: 'float32' },
    (bytes, from, to, writer) => {
      expectLength(to - from, 4, 'float')
      writer.float(bytes.readFloatBE(from))
    },
    (bytes, from, to) => {
      expectLength(to - from, 4, 'float')
      return bytes.readFloatBE(from)
    },
  ),
  double: scalar(
    { kind: 'float64' },
    (bytes, from, to, writer) => {
      expectLength(to - from, 8, 'double')
      writer.double(bytes.readDoubleBE(from))
    },
    (bytes, from, to) => {
      expectLength(to - from, 8, 'double')
      return bytes.readDoubleBE(from)
    },
  ),
  time: stringOf('string', timeText),
  varint: stringOf('string', (bytes, from, to) => varint(bytes, from, to).toString()),
  decimal: stringOf('string', decimal),
  duration: stringOf('string', duration),
  inet: stringOf('string', inet),
}

/** @param read undefined when an element is special: then the whole is, as the hex of its bytes */
function container(type: ColumnType, read: (bytes: Buffer, from: number, to: number) => Value | undefined): CqlReader {
  const value = (bytes: Buffer, from: number, to: number): Value =>
    (from === to ? undefined : read(bytes, from, to)) ?? new Special(`0x${bytes.toString('hex', from, to)}`)
  return { type, canBeSpecial: true, write: (bytes, from, to, writer) => writer.value(value(bytes, from, to)), value }
}

/** Lengths of 32 bits before the values; -1 is null. */
class Elements {
  readonly #bytes: Buffer
  readonly #to: number
  readonly #name: string
  #at: number

  constructor(bytes: Buffer, from: number, to: number, name: string) {
    this.#bytes = bytes
    this.#at = from
    this.#to = to
    this.#name = name
  }

  get left(): boolean {
    return this.#at < this.#to
  }

  /** Each of the elements takes four bytes or more. */
  count(): number {
    const count = this.#int()
    if (count < 0 || count > (this.#to - this.#at) / 4) malformed(this.#name)
    return count
  }

  next(reader: CqlReader): Value {
    const length = this.#int()
    if (length < 0) return null
    const from = this.#at
    if (length > this.#to - from) malformed(this.#name)
    this.#at = from + length
    return reader.value(this.#bytes, from, this.#at)
  }

  end(): void {
    if (this.left) malformed(this.#name)
  }

  #int(): number {
    if (this.#to - this.#at < 4) malformed(this.#name)
    const value = this.#bytes.readInt32BE(this.#at)
    this.#at += 4
    return value
  }
}

const isSpecial = (value: Value) => value instanceof Special

function listOf(name: string, element: CqlReader): CqlReader {
  return container({ kind: 'array', element: element.type }, (bytes, from, to) => {
    const elements = new Elements(bytes, from, to, name)
    const values = Array.from({ length: elements.count() }, () => elements.next(element))
    elements.end()
    return values.some(isSpecial) ? undefined : values
  })
}

const isText = (type: CqlType) => type.kind === 'native' && (type.name === 'text' || type.name === 'ascii')

const textMap: CqlReader = container({ kind: 'map' }, (bytes, from, to) => {
  const elements = new Elements(bytes, from, to, 'map')
  const entries = new Map<string, string | null>()
  for (let left = elements.count(); left > 0; left--) entries.set(elements.next(text) as string, elements.next(text) as string | null)
  elements.end()
  return entries
})

/** Avro's maps have texts for keys: any other is an array of its entries. */
function mapOf(key: CqlReader, value: CqlReader): CqlReader {
  const fields = [
    { name: 'key', type: key.type },
    { name: 'value', type: value.type },
  ]
  return container({ kind: 'array', element: { kind: 'record', fields } }, (bytes, from, to) => {
    const elements = new Elements(bytes, from, to, 'map')
    const entries = Array.from({ length: elements.count() }, (): Value[] => [elements.next(key), elements.next(value)])
    elements.end()
    return entries.some((entry) => entry.some(isSpecial)) ? undefined : entries
  })
}

/** Fields that were added to the type later are missing at the end of older values. */
function recordOf(name: string, fields: readonly { readonly name: string; readonly reader: CqlReader }[]): CqlReader {
  return container({ kind: 'record', fields: fields.map((field) => ({ name: field.name, type: field.reader.type })) }, (bytes, from, to) => {
    const elements = new Elements(bytes, from, to, name)
    const values = fields.map(({ reader }) => (elements.left ? elements.next(reader) : null))
    if (elements.left) tooManyFields(name)
    return values.some(isSpecial) ? undefined : values
  })
}

/** @param fixed bytes of each element; -1: its length comes before it */
function vectorOf(element: CqlReader, dimension: number, fixed: number): CqlReader {
  return container({ kind: 'array', element: element.type }, (bytes, from, to) => {
    const values: Value[] = []
    let at = from
    for (let i = 0; i < dimension; i++) {
      let length = fixed
      if (fixed < 0) {
        const first = bytes[at++] ?? 0xff
        const extra = Math.clz32((~first & 0xff) << 24)
        if (extra > 4 || at + extra > to) malformed('vector')
        length = first & (0xff >> extra)
        for (let j = 0; j < extra; j++) length = length * 256 + bytes[at++]!
      }
      if (length > to - at) malformed('vector')
      values.push(element.value(bytes, at, at + length))
      at += length
    }
    if (at !== to) malformed('vector')
    return values.some(isSpecial) ? undefined : values
  })
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

function expectLength(length: number, expected: number, name: string): void {
  if (length !== expected) malformed(name)
}

/** The value itself stays out of the message. */
function malformed(name: string): never {
  throw new MillraceError('source.protocol', `bytes of a ${name} that are none`, {
    fix: 'write the value again in the source; report this with the server version when it can be read there',
  })
}

function tooManyFields(name: string): never {
  throw new MillraceError('source.schema_unsupported', `a value of the ${name} has more fields than it had when its table was described`, {
    fix: 'nothing, when the type was altered just now: the table is described again',
  })
}

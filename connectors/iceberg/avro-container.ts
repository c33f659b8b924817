/** Avro object container files as Iceberg's manifests need them: avsc's own encoder drops `field-id` from the schema in the header. */
import { randomBytes } from 'node:crypto'
import zlib from 'node:zlib'
import avsc from 'avsc'
import { MillraceError } from '../../core/plugin.ts'

const MAGIC = Buffer.from('Obj\x01')
const META_TYPE = avsc.Type.forSchema({ type: 'map', values: 'bytes' })
const INT_TYPE = avsc.Type.forSchema('long')
const BIGINT_TYPE = avsc.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer(value: bigint) {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(value)
    return bytes
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
})

/** Longs are bigint, unions are not wrapped. */
function typeOf(schema: object): avsc.Type {
  return avsc.Type.forSchema(schema as avsc.Schema, { wrapUnions: false, registry: { long: BIGINT_TYPE } })
}

const types = new Map<object, avsc.Type>()

/** One file with one deflated block. `schema` is kept verbatim in the header. */
export function writeAvroContainer(schema: object, records: readonly object[], metadata: Readonly<Record<string, string>>): Buffer {
  let type = types.get(schema)
  if (type === undefined) types.set(schema, (type = typeOf(schema)))
  const header: Record<string, Buffer> = { 'avro.schema': Buffer.from(JSON.stringify(schema)), 'avro.codec': Buffer.from('deflate') }
  for (const [name, value] of Object.entries(metadata)) header[name] = Buffer.from(value)
  const sync = randomBytes(16)
  const parts = [MAGIC, META_TYPE.toBuffer(header), sync]
  if (records.length > 0) {
    const body = zlib.deflateRawSync(Buffer.concat(records.map((record) => type.toBuffer(record))), { level: 1 })
    parts.push(INT_TYPE.toBuffer(records.length), INT_TYPE.toBuffer(body.length), body, sync)
  }
  return Buffer.concat(parts)
}

function inflate(codec: string, bytes: Buffer): Buffer {
  if (codec === 'deflate') return zlib.inflateRawSync(bytes)
  if (codec === 'zstandard') return zlib.zstdDecompressSync(bytes)
  if (codec === 'null') return bytes
  throw new MillraceError('config.unsupported', `an Iceberg manifest is compressed with ${codec}`, {
    fix: 'set the table property write.avro.compression-codec to gzip and run rewrite_manifests',
  })
}

/** @throws record.malformed when the bytes are no Avro container file */
export function readAvroContainer(bytes: Buffer, name: string): { readonly metadata: ReadonlyMap<string, string>; readonly records: readonly unknown[] } {
  const malformed = (cause?: unknown) => new MillraceError('record.malformed', `${name} is not a whole Avro file`, { cause })
  if (!bytes.subarray(0, 4).equals(MAGIC)) throw malformed()
  try {
    const header = META_TYPE.decode(bytes, 4)
    const metadata = new Map(Object.entries(header.value as Record<string, Buffer>).map(([key, value]) => [key, value.toString()]))
    const type = typeOf(JSON.parse(metadata.get('avro.schema')!) as object)
    const codec = metadata.get('avro.codec') ?? 'null'
    const records: unknown[] = []
    for (let at = header.offset + 16; at < bytes.length; ) {
      const count = INT_TYPE.decode(bytes, at)
      const size = INT_TYPE.decode(bytes, count.offset)
      if (count.offset < 0 || size.offset < 0 || size.offset + size.value + 16 > bytes.length) throw malformed()
      const body = inflate(codec, bytes.subarray(size.offset, size.offset + size.value))
      for (let i = 0, from = 0; i < count.value; i++) {
        const record = type.decode(body, from)
        if (record.offset < 0) throw malformed()
        records.push(record.value)
        from = record.offset
      }
      at = size.offset + size.value + 16
    }
    return { metadata, records }
  } catch (error) {
    if (error instanceof MillraceError) throw error
    throw malformed(error)
  }
}

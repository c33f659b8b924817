import type avsc from 'avsc'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { MillraceError } from '../../../../core/errors.ts'
import { packPosition } from '../../../../core/event/position.ts'
import { frameOf, type PlainRecord, records, stampOffset } from '../../../../core/event/record-batch.ts'
import type { TableSchema, Tuple } from '../../../../core/event/table-schema.ts'
import { AvroReader } from '../../../../core/schema/avro-reader.ts'
import { AvroWriter } from '../../../../core/schema/avro-writer.ts'
import { RecordDecoders } from '../../../../core/schema/record-decoder.ts'
import { compileRowDecoder } from '../../../../core/schema/row-decoder.ts'
import { compileColumnEncoders } from '../../../../core/schema/value-encoder.ts'
import { runs } from '../../../fixed-seed.ts'
import { avscEnvelope, envelopeToAvsc, fromAvsc, keyToAvsc } from './avsc-envelope.ts'
import { registryOf } from './map-registry.ts'
import { rows, tables } from './tables.ts'

const VALUE_ID = 7
const KEY_ID = 8
const POSITION = { commit: (1n << 63n) + 5n, ordinal: 0x8000_0001 }

function wire(id: number, avro: Buffer): Buffer {
  const header = Buffer.alloc(5)
  header.writeInt32BE(id, 1)
  return Buffer.concat([header, avro])
}

function record(key: Buffer | null, value: Buffer | null): PlainRecord {
  return { key, value, headers: [['pos', packPosition(POSITION)]] }
}

interface Change {
  readonly op: 'r' | 'c' | 'u' | 'd' | 't'
  readonly before: Tuple | null
  readonly after: Tuple | null
  readonly committedAt: bigint
}

const changes: fc.Arbitrary<{ table: TableSchema; change: Change; row: Tuple }> = tables.chain((table) =>
  fc
    .record({
      op: fc.constantFrom('r', 'c', 'u', 'd', 't'),
      row: rows(table),
      old: fc.option(rows(table), { nil: null }),
      committedAt: fc.bigInt({ min: 0n, max: 1n << 53n }),
    })
    .map(({ op, row, old, committedAt }) => ({
      table,
      row,
      change: { op, before: op === 't' ? null : old, after: op === 'd' || op === 't' ? null : row, committedAt },
    })),
)

function encoded(table: TableSchema, change: Change, row: Tuple) {
  const avro = avscEnvelope(table)
  const value = wire(VALUE_ID, avro.value.toBuffer(envelopeToAvsc(table, change)))
  const key = avro.key === null || change.op === 't' ? null : wire(KEY_ID, avro.key.toBuffer(keyToAvsc(table, row)))
  const schemas = new Map([[VALUE_ID, avro.valueSchema]])
  if (avro.keySchema !== null) schemas.set(KEY_ID, avro.keySchema)
  return { avro, value, key, decoders: new RecordDecoders(registryOf(schemas)) }
}

async function decodeAll(decoders: RecordDecoders, plain: readonly PlainRecord[]) {
  const { buffer } = frameOf(plain, 1)
  stampOffset(buffer, 40n)
  await decoders.prepare(buffer)
  return records(buffer)
    .map((entry) => decoders.decode(buffer, entry))
    .toArray()
}

test('a change that avsc encoded comes back as it was', async () => {
  await fc.assert(
    fc.asyncProperty(changes, async ({ table, change, row }) => {
      const { value, key, decoders } = encoded(table, change, row)
      const [first, tombstone, second] = await decodeAll(decoders, [record(key, value), record(key, null), record(key, value)])
      expect(tombstone).toBeNull()
      expect(first).toEqual(
        change.op === 't'
          ? { kind: 'truncate', table, position: POSITION, committedAt: change.committedAt }
          : { kind: 'row', ...change, table, key: table.key.length === 0 ? null : table.key.map((i) => row[i]), position: POSITION },
      )
      if (first?.kind !== 'row' && first?.kind !== 'truncate') throw new Error('neither a row nor a truncation')
      expect(second?.kind === first.kind && second.table === first.table).toBe(true)
    }),
    { numRuns: runs(250) },
  )
})

test('damaged bytes give record.malformed, or what avsc reads from them too', async () => {
  await fc.assert(
    fc.asyncProperty(
      changes,
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 3 }),
      fc.option(fc.nat(), { nil: undefined, freq: 3 }),
      async ({ table, change, row }, flips, cut) => {
        const { avro, value, key, decoders } = encoded(table, change, row)
        const broken = Buffer.from(value.subarray(0, cut === undefined ? value.length : 5 + (cut % (value.length - 4))))
        for (const [at, byte] of flips) if (broken.length > 5) broken[5 + (at % (broken.length - 5))] = byte
        let decoded: Awaited<ReturnType<typeof decodeAll>>[number]
        try {
          decoded = (await decodeAll(decoders, [record(key, broken)]))[0]!
        } catch (error) {
          expect(error).toMatchObject({ code: 'record.malformed', message: expect.stringContaining('offset 40') })
          return
        }
        const expected = avro.value.fromBuffer(broken.subarray(5)) as { op: string; before: object | null; after: object | null; source: { ts_us: bigint } }
        const image = (wrapped: object | null) => (wrapped === null ? null : fromAvsc(table, Object.values(wrapped)[0]))
        if (decoded?.kind === 'row') {
          expect(decoded).toMatchObject({ op: expected.op, committedAt: expected.source.ts_us })
          expect([decoded.before, decoded.after]).toEqual([image(expected.before), image(expected.after)])
        } else expect(expected.op).toBe('t')
      },
    ),
    { numRuns: runs(700) },
  )
})

const column = { sourceType: '', nullable: true, mayBeUnchanged: false, maybeSpecial: false }
const orders: TableSchema = {
  namespace: 'public',
  name: 'orders',
  columns: [
    { ...column, name: 'id', id: 1, type: { kind: 'int64' }, nullable: false },
    { ...column, name: 'note', id: 2, type: { kind: 'string' } },
  ],
  key: [0],
}
const insert: Change = { op: 'c', before: null, after: [1n, 'ab'], committedAt: 5n }

test.each<[string, (value: Buffer, key: Buffer) => PlainRecord, string]>([
  ['a byte is left over', (value, key) => record(key, Buffer.concat([value, Buffer.alloc(1)])), '1 bytes are left over'],
  [
    'the value is not in the wire format',
    (value, key) => record(key, Buffer.concat([Buffer.from([1]), value])),
    'the value is not in the Confluent wire format',
  ],
  ['the key is missing', (value) => record(null, value), 'has no key'],
  ['the key is cut short', (value, key) => record(key.subarray(0, 5), value), 'the bytes end'],
  ['the key has a byte too many', (value, key) => record(Buffer.concat([key, Buffer.alloc(1)]), value), 'left over'],
  ['there is no position', (value, key) => ({ key, value }), 'no header pos'],
  ['the position is too short', (value, key) => ({ key, value, headers: [['pos', Buffer.alloc(11)]] }), 'no header pos'],
  [
    'the text is not UTF-8',
    (value, key) => {
      const broken = Buffer.from(value)
      broken[broken.indexOf('ab')] = 0xff
      return record(key, broken)
    },
    'a string is not UTF-8',
  ],
])('record.malformed when %s', async (_, spoil, message) => {
  const { value, key, decoders } = encoded(orders, insert, insert.after!)
  await expect(decodeAll(decoders, [spoil(value, key!)])).rejects.toMatchObject({ code: 'record.malformed', message: expect.stringContaining(message) })
})

test('the position is found among other headers', async () => {
  const { value, key, decoders } = encoded(orders, insert, insert.after!)
  const headers = [['trace', Buffer.from('x')] as const, ['pos', packPosition(POSITION)] as const]
  expect(await decodeAll(decoders, [{ key, value, headers }])).toMatchObject([{ position: POSITION }])
})

test('a schema that is not known, or not ours, stops only its own records', async () => {
  const avro = avscEnvelope(orders)
  const schemas = new Map([
    [VALUE_ID, avro.valueSchema],
    [KEY_ID, avro.keySchema!],
    [30, '{"type":"record","name":"Order","fields":[{"name":"id","type":"long"}]}'],
  ])
  const registry = registryOf(schemas)
  const decoders = new RecordDecoders(registry)
  const value = avro.value.toBuffer(envelopeToAvsc(orders, insert))
  const key = wire(KEY_ID, avro.key!.toBuffer(keyToAvsc(orders, insert.after!)))
  const { buffer } = frameOf([record(key, wire(30, value)), record(key, wire(31, value)), record(key, wire(VALUE_ID, value))], 1)
  await decoders.prepare(buffer)
  const outcomes = () =>
    records(buffer)
      .map((entry) => {
        try {
          return decoders.decode(buffer, entry)?.kind
        } catch (error) {
          return (error as MillraceError).code
        }
      })
      .toArray()
  expect(outcomes()).toEqual(['schema.invalid', 'schema.unknown', 'row'])
  schemas.set(31, avro.valueSchema)
  await decoders.prepare(buffer)
  expect(outcomes()).toEqual(['schema.invalid', 'row', 'row'])
  const { reads } = registry
  await decoders.prepare(buffer)
  expect(registry.reads).toBe(reads)
})

test('a key of another table is not taken for this one', async () => {
  const other = avscEnvelope({ ...orders, columns: [{ ...orders.columns[0]!, name: 'other' }] })
  const { value, avro } = encoded(orders, insert, insert.after!)
  const decoders = new RecordDecoders(
    registryOf(
      new Map([
        [VALUE_ID, avro.valueSchema],
        [KEY_ID, other.keySchema!],
      ]),
    ),
  )
  await expect(decodeAll(decoders, [record(wire(KEY_ID, Buffer.from([2])), value)])).rejects.toMatchObject({ code: 'record.malformed' })
})

test('the row encoder of the audit writes what avsc writes, and it is read back', () => {
  const rowsOfTables = tables.chain((table) => rows(table).map((row) => ({ table, row })))
  fc.assert(
    fc.property(rowsOfTables, ({ table, row }) => {
      const out = new AvroWriter(8)
      for (const [i, encode] of compileColumnEncoders(table).entries()) encode(out, row[i]!)
      const bytes = out.buffer.subarray(0, out.at)
      const value = (avscEnvelope(table).value as avsc.types.RecordType).field('after').type as avsc.types.UnwrappedUnionType
      expect(fromAvsc(table, Object.values(value.fromBuffer(Buffer.concat([Buffer.from([2]), bytes])) as object)[0])).toEqual(row)
      const reader = new AvroReader()
      reader.open(Buffer.from(bytes), 0, bytes.length)
      expect(compileRowDecoder(table)(reader)).toEqual(row)
      reader.close()
    }),
    { numRuns: runs(200) },
  )
})

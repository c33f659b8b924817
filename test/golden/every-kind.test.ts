/**
 * What is in topics and registries for years must not change by accident: the schemas of a table with every kind of column, and the bytes of its
 * records. `vitest -u` rewrites the files after a change that is meant; then old records must still decode.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import avsc from 'avsc'
import { expect, test } from 'vitest'
import { TableWriter } from '../../core/capture/change-writer.ts'
import { FrameAssembler } from '../../core/capture/frame-assembler.ts'
import { WriterState } from '../../core/capture/writer-state.ts'
import type { ChangeEvent } from '../../core/event/change-event.ts'
import { frameOf, recordHeader, records } from '../../core/event/record-batch.ts'
import { Special, type TableSchema, type Tuple, UNCHANGED } from '../../core/event/table-schema.ts'
import { WindowLedger } from '../../core/event/window-ledger.ts'
import { envelopeSchemaOf, keySchemaOf, TRUNCATION_KEY_SCHEMA, tableOf } from '../../core/schema/avro-mapping.ts'
import { AvroWriter } from '../../core/schema/avro-writer.ts'
import { RecordDecoders } from '../../core/schema/record-decoder.ts'
import { avscType, fromAvsc } from '../unit/core/schema/avsc-envelope.ts'
import { registryOf } from '../unit/core/schema/map-registry.ts'

const SCHEMAS = path.resolve(import.meta.dirname, '../../schemas')
const RECORDS = path.join(import.meta.dirname, 'every-kind.records.json')
const [KEY_ID, VALUE_ID, TRUNCATION_KEY_ID] = [1, 2, 5]
const COMMITTED_AT = 1_767_225_600_123_456n

const column = (id: number, name: string, type: TableSchema['columns'][number]['type'], sourceType: string, more = {}) => ({
  name,
  id,
  type,
  sourceType,
  nullable: true,
  mayBeUnchanged: false,
  maybeSpecial: false,
  ...more,
})
const table: TableSchema = {
  namespace: 'public',
  name: 'every kind',
  columns: [
    column(1, 'id', { kind: 'int64' }, 'bigint', { nullable: false }),
    column(2, 'région', { kind: 'string' }, 'text', { nullable: false }),
    column(3, 'boolean', { kind: 'boolean' }, 'boolean'),
    column(4, 'int32', { kind: 'int32' }, 'integer'),
    column(5, 'int64', { kind: 'int64' }, 'bigint'),
    column(6, 'float32', { kind: 'float32' }, 'real'),
    column(7, 'float64', { kind: 'float64' }, 'double precision'),
    column(8, 'decimal', { kind: 'decimal', precision: 12, scale: 2 }, 'numeric(12,2)', { maybeSpecial: true }),
    column(9, 'string', { kind: 'string' }, 'text', { mayBeUnchanged: true }),
    column(10, 'bytes', { kind: 'bytes' }, 'bytea', { mayBeUnchanged: true }),
    column(11, 'uuid', { kind: 'uuid' }, 'uuid'),
    column(12, 'json', { kind: 'json' }, 'jsonb', { mayBeUnchanged: true }),
    column(13, 'enum', { kind: 'enum', values: ['new', 'in transit'] }, 'status'),
    column(14, 'date', { kind: 'date' }, 'date', { maybeSpecial: true }),
    column(15, 'time', { kind: 'time' }, 'time without time zone'),
    column(16, 'timestamp', { kind: 'timestamp' }, 'timestamp without time zone', { maybeSpecial: true }),
    column(17, 'timestamptz', { kind: 'timestamptz' }, 'timestamp with time zone', { maybeSpecial: true }),
    column(18, 'array', { kind: 'array', element: { kind: 'array', element: { kind: 'int32' } } }, 'integer[]', { mayBeUnchanged: true, maybeSpecial: true }),
    column(
      19,
      'record',
      {
        kind: 'record',
        fields: [
          { name: 'a b', type: { kind: 'decimal', precision: 5, scale: 1 } },
          { name: 'at', type: { kind: 'date' } },
        ],
      },
      'pair',
    ),
    column(20, 'map', { kind: 'map' }, 'hstore'),
    column(22, '2nd', { kind: 'string' }, 'interval', { nullable: false }),
  ],
  key: [0, 1],
}
const key: Tuple = [-(1n << 63n), 'Zürich']
const full: Tuple = [
  ...key,
  true,
  -2147483648,
  (1n << 63n) - 1n,
  1.5,
  -0.1,
  -12345678n,
  'grüezi 😀',
  Buffer.from([0, 255]),
  'b3b0c5a2-0f5c-4a52-9d2e-3d6f0a1b2c3d',
  '{"a": [1, 2.50]}',
  'in transit',
  -1,
  86_399_999_999n,
  1_767_225_600_000_000n,
  -1n,
  [[1, null], null, []],
  [-5n, null],
  new Map([
    ['k', 'v'],
    ['n', null],
  ]),
  '1 mon 2 days',
]
const partial: Tuple = table.columns.map((c, i) => (i < 2 ? key[i]! : c.mayBeUnchanged ? UNCHANGED : c.maybeSpecial ? new Special('infinity') : null))

const options = {
  recordNamespace: 'shop.public.every kind',
  sourceFields: [
    { name: 'lsn', type: 'long' as const },
    { name: 'txId', type: 'string' as const },
  ],
}
const valueSchema = envelopeSchemaOf(table, options)
const keySchema = keySchemaOf(table, options.recordNamespace)
const pretty = (schema: string) => `${JSON.stringify(JSON.parse(schema), null, 2)}\n`

test('the schemas of a table with every kind of column', async () => {
  await expect(pretty(valueSchema)).toMatchFileSnapshot(path.join(SCHEMAS, 'every-kind.envelope.avsc'))
  await expect(pretty(keySchema)).toMatchFileSnapshot(path.join(SCHEMAS, 'every-kind.key.avsc'))
  expect(tableOf(readFileSync(path.join(SCHEMAS, 'every-kind.envelope.avsc'), 'utf8'))).toEqual(table)
})

interface GoldenRecord {
  readonly what: string
  readonly key: string | null
  readonly value: string | null
  readonly pos: string
  readonly del: string | null
}

/** The records that capture writes for an insert, an update with a before image and unchanged columns, a key change, a delete and a truncation. */
function written(): GoldenRecord[] {
  const strings = new AvroWriter()
  for (const text of ['1', 'postgres', 'shop', 'db', 'public', 'every kind']) strings.string(text)
  const state = new WriterState()
  state.commitHigh = 1
  state.commitLow = 0x8000_0000
  state.lastOrdinal = -1
  state.describe(COMMITTED_AT, [26_501_234n, '771'])
  state.clock.at = 0
  state.clock.long(Number(COMMITTED_AT / 1000n))
  state.clock.bigint(COMMITTED_AT)
  const frames = new FrameAssembler()
  const target = {
    topic: 't',
    partitions: 1,
    keySchemaId: KEY_ID,
    valueSchemaId: VALUE_ID,
    sourcePrefix: strings.buffer.subarray(0, strings.at),
    truncationKeyId: TRUNCATION_KEY_ID,
    ledger: new WindowLedger(5),
  }
  const writer = new TableWriter(table, target, state, frames)
  const image = (row: Tuple) => {
    for (const value of row) writer.value(value)
  }
  writer.begin('c', 1)
  writer.after()
  image(full)
  writer.end()
  writer.begin('u', 3)
  writer.before()
  image(full)
  writer.after()
  image(partial)
  writer.end()
  writer.begin('u', 5)
  writer.key()
  image(key)
  writer.after()
  image([7n, ...full.slice(1)])
  writer.end()
  writer.begin('d', 7)
  writer.key()
  image([7n, key[1]!])
  writer.end()
  writer.truncate(9)
  const [frame] = frames.take()
  const bytes = Buffer.from(frame!.buffer.subarray(0, frame!.end))
  const names = ['insert', 'update', 'key change: delete', 'key change: tombstone', 'key change: insert', 'delete', 'tombstone', 'truncate']
  return records(bytes)
    .map((record, i) => ({
      what: names[i] ?? 'one too many',
      key: record.keyFrom < 0 ? null : bytes.toString('hex', record.keyFrom, record.keyTo),
      value: record.valueFrom < 0 ? null : bytes.toString('hex', record.valueFrom, record.valueTo),
      pos: recordHeader(bytes, record, 'pos')!.toString('hex'),
      del: recordHeader(bytes, record, 'del')?.toString('hex') ?? null,
    }))
    .toArray()
}

test('the bytes of its records', async () => {
  await expect(`${JSON.stringify(written(), null, 2)}\n`).toMatchFileSnapshot(RECORDS)
})

test('the kept records decode to the changes they were written for, and to the same with avsc', async () => {
  const golden = JSON.parse(readFileSync(RECORDS, 'utf8')) as GoldenRecord[]
  const bytes = (hex: string | null) => (hex === null ? null : Buffer.from(hex, 'hex'))
  const { buffer } = frameOf(
    golden.map(({ key, value, pos, del }) => ({
      key: bytes(key),
      value: bytes(value),
      headers: [['pos', Buffer.from(pos, 'hex')] as const, ...(del === null ? [] : [['del', Buffer.from(del, 'hex')] as const])],
    })),
    1,
  )
  const kept = (name: string) => readFileSync(path.join(SCHEMAS, `every-kind.${name}.avsc`), 'utf8')
  const decoders = new RecordDecoders(
    registryOf(
      new Map([
        [KEY_ID, kept('key')],
        [VALUE_ID, kept('envelope')],
        [TRUNCATION_KEY_ID, TRUNCATION_KEY_SCHEMA],
      ]),
    ),
  )
  await decoders.prepare(buffer)
  const changes = records(buffer)
    .map((record) => decoders.decode(buffer, record))
    .toArray()
  const at = (ordinal: number) => ({ table, committedAt: COMMITTED_AT, position: { commit: 0x1_8000_0000n, ordinal } })
  const moved: Tuple = [7n, key[1]!]
  expect(changes).toEqual([
    { kind: 'row', op: 'c', key, before: null, after: full, ...at(1) },
    { kind: 'row', op: 'u', key, before: full, after: partial, ...at(3) },
    { kind: 'row', op: 'd', key, before: null, after: null, ...at(4) },
    { kind: 'row', op: 'd', key, before: null, after: null, ...at(4), isTombstone: true },
    { kind: 'row', op: 'c', key: moved, before: null, after: [7n, ...full.slice(1)], ...at(5) },
    { kind: 'row', op: 'd', key: moved, before: null, after: null, ...at(7) },
    { kind: 'row', op: 'd', key: moved, before: null, after: null, ...at(7), isTombstone: true },
    { kind: 'truncate', ...at(9), isKeyed: true },
  ] satisfies (ChangeEvent | null)[])

  const envelope = avscType(valueSchema)
  for (const [i, { value }] of golden.entries()) {
    if (value === null) continue
    const decoded = envelope.fromBuffer(Buffer.from(value, 'hex').subarray(5)) as { after: object | null; source: object }
    const change = changes[i]
    if (change?.kind === 'row')
      expect(decoded.after === null ? null : fromAvsc(table, Object.values(decoded.after)[0], 'shop.public.every__x20_kind')).toEqual(change.after)
    expect(decoded.source).toMatchObject({ connector: 'postgres', snapshot: 'false', ts_us: COMMITTED_AT, lsn: { long: 26_501_234n }, txId: { string: '771' } })
  }
  expect(avsc.Type.forSchema(JSON.parse(valueSchema)).name).toBe('shop.public.every__x20_kind.Envelope')
})

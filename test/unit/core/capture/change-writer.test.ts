import avro from 'avsc'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TableWriter } from '../../../../core/capture/change-writer.ts'
import { FrameAssembler } from '../../../../core/capture/frame-assembler.ts'
import { WriterState } from '../../../../core/capture/writer-state.ts'
import { unpackPosition } from '../../../../core/event/position.ts'
import { recordHeader, records } from '../../../../core/event/record-batch.ts'
import { type Column, type ColumnType, Special, type TableSchema, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'
import { WindowLedger } from '../../../../core/event/window-ledger.ts'
import { envelopeSchemaOf, keySchemaOf } from '../../../../core/schema/avro-mapping.ts'
import { AvroWriter } from '../../../../core/schema/avro-writer.ts'
import { runs } from '../../../fixed-seed.ts'

const longType = avro.types.LongType.__with({
  fromBuffer: (b: Buffer) => b.readBigInt64LE(),
  toBuffer: (n: bigint) => {
    const b = Buffer.alloc(8)
    b.writeBigInt64LE(n)
    return b
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (n: unknown) => typeof n === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
})

function column(name: string, type: ColumnType, more: Partial<Column> = {}): Column {
  return { name, id: 1, type, sourceType: 'test', nullable: true, mayBeUnchanged: false, maybeSpecial: false, ...more }
}

const TABLE: TableSchema = {
  namespace: 'public',
  name: 'things',
  columns: [
    column('n', { kind: 'int64' }),
    column('id', { kind: 'int32' }, { nullable: false }),
    column('text', { kind: 'string' }, { mayBeUnchanged: true }),
    column('price', { kind: 'decimal', precision: 30, scale: 2 }, { maybeSpecial: true, mayBeUnchanged: true }),
    column('code', { kind: 'string' }, { nullable: false }),
    column('tags', { kind: 'array', element: { kind: 'string' } }),
    column('ok', { kind: 'boolean' }),
    column('d', { kind: 'float64' }),
  ],
  key: [1, 4],
}

interface Decoded {
  key: unknown
  value: { before: Record<string, unknown> | null; after: Record<string, unknown> | null; op: string; source: Record<string, unknown> } | null
  commit: bigint
  ordinal: number
  partition: number
}

function setUp(options: { partitions?: number; tombstones?: boolean; table?: TableSchema } = {}) {
  const table = options.table ?? TABLE
  const frames = new FrameAssembler()
  const state = new WriterState()
  state.commitHigh = 1
  state.commitLow = 7
  state.describe(1_600_000_000_123_456n, [null])
  state.clock.at = 0
  state.clock.long(1_700_000_000_000)
  state.clock.long(1_700_000_000_000_000)
  const prefix = new AvroWriter(64)
  for (const text of ['1', 'test', 'node', 'db', 'public', 'things']) prefix.string(text)
  const target = {
    topic: 't',
    partitions: options.partitions ?? 1,
    keySchemaId: 3,
    valueSchemaId: 4,
    sourcePrefix: prefix.buffer.subarray(0, prefix.at),
    truncationKeyId: options.tombstones === true ? 5 : null,
    ledger: new WindowLedger(5),
  }
  const writer = new TableWriter(table, target, state, frames)
  const parse = { registry: { long: longType }, wrapUnions: true }
  const valueType = avro.Type.forSchema(
    JSON.parse(envelopeSchemaOf(table, { recordNamespace: 't', sourceFields: [{ name: 'lsn', type: 'long' }] })),
    parse as never,
  )
  const keyType = table.key.length === 0 ? null : avro.Type.forSchema(JSON.parse(keySchemaOf(table, 't')), parse as never)
  const read = (): Decoded[] => {
    const out: Decoded[] = []
    for (const frame of frames.take()) {
      const bytes = frame.buffer.subarray(0, frame.end)
      for (const record of records(bytes)) {
        const value = record.valueFrom < 0 ? null : bytes.subarray(record.valueFrom, record.valueTo)
        if (value !== null) expect(value.readInt32BE(1)).toBe(4)
        const image = (wrapped: Record<string, Record<string, unknown>> | null) => (wrapped === null ? null : Object.values(wrapped)[0]!)
        const envelope =
          value === null
            ? null
            : (valueType.fromBuffer(value.subarray(5)) as never as { before: never; after: never; op: string; source: Record<string, unknown> })
        out.push({
          key: record.keyFrom < 0 ? null : { ...(keyType!.fromBuffer(bytes.subarray(record.keyFrom + 5, record.keyTo)) as object) },
          value: envelope === null ? null : { ...envelope, before: image(envelope.before), after: image(envelope.after) },
          ...unpackPosition(recordHeader(bytes, record, 'pos')!),
          partition: frame.partition,
        })
      }
    }
    return out
  }
  return { writer, state, frames, read, target }
}

const ROW: Value[] = [5n, 1, 'x', 250n, 'a', ['p', null], true, 1.5]

function write(writer: TableWriter, row: readonly Value[]): void {
  for (const value of row) writer.value(value)
}

describe('images become records that an independent Avro reader reads', () => {
  test('insert, update, delete with key only', () => {
    const { writer, read } = setUp()
    writer.begin('c', 1)
    writer.after()
    write(writer, ROW)
    writer.end()
    writer.begin('u', 3)
    writer.after()
    write(writer, [null, 1, UNCHANGED, UNCHANGED, 'a', null, null, null])
    writer.end()
    writer.begin('d', 5)
    writer.key()
    writer.value(1)
    writer.value('a')
    writer.end()
    const [insert, update, remove] = read()
    expect(insert).toMatchObject({ key: { id: 1, code: 'a' }, commit: (1n << 32n) + 7n, ordinal: 1, value: { op: 'c', before: null } })
    expect(insert!.value!.after).toMatchObject({
      n: { long: 5n },
      id: 1,
      text: { string: 'x' },
      price: { bytes: Buffer.from([0, 250]) },
      tags: { array: [{ string: 'p' }, null] },
      ok: { boolean: true },
    })
    expect(insert!.value!.source).toMatchObject({
      connector: 'test',
      table: 'things',
      snapshot: 'false',
      ts_ms: 1_600_000_000_123n,
      ts_us: 1_600_000_000_123_456n,
      lsn: null,
      ordinal: 1n,
    })
    expect(update!.value!.op).toBe('u')
    expect(Object.keys(update!.value!.after!.text as object)).toEqual(['t.Unchanged'])
    expect(Object.keys(update!.value!.after!.price as object)).toEqual(['t.Unchanged'])
    expect(update!.value!.after!.n).toBeNull()
    expect(remove).toMatchObject({ key: { id: 1, code: 'a' }, value: { op: 'd', before: null, after: null } })
  })

  test('a changed key is a delete and an insert, with and without the whole old row', () => {
    const { writer, read } = setUp({ tombstones: true })
    writer.begin('u', 3)
    writer.key()
    writer.value(1)
    writer.value('a')
    writer.after()
    write(writer, [...ROW.slice(0, 4), 'b', ...ROW.slice(5)])
    writer.end()
    writer.begin('u', 5)
    writer.before()
    write(writer, ROW)
    writer.after()
    write(writer, [5n, 2, ...ROW.slice(2)])
    writer.end()
    const out = read()
    expect(out.map(({ value, key, ordinal }) => [value?.op ?? 'tombstone', key, ordinal])).toEqual([
      ['d', { id: 1, code: 'a' }, 2],
      ['tombstone', { id: 1, code: 'a' }, 2],
      ['c', { id: 1, code: 'b' }, 3],
      ['d', { id: 1, code: 'a' }, 4],
      ['tombstone', { id: 1, code: 'a' }, 4],
      ['c', { id: 2, code: 'a' }, 5],
    ])
    expect(out[0]!.value!.before).toBeNull()
    expect(out[3]!.value!.before).toMatchObject({ id: 1, code: 'a' })
  })

  test('rows of a snapshot sort after their transaction and never tie', () => {
    const { writer, read, state } = setUp()
    state.lastOrdinal = 9
    for (const id of [1, 2]) {
      writer.beginRead()
      writer.after()
      write(writer, [1n, id, ...ROW.slice(2)])
      writer.end()
    }
    expect(read().map(({ value, ordinal }) => [value!.op, value!.source.snapshot, ordinal])).toEqual([
      ['r', 'true', 0x8000_0000],
      ['r', 'true', 0x8000_0001],
    ])
  })

  test('truncate goes to every partition; a table without a key goes to partition 0 with a null key', () => {
    const { writer, read } = setUp({ partitions: 3 })
    writer.truncate(1)
    expect(read().map(({ partition, key, value }) => [partition, key, value!.op])).toEqual([
      [0, null, 't'],
      [1, null, 't'],
      [2, null, 't'],
    ])
    const keyless = setUp({ partitions: 3, table: { ...TABLE, key: [] } })
    for (let i = 0; i < 20; i++) {
      keyless.writer.begin('c', 2 * i + 1)
      keyless.writer.after()
      write(keyless.writer, [BigInt(i), i, ...ROW.slice(2)])
      keyless.writer.end()
    }
    expect(new Set(keyless.read().map(({ partition, key }) => `${partition} ${key}`))).toEqual(new Set(['0 null']))
  })

  test('in a compacted topic a truncation has a key that no row has, and a tombstone says the delete', () => {
    const { writer, frames, state } = setUp({ partitions: 2, tombstones: true })
    writer.truncate(1)
    writer.begin('d', 3)
    writer.key()
    writer.value(1)
    writer.value('a')
    writer.end()
    const found = frames.take().flatMap((frame) => {
      const bytes = frame.buffer.subarray(0, frame.end)
      return [...records(bytes).map((record) => [bytes.toString('hex', record.keyFrom, record.keyTo), recordHeader(bytes, record, 'del')?.toString('hex')])]
    })
    const facts = Buffer.alloc(12)
    facts.writeInt32BE(4, 0)
    facts.writeBigInt64BE(state.committedAt, 4)
    const truncation = ['0000000005', undefined]
    const key = Buffer.from([0, 0, 0, 0, 3, 2, 2, 97]).toString('hex')
    expect(found.filter(([found]) => found === truncation[0])).toEqual([truncation, truncation])
    expect(found.filter(([found]) => found !== truncation[0])).toEqual([[key, undefined], [key, facts.toString('hex')]]) // biome-ignore format: one line
  })

  test('the fast calls write what the general one writes', () => {
    const number = fc.oneof(
      fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
      fc.bigInt({ min: -300n, max: 300n }),
      fc.constantFrom(1n << 52n, -(1n << 52n), (1n << 53n) - 1n, 1n - (1n << 53n), (1n << 32n) - 1n),
    )
    fc.assert(
      fc.property(number, fc.string({ unit: 'binary' }), fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }), fc.double(), (n, text, decimal, double) => {
        const a = setUp()
        const b = setUp()
        a.writer.begin('c', 1)
        a.writer.after()
        write(a.writer, [n, 1, text, decimal, 'k', null, false, double])
        a.writer.end()
        b.writer.begin('c', 1)
        b.writer.after()
        b.writer.long64(Number(n >> 32n), Number(BigInt.asUintN(32, n)))
        b.writer.int(1)
        const utf8 = Buffer.from(`..${text}..`)
        b.writer.text(utf8, 2, utf8.length - 2)
        if (decimal > -(2n ** 53n) && decimal < 2n ** 53n) b.writer.decimal(Number(decimal))
        else b.writer.decimalBig(decimal)
        b.writer.string('k')
        b.writer.null()
        b.writer.boolean(false)
        b.writer.double(double)
        b.writer.end()
        expect(b.read()).toEqual(a.read())
        expect(b.target.ledger.toJSON()).toEqual(a.target.ledger.toJSON())
        expect(a.target.ledger.total.records).toBe(1)
      }),
      { numRuns: runs(100) },
    )
  })
})

describe('what cannot be written is refused', () => {
  // I6
  test('a NULL key, a special value without its branch, a wrong call, a missing column', () => {
    const { writer, read } = setUp()
    const begin = () => {
      writer.begin('c', 1)
      writer.after()
      writer.null()
    }
    begin()
    expect(() => writer.null()).toThrow(expect.objectContaining({ code: 'record.null_key' }))
    begin()
    writer.int(1)
    expect(() => writer.special('NaN')).toThrow(expect.objectContaining({ code: 'record.unrepresentable', fix: expect.stringContaining('unrepresentable') }))
    begin()
    expect(() => writer.string('not an int')).toThrow(expect.objectContaining({ code: 'invariant.broken' }))
    begin()
    expect(() => writer.end()).toThrow(expect.objectContaining({ code: 'invariant.broken' }))
    begin()
    writer.int(1)
    writer.null()
    writer.special('NaN')
    writer.string('k')
    writer.null()
    writer.null()
    writer.null()
    writer.end()
    expect(read().map(({ value }) => value!.after!.price)).toEqual([{ 't.Special': { text: 'NaN' } }])
    expect(Special).toBeDefined()
  })

  test('changes that are in the log already are refused by begin', () => {
    const { writer, state } = setUp()
    state.skipThrough = 3
    expect(writer.begin('c', 1)).toBe(false)
    expect(writer.begin('c', 3)).toBe(false)
    expect(writer.begin('c', 5)).toBe(true)
  })
})

// I4
test('records of any size, over many frames, all arrive in order', () => {
  const few = fc.array(fc.oneof(fc.nat(300), fc.nat(200_000), fc.constantFrom(524_000, 525_000, 700_000)), { minLength: 1, maxLength: 12 })
  // enough records for a count of two bytes when a frame is full
  const many = fc
    .tuple(fc.integer({ min: 3000, max: 9000 }), fc.integer({ min: 150, max: 400 }))
    .map(([size, n]) => Array.from({ length: n }, (_, i) => size + (i % 7)))
  const sizes = fc.oneof(few, many)
  fc.assert(
    fc.property(sizes, fc.constantFrom(1, 3), (lengths, partitions) => {
      const { writer, read } = setUp({ partitions })
      lengths.forEach((length, i) => {
        writer.begin('c', 2 * i + 1)
        writer.after()
        write(writer, [BigInt(i), i % 4, 'y'.repeat(length), null, 'k', null, null, null])
        writer.end()
      })
      const out = read()
      expect(out.length).toBe(lengths.length)
      for (let partition = 0; partition < partitions; partition++) {
        const ordinals = out.filter((record) => record.partition === partition).map(({ ordinal }) => ordinal)
        expect(ordinals).toEqual([...ordinals].sort((a, b) => a - b))
      }
      for (const { value, ordinal } of out) expect((value!.after!.text as { string: string }).string.length).toBe(lengths[(ordinal - 1) / 2])
    }),
    { numRuns: runs(30) },
  )
})

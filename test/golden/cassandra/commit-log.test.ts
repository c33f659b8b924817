/**
 * Segments that real servers wrote (test/integration/cassandra-commit-log.test.ts records them), with what Cassandra's own reader found in them: our reader
 * finds the same, and values are what the statements said.
 */
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PartitionUpdate, TableDescription, Unread } from '../../../connectors/cassandra/commit-log-events.ts'
import { isMultiCell } from '../../../connectors/cassandra/cql-type.ts'
import { frozenForm } from '../../../connectors/cassandra/cql-value.ts'
import { MutationDecoder, partitionKey } from '../../../connectors/cassandra/mutation-decoder.ts'
import { SegmentReader } from '../../../connectors/cassandra/segment-reader.ts'
import { mapTable } from '../../../connectors/cassandra/type-mapping.ts'
import { MillraceError } from '../../../core/errors.ts'
import { Special, UNCHANGED, type Value } from '../../../core/event/table-schema.ts'
import { decodedLines, describeTables, indexOf } from '../../services/commit-log/expected.ts'
import { type GoldenRecording, readGolden } from '../../services/commit-log/golden.ts'

const RECORDINGS = ['4.1.8-v7', '5.0.4-v7-snappy', '5.0.4-v8-lz4']

interface Entry {
  readonly bytes: Buffer
  readonly position: number
}

async function entriesOf({ segments }: GoldenRecording): Promise<Entry[]> {
  const entries: Entry[] = []
  for (const { file, index } of segments) {
    await using reader = await SegmentReader.open(file)
    for (let block = await reader.read(indexOf(index)); block !== null; block = await reader.read(indexOf(index))) {
      for (const [i, start] of block.starts.entries()) entries.push({ bytes: block.bytes.subarray(start, block.ends[i]), position: block.positions[i]! })
    }
  }
  return entries
}

const inLab = (keyspace: string) => keyspace === 'lab'

/** The row as a new one: what was not written is unchanged. */
function rowValues(table: TableDescription, update: PartitionUpdate): Value[] {
  const row = update.rows[0]!
  const { bytes } = update
  const key = partitionKey(update)
  return mapTable(table, { unrepresentable: 'text', partial: true }).columns.map(({ index, reader }) => {
    const { kind, position, type } = table.columns[index]!
    const slice = kind === 'partition_key' ? key[position] : kind === 'clustering' ? row.clustering[position] : undefined
    if (slice !== undefined) return reader.value(bytes, slice.from, slice.to)
    const cells = row.cells.filter(({ column }) => column === index)
    if (isMultiCell(type)) {
      const elements = cells.filter(({ tombstone }) => !tombstone)
      const whole = frozenForm(
        type,
        elements.map((cell) => ({ path: bytes.subarray(cell.pathFrom, cell.pathTo), value: bytes.subarray(cell.from, cell.to) })),
      )
      const replaced = row.complexDeletions.some(({ column }) => column === index)
      return whole === null ? (replaced ? null : UNCHANGED) : reader.value(whole, 0, whole.length)
    }
    const cell = cells[0]
    return cell === undefined ? UNCHANGED : cell.tombstone ? null : reader.value(bytes, cell.from, cell.to)
  })
}

describe.each(RECORDINGS)('%s', (name) => {
  let recording: GoldenRecording
  let tables: readonly TableDescription[]
  let entries: Entry[]
  beforeAll(async () => {
    recording = readGolden(path.join(import.meta.dirname, `${name}.json.gz`))
    tables = describeTables(recording.schema, () => true)
    entries = await entriesOf(recording)
  })
  afterAll(() => recording[Symbol.dispose]())

  const tableNamed = (wanted: string) => tables.find(({ keyspace, name: table }) => keyspace === 'lab' && table === wanted)!
  function updatesOf(wanted: string): PartitionUpdate[] {
    const decoder = new MutationDecoder(tables)
    return entries
      .flatMap(({ bytes, position }) => decoder.decode(bytes, 0, bytes.length, name, position).updates)
      .filter(({ table }) => table === tableNamed(wanted))
  }

  test("gives what Cassandra's reader gave", async () => {
    for (const segment of recording.segments) {
      const { lines, unread } = await decodedLines(segment, tables)
      expect(unread).toEqual([])
      expect(lines).toEqual(segment.mutations.map((line) => JSON.parse(line)))
    }
  })

  test('gives values as they were written, of every type', () => {
    const values = new Map(updatesOf('every').map((update) => [update.bytes.readInt32BE(update.key.from), rowValues(tableNamed('every'), update)]))
    const columns = mapTable(tableNamed('every'), { unrepresentable: 'text', partial: true }).table.columns.map((column) => column.name)
    const row = (id: number) => Object.fromEntries(columns.map((column, i) => [column, values.get(id)![i]]))
    expect(row(1)).toEqual({
      id: 1,
      a: 'ascii',
      bi: -(2n ** 63n),
      bl: new Uint8Array([0, 255]),
      bo: true,
      da: -1,
      de: '-12345678901234567890.123456789',
      dou: -Number.MAX_VALUE,
      du: '1y2mo3d4h5m6s7ms8us9ns',
      f: 3.4028234663852886e38,
      i: '192.168.1.254',
      it: -2147483648,
      si: -32768,
      te: 'żółw 🐢',
      ti: '23:59:59.999999999',
      ts: 1767323045678000n,
      tu: '50554d6e-29bb-11e5-b345-feff819cdc9f',
      ty: -128,
      u: 'ffffffff-ffff-ffff-ffff-ffffffffffff',
      v: '-170141183460469231731687303715884105729',
    })
    expect(row(2)).toEqual({
      id: 2,
      a: '',
      bi: 2n ** 63n - 1n,
      bl: new Uint8Array(),
      bo: false,
      da: 0,
      de: '1E+40',
      dou: Number.NaN,
      du: '-1y2mo3d4h5m6s',
      f: Number.NEGATIVE_INFINITY,
      i: '2001:db8::1',
      it: 2147483647,
      si: 32767,
      te: '',
      ti: '00:00:00.000000000',
      ts: -1000n,
      tu: '00000000-0000-1000-8080-808080808080',
      ty: 127,
      u: '00000000-0000-0000-0000-000000000000',
      v: '0',
    })
    expect(row(3)).toMatchObject({
      da: -2147483648,
      de: '0.00',
      dou: -0,
      du: '0ns',
      f: Number.POSITIVE_INFINITY,
      i: '::',
      ts: new Special('9223372036854775807'),
      v: '127',
      te: UNCHANGED,
    })
    expect(row(4)).toMatchObject({ da: 2147483647, de: '1E-10', dou: Number.POSITIVE_INFINITY, du: '7d', ts: new Special('-9223372036854775808'), v: '-128' })
    expect(Object.entries(row(5)).filter(([column, value]) => column !== 'id' && value !== null)).toEqual([])
  })

  test('gives collections, user types and tuples, frozen or not', () => {
    const table = tableNamed('shapes')
    const { columns } = mapTable(table, { unrepresentable: 'text', partial: true }).table
    const [inserted, , , , , emptied] = updatesOf('shapes').map((update) => {
      const values = rowValues(table, update)
      return Object.fromEntries(columns.map((column, i) => [column.name, values[i]]))
    })
    expect(inserted).toEqual({
      id: 1,
      l: [3, 1, 2],
      m: [
        ['a', 1],
        ['b', -2],
      ],
      mt: new Map([
        ['', ''],
        ['x', 'y'],
      ]),
      s: ['6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
      u: [['s', 4], ['p', 'q'], 77],
      fl: [5, 4],
      fm: [
        [-9, ''],
        [9, 'nine'],
      ],
      fu: [['t', null], null, null],
      t: [1, null, [1n, -1n]],
      deep: [
        ['e', []],
        [
          'k',
          [
            ['a', 1],
            [null, 2],
          ],
        ],
      ],
    })
    expect(emptied).toMatchObject({ l: null, m: null, mt: null, s: null, u: null, deep: null, fl: UNCHANGED })
  })

  test('captures one table of a batch over two, and says what it could not read', () => {
    const only = (known: (table: TableDescription) => boolean) => {
      const decoder = new MutationDecoder(describeTables(recording.schema, (keyspace, table) => keyspace === 'lab' && table === 'orders').filter(known))
      const unread: Unread[] = []
      const updates = entries.flatMap(({ bytes, position }) => {
        const mutation = decoder.decode(bytes, 0, bytes.length, name, position)
        if (mutation.unread !== null) unread.push(mutation.unread)
        return mutation.updates
      })
      return { updates, unread }
    }
    const all = only(() => true)
    expect(all.updates.length).toBe(updatesOf('orders').length)
    expect(all.unread).toEqual([])
    const plain = tableNamed('plain').id
    // batches of `plain` with `orders`, and of it alone
    const without = only(({ id }) => id !== plain)
    expect(all.updates.length - without.updates.length).toBeLessThanOrEqual(1)
    expect(without.unread.every(({ table, column }) => table === plain && column === null)).toBe(true)
    const lacking = without.unread.filter(({ mayHoldCaptured }) => mayHoldCaptured)
    if (without.updates.length < all.updates.length) expect(lacking).toEqual([{ table: plain, column: null, mayHoldCaptured: true }])
  })

  test('names a column that is not described', () => {
    const { id } = tableNamed('orders')
    const decoder = new MutationDecoder(
      tables.map((table) => (table.id === id ? { ...table, columns: table.columns.filter((one) => one.name !== 'gone') } : table)),
    )
    const unread = entries.flatMap(({ bytes, position }) => decoder.decode(bytes, 0, bytes.length, name, position).unread ?? [])
    expect(unread).toContainEqual({ table: id, column: 'gone', mayHoldCaptured: true })
  })

  test('any bytes are a mutation, or an error with its place', () => {
    const decoder = new MutationDecoder(tables)
    const lab = entries.filter(({ bytes }) => tables.some((table) => inLab(table.keyspace) && bytes.includes(Buffer.from(table.id.replaceAll('-', ''), 'hex'))))
    fc.assert(
      fc.property(
        fc.nat(lab.length - 1),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { maxLength: 4 }),
        fc.option(fc.nat()),
        (which, flips, cut) => {
          const broken = Buffer.from(lab[which]!.bytes)
          // the start says the most
          for (const [at, flip] of flips) broken[at % (at % 3 === 0 ? broken.length : Math.min(60, broken.length))]! ^= flip
          const end = cut === null ? broken.length : cut % broken.length
          try {
            const { updates } = decoder.decode(broken, 0, end, 'the-segment', 77)
            for (const update of updates) expect(update.to).toBeLessThanOrEqual(end)
          } catch (error) {
            if (!(error instanceof MillraceError)) throw error
            expect(error).toMatchObject({ code: 'source.protocol', message: expect.stringContaining('the-segment, offset 77') })
          }
        },
      ),
      { numRuns: 5000 },
    )
  })
})

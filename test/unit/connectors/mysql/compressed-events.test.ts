import { deflateRawSync, deflateSync, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { EVENT, HEADER_BYTES } from '../../../../connectors/mysql/binlog-event.ts'
import { EventCutter } from '../../../../connectors/mysql/event-cutter.ts'
import { CompressedRows, compressedValue, inflate } from '../../../../connectors/mysql/mariadb-compressed.ts'
import { type PayloadHead, readPayloadHead, uncompress } from '../../../../connectors/mysql/transaction-payload.ts'
import { binary } from '../../../../connectors/mysql/type-text.ts'
import { SingleValue, viewOf } from '../../../../core/plugin.ts'

const PLACE = 'binlog.000001:42'
const broken = { name: 'MillraceError', code: 'source.protocol', message: expect.stringContaining(PLACE), fix: expect.any(String) }

function thrown(work: () => unknown): unknown {
  try {
    return work()
  } catch (error) {
    return error
  }
}

const event = (body: Buffer): Buffer => {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(HEADER_BYTES + body.length, 9)
  return Buffer.concat([header, body])
}

test.each([1, 7, 30, 1000, 1_000_000])('events come whole out of chunks of %i bytes', (chunkBytes) => {
  const bodies = [0, 1, 300, 2000, 5, 0].map((length, n) => Buffer.alloc(length, n))
  const bytes = Buffer.concat(bodies.map(event))
  const cutter = new EventCutter(4000, PLACE)
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    cutter.push(bytes.subarray(at, at + chunkBytes))
    while (cutter.next()) found.push(Buffer.from(cutter.bytes.subarray(cutter.from + HEADER_BYTES, cutter.to)))
  }
  cutter.finish()
  expect(found).toEqual(bodies)
})

test('events that are cut off, too short or too long are told with their place', () => {
  const whole = event(Buffer.alloc(10))
  const cut = new EventCutter(1000, PLACE)
  cut.push(whole.subarray(0, 20))
  expect(cut.next()).toBe(false)
  expect(thrown(() => cut.finish())).toMatchObject(broken)
  for (const size of [0, 18, 1001, 0xffff_ffff]) {
    const wrong = Buffer.from(whole)
    wrong.writeUInt32LE(size, 9)
    const cutter = new EventCutter(1000, PLACE)
    cutter.push(wrong)
    expect(thrown(() => cutter.next())).toMatchObject(broken)
  }
})

const all = async (head: PayloadHead, pieces: Iterable<Buffer>) => {
  const chunks: Buffer[] = []
  for await (const chunk of uncompress(head, pieces, PLACE)) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

test.each([100, 5_000_000])('a payload of %i bytes comes back, and one that is damaged is told', async (length) => {
  const events = Buffer.alloc(length)
  for (let n = 0; n < length; n++) events[n] = (n * n) >> 3
  const bytes = zstdCompressSync(events)
  const head: PayloadHead = { at: 0, isCompressed: true, size: bytes.length, uncompressedSize: length }
  const pieces = (from: Buffer) => [from.subarray(0, 20), from.subarray(20)]
  expect((await all(head, pieces(bytes))).equals(events)).toBe(true)
  const cases: [PayloadHead, Buffer][] = [
    [head, bytes.subarray(0, -1)],
    [head, Buffer.concat([Buffer.from('no zstd'), bytes])],
    [{ ...head, uncompressedSize: length - 1 }, bytes],
    [{ ...head, uncompressedSize: length + 1 }, bytes],
    [{ ...head, isCompressed: false }, bytes],
  ]
  for (const [wrong, from] of cases) await expect(all(wrong, pieces(from))).rejects.toMatchObject(broken)
})

test('the head of a payload says what follows it', () => {
  const head = (...bytes: number[]) => readPayloadHead(Buffer.from(bytes), 0, bytes.length, PLACE)
  expect(head(2, 1, 0, 3, 3, 0xfc, 0, 1, 1, 1, 9, 0, 77)).toEqual({ at: 12, isCompressed: true, size: 9, uncompressedSize: 256 })
  expect(head(2, 3, 0xfc, 255, 0, 1, 1, 9, 0)).toEqual({ at: 9, isCompressed: false, size: 9, uncompressedSize: 9 })
  for (const wrong of [[], [1, 1, 9], [1, 1, 9, 0], [2, 1, 1, 3, 1, 5, 1, 1, 9, 0], [2, 1, 0, 3, 1, 5, 0]]) {
    expect(thrown(() => head(...wrong))).toMatchObject(broken)
  }
})

const mariadb = (text: Buffer) => Buffer.concat([Buffer.from([0x82, text.length >> 8, text.length & 0xff]), deflateSync(text)])

test("MariaDB's compressed rows and texts come back, and damaged ones are told", () => {
  const rows = Buffer.from('rows '.repeat(100))
  // table id and flags, nine columns, bitmaps
  const front = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0x01, 0xff, 0x01])
  const compressed = new CompressedRows()
  const inflated = (type: number, event: Buffer) => {
    const at = 3
    compressed.read(type, Buffer.concat([Buffer.alloc(at), event, Buffer.alloc(4)]), at, at + event.length, { place: PLACE })
    expect(compressed.view.byteOffset).toBe(compressed.bytes.byteOffset)
    return [compressed.type, Buffer.from(compressed.bytes.subarray(0, compressed.length))]
  }
  const update = Buffer.concat([front, mariadb(rows)])
  const insert = Buffer.concat([front.subarray(0, 8), Buffer.from([2, 0]), front.subarray(8, 11), mariadb(rows)])
  const large = Buffer.alloc(100_000, 'rows ')
  const largeHead = Buffer.from([0x83, 1, 0x86, 0xa0])
  for (let round = 0; round < 2; round++) {
    expect(inflated(EVENT.mariadbUpdateRowsCompressedV1, update)).toEqual([EVENT.updateRowsV1, Buffer.concat([front, rows])])
    expect(inflated(EVENT.mariadbUpdateRowsCompressedV1, Buffer.concat([front, largeHead, deflateSync(large)]))).toEqual([
      EVENT.updateRowsV1,
      Buffer.concat([front, large]),
    ])
    expect(inflated(EVENT.mariadbWriteRowsCompressed, insert)).toEqual([EVENT.writeRows, Buffer.concat([insert.subarray(0, 13), rows])])
    expect(thrown(() => inflated(EVENT.mariadbUpdateRowsCompressedV1, update.subarray(0, -1)))).toMatchObject(broken)
    expect(thrown(() => inflated(EVENT.mariadbUpdateRowsCompressedV1, update.subarray(0, 13)))).toMatchObject(broken)
  }
  const whole = mariadb(rows)
  const change = (at: number, value: number) => Buffer.from(whole.map((byte, i) => (i === at ? value : byte)))
  // 2 GB of it: told before as much memory is taken
  const huge = Buffer.concat([Buffer.from([0x84, 0x7f, 0xff, 0xff, 0xff]), whole.subarray(3)])
  for (const wrong of [
    huge,
    change(0, 0x92),
    change(0, 0x80),
    change(2, 0xf3),
    change(2, 0xf5),
    change(5, 0xff),
    whole.subarray(0, -1),
    whole.subarray(0, 3),
  ]) {
    expect(thrown(() => inflate(wrong, 0, wrong.length, { place: PLACE }))).toMatchObject(broken)
  }
})

test("values of MariaDB's compressed columns come back, and damaged ones are told", () => {
  const text = Buffer.from('value '.repeat(100))
  const read = (packed: Buffer) => {
    const single = new SingleValue()
    const bytes = Buffer.concat([Buffer.from([9]), packed, Buffer.from([9])])
    compressedValue(binary.binlog)(bytes, viewOf(bytes), 1, packed.length, single)
    return Buffer.from(single.taken as Uint8Array)
  }
  const bare = Buffer.concat([Buffer.from([0x8a, text.length >> 8, text.length & 0xff]), deflateRawSync(text)])
  expect([Buffer.alloc(0), Buffer.from('\0'), Buffer.from('\0text')].map(read).map(String)).toEqual(['', '', 'text'])
  for (const whole of [bare, mariadb(text)]) {
    expect(read(whole)).toEqual(text)
    const change = (at: number, value: number) => Buffer.from(whole.map((byte, i) => (i === at ? value : byte)))
    for (const wrong of [change(0, 0x9a), change(0, 0x88), change(2, 0x57), change(2, 0x59), whole.subarray(0, -6), whole.subarray(0, 3)]) {
      expect(() => read(wrong)).toThrow(Error)
    }
  }
})

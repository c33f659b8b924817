import { constants, deflateRawSync, deflateSync, inflateRawSync, inflateSync } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { inflateInto } from '../../../../connectors/mysql/inflate.ts'

const MARGIN = 7

/** What comes of exactly these bytes, which lie among others; null: they are refused. Nothing else may be written. */
function ours(packed: Uint8Array, isBare: boolean, length: number): Buffer | null {
  const source = Buffer.concat([Buffer.alloc(MARGIN, 0x55), packed, Buffer.alloc(MARGIN, 0x55)])
  const target = Buffer.alloc(length + 2 * MARGIN, 0xaa)
  try {
    inflateInto(source, MARGIN, MARGIN + packed.length, isBare, target, MARGIN, MARGIN + length)
  } catch (error) {
    expect(error).toBeInstanceOf(Error)
    return null
  } finally {
    expect([...target.subarray(0, MARGIN), ...target.subarray(-MARGIN)]).toEqual(new Array(2 * MARGIN).fill(0xaa))
  }
  return target.subarray(MARGIN, -MARGIN)
}

/** What zlib makes of them, if it takes all of them and they are so many bytes. */
function zlibs(packed: Uint8Array, isBare: boolean, length: number): Buffer | null {
  try {
    const { buffer, engine } = (isBare ? inflateRawSync : inflateSync)(packed, { maxOutputLength: length + 1, info: true }) as unknown as {
      buffer: Buffer
      engine: { bytesWritten: number }
    }
    return buffer.length === length && engine.bytesWritten === packed.length ? buffer : null
  } catch {
    return null
  }
}

/** Rows, as a binlog has them: alike, of numbers, hex digits and runs; or bytes without order, or of few values. */
const content = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.array(fc.constantFrom(0, 1, 2, 255), { maxLength: 2500 }).map((bytes) => Uint8Array.from(bytes)),
  fc
    .array(fc.tuple(fc.nat(1_000_000), fc.string({ maxLength: 20 }), fc.nat(100)), { maxLength: 40 })
    .map((rows) => Buffer.from(rows.map(([id, text, run]) => `${id}\0code-${id}${text}${'n'.repeat(run)}`).join(''))),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.oneof(fc.integer({ min: 1, max: 2048 }), fc.integer({ min: 2049, max: 100_000 })))
    .map(([unit, length]) => Buffer.alloc(length, unit)),
)
const how = fc.record({
  level: fc.integer({ min: 0, max: 9 }),
  strategy: fc.constantFrom(constants.Z_DEFAULT_STRATEGY, constants.Z_FILTERED, constants.Z_HUFFMAN_ONLY, constants.Z_RLE, constants.Z_FIXED),
  memLevel: fc.integer({ min: 1, max: 9 }),
  windowBits: fc.integer({ min: 9, max: 15 }),
})
const pack = (bytes: Uint8Array, isBare: boolean, options: object) => (isBare ? deflateRawSync : deflateSync)(bytes, options)

test('whatever zlib compresses comes back, into exactly its place, small or large', () => {
  fc.assert(
    fc.property(content, how, fc.boolean(), (bytes, options, isBare) => {
      const packed = pack(bytes, isBare, options)
      expect(ours(packed, isBare, bytes.length)?.equals(bytes)).toBe(true)
      for (const length of [bytes.length - 1, bytes.length + 1]) if (length >= 0) expect(ours(packed, isBare, length)).toBeNull()
      expect(ours(Buffer.concat([packed, Buffer.alloc(1)]), isBare, bytes.length)).toBeNull()
    }),
    { numRuns: 300 },
  )
})

test('damaged data is taken where zlib takes it, for the same, and refused where it does not', () => {
  fc.assert(
    fc.property(
      content,
      how,
      fc.array(fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.double({ min: 0.5, max: 1, noNaN: true }),
      fc.boolean(),
      (bytes, options, damage, kept, isBare) => {
        const packed = pack(bytes, isBare, options)
        for (const [at, value] of damage) packed[Math.floor(at ** 2 * packed.length)] = value
        const part = packed.subarray(0, Math.ceil((kept > 0.9 ? 1 : kept) * packed.length))
        expect(ours(part, isBare, bytes.length)).toEqual(zlibs(part, isBare, bytes.length))
      },
    ),
    { numRuns: 1000 },
  )
})

test('with any one bit of it turned, data is taken where zlib takes it, for the same', () => {
  const bytes = Buffer.from(Array.from({ length: 60 }, (_, n) => `${n * n}:${'n'.repeat(n % 7)}`).join(''))
  let taken = 0
  for (const options of [{}, { strategy: constants.Z_FIXED }, { strategy: constants.Z_HUFFMAN_ONLY }, { level: 0 }]) {
    const packed = deflateRawSync(bytes, options)
    for (let at = 0; at < 8 * packed.length; at++) {
      packed[at >> 3]! ^= 1 << (at & 7)
      const expected = zlibs(packed, true, bytes.length)
      if (expected !== null) taken++
      expect(ours(packed, true, bytes.length)).toEqual(expected)
      packed[at >> 3]! ^= 1 << (at & 7)
    }
  }
  expect(taken).toBeGreaterThan(1000)
})

test('bytes of any kind are taken as bare deflate where zlib takes them', () => {
  fc.assert(
    // how many bytes come of it only zlib knows
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), fc.constantFrom(0, 2, 3, 4, 5), (bytes, first) => {
      bytes[0] = (bytes[0]! & 0xf8) | first
      const packed = Buffer.from(bytes)
      let length = 0
      try {
        length = inflateRawSync(packed, { maxOutputLength: 1_000_000 }).length
      } catch {}
      expect(ours(packed, true, length)).toEqual(zlibs(packed, true, length))
    }),
    { numRuns: 2000 },
  )
})

test('no part of compressed data is taken for all of it', () => {
  for (const count of [300, 500]) {
    const bytes = Buffer.from(Array.from({ length: count }, (_, n) => `${n * n},`).join(''))
    for (const options of [{}, { strategy: constants.Z_FIXED }, { level: 0 }]) {
      const packed = deflateSync(bytes, options)
      for (let end = 0; end < packed.length; end++) expect(ours(packed.subarray(0, end), false, bytes.length)).toBeNull()
    }
  }
})

/** Deflate from its bits: numbers as [value, bits], lowest bit first. */
function bits(...parts: readonly (readonly [number, number])[]): Buffer {
  const all = parts.flatMap(([value, count]) => Array.from({ length: count }, (_, n) => (value >> n) & 1))
  return Buffer.from(Array.from({ length: Math.ceil(all.length / 8) }, (_, n) => all.slice(8 * n, 8 * n + 8).reduce((byte, bit, at) => byte | (bit << at), 0)))
}

/** The head of a last block with codes of its own, for so many symbols; `lengths`: of the codes of lengths, in their order. */
const codes = (literals: number, distances: number, lengths: readonly number[]) =>
  [[1, 1], [2, 2], [literals - 257, 5], [distances - 1, 5], [lengths.length - 4, 4], ...lengths.map((length) => [length, 3] as const)] as const

// Of 1: the bit 0; of 18, which is so many zeros and 11: 1.
const EIGHTEEN_AND_ONE = [0, 0, 1, ...new Array(14).fill(0), 1]

test.each([
  ['a block of the fourth kind', bits([1, 1], [3, 2]), 0],
  ['287 symbols', bits(...codes(287, 1, EIGHTEEN_AND_ONE)), 0],
  ['31 distances', bits(...codes(257, 31, EIGHTEEN_AND_ONE)), 0],
  ['codes of lengths that are too many', bits(...codes(257, 1, [1, 1, 1, 0])), 0],
  ['codes of lengths that lack some', bits(...codes(257, 1, [0, 0, 1, 0])), 0],
  ['no codes of lengths', bits(...codes(257, 1, [0, 0, 0, 0]), [0, 16], [0, 16]), 0],
  ['a length that repeats none', bits(...codes(257, 1, [1, 0, 1, 0]), [0, 1], [0, 2]), 0],
  ['no end of block', bits(...codes(257, 1, EIGHTEEN_AND_ONE), [0, 1], [1, 1], [127, 7], [1, 1], [107, 7], [0, 1]), 0],
  ['more lengths than there are', bits(...codes(257, 1, EIGHTEEN_AND_ONE), [1, 1], [127, 7], [1, 1], [127, 7]), 0],
  ['the symbol 286', bits([1, 1], [1, 2], [0b01100011, 8]), 0],
  ['the distance 30', bits([1, 1], [1, 2], [0b00001100, 8], [0b1000000, 7], [0b01111, 5], [0, 7]), 4],
  ['a repetition of what was never there', bits([1, 1], [1, 2], [0b00001100, 8], [0b1000000, 7], [0b10000, 5], [0, 7]), 4],
  ['a length of stored bytes with another check', Buffer.of(1, 1, 0, 0xff, 0xff, 9), 1],
])('%s is refused', (_, packed, length) => {
  expect(zlibs(packed, true, length)).toBeNull()
  expect(ours(packed, true, length)).toBeNull()
})

test.each([
  // the only symbol is the end, in one bit; 256 zeros are 138 and 118
  ['a block of nothing with a code of one symbol', bits(...codes(257, 1, EIGHTEEN_AND_ONE), [1, 1], [127, 7], [1, 1], [107, 7], [0, 1], [0, 1], [0, 1]), 0],
  ['a repetition at the farthest of what is there', bits([1, 1], [1, 2], [0b00001100, 8], [0b1000000, 7], [0, 5], [0, 7]), 4],
])('%s is taken', (_, packed, length) => {
  expect(zlibs(packed, true, length)).not.toBeNull()
  expect(ours(packed, true, length)).toEqual(zlibs(packed, true, length))
})

test.each([0, 1, 2047, 2048, 2049, 2_000_000])('the checksum of %i of the highest bytes is that of zlib, and another is refused', (length) => {
  const bytes = Buffer.alloc(length, 0xff)
  const packed = deflateSync(bytes)
  expect(ours(packed, false, length)?.equals(bytes)).toBe(true)
  for (let n = 1; n <= 4; n++) {
    packed[packed.length - n]! ^= 1
    expect(ours(packed, false, length)).toBeNull()
    packed[packed.length - n]! ^= 1
  }
})

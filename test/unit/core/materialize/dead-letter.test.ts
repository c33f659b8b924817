import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ERROR_CODES, type ErrorCode } from '../../../../core/errors.ts'
import { frameOf, records } from '../../../../core/event/record-batch.ts'
import { type DeadLetter, decodeDeadLetter, encodeDeadLetters } from '../../../../core/materialize/dead-letter.ts'

const bytes = fc.option(
  fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array)),
  { nil: null },
)
const letter: fc.Arbitrary<DeadLetter> = fc.record({
  key: bytes,
  value: bytes,
  code: fc.constantFrom(...(Object.keys(ERROR_CODES) as ErrorCode[])),
  reason: fc.string({ unit: 'grapheme' }),
  origin: fc.record({ topic: fc.constantFrom('shop.public.items', 'a'), partition: fc.nat(), offset: fc.bigInt(0n, 2n ** 63n - 1n) }),
  position: fc.option(fc.record({ commit: fc.bigInt(0n, 2n ** 64n - 1n), ordinal: fc.integer({ min: 0, max: 2 ** 32 - 1 }) }), { nil: null }),
})

test('dead letters come back as they were sent', () => {
  fc.assert(
    fc.property(fc.array(letter, { minLength: 1, maxLength: 5 }), (letters) => {
      const batch = encodeDeadLetters('lake', letters, 1)
      expect(batch.count).toBe(letters.length)
      const [frame] = batch.frames
      expect(frame).toMatchObject({ topic: 'lake.dead-letter', partition: 0, count: letters.length })
      const decoded: DeadLetter[] = []
      for (const record of records(frame!.buffer.subarray(0, frame!.end))) decoded.push(decodeDeadLetter(frame!.buffer, record))
      expect(decoded).toEqual(letters)
    }),
  )
})

test('a record that is no dead letter is refused', () => {
  const { buffer } = frameOf(
    [
      { key: null, value: Buffer.from('x'), headers: [['millrace.code', Buffer.from('no.such.code')]] },
      { key: null, value: null },
    ],
    1,
  )
  for (const record of records(buffer)) expect(() => decodeDeadLetter(buffer, record)).toThrow(expect.objectContaining({ code: 'record.malformed' }))
})

import { describe, expect, it } from 'vitest'
import { JsonText } from '../../../../connectors/mysql/json-text.ts'

const text = new JsonText()

function read(bytes: Buffer, at = 0, length = bytes.length - at): string {
  text.read(bytes, at, length)
  return text.bytes.toString('utf8', 0, text.length)
}

const u16 = (value: number) => [value & 255, value >> 8]
const string = (value: string) => [Buffer.byteLength(value), ...Buffer.from(value)]

/** {"k": number, "s": value, "l": [true, 7]} in small containers. */
function document(number: number, value: string): Buffer {
  const list = [...u16(2), ...u16(10), 4, 1, 0, 5, ...u16(7)]
  const texts = string(value)
  const keysAt = 4 + 3 * 4 + 3 * 3
  const valuesAt = keysAt + 3
  const body = [
    ...u16(3),
    ...u16(valuesAt + 4 + texts.length + list.length),
    ...[keysAt, keysAt + 1, keysAt + 2].flatMap((at) => [...u16(at), ...u16(1)]),
    ...[7, ...u16(valuesAt)],
    ...[12, ...u16(valuesAt + 4)],
    ...[2, ...u16(valuesAt + 4 + texts.length)],
    ...Buffer.from('ksl'),
    ...[number & 255, (number >> 8) & 255, (number >> 16) & 255, (number >> 24) & 255],
    ...texts,
    ...list,
  ]
  return Buffer.from([0, ...body])
}

describe('JSON in its binary form', () => {
  it('is the text that the server gives', () => {
    expect(read(document(-2_147_483_648, 'a'))).toBe('{"k": -2147483648, "s": "a", "l": [true, 7]}')
    expect(read(document(0, 'é"\\\n\u0001 ü'))).toBe('{"k": 0, "s": "é\\"\\\\\\n\\u0001 ü", "l": [true, 7]}')
    expect(read(document(1_000_000, ''))).toBe('{"k": 1000000, "s": "", "l": [true, 7]}')
    expect(read(Buffer.alloc(0))).toBe('null')
  })

  it('grows with a value, and forgets the one before', () => {
    const long = Buffer.concat([Buffer.from([12, 0x80 | (9000 & 127), 9000 >> 7]), Buffer.alloc(9000, 'x')])
    expect(read(long)).toBe(`"${'x'.repeat(9000)}"`)
    expect(read(document(1, 'b'))).toBe('{"k": 1, "s": "b", "l": [true, 7]}')
  })

  it('never goes beyond its own bytes, whatever follows them', () => {
    const whole = document(5, 'abc')
    const followed = Buffer.concat([Buffer.alloc(3, 0xff), whole, document(6, 'def')])
    for (let length = 1; length < whole.length; length++) {
      expect(() => read(followed, 3, length), `${length} bytes`).toThrow(expect.objectContaining({ code: 'source.protocol' }))
    }
    expect(read(followed, 3, whole.length)).toBe('{"k": 5, "s": "abc", "l": [true, 7]}')
  })

  it('is refused when it is nested too deeply', () => {
    // an array whose only element lies where the array itself does
    const endless = Buffer.from([2, ...u16(1), ...u16(7), 2, ...u16(0)])
    expect(() => read(endless)).toThrow(expect.objectContaining({ code: 'source.protocol' }))
  })
})

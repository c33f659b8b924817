import { expect, test } from 'vitest'
import { decoderOf, text } from '../../../../connectors/mysql/type-text.ts'
import { SingleValue } from '../../../../core/event/value-writer.ts'
import { Special, viewOf } from '../../../../core/plugin.ts'

function read(charset: string, ...codes: readonly number[]) {
  const bytes = Buffer.from(codes)
  const single = new SingleValue()
  text(charset, decoderOf(charset)!).binlog(bytes, viewOf(bytes), 0, bytes.length, single)
  return single.taken
}

test('latin1 has 256 characters, each its own', () => {
  const all = read('latin1', ...Array.from({ length: 256 }, (_, code) => code)) as string
  expect(new Set(all).size).toBe(256)
  expect(all.slice(0x80, 0x84)).toBe('€\u0081‚ƒ')
  expect(all.slice(0xa0)).toBe(Buffer.from(Array.from({ length: 96 }, (_, i) => 0xa0 + i)).toString('latin1'))
})

test('bytes that mean no character are no text, and never a question mark', () => {
  expect(read('cp1251', 0xcf, 0xf0)).toBe('Пр')
  expect(read('cp1251', 0xcf, 0x98)).toBeInstanceOf(Special)
  expect(read('utf16', 0xff, 0xfd)).toBe('\ufffd')
})

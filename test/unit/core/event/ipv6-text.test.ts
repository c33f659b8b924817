import net from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ipv6Text } from '../../../../core/event/ipv6-text.ts'

test.each([
  ['00000000000000000000000000000000', '::'],
  ['00000000000000000000000000000001', '::1'],
  ['20010db8000000000000000000000001', '2001:db8::1'],
  ['20010db8000100010001000100010000', '2001:db8:1:1:1:1:1:0'],
  ['00010000000000010000000000000001', '1:0:0:1::1'],
  ['00010000000000020000000000030004', '1::2:0:0:3:4'],
  ['00010000000000000000000000000000', '1::'],
  ['00000000000000000000ffff01020304', '::ffff:1.2.3.4'],
  ['00000000000000000000000001020304', '::1.2.3.4'],
  ['0000000000000000ffff000001020304', '::ffff:0:102:304'],
])('%s is %s', (hex, text) => {
  expect(ipv6Text(Buffer.from(`ff${hex}`, 'hex'), 1)).toBe(text)
})

/** As Node's URL parser, whose way back has no dotted tail, writes an address. */
const canonical = (text: string) => new URL(`http://[${text}]`).hostname

test('any address is read back as itself', () => {
  const word = fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.constant(0xffff), fc.nat(0xffff))
  fc.assert(
    fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), (words) => {
      const bytes = Buffer.alloc(16)
      for (const [i, one] of words.entries()) bytes.writeUInt16BE(one, 2 * i)
      const text = ipv6Text(bytes)
      expect(net.isIPv6(text)).toBe(true)
      expect(canonical(text)).toBe(canonical(words.map((one) => one.toString(16)).join(':')))
    }),
  )
})

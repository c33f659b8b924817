import fc from 'fast-check'
import { expect, test } from 'vitest'
import { alternatingBuffers, ResponseAssembler } from '../../../../../core/log/kafka/response-assembler.ts'

const bodies = fc.array(
  fc.uint8Array({ minLength: 4, maxLength: 60 }).map((a) => Buffer.from(a)),
  { minLength: 1, maxLength: 12 },
)

function framed(list: readonly Buffer[]): Buffer {
  return Buffer.concat(
    list.flatMap((body) => {
      const length = Buffer.alloc(4)
      length.writeInt32BE(body.length)
      return [length, body]
    }),
  )
}

test('responses come out whole however the socket cuts them, also when its buffer is reused', () => {
  fc.assert(
    fc.property(bodies, fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }), fc.boolean(), (list, cuts, reuse) => {
      const out: Buffer[] = []
      const assembler = new ResponseAssembler((body) => out.push(Buffer.from(body)), reuse ? alternatingBuffers() : undefined)
      const bytes = framed(list)
      const socketBuffer = Buffer.alloc(64)
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const copied = bytes.copy(socketBuffer, 0, at, at + cuts[i % cuts.length]!)
        assembler.push(socketBuffer, copied)
        socketBuffer.fill(0xff)
        at += copied
      }
      expect(out).toEqual(list)
    }),
  )
})

test('a response stays as it is while the next one comes', () => {
  const out: Buffer[] = []
  const assembler = new ResponseAssembler((body) => out.push(body), alternatingBuffers())
  assembler.push(framed([Buffer.from('first'), Buffer.from('second')]))
  expect(out.map(String)).toEqual(['first', 'second'])
})

test('what is no Kafka listener is refused, not waited for', () => {
  const assembler = new ResponseAssembler(() => {})
  expect(() => assembler.push(Buffer.from('HTTP/1.1 400 Bad Request'))).toThrow(RangeError)
  expect(() => new ResponseAssembler(() => {}).push(Buffer.from([0, 0, 0, 1, 0]))).toThrow(RangeError)
})

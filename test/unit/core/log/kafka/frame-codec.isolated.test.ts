import { registerHooks } from 'node:module'
import { expect, test } from 'vitest'
import { frameOf } from '../../../../../core/event/record-batch.ts'
import { decodeFrame, encodeFrame } from '../../../../../core/log/kafka/frame-codec.ts'
import { asLogError, isFinal } from '../../../../../core/log/kafka/kafka-fault.ts'

const LZ4 = 3
const FRAME = frameOf([{ key: null, value: Buffer.from('text '.repeat(200)) }], 1)

function thrownBy(work: () => unknown): unknown {
  try {
    work()
  } catch (error) {
    return error
  }
  throw new Error('nothing was thrown')
}

test('a compression whose code is not installed is neither a broken frame nor a broker that is away', () => {
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      if (specifier === 'lz4-napi') throw new Error('Cannot find module lz4-napi-of-this-machine')
      return next(specifier, context)
    },
  })
  try {
    for (const work of [() => encodeFrame(FRAME.buffer, FRAME.end, 'lz4'), () => decodeFrame(FRAME.buffer, LZ4)]) {
      const error = thrownBy(work)
      expect(error).toMatchObject({ code: 'config.unsupported', message: expect.stringContaining('lz4-napi'), fix: expect.stringContaining('npm install') })
      expect([isFinal(error), asLogError(error, 'appending', 'kafka')]).toEqual([true, error])
    }
  } finally {
    hooks.deregister()
  }
})

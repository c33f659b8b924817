import { expect, test } from 'vitest'
import { Waker } from '../../../../core/capture/waker.ts'

const FOR_EVER = 3_600_000

test('a wait ends when it is woken, and one woken before ends at once, once', async () => {
  const waker = new Waker(new AbortController().signal)
  const first = waker.sleep(FOR_EVER)
  waker.wake()
  await first
  waker.wake()
  waker.wake()
  await waker.sleep(FOR_EVER)
  let isAwake = false
  const third = waker.sleep(FOR_EVER).then(() => {
    isAwake = true
  })
  await new Promise(setImmediate)
  expect(isAwake).toBe(false)
  waker.wake()
  await third
})

test('a wait ends by itself, and when the signal aborts', async () => {
  const abort = new AbortController()
  const waker = new Waker(abort.signal)
  await waker.sleep(1)
  const waiting = waker.sleep(FOR_EVER)
  abort.abort()
  await waiting
})

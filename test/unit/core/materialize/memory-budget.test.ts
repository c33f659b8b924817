import { expect, test } from 'vitest'
import { MemoryBudget } from '../../../../core/materialize/memory-budget.ts'

test('bytes that come at the moment of the stop are known to be taken, so that they can be given back', async () => {
  const memory = new MemoryBudget(100)
  expect(memory.tryTake(60)).toBe(true)
  const [large, small] = [new AbortController(), new AbortController()]
  const taken = [memory.take(80, large.signal), memory.take(30, small.signal)]
  // a paused sink stops its drivers one after the other: the first makes way for the second, which is stopped too
  large.abort()
  small.abort()
  expect(await Promise.all(taken)).toEqual([false, true])
  memory.give(60 + 30)
  expect(memory.tryTake(100)).toBe(true)
})

test('who waits comes in turn, and one that is stopped holds up nobody', async () => {
  const memory = new MemoryBudget(100)
  expect(await memory.take(100, new AbortController().signal)).toBe(true)
  const stop = new AbortController()
  const [stopped, next] = [memory.take(10, stop.signal), memory.take(50, new AbortController().signal)]
  expect([memory.pressed, memory.tryTake(1)]).toEqual([true, false])
  stop.abort()
  expect(await stopped).toBe(false)
  memory.give(100)
  expect(await next).toBe(true)
  expect([memory.pressed, memory.tryTake(50), memory.tryTake(1)]).toEqual([false, true, false])
  expect(await memory.take(1, AbortSignal.abort())).toBe(false)
})

import { expect, test } from 'vitest'
import { LogState, partitionKey } from '../../../../../core/log/embedded/log-state.ts'

const topic = (id: number, name: string, partitions: number) => ({ id, topic: name, partitions, retentionMs: null, compacted: false })

test('facts applied in order, and the whole of them, give the same state', () => {
  const state = new LogState()
  state.apply({ topics: [topic(0, 'a', 2), topic(1, 'b', 1)] })
  state.apply({
    progress: [['n', { x: 1, y: [1, null], __proto__x: 'z' }]],
    partitions: [{ id: 0, partition: 1, start: '9007199254740993', end: '9007199254740999' }],
  })
  state.apply({
    progress: [
      ['n', { x: null }],
      ['m', { y: true }],
      ['n', { w: 2 }],
    ],
    topics: [{ ...topic(1, 'b', 1), compacted: true }],
  })
  state.apply({ partitions: [{ id: 1, partition: 0, compactedTo: '5', cleanTo: '4', tombstonesGoneTo: '3' }] })
  const copy = new LogState()
  copy.apply({ topics: [topic(0, 'a', 2)], progress: [['gone', { x: 1 }]] })
  copy.apply(JSON.parse(JSON.stringify(state.whole())))
  for (const each of [state, copy]) {
    expect(Object.fromEntries(each.progress('n'))).toEqual({ y: [1, null], __proto__x: 'z', w: 2 })
    expect(each.progress('gone').size).toBe(0)
    expect(each.partition(partitionKey(0, 1))).toMatchObject({ start: 9007199254740993n, end: 9007199254740999n })
    expect(each.partitionOf('b', 0)).toMatchObject({ start: 0n, end: 0n, compactedTo: 5n, cleanTo: 4n, tombstonesGoneTo: 3n })
    expect(each.topic('b')).toMatchObject({ compacted: true, partitions: 1 })
    expect(each.nextTopicId()).toBe(2)
  }
  expect(copy.whole()).toEqual(state.whole())
})

test('a topic or partition that is not there can come later: unavailable, not refused', () => {
  const state = new LogState()
  state.apply({ topics: [topic(0, 'a', 2)] })
  for (const [name, partition] of [
    ['b', 0],
    ['a', 2],
  ] as const) {
    expect(() => state.partitionOf(name, partition)).toThrow(expect.objectContaining({ code: 'log.unreachable', category: 'unavailable' }))
  }
})

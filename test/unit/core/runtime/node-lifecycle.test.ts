import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type NodeEvent, type NodeState, nextState, TRANSITIONS, worstState } from '../../../../core/runtime/node-lifecycle.ts'

const STATES = Object.keys(TRANSITIONS) as NodeState[]
const EVENTS = Object.keys(TRANSITIONS.starting) as NodeEvent[]

test('done is the end, and failed is left by an operator only', () => {
  for (const event of EVENTS) expect(nextState('done', event)).toBe(event === 'stop' ? 'done' : null)
  for (const event of EVENTS) expect([null, 'failed', event === 'resume' ? 'starting' : 'failed']).toContain(nextState('failed', event))
})

test('every state but done can be left, and every state is reached from starting', () => {
  const reached = new Set<NodeState>(['starting'])
  for (let size = 0; size !== reached.size; ) {
    size = reached.size
    for (const state of [...reached]) for (const event of EVENTS) reached.add(nextState(state, event) ?? state)
  }
  expect([...reached].sort()).toEqual([...STATES].sort())
})

test('whatever happens, stop ends a node or leaves it failed', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...EVENTS.filter((event) => event !== 'stop'))), (events) => {
      const state = events.reduce<NodeState>((at, event) => nextState(at, event) ?? at, 'starting')
      expect(nextState(state, 'stop')).toBe(state === 'failed' ? 'failed' : 'done')
    }),
  )
})

test('a node shows the worst of its parts', () => {
  expect(worstState([])).toBe('running')
  expect(worstState(['running', 'failed', 'degraded'])).toBe('failed')
  expect(worstState(['running', 'snapshotting'])).toBe('snapshotting')
})

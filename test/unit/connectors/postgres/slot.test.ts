import { describe, expect, test } from 'vitest'
import { checkHistory, forkOf, type PostgresOffset, type ServerHistory, type Slot } from '../../../../connectors/postgres/slot.ts'
import { parseTimelineHistory } from '../../../../connectors/postgres/timeline.ts'

const CLAIM = { slot: 'millrace_m_shop', database: 'shop', node: 'shop' }
const RESUME: PostgresOffset = { lsn: 100n, system: '7', timeline: 2, publication: 1 }
const SERVER: ServerHistory = { system: '7', timeline: 2, ancestors: [{ timeline: 1, end: 50n }], walLsn: 1000n }
const PROMOTED: ServerHistory = { ...SERVER, timeline: 4, ancestors: [...SERVER.ancestors, { timeline: 2, end: 100n }, { timeline: 3, end: 500n }] }
const SLOT: Slot = {
  plugin: 'pgoutput',
  database: 'shop',
  activePid: null,
  restartLsn: 80n,
  confirmedLsn: 100n,
  walStatus: 'reserved',
  invalidation: null,
  twoPhase: false,
  failover: true,
}

test('a timeline history file names each ancestor and where it was left', () => {
  const file = '1\t0/3000148\tno recovery target specified\n# a comment\n\n2\tA/1B2C3D4E\tbefore transaction 5\n'
  expect(parseTimelineHistory(file)).toEqual([
    { timeline: 1, end: 0x3000148n },
    { timeline: 2, end: 0xa1b2c3d4en },
  ])
  expect(parseTimelineHistory('')).toEqual([])
})

describe('a slot goes on', () => {
  test.each([
    ['on the same timeline', SERVER, RESUME, null],
    ['after two promotions, the first exactly where we were', PROMOTED, RESUME, 100n],
    ['after three, from the first timeline', PROMOTED, { ...RESUME, timeline: 1, lsn: 50n }, 50n],
  ] as const)('%s', (_, server, resume, fork) => {
    expect(() => checkHistory({ ...SLOT, confirmedLsn: 50n }, resume, CLAIM, server)).not.toThrow()
    expect(forkOf(resume, server)).toBe(fork)
  })
})

describe('a slot is refused', () => {
  test.each<[string, ServerHistory, PostgresOffset, Slot | null, string, RegExp]>([
    ['of another server', { ...SERVER, system: '8' }, RESUME, SLOT, 'source.identity_changed', /another one \(system 8\) than was captured \(system 7\)/],
    ['of a server set back', { ...SERVER, walLsn: 99n }, RESUME, SLOT, 'source.identity_changed', /WAL ends at 0\/63: it was set back/],
    [
      'of an old primary that came back',
      SERVER,
      { ...RESUME, timeline: 3 },
      SLOT,
      'source.identity_changed',
      /timeline 2, which does not descend from timeline 3/,
    ],
    [
      'of a promoted server that lacks what was captured',
      PROMOTED,
      { ...RESUME, lsn: 101n },
      SLOT,
      'source.identity_changed',
      /timeline 4 at 0\/64, captured is up to 0\/65/,
    ],
    ['that a promoted server does not have', PROMOTED, RESUME, null, 'source.history_lost', /gone on this server, which was promoted to timeline 4/],
    [
      'that a promoted server has further on',
      PROMOTED,
      RESUME,
      { ...SLOT, confirmedLsn: 101n },
      'source.history_lost',
      /stands at 0\/65 on this server.*between 0\/64 and there/,
    ],
    ['that was invalidated on its way', PROMOTED, RESUME, { ...SLOT, invalidation: 'wal_removed' }, 'source.history_lost', /invalidated the slot/],
    ['that never became ready', SERVER, RESUME, { ...SLOT, confirmedLsn: null }, 'source.history_lost', /never ready/],
  ])('%s', (_, server, resume, slot, code, message) => {
    let refusal: unknown = null
    try {
      checkHistory(slot, resume, CLAIM, server)
    } catch (error) {
      refusal = error
    }
    expect(refusal).toMatchObject({ code, category: 'history', message: expect.stringMatching(message), fix: 'millrace run FILE --resnapshot shop' })
  })
})

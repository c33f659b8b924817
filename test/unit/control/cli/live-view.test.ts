import { stripVTControlCharacters } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { RateWindow, renderStatus, statusLine } from '../../../../control/cli/live-view.ts'
import type { MeshStatus, NodeStatus } from '../../../../core/runtime/mesh-status.ts'

const NOTHING = { sum: '0000000000000000' }

const SOURCE: NodeStatus = {
  node: 'shop',
  role: 'source',
  plugin: 'postgres',
  state: 'snapshotting',
  pausedSince: null,
  rows: 1_204_332,
  bytes: 1e9,
  rejected: 0,
  lagMs: 35,
  behind: 2_500_000,
  retainedBytes: 1,
  progressedAt: 0,
  error: null,
  retryAt: null,
  snapshot: [
    { table: 'public.orders', rows: 600_000, estimate: 1_000_000, done: false },
    { table: 'public.odd', rows: 7, estimate: null, done: false },
    { table: 'public.customers', rows: 10, estimate: 10, done: true },
  ],
  parked: [],
  streams: [],
}
const SINK: NodeStatus = {
  ...SOURCE,
  node: 'lake',
  role: 'sink',
  state: 'degraded',
  rows: 50,
  behind: 1200,
  rejected: 3,
  snapshot: [],
  error: { code: 'sink.unreachable', category: 'unavailable', message: 'the lake\nis away', fix: 'start it' },
  retryAt: 193_000,
}
const STATUS: MeshStatus = {
  mesh: 'quickstart',
  pid: 1,
  startedAt: 0,
  at: 190_000,
  ready: false,
  nodes: [SOURCE, SINK],
  audit: { throughMs: null, differences: [], uncounted: [] },
}

describe('the live view', () => {
  test('shows figures, progress with ETA, and what is wrong with its fix', () => {
    const rates = new Map([
      ['shop', 12_400],
      ['shop public.orders', 10_000],
    ])
    expect(renderStatus(STATUS, rates, { width: 100, color: false })).toEqual([
      'quickstart · not ready · up 3m10s',
      '  NODE  STATE              ROWS  ROWS/S    LAG     BEHIND',
      '  shop  snapshotting  1,204,332  12,400  35 ms     2.5 MB',
      '    public.orders  █████████░░░░░░░ 60%  600,000 of ~1,000,000  ETA 40 s',
      '    public.odd     7 rows',
      '    1 of 3 tables read',
      '  lake  degraded             50       -  35 ms  1,200 rec',
      '    3 dead letters: tap lake.dead-letter --mesh FILE --from-beginning',
      '    sink.unreachable: the lake is away (again in 3.0 s)',
      '    fix: start it',
    ])
  })

  test('says how far the audit is, and each difference with its window', () => {
    const difference = {
      sink: 'lake',
      stream: 'shop.public.orders',
      fromMs: Date.UTC(2026, 10, 25, 12, 3),
      untilMs: Date.UTC(2026, 10, 25, 12, 4),
      captured: { c: 1000, d: 2, sum: '00000000000000ff' },
      landed: { c: 999, d: 2, sum: '00000000000000fe' },
      rejected: NOTHING,
      superseded: NOTHING,
      difference: '1 insert missing',
    }
    const audit = { throughMs: 187_000, differences: [difference], uncounted: ['other shop.public.orders'] }
    expect(renderStatus({ ...STATUS, nodes: [], audit }, new Map(), { width: 250, color: false }).slice(2)).toEqual([
      '  audited through 00:03:07 UTC (3.0 s ago), 1 difference',
      '    shop.public.orders, 2026-11-25 12:03–12:04 UTC, in lake: 1 insert missing; captured 1,002 (1,000 inserts, 2 deletes; sum 00000000000000ff), landed 1,001 (999 inserts, 2 deletes; sum 00000000000000fe), rejected 0',
      '    not counted, since their targets keep no windows: other shop.public.orders',
    ])
    const [line] = renderStatus({ ...STATUS, nodes: [], audit: { ...audit, differences: [], uncounted: [] } }, new Map(), { width: 200, color: false }).slice(2)
    expect(line).toBe('  audited through 00:03:07 UTC (3.0 s ago), 0 differences')
  })

  test('fits any width, and colour changes nothing but colour', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), (width) => {
        const plain = renderStatus(STATUS, new Map(), { width, color: false })
        for (const line of plain) expect([...line].length).toBeLessThanOrEqual(width)
        expect(plain.join('')).not.toContain('\u001b')
        expect(renderStatus(STATUS, new Map(), { width, color: true }).map((line) => stripVTControlCharacters(line))).toEqual(plain)
      }),
    )
    expect(renderStatus(STATUS, new Map(), { width: 200, color: true }).join('')).toContain('\u001b[')
  })

  test('never shows a table as full that is not done', () => {
    const low = { ...SOURCE, snapshot: [{ table: 't', rows: 500, estimate: 10, done: false }] }
    expect(renderStatus({ ...STATUS, nodes: [low] }, new Map(), { width: 100, color: false })[3]).toContain('99%')
  })

  test('rates are those of the last seconds, and a restart is no negative rate', () => {
    const rates = new RateWindow()
    const at = (ms: number, rows: number): MeshStatus => ({ ...STATUS, at: ms, nodes: [{ ...SINK, rows }] })
    expect(rates.add(at(0, 0)).size).toBe(0)
    expect(rates.add(at(1000, 100)).get('lake')).toBe(100)
    expect(rates.add(at(10_000, 1000)).get('lake')).toBe(100)
    expect(rates.add(at(11_000, 2000)).get('lake')).toBe(190)
    expect(rates.add(at(17_000, 2000)).get('lake')).toBe(0)
    expect(rates.add(at(18_000, 0)).get('lake')).toBe(0)
  })

  test('one line says it for a log', () => {
    expect(statusLine(STATUS, new Map([['shop', 10]]))).toBe(
      'shop snapshotting: 1,204,332 rows, 10/s, lag 35 ms, snapshot 60% · lake degraded: 50 rows, 0/s, lag 35 ms',
    )
  })
})

import { expect, test } from 'vitest'
import { renderAudit, renderWindows } from '../../../../control/cli/audit-command.ts'

const same = { rows: 14_888, checksum: 'ee80edf03b71b73d' }

test('an audit fits 80 columns: figures of the source, and = where they are the same', () => {
  const text = renderAudit([
    { table: 'public.order_lines', equal: true, source: same, log: same, sinks: { lake: same, search: same }, differences: [] },
    {
      table: 'public.reviews',
      equal: true,
      source: { rows: 0, checksum: '0000000000000000' },
      log: { rows: 0, checksum: '0000000000000000' },
      sinks: {},
      differences: [],
    },
  ])
  expect(text.split('\n')).toEqual([
    'table                 rows  checksum          log  lake  search',
    'public.order_lines  14,888  ee80edf03b71b73d  =    =     =       equal',
    'public.reviews           0  0000000000000000  =    -     -       equal',
  ])
})

test('other rows, and the same number of rows with other values, are told apart from equal ones', () => {
  const text = renderAudit([
    {
      table: 'public.t',
      equal: false,
      source: same,
      log: same,
      sinks: { lake: { ...same, checksum: 'aaaaaaaaaaaaaaaa' }, search: { ...same, rows: 14_887 } },
      differences: ['the log has 14888 rows, lake has others'],
    },
  ])
  expect(text.split('\n').slice(1)).toEqual([
    'public.t  14,888  ee80edf03b71b73d  =    ≠ 14,888  ≠ 14,887  DIFFERENT',
    '  public.t: the log has 14888 rows, lake has others',
  ])
})

test('windows: what was captured, whether the same landed, what was rejected, and what differs', () => {
  const none = { sum: '0000000000000000' }
  const at = Date.UTC(2026, 10, 25, 12, 3)
  const old = { r: 12_000, sum: '0123456789abcdef' }
  const facts = { node: 'shop', table: 'public.orders', stream: 'shop.public.orders' }
  const text = renderWindows([
    {
      ...facts,
      sink: 'lake',
      state: 'different',
      behind: 180,
      windows: [
        { fromMs: null, untilMs: at, state: 'equal', captured: old, landed: old, rejected: none, superseded: none, difference: null },
        {
          fromMs: at,
          untilMs: at + 60_000,
          state: 'different',
          captured: { c: 1000, u: 2, sum: '00000000000000ff' },
          landed: { c: 997, u: 1, sum: '00000000000000f0' },
          rejected: { c: 2, sum: '0000000000000001' },
          superseded: { u: 1, sum: '0000000000000002' },
          difference: '1 insert missing',
        },
        {
          fromMs: at + 60_000,
          untilMs: at + 120_000,
          state: 'open',
          captured: { c: 200, sum: '00000000000000aa' },
          landed: none,
          rejected: none,
          superseded: none,
          difference: '200 inserts missing',
        },
      ],
    },
    { ...facts, sink: 'search', state: 'open', behind: 3, windows: [] },
    { ...facts, sink: 'other', state: 'uncounted', behind: 0, windows: [] },
  ])
  expect(text.split('\n')).toEqual([
    'shop.public.orders in lake: DIFFERENT, 180 records to go',
    '  window (UTC)             captured  checksum          lake                        rejected',
    '  before 2026-11-25 12:03    12,000  0123456789abcdef  =                           0         equal',
    '  2026-11-25 12:03–12:04      1,002  00000000000000ff  ≠ 1,001 (00000000000000f3)  2         DIFFERENT: 1 insert missing',
    '  2026-11-25 12:04–12:05        200  00000000000000aa  ≠ 0 (0000000000000000)      0         open: 200 inserts missing',
    '',
    'shop.public.orders in search: open, 3 records to go',
    '',
    'shop.public.orders in other: not counted: the target keeps no windows',
  ])
})

import { expect, test } from 'vitest'
import { renderAudit } from '../../../../control/cli/audit-command.ts'

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

import { expect, test } from 'vitest'
import { retentionFinding } from '../../../../connectors/mysql/preflight.ts'

const DAY = 86_400
const GB = 2 ** 30

test.each([
  ['as long as nobody purges', 0, { rows: 1e12, bytes: 1e15 }, 'ok', /until somebody purges/, null],
  ['a week, a small shop', 7 * DAY, { rows: 1000, bytes: 1e6 }, 'ok', /^7\.0 days; .*less than a minute/, null],
  ['an hour', 3600, { rows: 1000, bytes: 1e6 }, 'warning', /^1\.0 hours: when Millrace is away/, 604_800],
  ['four days, rows for three', 4 * DAY, { rows: 3 * DAY * 20_000, bytes: 1 }, 'warning', /^4\.0 days, less than twice .* estimated at 3\.0 days/, 604_800],
  ['four days, bytes for five', 4 * DAY, { rows: 1, bytes: 5 * DAY * 10 * 1024 * 1024 }, 'warning', /estimated at 5\.0 days: some 1 rows/, 10 * DAY],
  ['a fortnight for those', 14 * DAY, { rows: 1, bytes: 5 * DAY * 10 * 1024 * 1024 }, 'ok', /^14\.0 days; /, null],
  ['minutes, rounded up', 7 * DAY, { rows: 1, bytes: GB }, 'ok', /estimated at 2 minutes: some 1 rows, 1024 MB, at 20000 rows and 10 MB a second/, null],
] as const)('%s', (_, seconds, size, level, message, fix) => {
  const found = retentionFinding(seconds, size)
  expect(found).toMatchObject({ level, message: expect.stringMatching(message) })
  expect(found.fix).toEqual(fix === null ? undefined : expect.stringContaining(String(fix)))
})

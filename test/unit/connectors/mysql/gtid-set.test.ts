import { expect, test } from 'vitest'
import { GtidSet } from '../../../../connectors/mysql/gtid-set.ts'

const A = 'aaaaaaaa-0000-0000-0000-000000000000'
const B = 'bbbbbbbb-0000-0000-0000-000000000000'

test.each([
  [`${A}:1-10`, `${A}:5`, `${A}:1-4:6-10`],
  [`${A}:1-10`, `${A}:1-3:9-20`, `${A}:4-8`],
  [`${A}:1-10:20-30`, `${A}:8-22`, `${A}:1-7:23-30`],
  [`${A}:1-10`, `${A}:1-10`, ''],
  [`${A}:1-10,${B}:1-5`, `${B}:2`, `${A}:1-10,${B}:1:3-5`],
  [`${A}:1-3:tag:1-4`, `${A}:tag:1`, `${A}:1-3:tag:2-4`],
  [`${A}:1-3`, '', `${A}:1-3`],
])('%s without %s', (set, other, rest) => {
  const left = GtidSet.parse(set).without(GtidSet.parse(other))
  expect(String(left)).toBe(rest)
  expect(left.size).toBe(GtidSet.parse(rest).size)
})

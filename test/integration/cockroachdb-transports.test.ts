import { describe, expect, test } from 'vitest'
import { expectRising } from '../../testing/source/stream-cases.ts'
import { openCluster, TRANSPORTS } from './cockroachdb-transports.ts'

describe.each(TRANSPORTS)('cockroachdb $name', (transport) => {
  const { skip } = transport

  const title = 'a table that is truncated is parked, and one that is dropped goes away, while others go on and nothing of them is lost'
  test.skipIf(skip !== null)(`${title}${skip === null ? '' : ` (skipped: ${skip})`}`, async () => {
    await using opened = await openCluster(transport, ['items', 'parts', 'tools'])
    const { bench, cluster } = opened
    const run = await bench.start({ snapshot: 'initial' })
    await bench.caughtUp(run)
    await bench.write(bench.work.fill('items', 100))
    cluster.truncate('parts')
    await bench.write(bench.work.fill('items', 100))
    await run.until('the truncated one is parked', () => run.status?.parked.some(({ table }) => table === 'public.parts') === true)
    expect(run.status!.parked.find(({ table }) => table === 'public.parts')).toMatchObject({ code: 'source.schema_unsupported' })
    cluster.dropTable('tools')
    await bench.write(bench.work.fill('items', 100))
    await run.until('the dropped one is parked', () => run.status?.parked.some(({ table }) => table === 'public.tools') === true)
    const items = () => bench.log.changes.filter((change) => change.kind === 'row' && change.table.name === 'items').length
    await run.until('the third has all', () => items() === bench.oracle.changes.filter(({ table }) => table === 'items').length)
    expectRising(bench.log)
    expect(run.failure).toBe(null)
  })
})

import { test } from 'vitest'
import { SourceBench } from '../../testing/source/source-run.ts'
import { expectState } from '../../testing/source/stream-cases.ts'
import { provisionCockroachdb } from './cockroachdb-source.ts'

test('after a restart no chunk of cockroachdb shows less than the log has already', async () => {
  await using bench = await SourceBench.open(() => provisionCockroachdb(), { changesKeys: true, keepsNothing: true })
  await bench.createTable('items')
  const run = await bench.start()
  await bench.write(bench.work.fill('items', 50))
  await bench.caughtUp(run)
  const offset = bench.log.stored.get('offset')!
  for (let n = 0; n < 60; n++) await bench.write(bench.work.transaction(['items']))
  await bench.caughtUp(run)
  await run.stop()
  // killed before a later offset was durable, and after the rows were
  bench.log.stored.set('offset', offset)
  const again = await bench.start({ snapshot: 'initial', chunkRows: 20 })
  await again.until('the snapshot is done', () => again.status?.state === 'running' && again.status.snapshot.every(({ done }) => done))
  await bench.caughtUp(again)
  expectState(bench.log, bench.oracle)
})

import { expect, test } from 'vitest'
import { LandedWindows } from '../../../../core/materialize/landed-windows.ts'
import { A, caughtUp, expectWindows, put, stream, until } from './driven-stream.ts'
import { TOPIC } from './stream-records.ts'

test('a target that was filled before windows were kept is counted once from the log, and one that was rolled back too', async () => {
  const { log, encoder, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'two')])
  const first = drive()
  await until(() => caughtUp(log, target), 'first records')
  first.stop()
  await first.done
  const memo = target.memo!
  for (const memoNow of [null, memo.replaceAll('"2"', '"1"')]) {
    target.memo = memoNow
    write([A, put(3n, 'three')])
    const again = drive()
    await until(() => caughtUp(log, target), 'after a restart')
    again.stop()
    await again.done
    await expectWindows(log, encoder, target, 0)
    expect(statuses.at(-1)!.windows!.landed.total.toJSON()).toMatchObject({ u: Number(target.positions.get('0')!.offset) })
  }
})

test('the log is told since when a target may have missed deletes: now, its last visit, or that nobody knows', async () => {
  const { log, target, write, drive } = stream()
  const asked: (number | null)[] = []
  const consume = log.consume.bind(log)
  log.consume = (from, signal) => {
    for (const { asOfMs } of from) if (asOfMs !== undefined) asked.push(asOfMs())
    return consume(from, signal)
  }
  const visit = async (...names: string[]) => {
    const running = drive()
    for (const name of names) {
      write([A, put(1n, name)])
      await until(() => caughtUp(log, target), name)
    }
    running.stop()
    await running.done
  }
  write([A, put(1n, 'zero')])
  const before = Date.now()
  await visit('one', 'two')
  expect(asked[0]).toBeGreaterThanOrEqual(before)
  const { asOfMs } = LandedWindows.parse(TOPIC, target.memo!).windows
  expect(asOfMs).toBeGreaterThanOrEqual(before)
  write([A, put(1n, 'meanwhile')])
  await visit('three')
  expect(asked.at(-1)).toBe(asOfMs)
  write([A, put(1n, 'meanwhile')])
  target.memo = null
  await visit('four')
  expect(asked.at(-1)).toBe(null)
})

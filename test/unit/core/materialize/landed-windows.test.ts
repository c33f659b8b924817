import { expect, test } from 'vitest'
import { A, caughtUp, expectWindows, put, stream, until } from './driven-stream.ts'

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

import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { UNCHANGED } from '../../../../core/event/table-schema.ts'
import type { SinkBatch } from '../../../../core/materialize/sink-connector.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { A, caughtUp, LIMITS, letters, put, stream, until } from './driven-stream.ts'
import { MemorySink } from './memory-sink.ts'
import { TOPIC } from './stream-records.ts'

// I3
test('rejected and malformed records become dead letters with their bytes and cause, and their neighbours land', async () => {
  const { log, encoder, target, statuses, next, drive } = stream()
  const good = encoder.record(A, put(1n, 'one'), next())
  const bad = encoder.record(A, put(2n, 'bad'), next())
  const broken = encoder.malformed(encoder.record(A, put(3n, 'three'), next()))
  const baseless = encoder.record(A, put(4n, 'four', UNCHANGED), next())
  const last = encoder.record(A, put(5n, 'five'), next())
  log.append(TOPIC, new Map([[0, [good, bad, broken, encoder.tombstone(good), baseless, last]]]))
  const running = drive()
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(target.view()).toEqual(['1n: 1n | "one" | "body"', '5n: 5n | "five" | "body"'])
  const found = letters(log).sort((a, b) => Number(a.origin.offset - b.origin.offset))
  expect(found.map(({ code, origin, position }) => [code, origin, position])).toEqual([
    ['record.rejected', { topic: TOPIC, partition: 0, offset: 1n }, { commit: 2n, ordinal: 1 }],
    ['record.malformed', { topic: TOPIC, partition: 0, offset: 2n }, { commit: 3n, ordinal: 1 }],
    ['record.rejected', { topic: TOPIC, partition: 0, offset: 4n }, { commit: 4n, ordinal: 1 }],
  ])
  expect(found.map(({ key, value }) => [key, value])).toEqual([bad, broken, baseless].map(({ key, value }) => [key, value]))
  expect(found[1]!.reason).toMatch(/offset 2/)
  expect(statuses.at(-1)).toMatchObject({ rows: 2, rejected: 3 })
})

// I9
test('a secret is in no dead letter', async () => {
  const { log, encoder, target, next, drive } = stream()
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(2n, 'bad'), next())]]]))
  const secrets = new Secrets({ env: { TOKEN: 's3cr3t-token' }, dir: '.' })
  secrets.resolve('${env:TOKEN}', { file: 'x.yaml', line: 1, column: 1 })
  class Telling extends MemorySink {
    override apply(batch: SinkBatch) {
      const told: SinkBatch['onRejected'] = (rejections) => batch.onRejected(rejections.map((one) => ({ ...one, reason: 'refused for s3cr3t-token' })))
      return super.apply({ ...batch, onRejected: told })
    }
  }
  const running = drive({ redact: (text) => secrets.redact(text) }, new Telling(target, LIMITS))
  await until(() => caughtUp(log, target), 'the record')
  running.stop()
  await running.done
  expect(letters(log).map(({ reason }) => reason)).toEqual(['refused for [secret]'])
})

test('an update before the chunk with its row is no loss while the snapshot brings that row, and one after it is', async () => {
  const { log, target, statuses, write, drive } = stream()
  const entry = `snapshot/${A.namespace}.${A.name}`
  log.entries.set(entry, { done: false, next: null, rows: 0 })
  // positions 1 and 2: during the snapshot; 3: after its end
  write([A, put(1n, 'one', UNCHANGED)], [A, put(2n, 'two', UNCHANGED)])
  const running = drive()
  await until(() => caughtUp(log, target), 'what came during the snapshot')
  expect(letters(log)).toEqual([])
  log.entries.set(entry, { done: true, rows: 2, at: { commit: '3', ordinal: 5 } })
  write([A, put(3n, 'three', UNCHANGED)])
  await until(() => caughtUp(log, target), 'what came with its end')
  expect(letters(log)).toEqual([])
  write([A, put(4n, 'four', UNCHANGED)])
  await until(() => caughtUp(log, target), 'what came after it')
  running.stop()
  await running.done
  expect(letters(log).map(({ position }) => position)).toEqual([{ commit: 4n, ordinal: 1 }])
  expect(statuses.at(-1)).toMatchObject({ rows: 0, rejected: 1 })
})

test('while only a part of a table is read again, an update without the row it builds on is a dead letter', async () => {
  const { log, target, write, drive } = stream()
  const at = { commit: '1', ordinal: 5 }
  log.entries.set(`snapshot/${A.namespace}.${A.name}`, { done: false, next: { parts: [7] }, rows: 2, part: true, at })
  // position 1: before the end of the reading of the whole
  write([A, put(1n, 'one', UNCHANGED)], [A, put(2n, 'two', UNCHANGED)])
  const running = drive()
  await until(() => caughtUp(log, target), 'both')
  running.stop()
  await running.done
  expect(letters(log).map(({ position }) => position)).toEqual([{ commit: 2n, ordinal: 1 }])
})

test('without dead letters a rejection and a malformed record stop the node, and what came before has landed', async () => {
  const { log, encoder, target, next, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'two')])
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(3n, 'three'), next()), encoder.malformed(encoder.record(A, put(4n, 'four'), next()))]]]))
  await expect(drive({ deadLetters: null }).done).rejects.toMatchObject({ code: 'record.malformed' })
  expect(target.positions.get('0')!.offset).toBe(3n)

  const other = stream()
  other.write([A, put(1n, 'one')], [A, put(2n, 'two')], [A, put(3n, 'three')], [A, put(4n, 'bad')])
  await expect(other.drive({ deadLetters: null }).done).rejects.toMatchObject({ code: 'record.rejected', fix: expect.any(String) })
  expect(other.target.positions.get('0')!.offset).toBe(3n)
})

test('a dead letter is durable before the target moves past its record', async () => {
  const { log, target, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'bad')])
  log.fault = (point) => {
    if (point === 'append') throw new MillraceError('log.fenced', 'another writer')
  }
  await expect(drive().done).rejects.toMatchObject({ code: 'log.fenced' })
  expect(target.positions.size).toBe(0)
  log.fault = () => {}
  const again = drive()
  await until(() => caughtUp(log, target), 'all records')
  again.stop()
  await again.done
  expect(letters(log)).toHaveLength(1)
  expect(target.view()).toHaveLength(1)
})

test('what a sink rejects only with its answer becomes a dead letter too, though the log is away just then', async () => {
  const { log, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')])
  let failing = 2
  log.fault = (point) => {
    if (point === 'append' && failing-- > 0) throw new MillraceError('log.unreachable', 'the log is away')
  }
  const late = new MemorySink(target, LIMITS)
  const running = drive(
    {},
    Object.assign(late, { apply: (batch: SinkBatch) => MemorySink.prototype.apply.call(late, { ...batch, onRejected: async () => {} }) }),
  )
  const applied = (offset: bigint) => until(() => statuses.at(-1)?.positions[0]?.offset === offset, `offset ${offset}`)
  await applied(1n)
  write([A, put(2n, 'bad')])
  await until(() => failing < 2, 'the log was asked')
  write([A, put(3n, 'three')])
  await applied(3n)
  running.stop()
  await running.done
  expect(letters(log).map(({ origin }) => origin.offset)).toEqual([1n])
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { logState, RowSum } from '../../../../core/audit/log-state.ts'
import { MillraceError } from '../../../../core/errors.ts'
import { type PlainRecord, records } from '../../../../core/event/record-batch.ts'
import { type TableSchema, type Tuple, UNCHANGED, type Value } from '../../../../core/event/table-schema.ts'
import { deadLetterTopic, decodeDeadLetter } from '../../../../core/materialize/dead-letter.ts'
import { LandedWindows } from '../../../../core/materialize/landed-windows.ts'
import { type MaterializeOptions, type MaterializeStatus, materialize } from '../../../../core/materialize/materialize.ts'
import { MemoryBudget } from '../../../../core/materialize/memory-budget.ts'
import type { SinkBatch } from '../../../../core/materialize/sink-connector.ts'
import { countStream } from '../../../../core/materialize/stream-count.ts'
import { RecordDecoders } from '../../../../core/schema/record-decoder.ts'
import { MemoryLog } from './memory-log.ts'
import { MemorySink, MemoryTarget } from './memory-sink.ts'
import { SHAPES, type StreamChange, StreamRecords, TOPIC } from './stream-records.ts'

const NODE = 'lake'
const LIMITS = { rows: 3, bytes: 100_000, ageMs: 2 }
const RETRY = { firstMs: 1, maxMs: 2, pause: () => new Promise<void>((resolve) => setImmediate(resolve)) }

/** A stream in a log, and a target that a driver fills. */
function stream(partitions = 1) {
  const log = new MemoryLog()
  log.create(TOPIC, partitions)
  const encoder = new StreamRecords()
  const target = new MemoryTarget()
  let commit = 1n
  const statuses: MaterializeStatus[] = []
  const next = () => ({ commit: commit++, ordinal: 1 })
  const write = (...changes: (readonly [TableSchema, StreamChange])[]) =>
    log.append(TOPIC, new Map([[0, changes.map(([table, change]) => encoder.record(table, change, next()))]]))
  const drive = (more: Partial<MaterializeOptions> = {}, sink = new MemorySink(target, LIMITS)) => {
    const stop = new AbortController()
    const done = materialize({
      node: NODE,
      topic: TOPIC,
      log,
      registry: encoder.registry,
      sink,
      deadLetters: () => log.openWriter(NODE),
      retry: RETRY,
      memory: new MemoryBudget(6_000_000),
      onStatus: (status) => statuses.push(status),
      signal: stop.signal,
      ...more,
    })
    // looked at when the test awaits it
    done.catch(() => {})
    return { stop: () => stop.abort(), done }
  }
  return { log, encoder, target, statuses, next, write, drive }
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 5_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`not within 5 s: ${what}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

async function caughtUp(log: MemoryLog, target: MemoryTarget): Promise<boolean> {
  const fault = log.fault
  log.fault = () => {}
  const bounds = await log.bounds(TOPIC)
  log.fault = fault
  return bounds.every(({ partition, end }) => (target.positions.get(`${partition}`)?.offset ?? 0n) === end)
}

function letters(log: MemoryLog) {
  return log.frames(deadLetterTopic(NODE)).flatMap((frame) =>
    [...records(frame)].length === 0
      ? []
      : [...records(frame)].map((_, n) => {
          let at = 0
          for (const record of records(frame)) if (at++ === n) return decodeDeadLetter(frame, record)
          throw new Error('unreachable')
        }),
  )
}

const put = (id: bigint, name: Value, body: Value = 'body'): StreamChange => ({ op: 'u', row: [id, name, body] })
const [A, B] = SHAPES as [TableSchema, TableSchema]

test('applies what is in the log and what comes later, resumes from the target, and says how far it is', async () => {
  const { log, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'two')])
  const first = drive()
  await until(() => caughtUp(log, target), 'first records')
  write([A, { op: 'd', row: [1n, null, null] }], [A, put(3n, 'three')])
  await until(() => caughtUp(log, target), 'later records')
  first.stop()
  await first.done
  expect(target.view()).toEqual(['2n: 2n | "two" | "body"', '3n: 3n | "three" | "body"'])
  expect(statuses.at(-1)).toMatchObject({ state: 'running', rows: 4, rejected: 0, behindRecords: 0, positions: [{ topic: TOPIC, partition: 0, offset: 4n }] })
  expect(statuses.at(-1)!.lagMs).toBeGreaterThan(0)

  write([A, put(4n, 'four')])
  const again = drive()
  await until(() => caughtUp(log, target), 'after a restart')
  again.stop()
  await again.done
  expect(statuses.at(-1)).toMatchObject({ rows: 1 })
  expect(target.view()).toHaveLength(3)
})

test('a frame longer than the row limit is applied in pieces, and a restart continues within the frame', async () => {
  const { log, target, write, drive } = stream()
  write(...Array.from({ length: 10 }, (_, n) => [A, put(BigInt(n), 'x')] as const))
  let applies = 0
  const crashing = new MemorySink(target, LIMITS, (point) => {
    if (point === 'apply' && ++applies === 3) throw new MillraceError('sink.conflict', 'taken over')
  })
  await expect(drive({}, crashing).done).rejects.toMatchObject({ code: 'sink.conflict' })
  expect(target.positions.get('0')!.offset).toBe(6n)
  const again = drive()
  await until(() => caughtUp(log, target), 'the rest')
  again.stop()
  await again.done
  expect(target.view()).toHaveLength(10)
})

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

test('what cannot be reached is tried again and shown as degraded; a dead-letter writer that failed is opened anew', async () => {
  const { log, encoder, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')], [A, put(2n, 'bad')], [A, put(3n, 'three')])
  const failing = new Map([['consume', 2], ['bounds', 2], ['registry', 2], ['append', 2], ['openWriter', 1], ['prepare', 3], ['apply', 3], ['committed unknown', 1], ['committed', 1]]) // biome-ignore format: one line
  const fault = (point: string) => {
    const left = failing.get(point) ?? 0
    failing.set(point, left - 1)
    if (left > 0) throw new MillraceError('sink.unreachable', `${point} is down`)
  }
  log.fault = fault
  encoder.fault = fault
  const running = drive({}, new MemorySink(target, LIMITS, fault))
  await until(async () => (await caughtUp(log, target)) && statuses.at(-1)?.state === 'running', 'all records')
  running.stop()
  await running.done
  expect([...failing.values()].every((left) => left <= 0)).toBe(true)
  expect(target.view()).toHaveLength(2)
  expect(letters(log)).toHaveLength(1)
  expect(statuses.some(({ state, error }) => state === 'degraded' && error?.message === 'apply is down')).toBe(true)
  expect(statuses.at(-1)).toMatchObject({ state: 'running', error: null })
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

test('waits grow with jitter and start anew after a success', async () => {
  const { write, target, drive, log } = stream()
  write([A, put(1n, 'one')])
  const waits: number[] = []
  let fails = 5
  const sink = new MemorySink(target, LIMITS, (point) => {
    if (point === 'apply' && fails-- > 0) throw new MillraceError('sink.unreachable', 'down')
  })
  const retry = { firstMs: 100, maxMs: 1_000, random: () => 0.5, pause: async (ms: number) => void waits.push(ms) }
  const running = drive({ retry }, sink)
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(waits).toEqual([75, 150, 300, 600, 750])
})

test.each(['sink.schema_unsupported', 'sink.forbidden', 'sink.conflict', 'log.position_lost'] as const)('%s goes to the supervisor', async (code) => {
  const { write, target, drive } = stream()
  write([A, put(1n, 'one')])
  const sink = new MemorySink(target, LIMITS, (point) => {
    if (point === (code === 'sink.schema_unsupported' ? 'prepare' : 'apply')) throw new MillraceError(code, 'no')
  })
  await expect(drive({}, sink).done).rejects.toMatchObject({ code })
})

test('a target that is further than the log ends is refused: it is of another log', async () => {
  const { write, target, drive } = stream()
  write([A, put(1n, 'one')])
  target.positions.set('0', { topic: TOPIC, partition: 0, offset: 7n })
  await expect(drive().done).rejects.toMatchObject({ code: 'log.position_lost', fix: expect.any(String) })
})

test('a stop during an apply lets it finish and begins no other', async () => {
  const { write, target, drive } = stream()
  write(...Array.from({ length: 12 }, (_, n) => [A, put(BigInt(n), 'x')] as const))
  let stop = () => {}
  const sink = new MemorySink(target, LIMITS, (point) => {
    if (point === 'apply') stop()
  })
  const running = drive({}, sink)
  stop = running.stop
  await running.done
  expect(target.applies).toBe(1)
  expect(target.positions.get('0')!.offset).toBe(3n)
})

test('a full before image fills what an update left unchanged', async () => {
  const { log, target, write, drive } = stream()
  write([A, { op: 'u', row: [1n, 'one', UNCHANGED], before: [1n, 'old', 'long text'] }])
  const running = drive()
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(target.view()).toEqual(['1n: 1n | "one" | "long text"'])
})

test('records of an older shape that are delivered again are read as the newer one', async () => {
  const { log, encoder, target, next, drive } = stream()
  const older = encoder.record(A, put(1n, 'one'), next())
  const newer = encoder.record(B, { op: 'u', row: [1n, 'uno', 'body', 7] }, next())
  log.append(TOPIC, new Map([[0, [older, newer, older, newer]]]))
  const prepared: string[] = []
  const sink = new MemorySink(target, { ...LIMITS, rows: 100 })
  const { prepare } = sink
  sink.prepare = (table) => {
    prepared.push(table.columns.map((column) => column.name).join())
    return prepare.call(sink, table)
  }
  const running = drive({}, sink)
  await until(() => caughtUp(log, target), 'all records')
  running.stop()
  await running.done
  expect(prepared).toEqual(['id,name,body', 'id,name,body,quantity'])
  expect(target.view()).toEqual(['1n: 1n | "uno" | "body" | 7'])
})

test('a truncation that is missing in a partition is refused', async () => {
  const { log, encoder, target, next, drive } = stream(2)
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(2n, 'two'), next())]], [1, [encoder.record(A, put(1n, 'one'), next())]]])) // biome-ignore format: one line
  log.append(TOPIC, new Map([[0, [encoder.record(A, { op: 't', row: [] }, next())]]]))
  await expect(drive().done).rejects.toMatchObject({ code: 'log.corrupt', fix: expect.any(String) })
  expect(target.view()).toHaveLength(2)
})

/** One transaction that moves row 1 to the key 2 and leaves its body out. */
const move = (encoder: StreamRecords, commit: bigint) => [
  encoder.record(A, { op: 'd', row: [1n, null, null] }, { commit, ordinal: 2 }),
  encoder.record(A, { op: 'c', row: [2n, 'moved', UNCHANGED] }, { commit, ordinal: 3 }),
]

test('both halves of a changed key are applied together, though frames, row limits and time fall between them', async () => {
  const { log, encoder, target, next, drive } = stream()
  const running = drive({}, new MemorySink(target, { ...LIMITS, rows: 1, ageMs: 0 }))
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(1n, 'one', 'kept'), next())]]]))
  log.append(TOPIC, new Map([[0, move(encoder, 50n)]]), 1)
  await until(() => caughtUp(log, target), 'the move')
  running.stop()
  await running.done
  expect(letters(log)).toEqual([])
  expect(target.view()).toEqual(['2n: 2n | "moved" | "kept"'])
})

test.each([0, 1])('both halves of a changed key are applied together when partition %i shows its half first', async (first) => {
  const { log, encoder, target, next, drive } = stream(2)
  const running = drive({}, new MemorySink(target, { ...LIMITS, rows: 1, ageMs: 0 }))
  log.append(TOPIC, new Map([[1, [encoder.record(A, put(1n, 'one', 'kept'), next())]]]))
  await until(() => caughtUp(log, target), 'the first row')
  const [gone, come] = move(encoder, 50n)
  log.append(TOPIC, new Map([[0, [come!]], [1, [gone!]]]), 1, true) // biome-ignore format: one line
  log.show(TOPIC, first)
  for (let turns = 0; turns < 50; turns++) await new Promise((resolve) => setImmediate(resolve))
  expect(target.view()).toEqual(['1n: 1n | "one" | "kept"'])
  log.show(TOPIC, 1 - first)
  await until(() => caughtUp(log, target), 'the move')
  running.stop()
  await running.done
  expect(letters(log)).toEqual([])
  expect(target.view()).toEqual(['2n: 2n | "moved" | "kept"'])
})

test('a truncation and a new shape wait for the partitions in which their transaction is not to be seen yet', async () => {
  const { log, encoder, target, next, drive } = stream(2)
  const running = drive({}, new MemorySink(target, { ...LIMITS, ageMs: 0 }))
  const [one, two] = [encoder.record(A, put(1n, 'one'), next()), encoder.record(A, put(2n, 'two'), next())]
  const cut = encoder.record(A, { op: 't', row: [] }, next())
  const after = encoder.record(B, { op: 'c', row: [2n, 'newer', 'body', 7] }, next())
  log.append(TOPIC, new Map([[0, [two, cut, after]], [1, [one, cut]]]), 1, true) // biome-ignore format: one line
  log.show(TOPIC, 0)
  for (let turns = 0; turns < 50; turns++) await new Promise((resolve) => setImmediate(resolve))
  log.show(TOPIC, 1)
  await until(() => caughtUp(log, target), 'all of the transaction')
  running.stop()
  await running.done
  expect(target.view()).toEqual(['2n: 2n | "newer" | "body" | 7'])
})

test('a topic whose partitions the log does not know yet, and a schema that the registry does not know yet, are waited for', async () => {
  const { log, encoder, target, statuses, write, drive } = stream()
  write([A, put(1n, 'one')])
  const bounds = log.bounds.bind(log)
  const schema = encoder.registry.schema.bind(encoder.registry)
  let asked = 0
  log.bounds = async (...args) => (asked++ < 3 ? [] : bounds(...args))
  let missed = 0
  encoder.registry.schema = async (id) => {
    if (missed++ < 5) throw new MillraceError('schema.unknown', `no schema ${id}`)
    return schema(id)
  }
  const running = drive()
  await until(async () => asked > 3 && (await caughtUp(log, target)), 'the row')
  running.stop()
  await running.done
  expect(missed).toBeGreaterThan(5)
  expect(new Set(statuses.map(({ error }) => error?.code))).toEqual(new Set([undefined, 'log.unreachable', 'registry.unreachable']))
})

test('a partition that appears later is read from its beginning', async () => {
  const { log, encoder, target, next, write, drive } = stream()
  write([A, put(1n, 'one')])
  const running = drive()
  await until(() => caughtUp(log, target), 'the first partition')
  const bounds = await log.bounds(TOPIC)
  const wider = log.bounds.bind(log)
  expect(bounds).toHaveLength(1)
  log.grow(TOPIC)
  log.append(TOPIC, new Map([[1, [encoder.record(A, put(2n, 'two'), next())]]]))
  await until(async () => (await wider(TOPIC)).length === 2 && (await caughtUp(log, target)), 'the second partition')
  running.stop()
  await running.done
  expect(target.view()).toHaveLength(2)
})

class Crash extends Error {}

interface Step {
  readonly kind: 'put' | 'delete' | 'move' | 'truncate' | 'shape' | 'malformed' | 'tombstone'
  readonly id: bigint
  readonly to: bigint
  readonly name: string
  readonly body: string | null
  readonly keep: boolean
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    { weight: 12, arbitrary: fc.constant('put' as const) },
    { weight: 4, arbitrary: fc.constantFrom('delete' as const, 'tombstone' as const) },
    { weight: 5, arbitrary: fc.constant('move' as const) },
    { weight: 2, arbitrary: fc.constantFrom('truncate' as const, 'shape' as const, 'malformed' as const) },
  ),
  id: fc.bigInt(0n, 6n),
  to: fc.bigInt(0n, 6n),
  name: fc.constantFrom('a', 'b', 'c', 'd', 'bad'),
  body: fc.option(fc.constantFrom('x', 'y'), { nil: null }),
  keep: fc.boolean(),
})

/** Oracle: the source's history in its own order, without log, batches, partitions or faults. */
function history(encoder: StreamRecords, groups: readonly (readonly Step[])[], partitions: number) {
  const oracle = new MemoryTarget()
  let shape = 0
  let commit = 1n
  let expectedLetters = 0
  const encoded = groups.map((steps) => {
    const byPartition = new Map<number, PlainRecord[]>(Array.from({ length: partitions }, (_, partition) => [partition, []]))
    for (const s of steps) {
      if (s.kind === 'move' && s.to === s.id) continue
      if (s.kind === 'shape') {
        shape = Math.min(shape + 1, SHAPES.length - 1)
        continue
      }
      const table = SHAPES[shape]!
      const position = { commit: commit++, ordinal: 1 }
      const row: Tuple = [
        s.id,
        s.name,
        s.keep ? UNCHANGED : s.body,
        ...(table.columns.length > 3 ? [table.columns[3]!.type.kind === 'int64' ? commit : Number(commit)] : []),
      ]
      const lane = byPartition.get(Number(s.id) % partitions)!
      if (s.kind !== 'malformed' && s.kind !== 'tombstone' && oracle.table !== table) oracle.reshape(table)
      if (s.kind === 'put') {
        lane.push(encoder.record(table, { op: 'u', row }, position))
        if (!oracle.put(table, [s.id], row)) expectedLetters++
      } else if (s.kind === 'delete') {
        lane.push(encoder.record(table, { op: 'd', row }, position))
        oracle.delete([s.id])
      } else if (s.kind === 'move') {
        const moved: Tuple = [s.to, ...row.slice(1)]
        lane.push(encoder.record(table, { op: 'd', row }, { ...position, ordinal: 2 }))
        byPartition.get(Number(s.to) % partitions)!.push(encoder.record(table, { op: 'c', row: moved }, { ...position, ordinal: 3 }))
        if (!oracle.put(table, [s.to], moved, oracle.delete([s.id]))) expectedLetters++
      } else if (s.kind === 'truncate') {
        for (const each of byPartition.values()) each.push(encoder.record(table, { op: 't', row: [] }, position))
        oracle.rows.clear()
      } else if (s.kind === 'tombstone') lane.push(encoder.tombstone(encoder.record(table, { op: 'd', row }, position)))
      else {
        lane.push(encoder.malformed(encoder.record(table, { op: 'u', row }, position)))
        expectedLetters++
      }
    }
    return byPartition
  })
  return { oracle, encoded, expectedLetters: () => expectedLetters, changes: commit }
}

/** The same of a compacted topic: whole rows, tombstones, truncations with a key. */
function compactedHistory(encoder: StreamRecords, steps: readonly Step[], partitions: number) {
  const oracle = new MemoryTarget()
  const lanes = Array.from({ length: partitions }, (): PlainRecord[] => [])
  const laneOf = (id: bigint) => lanes[Number(id) % partitions]!
  oracle.reshape(A)
  for (const [n, s] of steps.entries()) {
    const position = { commit: BigInt(n + 1), ordinal: 1 }
    const row: Tuple = [s.id, `${s.name}${n}`, s.body]
    if (s.kind === 'truncate') {
      for (const lane of lanes) lane.push(encoder.keyedTruncation(A, position))
      oracle.rows.clear()
    } else if (s.kind === 'delete' || (s.kind === 'move' && s.to !== s.id)) {
      const moves = s.kind === 'move'
      laneOf(s.id).push(...encoder.deletion(A, row, moves ? { ...position, ordinal: 2 } : position))
      oracle.delete([s.id])
      if (!moves) continue
      const moved: Tuple = [s.to, ...row.slice(1)]
      laneOf(s.to).push(encoder.record(A, { op: 'c', row: moved }, { ...position, ordinal: 3 }))
      oracle.put(A, [s.to], moved)
    } else {
      laneOf(s.id).push(encoder.record(A, { op: 'u', row }, position))
      oracle.put(A, [s.id], row)
    }
  }
  return { oracle, lanes }
}

const compactedStep: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('put', 'put', 'put', 'delete', 'move', 'truncate'),
  id: fc.bigInt(0n, 4n),
  to: fc.bigInt(0n, 4n),
  name: fc.constantFrom('a', 'b'),
  body: fc.option(fc.constantFrom('x', 'y'), { nil: null }),
  keep: fc.constant(false),
})

test('a sink that lags behind compaction, wherever it stands, ends equal to the source; so does a new one, and the replay', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(compactedStep, { minLength: 1, maxLength: 30 }),
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.nat({ max: 60 }), { minLength: 3, maxLength: 3 }),
      fc.integer({ min: 1, max: 5 }),
      fc.nat({ max: 30 }),
      async (steps, partitions, cleanTo, frameRecords, lag) => {
        const { log, encoder, target, statuses, drive } = stream(partitions)
        const { oracle, lanes } = compactedHistory(encoder, steps, partitions)
        log.append(TOPIC, new Map(lanes.map((records, partition) => [partition, records])), frameRecords)
        const lagging = new MemorySink(target, { ...LIMITS, rows: 1 }, (point) => {
          if (point === 'apply' && --lag < 0) throw new MillraceError('sink.conflict', 'it stops here')
        })
        const first = drive({}, lagging)
        let stopped = false
        first.done.catch(() => {
          stopped = true
        })
        await until(async () => stopped || (await caughtUp(log, target)), 'the end, or the stop')
        first.stop()
        if (!stopped) await first.done
        for (const [partition, to] of cleanTo.slice(0, partitions).entries()) log.compact(TOPIC, partition, BigInt(to))
        const fresh = new MemoryTarget()
        for (const each of [target, fresh]) {
          const again = drive({}, new MemorySink(each, LIMITS))
          await until(() => caughtUp(log, each), 'all that is left')
          again.stop()
          await again.done
          expect(each.view()).toEqual(oracle.view())
        }
        expect(letters(log)).toEqual([])
        const ends = (await log.bounds(TOPIC)).map(({ partition, end }) => ({ topic: TOPIC, partition, offset: end }))
        const replay = { log, registry: encoder.registry, topic: TOPIC, table: A, memoryBytes: 100_000, rows: 5, signal: new AbortController().signal }
        const expected = new RowSum(A)
        for (const row of oracle.rows.values()) expected.add(A.columns.map(({ id }) => row.get(id)!))
        expect((await logState({ ...replay, cut: { until: ends, below: null } })).sum.toString()).toBe(expected.checksum.toString())
        expect(statuses.at(-1)!.rejected).toBe(0)
      },
    ),
    { numRuns: 60 },
  )
})

test('a delete and its tombstone count as one change, also when they are read apart or the delete itself is gone', async () => {
  const { log, encoder, target, next, drive } = stream()
  const position = next()
  const [gone, tombstone] = encoder.deletion(A, [1n, null, null], { commit: 90n, ordinal: 1 })
  log.append(TOPIC, new Map([[0, [encoder.record(A, put(1n, 'one'), position), gone]]]))
  const running = drive()
  await until(() => caughtUp(log, target), 'the delete')
  running.stop()
  await running.done
  log.append(TOPIC, new Map([[0, [tombstone, encoder.record(A, put(2n, 'two'), { commit: 91n, ordinal: 1 })]]]))
  const again = drive()
  await until(() => caughtUp(log, target), 'the tombstone')
  again.stop()
  await again.done
  await expectWindows(log, encoder, target, 0)
  expect(target.view()).toEqual(['2n: 2n | "two" | "body"'])
  log.compact(TOPIC, 0, 4n)
  const fresh = new MemoryTarget()
  const anew = drive({}, new MemorySink(fresh, LIMITS))
  await until(() => caughtUp(log, fresh), 'what is left')
  anew.stop()
  await anew.done
  const { windows } = LandedWindows.parse(TOPIC, fresh.memo!)
  expect(windows.landed.total.byOp()).toEqual({ u: 1 })
})

/** I7: whatever crashed when, the target's windows count each change of the log once, and say how many of them it rejected. */
async function expectWindows(log: MemoryLog, encoder: StreamRecords, target: MemoryTarget, rejected: number): Promise<void> {
  const ends = (await log.bounds(TOPIC)).map(({ partition, end }) => ({ topic: TOPIC, partition, offset: end }))
  const { ledger } = await countStream(log, new RecordDecoders(encoder.registry), ends, 30, new AbortController().signal)
  const { windows, positions } = LandedWindows.parse(TOPIC, target.memo!)
  expect(positions.map(({ partition, offset }) => `${partition}@${offset}`).sort()).toEqual(
    ends.map(({ partition, offset }) => `${partition}@${offset}`).sort(),
  )
  expect(windows.totalBelow(Number.POSITIVE_INFINITY).toJSON()).toEqual(ledger.total.toJSON())
  for (const [window, tally] of ledger.windows) expect(windows.at(window).toJSON()).toEqual(tally.toJSON())
  expect(windows.rejected.total.records).toBe(rejected)
}

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

test('random histories with faults at every await and crashes end equal to the source, in any number of partitions', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(step, { maxLength: 12 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 4 }),
      fc.record({ rows: fc.integer({ min: 1, max: 8 }), bytes: fc.constantFrom(1, 700, 100_000), ageMs: fc.integer({ min: 0, max: 2 }) }),
      fc.array(fc.constantFrom('ok', 'ok', 'ok', 'ok', 'ok', 'down', 'crash'), { maxLength: 80 }),
      fc.nat({ max: 6 }),
      fc.record({
        frameRecords: fc.integer({ min: 1, max: 5 }),
        shown: fc.array(fc.nat({ max: 3 }), { maxLength: 12 }),
        budget: fc.constantFrom(300, 6_000_000),
      }),
      async (groups, partitions, limits, faults, early, { frameRecords, shown, budget }) => {
        const { log, encoder, target, statuses, drive } = stream(partitions)
        const { oracle, encoded, expectedLetters } = history(encoder, groups, partitions)
        let at = 0
        let crashes = 0
        const fault = (point: string) => {
          const what = faults[at++]
          if (what === 'down') throw new MillraceError('sink.unreachable', `${point} is down`)
          if (what === 'crash') {
            crashes++
            throw new Crash(point)
          }
        }
        const memory = new MemoryBudget(budget)
        const lanes = Array.from({ length: partitions }, (_, partition) => partition)
        for (const group of encoded.slice(0, early)) log.append(TOPIC, group, frameRecords)
        const rest = encoded.slice(early)
        log.fault = fault
        encoder.fault = fault
        for (;;) {
          const running = drive({ memory }, new MemorySink(target, limits, fault))
          let failed: unknown = null
          running.done.catch((error: unknown) => {
            failed = error
          })
          while (rest.length > 0 && failed === null) {
            // a transaction appears partition by partition
            log.append(TOPIC, rest.shift()!, frameRecords, true)
            for (const partition of [...shown.splice(0, 3).map((n) => n % partitions), ...lanes]) {
              await new Promise((resolve) => setImmediate(resolve))
              log.show(TOPIC, partition)
            }
          }
          const nothingToDo = oracle.table === null
          await until(
            async () => failed !== null || (nothingToDo && statuses.length > 0) || (await caughtUp(log, target)),
            `the end of ${JSON.stringify(statuses.at(-1), (_, v) => (typeof v === 'bigint' ? String(v) : v))}`,
          )
          running.stop()
          const result = await running.done.then(
            () => null,
            (error: unknown) => error as MillraceError,
          )
          if (result === null) break
          if (!(result.cause instanceof Crash) && !(result instanceof Crash)) throw result
        }
        if (oracle.table === null) return
        expect(target.view()).toEqual(oracle.view())
        const found = letters(log).map(({ origin }) => `${origin.partition}@${origin.offset}`)
        expect(new Set(found).size).toBe(expectedLetters())
        if (crashes === 0) expect(found.length).toBe(expectedLetters())
        log.fault = () => {}
        encoder.fault = () => {}
        await expectWindows(
          log,
          encoder,
          target,
          new Set(letters(log).flatMap(({ code, origin }) => (code === 'record.rejected' ? [`${origin.partition}@${origin.offset}`] : []))).size,
        )
      },
    ),
    { numRuns: 300, endOnFailure: true },
  )
}, 120_000)

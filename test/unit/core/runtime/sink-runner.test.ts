import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { MemoryBudget } from '../../../../core/materialize/memory-budget.ts'
import type { SinkNode } from '../../../../core/mesh/mesh.ts'
import { isReady, type MeshStatus, standing } from '../../../../core/runtime/mesh-status.ts'
import type { RuntimeContext } from '../../../../core/runtime/runtime-context.ts'
import { SinkRunner } from '../../../../core/runtime/sink-runner.ts'
import { envelopeSchemaOf } from '../../../../core/schema/avro-mapping.ts'
import type { SchemaRegistry } from '../../../../core/schema/registry.ts'
import { MemoryLog } from '../materialize/memory-log.ts'
import { SHAPES, TOPIC } from '../materialize/stream-records.ts'

const FOREIGN = ['shop.events', 'shop.mails']

/** A sink over a log with topics of somebody else before the stream; `opened` has the streams that it took up. */
function runner(versions: SchemaRegistry['versions']) {
  const stop = new AbortController()
  const opened: string[] = []
  const log = new MemoryLog()
  for (const topic of [...FOREIGN, TOPIC]) log.create(topic, 1)
  const context = {
    mesh: { name: 'm', dir: '.' },
    secrets: { redact: (text: string) => text },
    folder: { nodeDir: () => '.' },
    log,
    registry: { versions } as unknown as SchemaRegistry,
    logger: pino({ level: 'silent' }),
    metrics: { record() {} },
    signal: stop.signal,
    onChange() {},
  } as unknown as RuntimeContext
  const open = async (_config: unknown, _context: unknown, { topic }: { topic: string }) => {
    opened.push(topic)
    return {
      limits: { rows: 10, bytes: 1000, ageMs: 1 },
      prepare: async () => {},
      committed: async () => [],
      apply: async () => [],
      async *rows() {},
      async [Symbol.asyncDispose]() {},
    }
  }
  const node = { name: 'lake', plugin: { name: 'fake', open }, settings: { resolve: () => ({}) }, from: { matches: () => true }, onRejected: 'halt' }
  const sink = new SinkRunner(node as unknown as SinkNode, context, new MemoryBudget(1000))
  const end = async () => {
    stop.abort()
    await sink.finished
  }
  return { sink, opened, end }
}

const envelope = envelopeSchemaOf(SHAPES[0]!, { recordNamespace: TOPIC, sourceFields: [] })
const isForeignTo = (subject: string) => FOREIGN.some((topic) => subject.startsWith(topic))
const versionOf = (subject: string, schema: string) => [{ subject, version: 1, id: 1, schema }]

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 45_000; !condition(); await delay(1)) if (Date.now() > deadline) throw new Error('it did not come to pass')
}

test("topics with somebody else's schema are parked streams, each with its error, and the streams after them are taken up all the same", async () => {
  let isForeign = true
  const { sink, opened, end } = runner(async (subject) =>
    isForeignTo(subject) ? (isForeign ? versionOf(subject, '"string"') : []) : versionOf(subject, envelope),
  )
  try {
    await until(() => opened.length > 0 && sink.streamsKnownAt > 0)
    expect(opened).toEqual([TOPIC])
    const status = sink.status()
    expect(status).toMatchObject({ state: 'degraded', error: { code: 'schema.invalid', message: expect.stringContaining(FOREIGN[0]!) } })
    const parked = status.streams.filter(({ state }) => state === 'failed')
    expect(parked.map(({ stream }) => stream)).toEqual(FOREIGN)
    for (const { stream, error } of parked) expect(error!.fix).toContain(`'!${stream}'`)
    expect(standing({ nodes: [status] } as unknown as MeshStatus).map(({ what }) => what)).toEqual(FOREIGN.map((topic) => `lake (${topic})`))
    // not ready either while the other streams move
    const now = Date.now()
    expect(isReady({ ...status, progressedAt: now }, now, 60_000)).toBe(false)
    // once the schemas are gone the sink is well again
    isForeign = false
    await until(() => sink.status().error === null)
    expect(sink.status().state).not.toBe('degraded')
    expect(sink.status().streams.map(({ stream }) => stream)).toEqual([TOPIC])
  } finally {
    await end()
  }
})

test('a registry that is away is waited for', async () => {
  let isAway = true
  const { sink, opened, end } = runner(async (subject) => {
    if (isAway) throw new MillraceError('registry.unreachable', 'away')
    return isForeignTo(subject) ? [] : versionOf(subject, envelope)
  })
  try {
    await until(() => sink.status().error !== null)
    expect([sink.status().state, sink.streamsKnownAt, opened]).toEqual(['degraded', 0, []])
    isAway = false
    await until(() => opened.length > 0)
    await until(() => sink.status().error === null)
  } finally {
    await end()
  }
})

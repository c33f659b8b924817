import { reachesEnds } from '../audit/continuous-audit.ts'
import { type ReportedWindow, reportWindows } from '../audit/window-report.ts'
import { CAPTURED_WINDOWS, capturedLedgers, WindowLedger } from '../event/window-ledger.ts'
import type { Log } from '../log/log.ts'
import { keptWindows, recallWindows } from '../materialize/recall-windows.ts'
import type { SinkConnector } from '../materialize/sink-connector.ts'
import type { Mesh, SinkNode, SourceNode } from '../mesh/mesh.ts'
import type { StreamTarget } from '../plugin.ts'
import { RecordDecoders } from '../schema/record-decoder.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { type AuditOptions, readerContext } from './audit-mesh.ts'
import { openLog, openRegistry } from './open-log.ts'
import { describeStream } from './stream-target.ts'

/** The windows of one table in one sink. */
export interface StreamWindows {
  /** The source node. */
  readonly node: string
  readonly table: string
  readonly stream: string
  readonly sink: string
  /** different when any window is, else open when any is; uncounted: the target does not say what landed. */
  readonly state: 'equal' | 'different' | 'open' | 'uncounted'
  /** Records of the stream that the sink has not applied. */
  readonly behind: number
  readonly windows: readonly ReportedWindow[]
}

const TRIES = 10

/**
 * The windows of every captured table in every sink that takes it, from what is durable: the same whether the mesh runs or not. Asks neither the source
 * nor the running process, writes nothing.
 * @throws MillraceError when the log, the registry or a sink cannot be reached
 */
export async function auditWindows(mesh: Mesh, options: Omit<AuditOptions, 'waitMs' | 'onTable'>): Promise<readonly StreamWindows[]> {
  const { secrets, logger, tables } = options
  await using log = await openLog({ mesh, secrets, logger, readOnly: true })
  await using registry = await openRegistry({ mesh, secrets })
  const all: StreamWindows[] = []
  for (const source of mesh.sources) {
    for (const topic of [...capturedLedgers(await log.progress(source.name)).keys()].sort()) {
      const target = await describeStream(registry, topic)
      if (target === null || (tables !== undefined && !tables.includes(tableOf(target)))) continue
      for (const sink of mesh.sinks) {
        if (!sink.from.matches(topic)) continue
        await using connector = await sink.plugin.open(sink.settings.resolve(secrets, mesh.dir), readerContext(mesh, sink.name, logger), target)
        all.push(await compareStream({ source, target, sink, connector, log, registry, signal: options.signal }))
      }
    }
  }
  return all
}

interface Stream {
  readonly source: SourceNode
  readonly target: StreamTarget
  readonly sink: SinkNode
  readonly connector: SinkConnector
  readonly log: Log
  readonly registry: SchemaRegistry
  readonly signal: AbortSignal
}

async function compareStream(stream: Stream): Promise<StreamWindows> {
  const { source, target, sink, log } = stream
  const { topic } = target
  const captured = async () => capturedLedgers(await log.progress(source.name)).get(topic) ?? new WindowLedger(CAPTURED_WINDOWS)
  const before = await captured()
  const ends = await log.bounds(topic)
  const { positions, windows } = await landedIn(stream)
  const after = await captured()
  const offsets = new Map(positions.map(({ partition, offset }) => [partition, offset]))
  const behind = ends.reduce((sum, { partition, end }) => sum + Math.max(0, Number(end - (offsets.get(partition) ?? 0n))), 0)
  const facts = { node: source.name, table: tableOf(target), stream: topic, sink: sink.name, behind }
  if (windows === null) return { ...facts, state: 'uncounted', windows: [] }
  const through = reachesEnds(positions, ends)
  const reported = reportWindows({ before, after }, windows, { through, compacted: source.topics.compacted })
  const state = (['different', 'open'] as const).find((one) => reported.some((window) => window.state === one)) ?? 'equal'
  return { ...facts, state, windows: reported }
}

/** Positions of a target and the windows that belong to them: a running mesh may commit between the two. */
async function landedIn({ connector, target: { topic }, log, registry, signal }: Stream) {
  let positions = await connector.committed()
  for (let tries = 0; tries < TRIES && connector.recall !== undefined; tries++) {
    const windows = await keptWindows(connector, topic, positions, log)
    if (windows !== null) return { positions, windows }
    positions = await connector.committed()
  }
  return { positions, windows: await recallWindows({ sink: connector, topic, positions, log, decoders: new RecordDecoders(registry), signal }) }
}

const tableOf = ({ namespace, table }: StreamTarget) => `${namespace}.${table}`

import { existsSync } from 'node:fs'
import type { Logger } from 'pino'
import { asMillraceError, MillraceError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Compaction } from '../materialize/sink-connector.ts'
import type { Mesh, SinkNode } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { DataFolder } from './data-folder.ts'
import { type StatusError, statusError } from './mesh-status.ts'
import { openLog, openRegistry } from './open-log.ts'
import { describeStream } from './stream-target.ts'

/** What is to be compacted: all targets of all sinks that can be, those of one sink, or the one of a stream. */
export interface CompactionWish {
  readonly sink: string | null
  /** The stream's topic; null: all. */
  readonly stream: string | null
}

export interface CompactedTarget {
  readonly sink: string
  readonly stream: string
  /** Null: the sink has no target for the stream yet, or `error` says why it is as it was. */
  readonly compaction: Compaction | null
  readonly error: StatusError | null
}

export interface CompactOptions {
  readonly secrets: Secrets
  readonly logger: Logger
  /** Ends it: targets that are not among the results are as they were. */
  readonly signal: AbortSignal
}

/** @param text SINK or SINK/STREAM; absent: all @throws node.unknown */
export function parseCompactionWish(mesh: Mesh, text: string | undefined): CompactionWish {
  if (text === undefined) return { sink: null, stream: null }
  const slash = text.indexOf('/')
  const sink = slash < 0 ? text : text.slice(0, slash)
  if (!mesh.sinks.some(({ name }) => name === sink)) {
    throw new MillraceError('node.unknown', `the mesh has no sink ${sink}`, { fix: `one of: ${mesh.sinks.map(({ name }) => name).join(', ')}` })
  }
  return { sink, stream: slash < 0 ? null : text.slice(slash + 1) }
}

/**
 * Has the sinks of a mesh that does not run put their targets into the form that every reader takes, one after the other. Holds the data folder meanwhile,
 * so that no sink of it writes. What is wrong with one target stops no other.
 * @throws log.locked while the mesh runs; config.* for a sink that has nothing to compact or does not take the stream; what log and registry throw
 */
export async function compactMesh(mesh: Mesh, wish: CompactionWish, options: CompactOptions): Promise<readonly CompactedTarget[]> {
  if (!existsSync(mesh.dataDir)) {
    throw new MillraceError('config.invalid', `the mesh ${mesh.name} never ran here: there is no data folder ${mesh.dataDir}`, {
      fix: 'compact where it runs, once it ran: millrace run FILE',
    })
  }
  const wanted = compactingSinks(mesh, wish.sink)
  using folder = holdFolder(mesh)
  await using log = await openLog({ mesh, secrets: options.secrets, logger: options.logger, readOnly: true })
  await using registry = await openRegistry({ mesh, secrets: options.secrets })
  const done: CompactedTarget[] = []
  for (const sink of wanted) {
    for (const stream of await streamsOf(sink, log, wish.stream)) {
      const target = await compactTarget(mesh, folder, sink, stream, registry, options)
      if (target === 'stopped') return done
      done.push(target)
    }
  }
  return done
}

/** @throws config.unsupported when none of them compacts */
function compactingSinks(mesh: Mesh, only: string | null): readonly SinkNode[] {
  const asked = mesh.sinks.filter(({ name }) => only === null || name === only)
  const compacting = asked.filter(({ plugin }) => plugin.compacts === true)
  if (compacting.length > 0) return compacting
  const names = asked.map(({ name, plugin }) => `${name} (${plugin.name})`).join(', ')
  throw new MillraceError('config.unsupported', `${names} has nothing that could be compacted`, {
    fix: 'its target is read as it is; name a sink whose tables are files, as those of kind iceberg',
  })
}

function holdFolder(mesh: Mesh): DataFolder {
  try {
    return new DataFolder(mesh.dataDir)
  } catch (thrown) {
    const error = asMillraceError(thrown)
    if (error.code !== 'log.locked') throw error
    throw new MillraceError('log.locked', `${error.message}, and its sinks write there`, {
      cause: error,
      fix: 'stop it first, and start it again afterwards; while it runs, its sinks compact by their own settings',
    })
  }
}

async function streamsOf(sink: SinkNode, log: Log, only: string | null): Promise<readonly string[]> {
  const streams = (await log.topics()).map(({ topic }) => topic).filter((topic) => sink.from.matches(topic))
  if (only === null) return streams.sort()
  if (streams.includes(only)) return [only]
  throw new MillraceError('config.invalid', `the sink ${sink.name} takes no stream ${only}`, {
    fix: streams.length === 0 ? 'it has none yet: millrace run FILE' : `one of: ${streams.sort().join(', ')}`,
  })
}

/** 'stopped': the signal came first. */
async function compactTarget(
  mesh: Mesh,
  folder: DataFolder,
  node: SinkNode,
  stream: string,
  registry: SchemaRegistry,
  { secrets, logger, signal }: CompactOptions,
): Promise<CompactedTarget | 'stopped'> {
  const context = { mesh: mesh.name, node: node.name, dataDir: folder.nodeDir(node.name), logger: logger.child({ node: node.name }), metric: () => {} }
  if (signal.aborted) return 'stopped'
  try {
    const target = await describeStream(registry, stream)
    if (target === null) return { sink: node.name, stream, compaction: null, error: null }
    await using sink = await node.plugin.open(node.settings.resolve(secrets, mesh.dir), context, target)
    if (sink.compact === undefined) throw new MillraceError('invariant.broken', `the plugin ${node.plugin.name} says that it compacts, and its sink does not`)
    return { sink: node.name, stream, compaction: await sink.compact(signal), error: null }
  } catch (thrown) {
    if (signal.aborted) return 'stopped'
    const error = statusError(asMillraceError(thrown), (text) => secrets.redact(text))
    return { sink: node.name, stream, compaction: null, error }
  }
}

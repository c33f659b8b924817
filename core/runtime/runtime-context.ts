import type { Logger } from 'pino'
import type { Log } from '../log/log.ts'
import type { Mesh, SinkNode, SourceNode } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { PluginContext } from '../plugin.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import type { DataFolder } from './data-folder.ts'
import type { NodeStatus } from './mesh-status.ts'
import type { Metrics } from './metrics.ts'

/** What every node of a running mesh is given. */
export interface RuntimeContext {
  readonly mesh: Mesh
  readonly secrets: Secrets
  readonly folder: DataFolder
  readonly log: Log
  readonly registry: SchemaRegistry
  readonly logger: Logger
  readonly metrics: Metrics
  /** Package version, as it stands in envelopes. */
  readonly version: string
  readonly signal: AbortSignal
  /** Something that a status shows has changed. */
  readonly onChange: () => void
}

/** A node as the runtime holds it. */
export interface RunningNode {
  readonly name: string
  status(): NodeStatus
  /** When it last looked for streams and had taken up all that there were, by `performance.now()`. */
  readonly streamsKnownAt: number
  /** @param since ISO 8601, for its status */
  pause(since: string): void
  resume(): void
  /** A source reads a table again (null: all), a parked one too; false: it knows no such table. @throws config.invalid while it is paused */
  resnapshot?(table: string | null): boolean
  /** Resolves when all its work has ended, after the signal. Never rejects. */
  readonly finished: Promise<void>
}

export function pluginContext(context: RuntimeContext, node: SourceNode | SinkNode): PluginContext {
  return {
    mesh: context.mesh.name,
    node: node.name,
    dataDir: context.folder.nodeDir(node.name),
    logger: context.logger.child({ node: node.name }),
    metric: (name, value, kind) => context.metrics.record(node.name, name, value, kind),
  }
}

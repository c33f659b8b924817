import type { Logger } from 'pino'
import { auditTable, parkedAudit, type TableAudit } from '../audit/audit.ts'
import { topicOf } from '../capture/capture.ts'
import { parkedIn } from '../capture/parked-tables.ts'
import { tableId } from '../event/table-schema.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { PluginContext } from '../plugin.ts'
import { nodeDirOf } from './data-folder.ts'
import { openLog, openRegistry } from './open-log.ts'

/** Enough for some five million keys in one pass. */
export const AUDIT_MEMORY_BYTES = 256 * 1024 * 1024

export interface AuditOptions {
  readonly secrets: Secrets
  readonly logger: Logger
  /** How long log and sinks may take to reach the source's view of a table, in milliseconds. */
  readonly waitMs: number
  /** What replaying the log may take, in bytes; what needs more is replayed in several passes. */
  readonly memoryBytes?: number
  /** When a table differs, so many of its differing keys are named in the differences; none when absent. */
  readonly showKeys?: number
  /** Only tables whose `namespace.name` is among these; all when absent. */
  readonly tables?: readonly string[]
  /** Called when a table is done, before the next begins. */
  readonly onTable?: (audit: SourceTableAudit) => void
  readonly signal: AbortSignal
}

export interface SourceTableAudit extends TableAudit {
  /** The source node. */
  readonly node: string
}

/**
 * Compares every captured table of a mesh end to end, beside the process that runs it: reads only, claims nothing.
 * @throws MillraceError when a system cannot be reached, or one does not catch up in time (audit.unfinished)
 */
export async function auditMesh(mesh: Mesh, options: AuditOptions): Promise<readonly SourceTableAudit[]> {
  const { secrets, logger, signal, memoryBytes = AUDIT_MEMORY_BYTES, showKeys = 0 } = options
  await using log = await openLog({ mesh, secrets, logger, readOnly: true })
  await using registry = await openRegistry({ mesh, secrets })
  const audits: SourceTableAudit[] = []
  for (const source of mesh.sources) {
    await using reader = await source.plugin.openReader(source.settings.resolve(secrets, mesh.dir), readerContext(mesh, source.name, logger))
    const tables = [...(await reader.tables())].sort((a, b) => (tableId(a) < tableId(b) ? -1 : 1))
    const parked = new Map(parkedIn(await log.progress(source.name)).map((one) => [one.table, one]))
    for (const [table, why] of parked) {
      if (options.tables !== undefined && !options.tables.includes(table)) continue
      // I9: the log has it as it was
      const masked = { ...why, message: secrets.redact(why.message), fix: secrets.redact(why.fix) }
      const audit = { node: source.name, ...parkedAudit(table, masked) }
      audits.push(audit)
      options.onTable?.(audit)
    }
    for (const table of tables) {
      if (parked.has(tableId(table)) || (options.tables !== undefined && !options.tables.includes(tableId(table)))) continue
      const topic = topicOf(source.name, table)
      const stream = { topic, namespace: table.namespace, table: table.name }
      const sinks = mesh.sinks
        .filter((sink) => sink.from.matches(topic))
        .map((sink) => ({
          node: sink.name,
          open: () => sink.plugin.open(sink.settings.resolve(secrets, mesh.dir), readerContext(mesh, sink.name, logger), stream),
        }))
      const compared = await auditTable({
        node: source.name,
        table,
        topic,
        compacted: source.topics.compacted,
        reader,
        log,
        registry,
        sinks,
        deadlineMs: options.waitMs,
        memoryBytes,
        showKeys,
        signal,
      })
      const audit = { node: source.name, ...compared, differences: compared.differences.map((text) => secrets.redact(text)) }
      audits.push(audit)
      options.onTable?.(audit)
    }
  }
  return audits
}

/** For a connector that is opened beside the process that runs its node. */
export function readerContext(mesh: Mesh, node: string, logger: Logger): PluginContext {
  return { mesh: mesh.name, node, dataDir: nodeDirOf(mesh.dataDir, node), logger: logger.child({ node }), readOnly: true, metric: () => {} }
}

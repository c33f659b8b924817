import type { Logger } from 'pino'
import { topicOf } from '../capture/capture.ts'
import { whyNotCompactable } from '../capture/compactable.ts'
import { asMillraceError, type ErrorCategory, type MillraceError } from '../errors.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { Mesh, SinkNode, SourceNode } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { Finding, StreamTarget } from '../plugin.ts'
import { readerContext } from './audit-mesh.ts'
import { openLog, openRegistry } from './open-log.ts'
import { parkedStream } from './stream-target.ts'

export interface NodeFinding extends Finding {
  /** The node, or `log` or `registry`. */
  readonly node: string
  /** Of the error that kept the node from being checked at all. */
  readonly category?: ErrorCategory
}

/** Asks every real system of a mesh whether it is fit to run, all at once, without changing any. Never throws for what it finds. */
export async function preflight(
  mesh: Mesh,
  options: { readonly secrets: Secrets; readonly logger: Logger; readonly dataDir: string },
): Promise<readonly NodeFinding[]> {
  const { secrets, logger, dataDir } = options
  const guarded = async (node: string, subject: string, check: () => Promise<readonly Finding[]>): Promise<NodeFinding[]> => {
    try {
      return (await check()).map((finding) => ({ node, ...finding, message: secrets.redact(finding.message) }))
    } catch (thrown) {
      const { message, fix, category, where } = asMillraceError(thrown)
      return [
        {
          node,
          level: 'error',
          category,
          subject: where === undefined ? subject : 'settings',
          message: secrets.redact(message),
          ...(fix === undefined ? {} : { fix: secrets.redact(fix) }),
        },
      ]
    }
  }
  const findings = await Promise.all([
    guarded('log', 'connection', async () => {
      const { kind } = mesh.log.resolve(secrets, mesh.dir)
      if (kind === 'embedded') return [{ level: 'ok', subject: 'embedded', message: 'nothing to reach' }]
      await using log = await openLog({ mesh, secrets, logger, readOnly: true })
      return [{ level: 'ok', subject: kind, message: `answers; it has ${(await log.topics()).length} topics` }]
    }),
    guarded('registry', 'connection', async () => {
      const { kind } = mesh.registry.resolve(secrets, mesh.dir)
      if (kind === 'embedded') return [{ level: 'ok', subject: 'embedded', message: 'nothing to reach' }]
      await using registry = await openRegistry({ mesh, secrets })
      return [{ level: 'ok', subject: kind, message: `answers; it has ${(await registry.subjects()).length} subjects` }]
    }),
    ...mesh.sources.map((source) => guarded(source.name, TABLES, () => tableFindings(source, mesh, secrets, logger))),
    ...[...mesh.sources, ...mesh.sinks].map((node) =>
      guarded(node.name, 'connection', async () => {
        const config = node.settings.resolve(secrets, mesh.dir)
        const context = { mesh: mesh.name, node: node.name, dataDir, logger: logger.child({ node: node.name }), metric: () => {} }
        return node.plugin.check(config as never, context)
      }),
    ),
  ])
  // a node is asked twice, and what keeps it from answering is said once: why its tables cannot be read, its own check has said better
  const all = [...new Map(findings.flat().map((one) => [JSON.stringify([one.node, one.subject, one.message]), one])).values()]
  const saidBy = (node: string) => all.some((one) => one.node === node && one.level === 'error' && one.subject !== TABLES)
  // only what kept the node from being asked has a category: a plugin may call a finding so, too
  return all.filter(({ node, subject, category }) => subject !== TABLES || category === undefined || !saidBy(node))
}

const TABLES = 'tables'

/** Tables that would be parked: by the source, since their topics are compacted, or by a sink that cannot hold them. */
async function tableFindings(source: SourceNode, mesh: Mesh, secrets: Secrets, logger: Logger): Promise<readonly (Finding & { readonly node?: string })[]> {
  await using reader = await source.plugin.openReader(source.settings.resolve(secrets, mesh.dir), readerContext(mesh, source.name, logger))
  const found: (Finding & { readonly node?: string })[] = []
  const add = (node: string, subject: string, { message, fix }: MillraceError) =>
    found.push({ node, level: 'error', subject, message: `would be parked: ${message}`, ...(fix === undefined ? {} : { fix }) })
  // what does not answer, or not as it should, is not waited for again with each table: its own check says why
  const silent = new Set<SinkNode>()
  for (const table of await reader.tables()) {
    const why = source.topics.compacted ? whyNotCompactable(table) : null
    if (why !== null) add(source.name, `table ${tableId(table)}`, why)
    const topic = topicOf(source.name, table)
    for (const sink of why === null ? mesh.sinks.filter(({ from }) => from.matches(topic)) : []) {
      if (silent.has(sink)) continue
      const refusal = await refusalOf(sink, { topic, namespace: table.namespace, table: table.name }, table, mesh, secrets, logger)
      if (refusal === null) continue
      if (refusal.category === 'schema') add(sink.name, `stream ${topic}`, parkedStream(topic, refusal))
      else if (refusal.category === 'unavailable') silent.add(sink)
    }
  }
  return found
}

/** Why a sink would not take a stream: in category `schema`, else why it cannot be asked; null: it would. */
async function refusalOf(
  sink: SinkNode,
  stream: StreamTarget,
  table: TableSchema,
  mesh: Mesh,
  secrets: Secrets,
  logger: Logger,
): Promise<MillraceError | null> {
  try {
    await using connector = await sink.plugin.open(sink.settings.resolve(secrets, mesh.dir), readerContext(mesh, sink.name, logger), stream)
    await connector.prepare(table)
    return null
  } catch (thrown) {
    return asMillraceError(thrown)
  }
}

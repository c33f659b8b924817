import type { Logger } from 'pino'
import { whyNotCompactable } from '../capture/compactable.ts'
import { asMillraceError, type ErrorCategory } from '../errors.ts'
import { tableId } from '../event/table-schema.ts'
import type { Mesh, SourceNode } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { Finding } from '../plugin.ts'
import { readerContext } from './audit-mesh.ts'
import { openLog, openRegistry } from './open-log.ts'

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
    ...mesh.sources
      .filter(({ topics }) => topics.compacted)
      .map((source) => guarded(source.name, 'compacted topics', () => compactionFindings(source, mesh, secrets, logger))),
    ...[...mesh.sources, ...mesh.sinks].map((node) =>
      guarded(node.name, 'connection', async () => {
        const config = node.settings.resolve(secrets, mesh.dir)
        const context = { mesh: mesh.name, node: node.name, dataDir, logger: logger.child({ node: node.name }), metric: () => {} }
        return node.plugin.check(config as never, context)
      }),
    ),
  ])
  return findings.flat()
}

/** Tables that would be parked, since their topics are compacted. */
async function compactionFindings(source: SourceNode, mesh: Mesh, secrets: Secrets, logger: Logger): Promise<readonly Finding[]> {
  await using reader = await source.plugin.openReader(source.settings.resolve(secrets, mesh.dir), readerContext(mesh, source.name, logger))
  return (await reader.tables()).flatMap((table): Finding[] => {
    const why = whyNotCompactable(table)
    if (why === null) return []
    return [
      { level: 'error', subject: `table ${tableId(table)}`, message: `would be parked: ${why.message}`, ...(why.fix === undefined ? {} : { fix: why.fix }) },
    ]
  })
}

import type { Side } from '../../core/audit/audit.ts'
import { EXIT_CODE, MillraceError } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { auditMesh, type SourceTableAudit } from '../../core/runtime/audit-mesh.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import { type Command, textOption } from './command.ts'

const DEFAULT_WAIT_S = 30

export const auditCommand: Command = {
  name: 'audit',
  summary: 'Prove that source, log and sinks hold the same rows',
  help: `millrace audit FILE [--table NAMESPACE.NAME]… [--wait SECONDS]

For each captured table: rows and an order-independent checksum of the source in one consistent view, of the log replayed up to that view, and of each
sink at its own position in the log. Reads only; the mesh may run and the tables may be written meanwhile. Exit code 0 when all are equal, 1 when not.

Examples:
  millrace audit shop.mesh.yaml
  millrace audit shop.mesh.yaml --table public.orders --table public.customers
  millrace audit shop.mesh.yaml --json | jq '.result.audit[] | select(.equal | not)'

Options:
  --table NAMESPACE.NAME   only this table; may be repeated
  --wait SECONDS           how long log and sinks may take to catch up with the source (default ${DEFAULT_WAIT_S})
${LOG_HELP}`,
  options: { table: { type: 'string', multiple: true }, wait: { type: 'string' }, ...LOG_OPTIONS },
  arguments: [1, 1],
  async run(input) {
    const mesh = await loadMesh(input.arguments[0]!, input.plugins)
    const wait = Number(textOption(input, 'wait') ?? DEFAULT_WAIT_S)
    if (!Number.isFinite(wait) || wait < 0) throw new MillraceError('config.invalid', '--wait takes a number of seconds', { fix: 'for example --wait 60' })
    const tables = input.options.table as readonly string[] | undefined
    const secrets = input.secrets(mesh.dir)
    await using log = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'warn' })
    const audit = await auditMesh(mesh, {
      secrets,
      logger: log.logger,
      waitMs: wait * 1000,
      ...(tables === undefined ? {} : { tables }),
      signal: input.io.signal,
    })
    if (audit.length === 0)
      throw new MillraceError('config.invalid', 'there is no table to audit', { fix: 'millrace check FILE shows what the sources capture' })
    const equal = audit.every((table) => table.equal)
    return { exitCode: equal ? 0 : EXIT_CODE.data, result: { equal, audit }, text: renderAudit(audit) }
  },
}

/**
 * One line per table: rows and checksum of the source; then, for the log and each sink, `=` when they are the same there, else `≠` and the rows there: a sink stands at
 * its own position of the log, so while rows change it may hold others and still be equal to that. Below stands what makes a table different.
 */
export function renderAudit(audit: readonly Pick<SourceTableAudit, 'table' | 'equal' | 'source' | 'log' | 'sinks' | 'differences' | 'parked'>[]): string {
  const sinks = [...new Set(audit.flatMap((table) => Object.keys(table.sinks)))]
  const rows = (count: number) => count.toLocaleString('en-US')
  const lines = [
    ['table', 'rows', 'checksum', 'log', ...sinks, ''],
    ...audit.map(({ table, source, log, sinks: held, equal, parked }) => {
      if (parked === true) return [table, '-', '-', '-', ...sinks.map(() => '-'), 'PARKED']
      const same = (side: Side | undefined) =>
        side === undefined ? '-' : side.rows === source.rows && side.checksum === source.checksum ? '=' : `≠ ${rows(side.rows)}`
      return [table, rows(source.rows), source.checksum, same(log), ...sinks.map((sink) => same(held[sink])), equal ? 'equal' : 'DIFFERENT']
    }),
  ]
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  const text = lines.map((line) =>
    line
      .map((part, i) => (i === 1 ? part.padStart(widths[i]!) : part.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd(),
  )
  for (const { table, differences } of audit) for (const difference of differences) text.push(`  ${table}: ${difference}`)
  return text.join('\n')
}

import type { Side } from '../../core/audit/audit.ts'
import { describeWindow } from '../../core/audit/continuous-audit.ts'
import type { ReportedWindow } from '../../core/audit/window-report.ts'
import { EXIT_CODE, MillraceError } from '../../core/errors.ts'
import { Tally, type TallyJson } from '../../core/event/window-ledger.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { AUDIT_MEMORY_BYTES, auditMesh, type SourceTableAudit } from '../../core/runtime/audit-mesh.ts'
import { auditWindows, type StreamWindows } from '../../core/runtime/audit-windows.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import { type Command, flag, textOption } from './command.ts'
import { formatCount } from './figures.ts'

const DEFAULT_WAIT_S = 30
const MB = 1024 * 1024

export const auditCommand: Command = {
  name: 'audit',
  summary: 'Prove that source, log and sinks hold the same rows',
  help: `millrace audit FILE [--table NAMESPACE.NAME]… [--wait SECONDS]
millrace audit FILE --windows [--table NAMESPACE.NAME]…

For each captured table: rows and an order-independent checksum of the source in one consistent view, of the log replayed up to that view, and of each
sink at its own position in the log. Reads only; the mesh may run and the tables may be written meanwhile. Exit code 0 when all are equal, 1 when not,
3 when something cannot be reached or does not catch up in time: then nothing is known to differ.

With --windows no row is read: it shows the counts that a mesh keeps while it runs, for each table and sink and each minute of commit time: how many
changes were captured, with a checksum over their content, and whether the same landed in the sink or were rejected by it (dead letters). It takes no
time, reads what is durable and so works whether the mesh runs or not; the source is not asked.
  equal      every change of that minute landed once, as it was captured
  open       changes come just now, or the sink has not read all of the stream
  DIFFERENT  a change was lost, doubled or altered between capture and sink: exit code 1

Examples:
  millrace audit shop.mesh.yaml
  millrace audit shop.mesh.yaml --table public.orders --table public.customers
  millrace audit shop.mesh.yaml --table public.orders --show-keys 10
  millrace audit shop.mesh.yaml --json | jq '.result.audit[] | select(.equal | not)'
  millrace audit shop.mesh.yaml --windows --table public.orders
  millrace audit shop.mesh.yaml --windows --json | jq '.result.streams[] | select(.state == "different")'

Options:
  --table NAMESPACE.NAME   only this table; may be repeated
  --wait SECONDS           how long log and sinks may take to catch up with the source (default ${DEFAULT_WAIT_S})
  --show-keys N            names up to N keys that differ, at each place where a table does: reads it twice more
  --memory MB              what replaying the log may take (default ${AUDIT_MEMORY_BYTES / MB}: some five million keys); larger tables take several passes
  --windows                compare the changes of each minute instead of the rows
${LOG_HELP}`,
  options: {
    table: { type: 'string', multiple: true },
    wait: { type: 'string' },
    memory: { type: 'string' },
    'show-keys': { type: 'string' },
    windows: { type: 'boolean' },
    ...LOG_OPTIONS,
  },
  arguments: [1, 1],
  async run(input) {
    const mesh = await loadMesh(input.arguments[0]!, input.plugins)
    const wait = Number(textOption(input, 'wait') ?? DEFAULT_WAIT_S)
    if (!Number.isFinite(wait) || wait < 0) throw new MillraceError('config.invalid', '--wait takes a number of seconds', { fix: 'for example --wait 60' })
    const memory = Number(textOption(input, 'memory') ?? AUDIT_MEMORY_BYTES / MB)
    if (!Number.isFinite(memory) || memory < 1)
      throw new MillraceError('config.invalid', '--memory takes a number of megabytes', { fix: 'for example --memory 512' })
    const showKeys = Number(textOption(input, 'show-keys') ?? 0)
    if (!Number.isSafeInteger(showKeys) || showKeys < 0)
      throw new MillraceError('config.invalid', '--show-keys takes a whole number', { fix: 'for example --show-keys 10' })
    const tables = input.options.table as readonly string[] | undefined
    const secrets = input.secrets(mesh.dir)
    await using log = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'warn' })
    const options = { secrets, logger: log.logger, ...(tables === undefined ? {} : { tables }), signal: input.io.signal }
    const nothing = () => new MillraceError('config.invalid', 'there is no table to audit', { fix: 'millrace check FILE shows what the sources capture' })
    if (flag(input, 'windows')) {
      if (input.options.wait !== undefined) throw new MillraceError('config.invalid', '--windows waits for nothing', { fix: 'leave out --wait' })
      const streams = await auditWindows(mesh, options)
      if (streams.length === 0) throw nothing()
      const equal = streams.every(({ state }) => state !== 'different')
      return { exitCode: equal ? 0 : EXIT_CODE.data, result: { equal, streams }, text: renderWindows(streams) }
    }
    const audit = await auditMesh(mesh, { ...options, waitMs: wait * 1000, memoryBytes: memory * MB, showKeys })
    if (audit.length === 0) throw nothing()
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
  const text = aligned(lines)
  for (const { table, differences } of audit) for (const difference of differences) text.push(`  ${table}: ${difference}`)
  return text.join('\n')
}

const STATES = { equal: 'equal', different: 'DIFFERENT', open: 'open', uncounted: 'not counted' } as const

/** A line per window: changes captured and their checksum; then `=` when the sink has the same, else `≠` and its own, and what the difference is. */
export function renderWindows(streams: readonly StreamWindows[]): string {
  return streams
    .map(({ stream, sink, state, behind, windows }) => {
      const why = state === 'uncounted' ? ': the target keeps no windows' : behind > 0 ? `, ${formatCount(behind)} records to go` : ''
      const title = `${stream} in ${sink}: ${STATES[state]}${why}`
      if (windows.length === 0) return title
      const lines = [['window (UTC)', 'captured', 'checksum', sink, 'rejected', ''], ...windows.map(windowLine)]
      return [title, ...aligned(lines).map((line) => `  ${line}`)].join('\n')
    })
    .join('\n\n')
}

function windowLine(window: ReportedWindow): string[] {
  const captured = Tally.of(window.captured)
  const found = new Tally()
  for (const part of [window.landed, window.rejected, window.superseded]) found.addAll(Tally.of(part))
  const same = captured.equals(found) ? '=' : `≠ ${formatCount(found.records)} (${found.checksum})`
  const what = window.difference === null ? STATES[window.state] : `${STATES[window.state]}: ${window.difference}`
  return [describeWindow(window), formatCount(captured.records), String(captured.checksum), same, formatCount(recordsOf(window.rejected)), what]
}

const recordsOf = (tally: TallyJson) => Tally.of(tally).records

/** Columns of equal width; the second, a figure, to the right. */
function aligned(lines: readonly (readonly string[])[]): string[] {
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  return lines.map((line) =>
    line
      .map((part, i) => (i === 1 ? part.padStart(widths[i]!) : part.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd(),
  )
}

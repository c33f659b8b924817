import { EXIT_CODE } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { type CompactedTarget, compactMesh, parseCompactionWish } from '../../core/runtime/compact-mesh.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import type { Command } from './command.ts'
import { formatBytes, formatCount } from './figures.ts'

export const compactCommand: Command = {
  name: 'compact',
  summary: "Rewrite a lake's tables so that every reader takes them",
  help: `millrace compact FILE [SINK[/STREAM]]

An Iceberg sink writes an update as a new row and a delete file, which says that the old one is gone. DuckDB, Spark and Trino apply those as they read;
PyIceberg refuses a table that has any. This rewrites such tables into data files alone, and merges small files of the others: the same rows, faster to
read by everybody. Tables that are compacted already are left as they are. Each is one more snapshot, so readers meanwhile are not disturbed.

It works while the mesh does not run, and refuses while it does: then the sink compacts by itself at so many delete files (compactAfterDeleteFiles, 100
unless the mesh says otherwise). Run it where the mesh runs: a mesh that writes the same tables from another machine ends with sink.conflict. The next
millrace run goes on where the sink stood, and its updates bring delete files again. Exit code 0 when all are compacted; else by the worst that stood in
the way: 1, 2, or 3 when something is away or it was stopped. A table that could not be compacted is as it was.

Examples:
  millrace compact shop.mesh.yaml                            every table of every lake
  millrace compact shop.mesh.yaml lake/shop.public.orders    one table
  millrace compact shop.mesh.yaml --json | jq '.result.targets[] | {stream, files: .compaction.after.files}'

Options:
${LOG_HELP}`,
  options: LOG_OPTIONS,
  arguments: [1, 2],
  async run(input) {
    const mesh = await loadMesh(input.arguments[0]!, input.plugins)
    const wish = parseCompactionWish(mesh, input.arguments[1])
    const secrets = input.secrets(mesh.dir)
    await using log = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'warn' })
    const targets = await compactMesh(mesh, wish, { secrets, logger: log.logger, signal: input.io.signal })
    const stopped = input.io.signal.aborted
    const codes = targets.flatMap(({ error }) => (error === null ? [] : [EXIT_CODE[error.category]]))
    if (stopped) codes.push(EXIT_CODE.unavailable)
    const exitCode = codes.length === 0 ? 0 : (Math.min(...codes) as 1 | 2 | 3)
    const lines = targets.map((target) => `${target.sink}/${target.stream}: ${outcomeOf(target)}`)
    if (stopped) lines.push('stopped: tables that are not named are as they were')
    else if (lines.length === 0) lines.push('there is no stream yet, and so no table')
    return { exitCode, result: { targets, stopped }, text: lines.join('\n') }
  },
}

function outcomeOf({ compaction, error }: CompactedTarget): string {
  if (error !== null) return `NOT COMPACTED: ${error.code}: ${error.message}${error.fix === null ? '' : `\n  fix: ${error.fix}`}`
  if (compaction === null) return 'no table yet'
  const { before, after } = compaction
  const files = (count: number) => `${formatCount(count)} ${count === 1 ? 'file' : 'files'}`
  if (before.files === after.files && before.deleteFiles === after.deleteFiles) return `nothing to do (${files(after.files)})`
  const deletes = before.deleteFiles === 0 ? '' : `, ${formatCount(before.deleteFiles)} of them delete files,`
  return `${files(before.files)}${deletes} became ${formatCount(after.files)} (${formatBytes(before.bytes)} became ${formatBytes(after.bytes)})`
}

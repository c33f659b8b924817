import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { EXIT_CODE } from '../../core/errors.ts'
import { formatFinding } from '../../core/mesh/mesh-finding.ts'
import { readMesh } from '../../core/mesh/read-mesh.ts'
import { type NodeFinding, preflight } from '../../core/runtime/preflight.ts'
import { openCliLogger } from './cli-logger.ts'
import { type Command, flag } from './command.ts'

export const checkCommand: Command = {
  name: 'check',
  summary: 'Check a mesh file, then the systems that it names',
  help: `millrace check FILE [--offline]

First the file: every mistake at once, each with its line and its fix; this needs no secret and no service. Then the real systems: can they be
reached, are they prepared, is anything missing? Nothing is changed anywhere.

Examples:
  millrace check shop.mesh.yaml
  millrace check shop.mesh.yaml --offline            the file alone: for a pull request
  millrace check shop.mesh.yaml --json | jq '.result.preflight[] | select(.level == "error")'

Options:
  --offline   the file alone`,
  options: { offline: { type: 'boolean' } },
  arguments: [1, 1],
  async run(input) {
    const file = input.arguments[0]!
    const { mesh, findings } = await readMesh(file, input.plugins)
    const lines = findings.map(formatFinding)
    if (mesh === null) {
      const errors = findings.filter(({ level }) => level === 'error').length
      return {
        exitCode: EXIT_CODE.config,
        result: { findings, preflight: null },
        text: [...lines, `${file}: ${errors} ${errors === 1 ? 'error' : 'errors'}`].join('\n'),
      }
    }
    const facts = `${mesh.sources.length} ${mesh.sources.length === 1 ? 'source' : 'sources'}, ${mesh.sinks.length} ${mesh.sinks.length === 1 ? 'sink' : 'sinks'}`
    lines.push(`${file}: the file is in order (${facts})`)
    if (flag(input, 'offline')) return { exitCode: 0, result: { findings, preflight: null }, text: lines.join('\n') }
    const secrets = input.secrets(mesh.dir)
    await using log = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'error' })
    // a check leaves no trace, so plugins get a folder that goes away
    const dataDir = mkdtempSync(path.join(os.tmpdir(), 'millrace-check-'))
    try {
      const checked = await preflight(mesh, { secrets, logger: log.logger, dataDir })
      lines.push(...checked.map(formatNodeFinding))
      const errors = checked.filter(({ level }) => level === 'error')
      const isAway = errors.length > 0 && errors.every(({ category }) => category === 'unavailable')
      lines.push(errors.length === 0 ? 'ready to run' : `${errors.length} ${errors.length === 1 ? 'thing stands' : 'things stand'} in the way`)
      return {
        exitCode: errors.length === 0 ? 0 : isAway ? EXIT_CODE.unavailable : EXIT_CODE.config,
        result: { findings, preflight: checked },
        text: lines.join('\n'),
      }
    } finally {
      rmSync(dataDir, { recursive: true, force: true })
    }
  },
}

function formatNodeFinding({ node, level, subject, message, fix }: NodeFinding): string {
  const mark = { ok: 'ok     ', warning: 'warning', error: 'error  ' }[level]
  return `${mark} ${node}: ${subject}: ${message}${fix === undefined ? '' : `\n        fix: ${fix}`}`
}

import { createInterface } from 'node:readline/promises'
import { EXIT_CODE } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { Deprovision, type NodeProvisions } from '../../core/runtime/deprovision.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import { type Command, type CommandIo, flag } from './command.ts'

export const deprovisionCommand: Command = {
  name: 'deprovision',
  summary: 'Remove what a mesh that is given up keeps on its source servers',
  help: `millrace deprovision FILE [NODE] [--yes]

Postgres keeps WAL for a replication slot until somebody drops it: a mesh that never runs again fills the server's disk. This drops the slot and the
publication of each source, or of NODE alone; MySQL keeps nothing for us. It first shows what it found and asks; where nobody can be asked, nothing is
dropped without --yes, and the exit code is 2. It refuses while the mesh runs. What is gone already is no error. Streams, targets and the stored
progress stay as they are. If the mesh is run again nevertheless, its sources halt with source.history_lost, since the changes made in between are in
no stream, until they are read anew: millrace run FILE --resnapshot NODE.

Examples:
  millrace deprovision shop.mesh.yaml              show it, and ask
  millrace deprovision shop.mesh.yaml --yes        for scripts
  millrace deprovision shop.mesh.yaml shop --json  what would be dropped for one source

Options:
  --yes  drop it without asking
${LOG_HELP}`,
  options: { yes: { type: 'boolean' }, ...LOG_OPTIONS },
  arguments: [1, 2],
  async run(input) {
    const mesh = await loadMesh(input.arguments[0]!, input.plugins)
    const secrets = input.secrets(mesh.dir)
    await using log = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'warn' })
    using deprovision = new Deprovision(mesh, input.arguments[1] ?? null, { secrets, logger: log.logger })
    const nodes = await deprovision.list()
    const found = describe(nodes)
    if (!nodes.some(({ items }) => items.some(({ stays }) => stays === null))) {
      return { exitCode: 0, result: { nodes, dropped: false }, text: [...found, 'nothing to drop'].join('\n') }
    }
    if (!flag(input, 'yes') && !(await isConfirmed(input.io, found, flag(input, 'json')))) {
      const text = [...found, 'nothing was dropped: say --yes'].join('\n')
      return { exitCode: EXIT_CODE.config, result: { nodes, dropped: false }, text }
    }
    await deprovision.drop()
    return { exitCode: 0, result: { nodes, dropped: true }, text: [...found, 'dropped'].join('\n') }
  },
}

function describe(nodes: readonly NodeProvisions[]): string[] {
  return nodes.flatMap(({ node, items }) =>
    items.map(({ kind, name, note, stays }) => `${node}: ${kind} ${name}${note === null ? '' : ` (${note})`}${stays === null ? '' : `; stays: ${stays}`}`),
  )
}

/** Asks on stderr; false when nobody can be asked. */
async function isConfirmed({ stdin, stderr, signal }: CommandIo, found: readonly string[], json: boolean): Promise<boolean> {
  if (json || stdin.isTTY !== true || stderr.isTTY !== true) return false
  const questions = createInterface({ input: stdin, output: stderr })
  try {
    const answer = await questions.question(`${found.join('\n')}\nDrop this for good? [y/N] `, { signal })
    return /^y(es)?$/i.test(answer.trim())
  } catch {
    return false
  } finally {
    questions.close()
  }
}

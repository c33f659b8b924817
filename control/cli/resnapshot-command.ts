import { existsSync } from 'node:fs'
import { MillraceError } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { DataFolder } from '../../core/runtime/data-folder.ts'
import { openLog } from '../../core/runtime/open-log.ts'
import { checkResnapshot, parseResnapshot, pausedSource } from '../../core/runtime/resnapshot.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import type { Command } from './command.ts'
import { askRunning, commandRunning } from './running-mesh.ts'

export const resnapshotCommand: Command = {
  name: 'resnapshot',
  summary: 'Read a table, or all of a source, again; a parked table goes on',
  help: `millrace resnapshot FILE NODE[/TABLE]

The streams are emptied by a truncation and filled again while changes go on, and so is everything that follows them. A parked table goes on with it: correct
what parked it first (millrace status shows it). For a table that is gone it says that this is known. While the mesh runs it happens at once, or as
soon as the source can be reached, also after a restart; the source starts again for it (a paused one is to be resumed first). Otherwise it is noted in the
data folder and happens with the next millrace run on it, unless another process has the source then: where the mesh runs elsewhere, ask there. Without
TABLE, the source starts over as after a lost history.

Examples:
  millrace resnapshot shop.mesh.yaml shop/public.orders
  millrace resnapshot shop.mesh.yaml shop

Options:
${LOG_HELP}`,
  options: LOG_OPTIONS,
  arguments: [2, 2],
  async run(input) {
    const mesh = await loadMesh(input.arguments[0]!, input.plugins)
    const wanted = parseResnapshot(mesh, input.arguments[1]!)
    const what = wanted.table === null ? `all tables of ${wanted.node}` : `${wanted.table} of ${wanted.node}`
    const running = await askRunning(mesh.dataDir)
    if (running !== null) {
      if (!(await commandRunning(mesh.dataDir, wanted.node, 'resnapshot', wanted.table))) {
        throw new MillraceError('config.invalid', `the source ${wanted.node} has captured no table ${wanted.table}`, { fix: 'write it as NODE/schema.table' })
      }
      return { exitCode: 0, result: { ...wanted, running: true }, text: `${what}: being read again` }
    }
    const secrets = input.secrets(mesh.dir)
    // with Kafka as the log it may run elsewhere
    if (mesh.log.resolve(secrets, mesh.dir).kind === 'embedded' && !existsSync(mesh.dataDir)) {
      throw new MillraceError('config.invalid', `the mesh ${mesh.name} never ran here: there is no data folder ${mesh.dataDir}`, {
        fix: 'ask where it runs; where it never did, millrace run FILE reads all tables',
      })
    }
    using folder = new DataFolder(mesh.dataDir)
    if (folder.paused.has(wanted.node)) throw pausedSource(wanted.node)
    await using logger = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'warn' })
    if (wanted.table !== null) {
      await using log = await openLog({ mesh, secrets, logger: logger.logger, readOnly: true })
      await checkResnapshot(log, wanted)
    }
    // not in the log: whoever writes there takes the source from the process that has it, on Kafka perhaps one elsewhere
    folder.want(wanted.node, wanted.table)
    return { exitCode: 0, result: { ...wanted, running: false }, text: `${what}: read again with the next millrace run` }
  },
}

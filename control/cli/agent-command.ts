import { MillraceError } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { loadCode } from '../../core/runtime/open-log.ts'
import { runMesh } from '../../core/runtime/runtime.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import { type Command, textOption } from './command.ts'
import { beginAgainIfCompiled } from './compile-cache.ts'

export const agentCommand: Command = {
  name: 'agent',
  summary: 'Run the sources of one kind of a mesh, beside the database that they read',
  help: `millrace agent KIND --config FILE [options]

Runs those sources of a mesh file whose kind is KIND and nothing else of it: for a source that reads files of a database's machine, as cassandra does. Its
log is the mesh's; when the sinks run elsewhere, that is Kafka. Where the rest runs, leave these sources paused (\`millrace pause FILE NODE\`).

Examples:
  millrace agent cassandra --config shop.mesh.yaml
  millrace agent cassandra --config shop.mesh.yaml --port 9464

Options:
  --config FILE       the mesh file
  --port PORT         for /metrics, /status, /health/live, /health/ready; default any free port
  --host ADDRESS      to listen on; default 127.0.0.1
${LOG_HELP}`,
  options: { config: { type: 'string' }, port: { type: 'string' }, host: { type: 'string' }, ...LOG_OPTIONS },
  arguments: [1, 1],
  async run(input) {
    const kind = input.arguments[0]!
    const file = textOption(input, 'config')
    if (file === undefined) throw new MillraceError('config.invalid', 'no mesh file is given', { fix: `millrace agent ${kind} --config FILE` })
    const whole = await loadMesh(file, input.plugins)
    const sources = whole.sources.filter(({ plugin }) => plugin.name === kind)
    if (sources.length === 0) throw new MillraceError('node.unknown', `${file} has no source of kind ${kind}`, { fix: 'name the kind of one of its sources' })
    const mesh = { ...whole, sources, sinks: [] }
    const secrets = input.secrets(mesh.dir)
    await loadCode({ mesh, secrets })
    beginAgainIfCompiled()
    await using log = openCliLogger(input, { redact: (text) => secrets.redact(text) })
    const host = textOption(input, 'host')
    const port = textOption(input, 'port')
    if (port !== undefined && !/^\d{1,5}$/.test(port)) throw new MillraceError('config.invalid', `--port ${port} is no port`, { fix: 'a number up to 65535' })
    const result = await runMesh(mesh, {
      secrets,
      logger: log.logger,
      signal: input.io.signal,
      ...(host === undefined ? {} : { host }),
      ...(port === undefined ? {} : { port: Number(port) }),
    })
    return { exitCode: result.exitCode, result, text: `${result.outcome === 'failed' ? 'ended: no source is left that can go on' : 'stopped'}\n` }
  },
}

import { MillraceError } from '../../core/errors.ts'
import type { Mesh, SourceNode } from '../../core/mesh/mesh.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { loadCode } from '../../core/runtime/open-log.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import { type Command, type CommandInput, type CommandOutcome, textOption } from './command.ts'
import { beginAgainIfCompiled } from './compile-cache.ts'
import { renderStanding } from './live-view.ts'

export const agentCommand: Command = {
  name: 'agent',
  summary: 'Run the sources of one kind of a mesh, beside the database that they read',
  help: `millrace agent KIND --config FILE [options]

Runs those sources of a mesh file whose kind is KIND and nothing else of it: for a source that reads files of a database's machine, as cassandra does. Its
log is the mesh's; when the sinks run elsewhere, that is Kafka. Where the rest runs, leave these sources paused (\`millrace pause FILE NODE\`).

With --serve it runs no source: it gives the one that runs elsewhere what only this machine has, as the log of a node of Cassandra.

Examples:
  millrace agent cassandra --config shop.mesh.yaml
  millrace agent cassandra --config shop.mesh.yaml --port 9464
  millrace agent cassandra --config shop.mesh.yaml --serve 10.0.0.1:9472

Options:
  --config FILE       the mesh file
  --port PORT         for /metrics, /status, /health/live, /health/ready; default any free port
  --host ADDRESS      to listen on; default 127.0.0.1
  --serve HOST:PORT   serve what the source reads here, at this address, and capture nothing
${LOG_HELP}`,
  options: { config: { type: 'string' }, port: { type: 'string' }, host: { type: 'string' }, serve: { type: 'string' }, ...LOG_OPTIONS },
  arguments: [1, 1],
  async run(input) {
    const kind = input.arguments[0]!
    const file = textOption(input, 'config')
    if (file === undefined) throw new MillraceError('config.invalid', 'no mesh file is given', { fix: `millrace agent ${kind} --config FILE` })
    const whole = await loadMesh(file, input.plugins)
    const sources = whole.sources.filter(({ plugin }) => plugin.name === kind)
    if (sources.length === 0) throw new MillraceError('node.unknown', `${file} has no source of kind ${kind}`, { fix: 'name the kind of one of its sources' })
    const address = textOption(input, 'serve')
    if (address !== undefined) return serve(input, whole, sources, address)
    const mesh = { ...whole, sources, sinks: [] }
    const secrets = input.secrets(mesh.dir)
    await loadCode({ mesh, secrets })
    const { runMesh } = await import('../../core/runtime/runtime.ts')
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
    input.io.stderr.write(renderStanding(result.status))
    return { exitCode: result.exitCode, result, text: `${result.outcome === 'failed' ? 'ended: no source is left that can go on' : 'stopped'}\n` }
  },
}

async function serve(input: CommandInput, mesh: Mesh, sources: readonly SourceNode[], address: string): Promise<CommandOutcome> {
  const [source, ...more] = sources
  const { plugin, settings, name } = source!
  if (more.length > 0 || plugin.serve === undefined) {
    const why = more.length > 0 ? `${mesh.file} has several sources of kind ${plugin.name}` : `a source of kind ${plugin.name} has nothing to serve`
    throw new MillraceError('config.invalid', why, { fix: more.length > 0 ? 'give the agent a mesh file with one of them' : 'run it without --serve' })
  }
  const [, host, port] = /^(.+):(\d{1,5})$/.exec(address) ?? []
  if (host === undefined) throw new MillraceError('config.invalid', `--serve ${address} is no address`, { fix: 'write HOST:PORT' })
  const secrets = input.secrets(mesh.dir)
  beginAgainIfCompiled()
  await using log = openCliLogger(input, { redact: (text) => secrets.redact(text) })
  const context = { mesh: mesh.name, node: name, dataDir: mesh.dataDir, logger: log.logger.child({ node: name }), metric: () => {} }
  await plugin.serve(settings.resolve(secrets, mesh.dir), context, { host, port: Number(port) }, input.io.signal)
  return { exitCode: 0, result: { served: address }, text: 'stopped\n' }
}

import { MillraceError } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { pause } from '../../core/retry.ts'
import { openRegistry } from '../../core/runtime/open-log.ts'
import type { EmbeddedRegistry } from '../../core/schema/embedded-registry.ts'
import { type Command, flag, textOption } from './command.ts'

const DEFAULT_PORT = 8081
const LOOK_MS = 60_000

export const registryCommand: Command = {
  name: 'registry',
  summary: 'Serve the embedded registry to other programs',
  help: `millrace registry serve --mesh FILE [options]

Serves the embedded schema registry of a mesh with Confluent's REST interface, until it is stopped: for Confluent's serializers, kcat, Flink and others that
read the mesh's topics. A mesh that runs serves it by itself when its file says \`registry: { kind: embedded, port: 8081 }\`; this is for when none runs, and
may run beside one on another port. There is no authentication: keep it on this machine, or behind a proxy.

Examples:
  millrace registry serve --mesh shop.mesh.yaml                            on 127.0.0.1:8081, or as the mesh file says
  millrace registry serve --mesh shop.mesh.yaml --port 8082 --read-only    others may look and check, not register

Options:
  --mesh FILE      the registry of this mesh
  --port PORT      0 takes a free one; default: registry.port of the mesh, or ${DEFAULT_PORT}
  --host ADDRESS   to listen on; default: registry.host of the mesh, or 127.0.0.1
  --read-only      refuse what would change something (error 42205)`,
  options: { mesh: { type: 'string' }, port: { type: 'string' }, host: { type: 'string' }, 'read-only': { type: 'boolean' } },
  arguments: [1, 1],
  async run(input) {
    const [action] = input.arguments
    const file = textOption(input, 'mesh')
    if (action !== 'serve') throw new MillraceError('config.invalid', `registry: there is no ${action}`, { fix: 'millrace registry serve --mesh FILE' })
    if (file === undefined) throw new MillraceError('config.invalid', 'registry serve needs a mesh', { fix: 'give --mesh FILE' })
    const mesh = await loadMesh(file, input.plugins)
    const secrets = input.secrets(mesh.dir)
    const config = mesh.registry.resolve(secrets, mesh.dir)
    if (config.kind !== 'embedded') {
      throw new MillraceError('config.unsupported', `the registry of ${mesh.name} is a server already`, { fix: `ask it at ${config.url}` })
    }
    await using registry = await openRegistry({ mesh, secrets })
    const { serveRegistry } = await import('../../core/schema/serve-registry.ts')
    await using server = await serveRegistry(registry as EmbeddedRegistry, {
      port: portOf(textOption(input, 'port')) ?? config.port ?? DEFAULT_PORT,
      host: textOption(input, 'host') ?? config.host,
      readOnly: config.readOnly || flag(input, 'read-only'),
    })
    input.io.stderr.write(`the schema registry of ${mesh.name} listens on ${server.url}; Ctrl-C ends it\n`)
    while (!input.io.signal.aborted) await pause(LOOK_MS, input.io.signal)
    return { exitCode: 0, result: { url: server.url }, text: 'stopped\n' }
  },
}

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text)
  throw new MillraceError('config.invalid', `--port ${text} is no port`, { fix: 'a number from 0 to 65535' })
}

import { readFileSync } from 'node:fs'
import { EXIT_CODE, MillraceError } from '../../core/errors.ts'
import { nearest } from '../../core/mesh/edit-distance.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { hasReference, safeDecode } from '../../core/mesh/secrets.ts'
import { openRegistry } from '../../core/runtime/open-log.ts'
import type { ConfluentRegistryOptions } from '../../core/schema/confluent-registry.ts'
import type { SchemaRegistry } from '../../core/schema/registry.ts'
import { type Command, type CommandInput, type CommandOutcome, textOption } from './command.ts'
import { checkSchema, diffSchemas, listSchemas, showSchema } from './schema-views.ts'

const ACTIONS = ['list', 'show', 'diff', 'check'] as const

export const schemasCommand: Command = {
  name: 'schemas',
  summary: 'List, show, compare and check Avro schemas in the registry',
  help: `millrace schemas list|show|diff|check … --mesh FILE | --url URL

Reads the registry of a mesh, or any with the Confluent REST interface. Nothing is registered. \`check\` ends with exit code 2 when the schema breaks the
subject's compatibility level.

Examples:
  millrace schemas list --mesh shop.mesh.yaml                                  all subjects
  millrace schemas list shop.public. --mesh shop.mesh.yaml                     those that begin so
  millrace schemas show shop.public.orders-value --mesh shop.mesh.yaml         the latest; --version 2 for another
  millrace schemas diff shop.public.orders-value 1 3 --mesh shop.mesh.yaml     without versions: the last two
  millrace schemas check shop.public.orders-value new.avsc --url http://localhost:8081
  millrace schemas list --url https://registry:8081 --user 'reader:\${env:REGISTRY_PASSWORD}'

Options:
  --mesh FILE     the registry of this mesh
  --url URL       a Confluent-compatible registry
  --user LOGIN    for --url: NAME:\${env:VARIABLE} or NAME:\${file:path}; in quotes, since the shell must not resolve it
  --token TOKEN   for --url: \${env:VARIABLE} or \${file:path}
  --version N     for show`,
  options: { mesh: { type: 'string' }, url: { type: 'string' }, user: { type: 'string' }, token: { type: 'string' }, version: { type: 'string' } },
  arguments: [1, 4],
  async run(input) {
    const [action, ...rest] = input.arguments as [string, ...string[]]
    if (!(ACTIONS as readonly string[]).includes(action)) {
      const meant = nearest(action, ACTIONS)
      throw new MillraceError('config.invalid', `schemas: there is no ${action}`, {
        fix: meant === null ? `one of: ${ACTIONS.join(', ')}` : `millrace schemas ${meant}`,
      })
    }
    await using registry = await registryOf(input)
    return await act(registry, action as (typeof ACTIONS)[number], rest, input)
  },
}

async function act(registry: SchemaRegistry, action: (typeof ACTIONS)[number], rest: readonly string[], input: CommandInput): Promise<CommandOutcome> {
  if (action === 'list') return { exitCode: 0, ...(await listSchemas(registry, rest[0])) }
  const subject = rest[0]
  if (subject === undefined) throw new MillraceError('config.invalid', `schemas ${action} needs a subject`, { fix: 'millrace schemas list shows them' })
  if (action === 'show') return { exitCode: 0, ...(await showSchema(registry, subject, version(textOption(input, 'version')))) }
  if (action === 'diff') return { exitCode: 0, ...(await diffSchemas(registry, subject, version(rest[1]), version(rest[2]))) }
  const file = rest[1]
  if (file === undefined) throw new MillraceError('config.invalid', 'schemas check needs a schema file', { fix: `millrace schemas check ${subject} new.avsc` })
  const checked = await checkSchema(registry, subject, textOf(file))
  return { exitCode: checked.result.compatible ? 0 : EXIT_CODE.schema, ...checked }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new MillraceError('config.invalid', `the schema file ${file} cannot be read`, { cause, fix: 'name a file with an Avro schema as JSON' })
  }
}

function version(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new MillraceError('config.invalid', `${text} is no version`, { fix: 'versions are whole numbers from 1 on' })
  return Number(text)
}

/** The registry of `--url`, with the login of `--user`, `--token` or of the URL itself. What is secret in it appears in no output. */
function accessOf(input: CommandInput, url: string): ConfluentRegistryOptions {
  const secrets = input.secrets('.')
  const given = (option: string): string | undefined => {
    const text = textOption(input, option)
    if (text === undefined) return undefined
    if (!hasReference(text)) {
      throw new MillraceError('config.invalid', `--${option} holds a secret in clear text, which every user of this machine can see`, {
        fix: `--${option} '${option === 'user' ? 'NAME:' : ''}\${env:VARIABLE}', in quotes`,
      })
    }
    return secrets.resolve(text, { file: `--${option}`, line: 1, column: 1 })
  }
  const [user, token] = [given('user'), given('token')]
  const where = secrets.resolve(url, { file: '--url', line: 1, column: 1 })
  if (token !== undefined) return { url: where, auth: { kind: 'bearer', token } }
  if (user !== undefined) {
    const colon = user.indexOf(':')
    return { url: where, auth: { kind: 'basic', username: user.slice(0, colon < 0 ? user.length : colon), password: colon < 0 ? '' : user.slice(colon + 1) } }
  }
  if (!URL.canParse(where)) return { url: where }
  const plain = new URL(where)
  const { username, password } = plain
  if (username === '') return { url: where }
  plain.username = ''
  plain.password = ''
  return { url: plain.href, auth: { kind: 'basic', username: safeDecode(username), password: safeDecode(password) } }
}

async function registryOf(input: CommandInput): Promise<SchemaRegistry> {
  const file = textOption(input, 'mesh')
  const url = textOption(input, 'url')
  if ((file === undefined) === (url === undefined))
    throw new MillraceError('config.invalid', 'schemas needs to know which registry', { fix: 'give --mesh FILE or --url URL' })
  if (url !== undefined) {
    const { openConfluentRegistry } = await import('../../core/schema/confluent-registry.ts')
    return openConfluentRegistry(accessOf(input, url))
  }
  const mesh = await loadMesh(file!, input.plugins)
  return openRegistry({ mesh, secrets: input.secrets(mesh.dir) })
}

/** Confluent's schema registry REST interface over the embedded registry. Source: Confluent, "Schema Registry API Reference". */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'
import { MillraceError } from '../errors.ts'
import { http } from '../node-http.ts'
import type { EmbeddedRegistry, RegistryOperations } from './embedded-registry.ts'
import { COMPATIBILITY_LEVELS } from './registry.ts'
import { RegistryRefusal, refusals } from './registry-refusal.ts'
import { REGISTRY_MODES, type StoredSchema, type StoredVersion } from './schema-store.ts'

export interface ServeRegistryOptions {
  /** 0 takes a free one. */
  readonly port: number
  /** The interface speaks without authentication: keep it on 127.0.0.1 (the default) or behind a proxy. */
  readonly host?: string
  /** Refuses what would change something. Default false. */
  readonly readOnly?: boolean
}

export interface RegistryServer extends AsyncDisposable {
  readonly url: string
}

const CONTENT_TYPE = 'application/vnd.schemaregistry.v1+json'
const MAX_BODY_BYTES = 16 * 1024 * 1024

/** Serves until it is disposed of; does not own the registry. @throws config.invalid when the port is taken or not allowed */
export async function serveRegistry(registry: EmbeddedRegistry, options: ServeRegistryOptions): Promise<RegistryServer> {
  const readOnly = options.readOnly === true
  const server = http.createServer((request, response) => void answer(registry.operations, readOnly, request, response))
  const host = options.host ?? '127.0.0.1'
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new MillraceError('config.invalid', `the registry cannot listen on ${host}:${options.port}: ${cause.message}`, {
          cause,
          fix: 'choose another port (`registry.port`); a mesh that runs may serve it already',
        }),
      )
    })
    server.listen(options.port, host, resolve)
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

interface Call {
  readonly registry: RegistryOperations
  /** Decoded parts of the path that the route names. */
  readonly path: readonly string[]
  readonly query: URLSearchParams
  readonly body: unknown
}

type Handler = (call: Call) => unknown
type Route = readonly [method: string, pattern: RegExp, handler: Handler]

const flag = (call: Call, name: string): boolean => call.query.get(name) === 'true'

const registration = z.object({
  schema: z.string(),
  schemaType: z.string().nullish(),
  references: z.array(z.object({ name: z.string(), subject: z.string(), version: z.int() })).nullish(),
  id: z.int().nullish(),
  version: z.int().nullish(),
})

function requested(call: Call) {
  const { schema, schemaType, references, id, version } = parse(registration, call.body, (why) => refusals.invalidSchema(why))
  if (schemaType != null && schemaType !== 'AVRO') throw refusals.invalidSchema(`the type ${schemaType} is not supported, only AVRO is`)
  return {
    schema,
    references: references ?? [],
    normalize: flag(call, 'normalize'),
    ...(id == null || id < 0 ? {} : { id }),
    ...(version == null || version < 1 ? {} : { version }),
  }
}

function versionOf(text: string): number | 'latest' {
  if (text === 'latest' || text === '-1') return 'latest'
  const version = Number(text)
  if (!/^[0-9]+$/.test(text) || version < 1 || version > 0x7fff_ffff) throw refusals.invalidVersion(text)
  return version
}

function idOf(text: string): number {
  if (!/^[0-9]{1,10}$/.test(text)) throw new RegistryRefusal(404, 'HTTP 404 Not Found')
  return Number(text)
}

const schemaBody = ({ schema, references }: StoredSchema) => ({ schema, ...(references.length === 0 ? {} : { references }) })
const versionBody = (version: StoredVersion) => ({
  subject: version.subject,
  version: version.version,
  id: version.id,
  schemaType: 'AVRO',
  ...schemaBody(version),
})

function level(body: unknown) {
  const { compatibility } = parse(z.object({ compatibility: z.string() }), body, () => refusals.invalidLevel())
  return COMPATIBILITY_LEVELS.find((known) => known === compatibility.toUpperCase()) ?? refuse(refusals.invalidLevel())
}

function mode(body: unknown) {
  const { mode: name } = parse(z.object({ mode: z.string() }), body, () => refusals.invalidMode())
  return REGISTRY_MODES.find((known) => known === name.toUpperCase()) ?? refuse(refusals.invalidMode())
}

function check(call: Call, against: 'all' | 'latest' | number) {
  const messages = call.registry.check(call.path[0]!, requested(call), against)
  return { is_compatible: messages.length === 0, ...(flag(call, 'verbose') ? { messages } : {}) }
}

const ROUTES: readonly Route[] = [
  ['GET', /^\/$/, () => ({})],
  ['GET', /^\/contexts$/, () => ['.']],
  ['GET', /^\/schemas\/types$/, () => ['AVRO']],
  [
    'GET',
    /^\/schemas$/,
    ({ registry, query }) => {
      const versions = registry.allVersions().filter(({ subject }) => subject.startsWith(query.get('subjectPrefix') ?? ''))
      const latest = new Map(versions.map((version) => [version.subject, version]))
      return (query.get('latestOnly') === 'true' ? [...latest.values()] : versions).map(versionBody)
    },
  ],
  ['GET', /^\/schemas\/ids\/([^/]+)$/, ({ registry, path }) => schemaBody(registry.schema(idOf(path[0]!)))],
  ['GET', /^\/schemas\/ids\/([^/]+)\/schema$/, ({ registry, path }) => raw(registry.schema(idOf(path[0]!)).schema)],
  ['GET', /^\/schemas\/ids\/([^/]+)\/subjects$/, (call) => [...new Set(versionsOfId(call).map(({ subject }) => subject))]],
  ['GET', /^\/schemas\/ids\/([^/]+)\/versions$/, (call) => versionsOfId(call).map(({ subject, version }) => ({ subject, version }))],
  [
    'GET',
    /^\/subjects$/,
    (call) => {
      const which = flag(call, 'deletedOnly') ? 'deleted' : flag(call, 'deleted') ? 'all' : 'live'
      return call.registry.subjects(which).filter((subject) => subject.startsWith(call.query.get('subjectPrefix') ?? ''))
    },
  ],
  ['POST', /^\/subjects\/([^/]+)$/, (call) => versionBody(call.registry.lookUp(call.path[0]!, requested(call), flag(call, 'deleted')))],
  ['DELETE', /^\/subjects\/([^/]+)$/, (call) => call.registry.deleteSubject(call.path[0]!, flag(call, 'permanent'))],
  ['GET', /^\/subjects\/([^/]+)\/versions$/, (call) => call.registry.versions(call.path[0]!, flag(call, 'deleted')).map(({ version }) => version)],
  ['POST', /^\/subjects\/([^/]+)\/versions$/, (call) => ({ id: call.registry.register(call.path[0]!, requested(call)) })],
  ['GET', /^\/subjects\/([^/]+)\/versions\/([^/]+)$/, (call) => versionBody(versionAt(call))],
  ['GET', /^\/subjects\/([^/]+)\/versions\/([^/]+)\/schema$/, (call) => raw(versionAt(call).schema)],
  ['GET', /^\/subjects\/([^/]+)\/versions\/([^/]+)\/referencedby$/, ({ registry, path }) => registry.referencedBy(path[0]!, versionOf(path[1]!))],
  [
    'DELETE',
    /^\/subjects\/([^/]+)\/versions\/([^/]+)$/,
    (call) => call.registry.deleteVersion(call.path[0]!, versionOf(call.path[1]!), flag(call, 'permanent')),
  ],
  ['POST', /^\/compatibility\/subjects\/([^/]+)\/versions$/, (call) => check(call, 'all')],
  ['POST', /^\/compatibility\/subjects\/([^/]+)\/versions\/([^/]+)$/, (call) => check(call, versionOf(call.path[1]!))],
  ['GET', /^\/config$/, ({ registry }) => ({ compatibilityLevel: registry.level('') })],
  [
    'PUT',
    /^\/config(?:\/([^/]+))?$/,
    ({ registry, path, body }) => {
      registry.setLevel(path[0] ?? '', level(body))
      return { compatibility: level(body) }
    },
  ],
  [
    'GET',
    /^\/config\/([^/]+)$/,
    (call) => {
      const subject = call.path[0]!
      const own = call.registry.ownLevel(subject)
      if (own === null && !flag(call, 'defaultToGlobal')) throw refusals.noSubjectLevel(subject)
      return { compatibilityLevel: own ?? call.registry.level(subject) }
    },
  ],
  [
    'DELETE',
    /^\/config(?:\/([^/]+))?$/,
    ({ registry, path }) => {
      const subject = path[0] ?? ''
      const old = registry.ownLevel(subject)
      if (old === null && subject !== '') throw refusals.noSubjectLevel(subject)
      registry.setLevel(subject, null)
      return { compatibilityLevel: old ?? registry.level(subject) }
    },
  ],
  ['GET', /^\/mode$/, ({ registry }) => ({ mode: registry.mode('') })],
  [
    'PUT',
    /^\/mode(?:\/([^/]+))?$/,
    (call) => {
      call.registry.setMode(call.path[0] ?? '', mode(call.body), flag(call, 'force'))
      return { mode: mode(call.body) }
    },
  ],
  [
    'GET',
    /^\/mode\/([^/]+)$/,
    (call) => {
      const subject = call.path[0]!
      const own = call.registry.ownMode(subject)
      if (own === null && !flag(call, 'defaultToGlobal')) throw refusals.noSubjectMode(subject)
      return { mode: own ?? call.registry.mode(subject) }
    },
  ],
  [
    'DELETE',
    /^\/mode\/([^/]+)$/,
    ({ registry, path }) => {
      const subject = path[0]!
      const old = registry.ownMode(subject) ?? refuse(refusals.noSubjectMode(subject))
      registry.setMode(subject, null, false)
      return { mode: old }
    },
  ],
]

const versionsOfId = (call: Call) => call.registry.versionsOfId(idOf(call.path[0]!), flag(call, 'deleted'))
const versionAt = (call: Call) => call.registry.version(call.path[0]!, versionOf(call.path[1]!), flag(call, 'deleted'))

/** A schema as the answer itself, not as a JSON string in it. */
class RawText {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

function raw(text: string): RawText {
  return new RawText(text)
}

/** Questions that are asked with a body. */
const ASKED_BY_POST = /^\/(subjects\/[^/]+|compatibility\/.*)$/

function isReading(method: string | undefined, pathname: string): boolean {
  return method === 'GET' || (method === 'POST' && ASKED_BY_POST.test(pathname))
}

async function answer(registry: RegistryOperations, readOnly: boolean, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    const url = new URL(request.url ?? '/', 'http://registry')
    const pathname = url.pathname.length > 1 ? url.pathname.replace(/\/+$/, '') : url.pathname
    const matching = ROUTES.filter(([, pattern]) => pattern.test(pathname))
    if (matching.length === 0) throw new RegistryRefusal(404, 'HTTP 404 Not Found')
    const route = matching.find(([method]) => method === request.method) ?? refuse(new RegistryRefusal(405, 'HTTP 405 Method Not Allowed'))
    if (readOnly && !isReading(request.method, pathname)) throw refusals.notPermitted('This registry is served read-only')
    const path = route[1]
      .exec(pathname)!
      .slice(1)
      .filter((part) => part !== undefined)
      .map(decode)
    const body = await readBody(request)
    send(response, 200, route[2]({ registry, path, query: url.searchParams, body }))
  } catch (error) {
    if (error instanceof RegistryRefusal) send(response, error.status, { error_code: error.code, message: error.message })
    else send(response, 500, { error_code: 50001, message: `Error in the backend data store: ${error instanceof Error ? error.message : String(error)}` })
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = body instanceof RawText ? body.text : JSON.stringify(body)
  response.writeHead(status, { 'content-type': CONTENT_TYPE, 'content-length': Buffer.byteLength(text) })
  response.end(text)
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    sizeBytes += part.length
    if (sizeBytes > MAX_BODY_BYTES) throw new RegistryRefusal(413, 'HTTP 413 Content Too Large')
    parts.push(part)
  }
  if (sizeBytes === 0) return undefined
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'))
  } catch {
    throw new RegistryRefusal(400, 'the body is not JSON')
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    throw new RegistryRefusal(400, 'the path is not percent-encoded correctly')
  }
}

function parse<T>(shape: z.ZodType<T>, body: unknown, refusal: (why: string) => RegistryRefusal): T {
  const result = shape.safeParse(body)
  if (result.success) return result.data
  throw refusal(result.error.issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`).join('; '))
}

function refuse(error: RegistryRefusal): never {
  throw error
}

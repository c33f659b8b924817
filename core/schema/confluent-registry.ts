import https from 'node:https'
import { RestError } from '@confluentinc/schemaregistry/dist/rest-error.js'
// The package's index loads the clouds' key-management clients (1.2 s, 150 MB); its REST service carries all that is needed here.
import { type ClientConfig, RestService } from '@confluentinc/schemaregistry/dist/rest-service.js'
import { z } from 'zod'
import { MillraceError } from '../errors.ts'
import { parseAvroSchema } from './avro-schema.ts'
import { breaksAt } from './compatibility.ts'
import { COMPATIBILITY_LEVELS, type CompatibilityLevel, type SchemaRegistry, type SchemaVersion } from './registry.ts'
import { errorOfRefusal } from './registry-refusal.ts'

export interface ConfluentRegistryOptions {
  /** Root of the Confluent API. */
  readonly url: string
  readonly auth?:
    | { readonly kind: 'basic'; readonly username: string; readonly password: string }
    | { readonly kind: 'bearer'; readonly token: string }
    | undefined
  /** PEM texts. */
  readonly ssl?:
    | boolean
    | {
        readonly ca?: string | undefined
        readonly cert?: string | undefined
        readonly key?: string | undefined
        readonly servername?: string | undefined
        readonly rejectUnauthorized?: boolean | undefined
      }
    | undefined
  /** Longest wait for one answer. Default 10 000. */
  readonly timeoutMs?: number | undefined
}

/** Opens without asking the server anything: the first call finds out whether it is there. @throws config.invalid */
export function openConfluentRegistry(options: ConfluentRegistryOptions): ConfluentRegistry {
  if (!URL.canParse(options.url))
    throw new MillraceError('config.invalid', 'the registry URL is not a URL', { fix: 'set `registry.url` to http(s)://host:port' })
  return new ConfluentRegistry(options)
}

const registered = z.object({ id: z.int() })
const schemaText = z.object({ schema: z.string(), schemaType: z.string().nullish() })
const schemaVersion = schemaText.extend({ subject: z.string(), version: z.int(), id: z.int() })
const verdict = z.object({ is_compatible: z.boolean(), messages: z.array(z.string()).nullish() })
const config = z.object({ compatibilityLevel: z.enum(COMPATIBILITY_LEVELS) })
/** Requests at once where many versions are read. */
const PARALLEL = 8

/**
 * Any registry with Confluent's REST interface, through Confluent's client. Schemas are kept by id for ever (ids never change their schema); nothing
 * else is cached. Calls may overlap. The client retries a few times by itself; whoever calls decides about more.
 */
export class ConfluentRegistry implements SchemaRegistry {
  readonly #rest: RestService
  readonly #agent: https.Agent | undefined
  readonly #schemas = new Map<number, string>()
  readonly #where: string

  constructor(options: ConfluentRegistryOptions) {
    const { auth, ssl } = options
    const url = new URL(options.url)
    this.#where = url.host
    if (typeof ssl === 'object') {
      this.#agent = new https.Agent({
        keepAlive: true,
        ...(Object.fromEntries(Object.entries(ssl).filter(([, value]) => value !== undefined)) as https.AgentOptions),
      })
    }
    const defaults: NonNullable<ClientConfig['createAxiosDefaults']> = {
      timeout: options.timeoutMs ?? 10_000,
      // Nothing of the environment (HTTP_PROXY, .netrc) decides where schemas come from.
      proxy: false,
      ...(this.#agent === undefined ? {} : { httpsAgent: this.#agent }),
      ...(auth?.kind === 'bearer' ? { headers: { common: { Authorization: `Bearer ${auth.token}` } } as never } : {}),
    }
    const basic = auth?.kind === 'basic' ? { credentialsSource: 'USER_INFO' as const, userInfo: `${auth.username}:${auth.password}` } : undefined
    this.#rest = new RestService([options.url.replace(/\/+$/, '')], false, defaults, basic, undefined, 2, 100, 1000)
  }

  async register(subject: string, schema: string): Promise<number> {
    try {
      const path = `/subjects/${encodeURIComponent(subject)}/versions`
      return (await this.#call(`register a schema under ${subject}`, registered, 'POST', path, { schema })).id
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'schema.incompatible') throw error
      // Not every registry says in its refusal what breaks; asking again must not hide the refusal itself.
      const breaks = await this.incompatibilities(subject, schema).catch(() => [])
      if (breaks.length === 0) throw error
      throw new MillraceError('schema.incompatible', `the schema breaks the level of ${subject}: ${breaks.join('; ')}`, {
        cause: error,
        ...(error.fix === undefined ? {} : { fix: error.fix }),
      })
    }
  }

  async schema(id: number): Promise<string> {
    const known = this.#schemas.get(id)
    if (known !== undefined) return known
    const { schema, schemaType } = await this.#call(`read schema ${id}`, schemaText, 'GET', `/schemas/ids/${id}`)
    if (schemaType != null && schemaType !== 'AVRO') throw new MillraceError('schema.invalid', `schema ${id} is ${schemaType}, not Avro`)
    this.#schemas.set(id, schema)
    return schema
  }

  async subjects(): Promise<readonly string[]> {
    return this.#call('list subjects', z.array(z.string()), 'GET', '/subjects')
  }

  async versions(subject: string): Promise<readonly SchemaVersion[]> {
    const path = `/subjects/${encodeURIComponent(subject)}/versions`
    const numbers = await this.#call(`list versions of ${subject}`, z.array(z.int()), 'GET', path)
    const versions: SchemaVersion[] = []
    for (let from = 0; from < numbers.length; from += PARALLEL) {
      const some = numbers.slice(from, from + PARALLEL)
      versions.push(...(await Promise.all(some.map((number) => this.#call(`read version ${number} of ${subject}`, schemaVersion, 'GET', `${path}/${number}`)))))
    }
    return versions.map(({ version, id, schema }) => ({ subject, version, id, schema })).sort((a, b) => a.version - b.version)
  }

  async incompatibilities(subject: string, schema: string): Promise<readonly string[]> {
    const level = await this.compatibility(subject)
    // Asked for all versions, Confluent looks at as many as the level says, Apicurio at all.
    const against = level.endsWith('_TRANSITIVE') ? 'versions' : 'versions/latest'
    let answer: z.infer<typeof verdict>
    try {
      const path = `/compatibility/subjects/${encodeURIComponent(subject)}/${against}?verbose=true`
      answer = await this.#call(`check a schema against ${subject}`, verdict, 'POST', path, { schema })
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'schema.unknown') return []
      throw error
    }
    if (answer.is_compatible) return []
    if (answer.messages != null && answer.messages.length > 0) return answer.messages
    // Some registries (Apicurio) refuse without saying why.
    const parsed = (await this.versions(subject)).map(({ version, schema: text }) => ({ version, schema: parseAvroSchema(text) }))
    const found = breaksAt(level, parseAvroSchema(schema), parsed)
    return found.length > 0 ? found : [`the registry calls the schema incompatible at level ${level} without saying why`]
  }

  async compatibility(subject: string): Promise<CompatibilityLevel> {
    try {
      return (await this.#call(`read the level of ${subject}`, config, 'GET', `/config/${encodeURIComponent(subject)}?defaultToGlobal=true`)).compatibilityLevel
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'schema.unknown') throw error
    }
    return (await this.#call('read the global level', config, 'GET', '/config')).compatibilityLevel
  }

  async setCompatibility(subject: string, level: CompatibilityLevel): Promise<void> {
    await this.#call(`set the level of ${subject}`, z.unknown(), 'PUT', `/config/${encodeURIComponent(subject)}`, { compatibility: level })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent?.destroy()
  }

  async #call<T>(what: string, shape: z.ZodType<T>, method: 'GET' | 'POST' | 'PUT', path: string, body?: object): Promise<T> {
    let data: unknown
    try {
      data = (await this.#rest.handleRequest(path, method, body)).data
    } catch (error) {
      const at = `${what} at the registry ${this.#where}`
      if (error instanceof RestError) throw errorOfRefusal(error.status, error.errorCode, error.message, at, error)
      throw unreachable(at, error)
    }
    const result = shape.safeParse(data)
    if (result.success) return result.data
    throw new MillraceError('registry.refused', `${what}: ${this.#where} does not answer as a schema registry does`, {
      fix: 'check the registry URL: it must be the root of the Confluent API (Apicurio: …/apis/ccompat/v7)',
    })
  }
}

/** No answer came. The client's error holds the request with its credentials: only its code goes on. */
function unreachable(at: string, error: unknown): MillraceError {
  const code = String((error as { code?: unknown }).code ?? (error as { name?: unknown }).name)
  if (/CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ERR_TLS|ERR_SSL|EPROTO/.test(code)) {
    return new MillraceError('registry.refused', `${at}: TLS failed (${code})`, {
      fix: 'check `registry.ssl`: the authorities in `ca` and the certificate of the client',
    })
  }
  return new MillraceError('registry.unreachable', `${at}: no answer (${code})`, { fix: 'check that the registry runs and that its URL is right' })
}

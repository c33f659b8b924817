/** Client of the Iceberg REST catalog. Source: Apache Iceberg, open-api/rest-catalog-open-api.yaml. */
import { MillraceError } from '../../core/plugin.ts'
import type { Catalog, CommitOutcome, LoadedTable, TableIdentifier } from './catalog.ts'
import { parseLosslessJson, stringifyLosslessJson } from './lossless-json.ts'
import type { StorageConfig } from './s3-access.ts'
import type { IcebergSchema, TableMetadata, TableRequirement, TableUpdate } from './table-metadata.ts'
import type { WarehouseFiles } from './warehouse-files.ts'

const TIMEOUT_MS = 30_000

export interface RestCatalogOptions {
  /** Without `/v1`. */
  readonly uri: string
  readonly warehouse?: string | undefined
  /** Overrides the prefix that the server's config gives. */
  readonly prefix?: string | undefined
  /** A bearer token. */
  readonly token?: string | undefined
  /** `client_id:client_secret`, exchanged for a token. */
  readonly credential?: string | undefined
  readonly scope?: string | undefined
  /** Where `credential` is exchanged; else the catalog's own endpoint. */
  readonly tokenUri?: string | undefined
}

interface Answer {
  readonly status: number
  readonly body: unknown
}

interface TableAnswer {
  readonly 'metadata-location'?: string
  readonly metadata: TableMetadata
  readonly config?: Readonly<Record<string, string>>
  readonly 'storage-credentials'?: readonly { readonly prefix: string; readonly config: Readonly<Record<string, string>> }[]
}

interface CatalogConfig {
  readonly path: string
  readonly properties: Readonly<Record<string, string>>
}

const PREFLIGHT_SCHEMA: IcebergSchema = { type: 'struct', 'schema-id': 0, fields: [{ id: 1, name: 'id', required: false, type: 'long' }] }

export class RestCatalog implements Catalog {
  readonly files: WarehouseFiles
  readonly #options: RestCatalogOptions
  #uri: string
  #config: CatalogConfig | null = null
  #token: string | null

  constructor(options: RestCatalogOptions, files: WarehouseFiles) {
    this.files = files
    this.#options = options
    this.#uri = withoutVersion(options.uri)
    this.#token = options.token ?? null
  }

  async newTableLocation(namespace: readonly string[] | null): Promise<string | null> {
    const known = this.#expect(await this.#call('GET', `${await this.#root()}/namespaces`), 'list namespaces') as { namespaces?: string[][] }
    const target = known.namespaces?.find((name) => namespace === null || name.join('.') === namespace.join('.'))
    if (target === undefined) return null
    const staged = await this.#create({ namespace: target, name: 'millrace_preflight' }, PREFLIGHT_SCHEMA, {}, true)
    // not every catalog can stage a table
    return staged.status >= 400 ? null : this.#loaded(staged.body, async () => {}).metadata.location
  }

  async load(table: TableIdentifier): Promise<LoadedTable | null> {
    const answer = await this.#call('GET', `${await this.#namespacePath(table)}/tables/${encodeURIComponent(table.name)}`)
    if (answer.status === 404) return null
    return this.#loaded(this.#expect(answer, 'load the table'), () => this.load(table))
  }

  async create(
    table: TableIdentifier,
    schema: IcebergSchema,
    _lastColumnId: number,
    properties: Readonly<Record<string, string>>,
  ): Promise<LoadedTable | null> {
    const namespace = await this.#call('POST', `${await this.#root()}/namespaces`, { namespace: table.namespace, properties: {} })
    if (namespace.status !== 409) this.#expect(namespace, 'create the namespace')
    const answer = await this.#create(table, schema, properties, false)
    if (answer.status === 409) return null
    return this.#loaded(this.#expect(answer, 'create the table'), () => this.load(table))
  }

  async #create(table: TableIdentifier, schema: IcebergSchema, properties: Readonly<Record<string, string>>, staged: boolean): Promise<Answer> {
    return await this.#call('POST', `${await this.#namespacePath(table)}/tables`, {
      name: table.name,
      schema,
      'partition-spec': { 'spec-id': 0, fields: [] },
      'stage-create': staged,
      properties: { ...properties, 'format-version': '2' },
    })
  }

  async commit(table: TableIdentifier, _base: LoadedTable, requirements: readonly TableRequirement[], updates: readonly TableUpdate[]): Promise<CommitOutcome> {
    const target = `${await this.#namespacePath(table)}/tables/${encodeURIComponent(table.name)}`
    let answer: Answer
    try {
      answer = await this.#call('POST', target, { identifier: { namespace: table.namespace, name: table.name }, requirements, updates })
    } catch (cause) {
      if (cause instanceof MillraceError && cause.category === 'unavailable') return { outcome: 'unknown', cause }
      throw cause
    }
    // 404: the table was dropped, as the next load finds as well
    if (answer.status === 409 || answer.status === 404) return { outcome: 'conflict' }
    const { metadata, 'metadata-location': location } = this.#expect(answer, 'commit') as TableAnswer
    return { outcome: 'committed', table: { metadata, metadataLocation: location ?? null } }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #root(): Promise<string> {
    if (this.#config === null) {
      const { warehouse } = this.#options
      const answer = await this.#call('GET', `/v1/config${warehouse === undefined ? '' : `?warehouse=${encodeURIComponent(warehouse)}`}`)
      const { defaults, overrides } = this.#expect(answer, 'read its configuration') as Partial<Record<'defaults' | 'overrides', Record<string, string>>>
      const properties = { ...defaults, ...overrides }
      const prefix = this.#options.prefix ?? properties.prefix ?? ''
      if (overrides?.uri !== undefined) this.#uri = withoutVersion(overrides.uri)
      this.#config = { properties, path: prefix === '' ? '/v1' : `/v1/${prefix.split('/').map(encodeURIComponent).join('/')}` }
    }
    return this.#config.path
  }

  /** Hands what the catalog says of the table's storage to its files. */
  #loaded(body: unknown, renew: () => Promise<unknown>): LoadedTable {
    const answer = body as TableAnswer
    const configs: StorageConfig[] = [this.#config?.properties ?? {}, answer.config ?? {}].map((properties) => ({ prefix: '', properties }))
    for (const { prefix, config } of answer['storage-credentials'] ?? []) configs.push({ prefix, properties: config })
    this.files.vend(configs, renew)
    return { metadata: answer.metadata, metadataLocation: answer['metadata-location'] ?? null }
  }

  async #namespacePath(table: TableIdentifier): Promise<string> {
    return `${await this.#root()}/namespaces/${encodeURIComponent(table.namespace.join('\x1f'))}`
  }

  /** Answers of 2xx and of the 4xx that callers tell apart. */
  #expect(answer: Answer, doing: string): unknown {
    if (answer.status >= 200 && answer.status < 300) return answer.body
    throw new MillraceError('sink.forbidden', `the REST catalog refuses to ${doing}: ${answer.status} ${messageOf(answer.body)}`, {
      fix: 'check uri, warehouse and prefix of the catalog setting, and what the catalog allows this user',
    })
  }

  async #call(method: 'GET' | 'POST', target: string, body?: unknown): Promise<Answer> {
    if (this.#token === null && this.#options.credential !== undefined) await this.#login(this.#options.credential)
    let answer = await this.#send(method, target, body)
    if ((answer.status === 401 || answer.status === 419) && this.#options.credential !== undefined) {
      await this.#login(this.#options.credential)
      answer = await this.#send(method, target, body)
    }
    if (answer.status === 401 || answer.status === 403) {
      throw new MillraceError('sink.forbidden', `the REST catalog refuses ${method} ${target}: ${answer.status} ${messageOf(answer.body)}`, {
        fix: 'set catalog.token or catalog.credential, and grant it the right to create and commit tables',
      })
    }
    if ((answer.status >= 500 && answer.status !== 501) || answer.status === 429) {
      throw new MillraceError('sink.unreachable', `the REST catalog answers ${method} ${target} with ${answer.status}: ${messageOf(answer.body)}`)
    }
    return answer
  }

  async #send(method: 'GET' | 'POST', target: string, body: unknown): Promise<Answer> {
    const headers: Record<string, string> = { accept: 'application/json' }
    if (this.files.wantsCredentials) headers['x-iceberg-access-delegation'] = 'vended-credentials'
    if (body !== undefined) headers['content-type'] = 'application/json'
    if (this.#token !== null) headers.authorization = `Bearer ${this.#token}`
    return await this.#fetch(this.#uri + target, { method, headers, ...(body === undefined ? {} : { body: stringifyLosslessJson(body) }) })
  }

  async #login(credential: string): Promise<void> {
    const colon = credential.indexOf(':')
    const form = new URLSearchParams({ grant_type: 'client_credentials', client_secret: credential.slice(colon + 1), scope: this.#options.scope ?? 'catalog' })
    if (colon > 0) form.set('client_id', credential.slice(0, colon))
    const tokenUri = this.#options.tokenUri ?? this.#config?.properties['oauth2-server-uri'] ?? `${this.#uri}/v1/oauth/tokens`
    const answer = await this.#fetch(tokenUri, { method: 'POST', body: form })
    const token = (answer.body as { access_token?: string } | null)?.access_token
    if (answer.status !== 200 || token === undefined) {
      throw new MillraceError(
        answer.status >= 500 ? 'sink.unreachable' : 'sink.forbidden',
        `the REST catalog gives no token: ${answer.status} ${messageOf(answer.body)}`,
        {
          fix: 'check catalog.credential',
        },
      )
    }
    this.#token = token
  }

  async #fetch(url: string, init: RequestInit): Promise<Answer> {
    try {
      const response = await fetch(url, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) })
      const text = await response.text()
      let body: unknown = null
      try {
        body = text === '' ? null : parseLosslessJson(text)
      } catch {
        body = { error: { message: text.slice(0, 200) } }
      }
      return { status: response.status, body }
    } catch (cause) {
      throw new MillraceError('sink.unreachable', `the REST catalog at ${new URL(url).host} does not answer`, { cause })
    }
  }
}

function messageOf(body: unknown): string {
  return (body as { error?: { message?: string } } | null)?.error?.message ?? ''
}

function withoutVersion(uri: string): string {
  return uri.replace(/\/+$/, '').replace(/\/v1$/, '')
}

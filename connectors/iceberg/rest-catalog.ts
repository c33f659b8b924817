/** Client of the Iceberg REST catalog. Source: Apache Iceberg, open-api/rest-catalog-open-api.yaml. */
import { MillraceError } from '../../core/plugin.ts'
import type { Catalog, CommitOutcome, LoadedTable, TableIdentifier } from './catalog.ts'
import type { FileStore } from './file-store.ts'
import { parseLosslessJson, stringifyLosslessJson } from './lossless-json.ts'
import type { IcebergSchema, TableMetadata, TableRequirement, TableUpdate } from './table-metadata.ts'

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
}

interface Answer {
  readonly status: number
  readonly body: unknown
}

interface TableAnswer {
  readonly 'metadata-location'?: string
  readonly metadata: TableMetadata
}

export class RestCatalog implements Catalog {
  readonly files: FileStore
  readonly #options: RestCatalogOptions
  readonly #uri: string
  #prefix: string | null = null
  #token: string | null

  constructor(options: RestCatalogOptions, files: FileStore) {
    this.files = files
    this.#options = options
    this.#uri = options.uri.replace(/\/+$/, '').replace(/\/v1$/, '')
    this.#token = options.token ?? null
  }

  async load(table: TableIdentifier): Promise<LoadedTable | null> {
    const answer = await this.#call('GET', `${await this.#namespacePath(table)}/tables/${encodeURIComponent(table.name)}`)
    if (answer.status === 404) return null
    return loaded(this.#expect(answer, 'load the table'))
  }

  async create(
    table: TableIdentifier,
    schema: IcebergSchema,
    _lastColumnId: number,
    properties: Readonly<Record<string, string>>,
  ): Promise<LoadedTable | null> {
    const namespace = await this.#call('POST', `${await this.#root()}/namespaces`, { namespace: table.namespace, properties: {} })
    if (namespace.status !== 409) this.#expect(namespace, 'create the namespace')
    const answer = await this.#call('POST', `${await this.#namespacePath(table)}/tables`, {
      name: table.name,
      schema,
      'partition-spec': { 'spec-id': 0, fields: [] },
      'stage-create': false,
      properties: { ...properties, 'format-version': '2' },
    })
    if (answer.status === 409) return null
    return loaded(this.#expect(answer, 'create the table'))
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
    if (answer.status === 409) return { outcome: 'conflict' }
    return { outcome: 'committed', table: loaded(this.#expect(answer, 'commit')) }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #root(): Promise<string> {
    if (this.#prefix === null) {
      const { warehouse } = this.#options
      const answer = await this.#call('GET', `/v1/config${warehouse === undefined ? '' : `?warehouse=${encodeURIComponent(warehouse)}`}`)
      const config = this.#expect(answer, 'read its configuration') as { defaults?: Record<string, string>; overrides?: Record<string, string> }
      this.#prefix = this.#options.prefix ?? config.overrides?.prefix ?? config.defaults?.prefix ?? ''
    }
    return this.#prefix === '' ? '/v1' : `/v1/${this.#prefix.split('/').map(encodeURIComponent).join('/')}`
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
    if (answer.status >= 500 || answer.status === 429) {
      throw new MillraceError('sink.unreachable', `the REST catalog answers ${method} ${target} with ${answer.status}: ${messageOf(answer.body)}`)
    }
    return answer
  }

  async #send(method: 'GET' | 'POST', target: string, body: unknown): Promise<Answer> {
    const headers: Record<string, string> = { accept: 'application/json' }
    if (body !== undefined) headers['content-type'] = 'application/json'
    if (this.#token !== null) headers.authorization = `Bearer ${this.#token}`
    return await this.#fetch(target, { method, headers, ...(body === undefined ? {} : { body: stringifyLosslessJson(body) }) })
  }

  async #login(credential: string): Promise<void> {
    const colon = credential.indexOf(':')
    const form = new URLSearchParams({ grant_type: 'client_credentials', client_secret: credential.slice(colon + 1), scope: this.#options.scope ?? 'catalog' })
    if (colon > 0) form.set('client_id', credential.slice(0, colon))
    const answer = await this.#fetch('/v1/oauth/tokens', { method: 'POST', body: form })
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

  async #fetch(target: string, init: RequestInit): Promise<Answer> {
    try {
      const response = await fetch(this.#uri + target, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) })
      const text = await response.text()
      let body: unknown = null
      try {
        body = text === '' ? null : parseLosslessJson(text)
      } catch {
        body = { error: { message: text.slice(0, 200) } }
      }
      return { status: response.status, body }
    } catch (cause) {
      throw new MillraceError('sink.unreachable', `the REST catalog at ${new URL(this.#uri).host} does not answer`, { cause })
    }
  }
}

function messageOf(body: unknown): string {
  return (body as { error?: { message?: string } } | null)?.error?.message ?? ''
}

function loaded(body: unknown): LoadedTable {
  const answer = body as TableAnswer
  return { metadata: answer.metadata, metadataLocation: answer['metadata-location'] ?? null }
}

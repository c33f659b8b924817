import pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'

/**
 * One connection for questions, made when first needed and made again after it broke. Calls of `query` follow one another.
 * @throws what {@link cockroachError} makes of an error
 */
export class SqlSession implements AsyncDisposable {
  readonly #config: pg.ClientConfig
  #client: pg.Client | null = null
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(config: pg.ClientConfig) {
    this.#config = config
  }

  /** Rows as arrays of texts. `doing` reads like `to list tables`. */
  query(doing: string, text: string, values: readonly string[] = []): Promise<readonly (readonly (string | null)[])[]> {
    const result = this.#last.then(() => this.#query(doing, text, values))
    this.#last = result.catch(() => {})
    return result
  }

  async #query(doing: string, text: string, values: readonly string[]): Promise<readonly (readonly (string | null)[])[]> {
    if (this.#closed) throw new MillraceError('source.unreachable', 'the connection to CockroachDB is closed')
    try {
      this.#client ??= await connectClient(this.#config, () => {
        this.#client = null
      })
      const asText = { getTypeParser: () => String } as unknown as pg.CustomTypesConfig
      return (await this.#client.query({ text, values: [...values], rowMode: 'array', types: asText })).rows
    } catch (error) {
      if (!isServerError(error)) {
        void this.#client?.end().catch(() => {})
        this.#client = null
      }
      throw cockroachError(error, doing)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    await this.#last
    await this.#client?.end().catch(() => {})
    this.#client = null
  }
}

/** A connected client whose session gives values their one text form; `onLost` is called when it breaks later. */
export async function connectClient(config: pg.ClientConfig, onLost: () => void): Promise<pg.Client> {
  const client = new pg.Client(config)
  client.on('error', onLost)
  client.on('end', onLost)
  try {
    await client.connect()
    for (const setting of ["timezone = 'UTC'", "intervalstyle = 'postgres'", "bytea_output = 'hex'", 'statement_timeout = 0']) {
      await client.query(`SET ${setting}`)
    }
    return client
  } catch (error) {
    void client.end().catch(() => {})
    throw cockroachError(error, 'to connect')
  }
}

/** An SQLSTATE, also those of CockroachDB's own, as `XXUUU`: the statement failed, and the connection is sound. */
function isServerError(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown }
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^(08|57)/.test(code)
}

/** What the versions before a time have no history of any more says so, without an SQLSTATE of its own. */
const COLLECTED = /must be after replica GC threshold|GC threshold/i

/** Classifies what went wrong while talking to CockroachDB. `doing` says what was tried: `to list tables`. */
export function cockroachError(error: unknown, doing: string): MillraceError {
  if (error instanceof MillraceError) return error
  const cause = error instanceof Error ? error : new Error(String(error))
  const code = (cause as NodeJS.ErrnoException).code ?? ''
  const isState = /^[0-9A-Z]{5}$/.test(code) && code !== 'EPIPE'
  const failure = `CockroachDB failed ${doing}: ${cause.message === '' ? code : cause.message}${isState ? ` (SQLSTATE ${code})` : ''}`
  if (COLLECTED.test(cause.message)) return historyLost(failure, cause)
  if (!isState) {
    const tls = /^ERR_(TLS|SSL)|CERT/.test(code)
    if (tls) return new MillraceError('source.forbidden', failure, { fix: 'check `ssl` of the source: its ca and servername must match the node', cause })
    return new MillraceError('source.unreachable', failure, { fix: 'check host, port and that a node answers', cause })
  }
  if (code.startsWith('28')) return new MillraceError('source.forbidden', failure, { fix: 'check user, password and client certificate', cause })
  if (code === '42501') return new MillraceError('source.forbidden', failure, { fix: 'GRANT SELECT, CHANGEFEED ON TABLE … TO the user', cause })
  if (/^(08|40|53|57|58|XX)/.test(code)) return new MillraceError('source.unreachable', failure, { cause })
  return new MillraceError('source.unprepared', failure, { fix: 'run `millrace check`: it names what the cluster lacks', cause })
}

/** The cluster has collected versions that the stream would need. */
export function historyLost(message: string, cause?: unknown): MillraceError {
  return new MillraceError('source.history_lost', message, {
    fix: 'read the tables anew: millrace run FILE --resnapshot NODE, and raise gc.ttlseconds above the longest time that Millrace may be away',
    ...(cause === undefined ? {} : { cause }),
  })
}

export const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`
export const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

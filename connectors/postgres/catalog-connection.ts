import type { EventEmitter } from 'node:events'
import pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'
import { postgresError } from './postgres-error.ts'

/**
 * One ordinary connection beside the stream, made when first needed and made again after it broke. Calls of `run` follow one another, so each
 * may open a transaction.
 */
export class CatalogConnection implements AsyncDisposable {
  readonly #config: pg.ClientConfig
  #client: pg.Client | null = null
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(config: pg.ClientConfig) {
    this.#config = config
  }

  /** @throws source.unreachable, source.forbidden, source.unprepared; what `work` throws of ours. `doing` reads like `to list tables`. */
  run<T>(doing: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    const result = this.#last.then(() => this.#run(doing, work))
    this.#last = result.catch(() => {})
    return result
  }

  async #run<T>(doing: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    if (this.#closed) throw new MillraceError('source.unreachable', 'the connection to Postgres is closed')
    try {
      this.#client ??= await connectClient(this.#config, () => {
        this.#client = null
      })
      return await work(this.#client)
    } catch (error) {
      // A statement's own failure has an SQLSTATE; anything else leaves the connection in doubt.
      const code = (error as { readonly code?: unknown }).code
      const sound = error instanceof MillraceError || (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^(08|57)/.test(code))
      if (!sound) {
        void this.#client?.end().catch(() => {})
        this.#client = null
      }
      throw postgresError(error, doing)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    await this.#last
    await this.#client?.end().catch(() => {})
    this.#client = null
  }
}

/** A connected client; `onLost` is called when it breaks later. */
export async function connectClient(config: pg.ClientConfig, onLost: () => void = () => {}): Promise<pg.Client> {
  const client = new pg.Client(config)
  client.on('error', onLost)
  client.on('end', onLost)
  try {
    await connect(client, 'to connect')
    return client
  } catch (error) {
    void client.end().catch(() => {})
    throw error
  }
}

/** Connects `client`. @throws source.unreachable, source.forbidden, source.unprepared */
export async function connect(client: pg.Client, doing: string): Promise<void> {
  let asked = false
  const { connection } = client as pg.Client & { readonly connection: EventEmitter }
  connection.once('authenticationSASL', () => {
    asked = true
  })
  try {
    await client.connect()
  } catch (error) {
    // `pg` finds this out itself, so there is no SQLSTATE
    if (asked && !client.password) {
      throw new MillraceError('source.forbidden', `Postgres asks for the password of ${client.user}, and the source has none`, {
        fix: 'set `password` of the source, or change pg_hba.conf',
        cause: error,
      })
    }
    throw postgresError(error, doing)
  }
}

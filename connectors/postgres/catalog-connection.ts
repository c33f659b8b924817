import { addAbortListener, type EventEmitter } from 'node:events'
import type net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'
import { postgresError } from './postgres-error.ts'

/** What is under way when everything stops may take so much longer. */
const STOP_GRACE_MS = 1000
/** A farewell may take so long. */
const END_MS = 1000
const ASK_TIMEOUT_MS = 15_000

/**
 * One ordinary connection beside the stream, made when first needed and made again after it broke. Calls of `run` follow one another, so each
 * may open a transaction. An answer may take its time, behind a lock or in a large catalog; after `silenceMs` without a byte the server is asked on another
 * connection whether it is at work on it, and a server that does not say so is given up.
 */
export class CatalogConnection implements AsyncDisposable {
  readonly #config: pg.ClientConfig
  readonly #silenceMs: number
  readonly #stop = new AbortController()
  #client: pg.Client | null = null
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(config: pg.ClientConfig, silenceMs: number) {
    this.#config = config
    this.#silenceMs = silenceMs
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
      this.#client ??= await this.#connect()
      return await this.#watched(this.#client, doing, work)
    } catch (error) {
      // A statement's own failure has an SQLSTATE; anything else leaves the connection in doubt.
      const code = (error as { readonly code?: unknown }).code
      const sound =
        (error instanceof MillraceError && error.code !== 'source.unreachable') ||
        (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^(08|57)/.test(code))
      if (!sound) {
        if (this.#client !== null) cut(this.#client)
        this.#client = null
      }
      throw postgresError(error, doing)
    }
  }

  #connect(): Promise<pg.Client> {
    const onLost = () => {
      this.#client = null
    }
    return connectClient(this.#config, onLost, this.#stop.signal)
  }

  /** Does `work`, unless the server falls silent or everything stops. */
  async #watched<T>(client: pg.Client, doing: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    const { promise: given, reject } = Promise.withResolvers<never>()
    const stop = () => reject(new MillraceError('source.unreachable', `stopped before Postgres answered ${doing}`))
    this.#stop.signal.addEventListener('abort', stop)
    const stream = streamOf(client)
    let read = -1
    const look = async () => {
      if (stream.bytesRead !== read) read = stream.bytesRead
      else if (!(await this.#isAtWork(client))) {
        reject(
          new MillraceError('source.unreachable', `Postgres has been silent for ${this.#silenceMs} ms, asked ${doing}`, {
            fix: 'check that the server runs and that the network to it passes',
          }),
        )
      }
    }
    const looking = setInterval(() => void look(), this.#silenceMs / 2).unref()
    try {
      if (this.#stop.signal.aborted) stop()
      return await Promise.race([work(client), given])
    } finally {
      clearInterval(looking)
      this.#stop.signal.removeEventListener('abort', stop)
    }
  }

  /** Whether the server says of a connection that it has something to do. */
  async #isAtWork(client: pg.Client): Promise<boolean> {
    const { processID: pid } = client as pg.Client & { readonly processID: number }
    try {
      const other = await connectClient({ ...this.#config, query_timeout: ASK_TIMEOUT_MS }, undefined, this.#stop.signal)
      try {
        const { rowCount } = await other.query(`select from pg_stat_activity where pid = $1 and state <> 'idle'`, [pid])
        return rowCount !== 0
      } finally {
        await endClient(other)
      }
    } catch (error) {
      // a server that refuses for want of connections is there
      return (
        postgresError(error, 'to ask whether it is at work').code !== 'source.unreachable' || (error as { cause?: { code?: unknown } }).cause?.code === '53300'
      )
    }
  }

  /** Takes no more work; what is under way is given up after a moment. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    setTimeout(() => this.#stop.abort(), STOP_GRACE_MS).unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    await this.#last
    if (this.#client !== null) await endClient(this.#client)
    this.#client = null
  }
}

/** A connected client; `onLost` is called when it breaks later. `signal` gives up connecting. */
export async function connectClient(config: pg.ClientConfig, onLost: () => void = () => {}, signal?: AbortSignal): Promise<pg.Client> {
  const client = new pg.Client(config)
  client.on('error', onLost)
  client.on('end', onLost)
  using _ = signal === undefined ? null : addAbortListener(signal, () => cut(client))
  try {
    await connect(client, 'to connect')
    return client
  } catch (error) {
    cut(client)
    throw error
  }
}

/** Ends a connection in order, or cuts it when the server does not take the farewell. */
export async function endClient(client: pg.Client): Promise<void> {
  await Promise.race([client.end().catch(() => {}), delay(END_MS, undefined, { ref: false })])
  cut(client)
}

/** Closes a connection without a farewell, which may wait for ever. */
export function cut(client: pg.Client): void {
  streamOf(client).destroy()
}

function streamOf(client: pg.Client): net.Socket {
  return (client as pg.Client & { readonly connection: { readonly stream: net.Socket } }).connection.stream
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

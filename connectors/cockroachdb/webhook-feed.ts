import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import type { MillraceError, PluginContext, Provision } from '../../core/plugin.ts'
import type { CatalogTable } from './catalog.ts'
import type { FeedMessage } from './changefeed-message.ts'
import type { CockroachdbConfig } from './cockroachdb-config.ts'
import { type ChangeFeed, FeedQueue } from './feed-queue.ts'
import { changefeedStatement } from './sinkless-feed.ts'
import { cockroachError, literal, type SqlSession } from './sql-session.ts'
import type { WebhookBatch, WebhookEndpoint, WebhookReceiver } from './webhook-endpoint.ts'
import { releasedOf, syncFolder, WebhookJournal, writeDurably } from './webhook-journal.ts'

/** Rows are not received while this much waits to be taken, and the cluster's patience (its `webhook_client_timeout` is 30 s). */
const MOST_WAITING_BYTES = 4 * 1024 * 1024
const MOST_HELD_MS = 20_000
/** A resolved timestamp is not taken while the log is so far behind it: the job's protection from garbage collection goes with that. */
const MOST_AHEAD_NS = 60_000_000_000n
const LOOK_MS = 3000
/** States of a job that goes on, or can. */
const ALIVE = new Set(['pending', 'running', 'retry-running', 'paused', 'pause-requested'])

interface Job {
  readonly id: string
  readonly status: string
  readonly error: string
  /** The last part of its path. */
  readonly token: string
}

const pathOf = ({ mesh, node }: Pick<PluginContext, 'mesh' | 'node'>) => `/millrace/${encodeURIComponent(mesh)}/${encodeURIComponent(node)}/`

/** The changefeed jobs of this node. */
async function jobsOf(sql: SqlSession, context: Pick<PluginContext, 'mesh' | 'node'>): Promise<readonly Job[]> {
  const rows = await sql.query('to list changefeed jobs', 'SELECT job_id::STRING, status, error, sink_uri FROM [SHOW CHANGEFEED JOBS]')
  const base = pathOf(context)
  return rows.flatMap(([id, status, error, uri]) => {
    const [, token] = (uri ?? '').split('?')[0]!.split(base)
    return token === undefined ? [] : [{ id: id!, status: status!, error: error ?? '', token }]
  })
}

/**
 * A changefeed job whose sink is this node's webhook. It outlives the process, and protects what it has not delivered from garbage collection; so a row is
 * answered only once it lies in the journal, which outlives the process as well.
 */
export class WebhookFeed implements ChangeFeed, WebhookReceiver {
  readonly path: string
  readonly #endpoint: WebhookEndpoint
  readonly #sql: SqlSession
  readonly #context: PluginContext
  readonly #token: string
  readonly #journal: WebhookJournal
  readonly #replay: Iterator<readonly FeedMessage[]>
  readonly #queue = new FeedQueue()
  #moved: (() => void)[] = []
  /** The log has all up to this nanosecond's end. */
  #durable: bigint
  readonly #timer: NodeJS.Timeout

  private constructor(endpoint: WebhookEndpoint, sql: SqlSession, context: PluginContext, folder: string, token: string, after: bigint) {
    this.#durable = after
    this.#endpoint = endpoint
    this.#sql = sql
    this.#context = context
    this.#token = token
    this.path = pathOf(context) + token
    this.#journal = new WebhookJournal(path.join(folder, token))
    this.#replay = this.#journal.replay()
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
  }

  /** Takes the node's job up again when it has these tables and its journal is here; else makes one that gives what comes after a nanosecond. */
  static async open(
    endpoint: WebhookEndpoint,
    sql: SqlSession,
    config: CockroachdbConfig,
    context: PluginContext,
    tables: readonly CatalogTable[],
    after: bigint,
  ): Promise<WebhookFeed> {
    const folder = path.join(context.dataDir, 'webhook')
    mkdirSync(folder, { recursive: true })
    const options = [config.envelope, config.diff, config.resolvedMs, config.webhook!.url]
    const wanted = JSON.stringify([options, tables.map(({ sqlName, schema }) => [sqlName, schema.incarnation])])
    const journals = readdirSync(folder)
    const jobs = (await jobsOf(sql, context)).filter(({ status }) => ALIVE.has(status))
    const digest = createHash('sha256').update(wanted).digest('hex')
    const known = jobs.find(({ token }) => journals.includes(token) && goesOn(path.join(folder, token), digest, after))
    const token = known?.token ?? randomBytes(16).toString('hex')
    if (known === undefined) {
      mkdirSync(path.join(folder, token))
      writeDurably(path.join(folder, token, HEADER), JSON.stringify({ digest, after: after.toString() }))
      syncFolder(folder)
    }
    const feed = new WebhookFeed(endpoint, sql, context, folder, token, after)
    try {
      // rows may come from here on
      endpoint.receiver = feed
      if (known === undefined) await sql.query('to create the changefeed', webhookStatement(config, context, tables, after, token))
      else if (known.status.startsWith('pause')) await sql.query('to resume the changefeed', `RESUME JOB ${known.id}`)
      for (const job of jobs) if (job.token !== token) await sql.query('to cancel the changefeed of before', `CANCEL JOB ${job.id}`)
      for (const old of journals) if (old !== token) rmSync(path.join(folder, old), { recursive: true, force: true })
      return feed
    } catch (error) {
      await feed[Symbol.asyncDispose]()
      throw error
    }
  }

  async receive({ messages, latest, resolved }: WebhookBatch): Promise<boolean> {
    const isFull = () => (resolved === null ? this.#queue.bytes > MOST_WAITING_BYTES : resolved > this.#durable + MOST_AHEAD_NS)
    const until = performance.now() + MOST_HELD_MS
    while (isFull() && performance.now() < until) await this.#someMoved(until - performance.now())
    if (isFull() || this.#queue.failed || this.#endpoint.receiver !== this) return false
    if (resolved === null) this.#journal.append(messages, latest)
    this.#queue.put(messages)
    return true
  }

  async #someMoved(ms: number): Promise<void> {
    const moved = Promise.withResolvers<void>()
    this.#moved.push(moved.resolve)
    const timer = setTimeout(moved.resolve, ms)
    await moved.promise
    clearTimeout(timer)
  }

  #move(): void {
    for (const moved of this.#moved.splice(0)) moved()
  }

  fail(error: MillraceError): void {
    this.#queue.fail(error)
  }

  /** A job that failed says why only there. */
  async #look(): Promise<void> {
    try {
      const job = (await jobsOf(this.#sql, this.#context)).find(({ token }) => token === this.#token)
      if (job === undefined || ALIVE.has(job.status)) return
      this.fail(cockroachError(Object.assign(new Error(`the job ${job.id} is ${job.status}: ${job.error}`), { code: 'XXUUU' }), 'to run the changefeed'))
    } catch (error) {
      this.#context.logger.debug({ error }, 'the changefeed job cannot be looked at')
    }
  }

  wake(): void {
    this.#queue.wake()
  }

  async next(): Promise<readonly FeedMessage[]> {
    const old = this.#replay.next()
    if (old.done !== true) return old.value
    const messages = await this.#queue.take()
    this.#move()
    return messages
  }

  release(wall: bigint): void {
    if (wall <= this.#durable) return
    this.#durable = wall
    this.#journal.release(wall)
    this.#move()
  }

  /** The job goes on, and waits for the node to come back. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    if (this.#endpoint.receiver === this) this.#endpoint.receiver = null
    this.#move()
    this.#journal[Symbol.dispose]()
  }
}

function webhookStatement(
  config: CockroachdbConfig,
  context: Pick<PluginContext, 'mesh' | 'node'>,
  tables: readonly CatalogTable[],
  after: bigint,
  token: string,
): string {
  const { url, ca } = config.webhook!
  const trust = ca === undefined ? '' : `?ca_cert=${encodeURIComponent(readFileSync(ca).toString('base64'))}`
  const uri = `webhook-${url.replace(/\/$/, '')}${pathOf(context)}${token}${trust}`
  const batches = '{"Flush": {"Messages": 1000, "Bytes": 1048576, "Frequency": "100ms"}, "Retry": {"Max": "inf"}}'
  return changefeedStatement(config, tables, after, { uri, options: ["webhook_client_timeout = '30s'", `webhook_sink_config = ${literal(batches)}`] })
}

const HEADER = 'changefeed.json'

/** Whether the job of a journal has the same tables and options, and all that comes after a nanosecond. */
function goesOn(folder: string, digest: string, after: bigint): boolean {
  if (!existsSync(path.join(folder, HEADER))) return false
  const header = JSON.parse(readFileSync(path.join(folder, HEADER), 'utf8')) as { readonly digest: string; readonly after: string }
  return header.digest === digest && after >= BigInt(header.after) && after >= releasedOf(folder)
}

export async function webhookJobs(sql: SqlSession, context: Pick<PluginContext, 'mesh' | 'node'>): Promise<readonly Provision[]> {
  const alive = (await jobsOf(sql, context)).filter(({ status }) => ALIVE.has(status))
  return alive.map(({ id, status }) => ({
    kind: 'changefeed job',
    name: id,
    note: `${status}; keeps the cluster from collecting what it has not delivered`,
    stays: null,
  }))
}

export async function dropWebhookJobs(sql: SqlSession, context: PluginContext): Promise<void> {
  for (const { name } of await webhookJobs(sql, context)) await sql.query('to cancel the changefeed', `CANCEL JOB ${name}`)
  rmSync(path.join(context.dataDir, 'webhook'), { recursive: true, force: true })
}

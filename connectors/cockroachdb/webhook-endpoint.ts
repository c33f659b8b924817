import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { asMillraceError, MillraceError } from '../../core/plugin.ts'
import { committedAt, type FeedMessage, reading, resolvedOf } from './changefeed-message.ts'
import type { CockroachdbConfig } from './cockroachdb-config.ts'
import { elements, members, NoJson, type Token, textOf } from './json-text.ts'

export type WebhookConfig = NonNullable<CockroachdbConfig['webhook']>

const MOST_BODY_BYTES = 64 * 1024 * 1024

export interface WebhookBatch {
  readonly messages: readonly FeedMessage[]
  /** The latest commit of its rows. */
  readonly latest: bigint
  /** null: it has rows. */
  readonly resolved: bigint | null
}

/** Who takes what is posted to one path. */
export interface WebhookReceiver {
  readonly path: string
  /** Resolves once rows are on the disk, or false when there is no room for them now. @throws what cannot be read or written */
  receive(batch: WebhookBatch): Promise<boolean>
  fail(error: MillraceError): void
}

/** The HTTPS server to which the cluster posts rows. 200 says that they are on the disk. */
export class WebhookEndpoint implements AsyncDisposable {
  readonly #server: Server
  receiver: WebhookReceiver | null = null

  private constructor(server: Server) {
    this.#server = server
    server.on('request', (request, response) => void this.#serve(request, response))
  }

  /** @throws config.invalid, source.in_use */
  static async open({ host, port, cert, key }: WebhookConfig): Promise<WebhookEndpoint> {
    let server: Server
    try {
      server = createServer({ cert: readFileSync(cert), key: readFileSync(key) })
    } catch (cause) {
      throw new MillraceError('config.invalid', `the webhook's cert or key cannot be used: ${(cause as Error).message}`, {
        fix: 'give the paths of a certificate and of its key, in PEM form',
        cause,
      })
    }
    server.listen(port, host)
    try {
      await once(server, 'listening')
    } catch (cause) {
      const inUse = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE'
      throw new MillraceError(inUse ? 'source.in_use' : 'config.invalid', `the webhook cannot listen at ${host}:${port}: ${(cause as Error).message}`, {
        fix: inUse ? 'stop the other process that captures this source, or set another port' : 'correct host and port of webhook',
        cause,
      })
    }
    return new WebhookEndpoint(server)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = (status: number, text = '') => {
      response.writeHead(status, { 'content-type': 'text/plain', ...(status === 503 ? { 'retry-after': '1' } : {}) })
      response.end(text)
    }
    const { receiver } = this
    try {
      if (receiver === null) return answer(503, 'not following a changefeed now')
      if (request.url !== receiver.path) return answer(404)
      if (request.method !== 'POST') return answer(405)
      const body = await bodyOf(request)
      if (body === null) return answer(413)
      answer((await receiver.receive(readBatch(body))) ? 200 : 503)
    } catch (error) {
      const failure = asMillraceError(error)
      if (request.destroyed && failure.code === 'invariant.broken') return
      receiver?.fail(failure)
      answer(failure.code === 'source.protocol' ? 400 : 503, failure.code)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.receiver = null
    this.#server.close()
    this.#server.closeAllConnections()
  }
}

async function bodyOf(request: IncomingMessage): Promise<string | null> {
  const pieces: Buffer[] = []
  let bytes = 0
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length
    if (bytes > MOST_BODY_BYTES) return null
    pieces.push(piece)
  }
  const text = Buffer.concat(pieces)
  return reading(
    () => 'a batch of the webhook',
    () => {
      if (!text.equals(Buffer.from(text.toString()))) throw new NoJson('UTF-8', 0)
      return text.toString()
    },
  )
}

/** `{"payload": [message, …], "length": n}`, or `{"resolved": "…"}`. @throws source.protocol */
export function readBatch(body: string): WebhookBatch {
  const where = () => 'a batch of the webhook'
  return reading(where, () => {
    const batch = members(body)
    if (batch.has('resolved')) {
      const value = Buffer.from(body)
      return { messages: [{ table: null, key: Buffer.alloc(0), value }], latest: 0n, resolved: resolvedOf(value, where).wall }
    }
    const payload = batch.get('payload')
    if (payload?.kind !== 'array') throw new NoJson('payload or resolved', 0)
    const messages = elements(payload.raw).map(messageOf)
    if (batch.get('length')?.raw !== String(messages.length)) throw new NoJson(`a length of ${messages.length}`, body.length)
    let latest = 0n
    for (const [n, { value }] of messages.entries()) {
      const { wall } = committedAt(value, () => `message ${n + 1} of a batch of the webhook`)
      if (wall > latest) latest = wall
    }
    return { messages, latest, resolved: null }
  })
}

/** `topic` of the wrapped envelope; of the enriched one its source's names. */
function messageOf(token: Token): FeedMessage {
  const message = members(token.raw)
  const key = message.get('key')
  if (key === undefined) throw new NoJson('a member key', 0)
  const topic = message.get('topic')
  if (topic?.kind === 'string') return { table: textOf(topic), key: Buffer.from(key.raw), value: Buffer.from(token.raw) }
  const source = message.get('source')
  const names = source === undefined ? new Map<string, Token>() : members(source.raw)
  const table = ['database_name', 'schema_name', 'table_name'].map((name) => {
    const part = names.get(name)
    if (part?.kind !== 'string') throw new NoJson(`a topic, or a source with ${name}`, 0)
    return textOf(part)
  })
  return { table: table.join('.'), key: Buffer.from(key.raw), value: Buffer.from(token.raw) }
}

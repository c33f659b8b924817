import type { Agent } from 'node:http'
import https from 'node:https'
import { http, MillraceError } from '../../core/plugin.ts'
import type { CassandraConfig } from './cassandra-config.ts'
import type { CdcFiles, SegmentBytes } from './cdc-files.ts'

const TIMEOUT_MS = 30_000

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || /^127\./.test(host)
}

interface Answer {
  readonly status: number
  readonly size: number
  readonly body: Buffer
}

/** Of another machine, through the agent there (`agent-server.ts`). */
export class AgentFiles implements CdcFiles {
  readonly path: string
  readonly #agent: NonNullable<CassandraConfig['agent']>
  readonly #connections: Agent

  /** @param url of the agent, without a path */
  constructor(url: string, agent: NonNullable<CassandraConfig['agent']>) {
    this.path = url
    this.#agent = agent
    const { ca } = agent
    const keep = { keepAlive: true, maxSockets: 2 }
    this.#connections = url.startsWith('https:') ? new https.Agent({ ...keep, ...(ca === undefined ? {} : { ca }) }) : new http.Agent(keep)
  }

  async names(): Promise<readonly string[]> {
    return JSON.parse((await this.#ask('GET', '')).body.toString()) as string[]
  }

  async text(name: string): Promise<string | null> {
    const { status, body } = await this.#ask('GET', name)
    return status === 404 ? null : body.toString()
  }

  async size(name: string): Promise<number | null> {
    const { status, size } = await this.#ask('GET', `${name}?from=0&length=0`)
    return status === 404 ? null : size
  }

  async remove(name: string): Promise<void> {
    await this.#ask('DELETE', name)
  }

  async open(name: string): Promise<SegmentBytes> {
    const found = async (answer: Promise<Answer>): Promise<Answer> => {
      const { status } = await answer
      if (status === 404) throw Object.assign(new Error(`there is no ${this.path}/${name}`), { code: 'ENOENT' })
      return answer
    }
    const stat = async () => ({ size: (await found(this.#ask('GET', `${name}?from=0&length=0`))).size })
    await stat()
    return {
      stat,
      read: async (into, offset, length, position) => {
        const { body } = await found(this.#ask('GET', `${name}?from=${position}&length=${length}`))
        return { bytesRead: body.copy(into, offset, 0, length) }
      },
      close: async () => {},
    }
  }

  async whyNot(): Promise<string | null> {
    await this.names()
    return null
  }

  async #ask(method: 'GET' | 'DELETE', what: string): Promise<Answer> {
    const answer = await this.#request(method, what).catch((cause: NodeJS.ErrnoException) => {
      const isRefused = /CERT|SSL|TLS|SELF_SIGNED/.test(cause.code ?? '')
      throw new MillraceError(isRefused ? 'source.forbidden' : 'source.unreachable', `the agent at ${this.path} does not answer: ${cause.message}`, {
        fix: isRefused
          ? 'check agent.ca: it must be of who issued agent.cert'
          : 'start `millrace agent cassandra --config FILE --serve HOST:PORT` beside its node',
        cause,
      })
    })
    if (answer.status < 300 || answer.status === 404) return answer
    if (answer.status === 401) {
      throw new MillraceError('source.forbidden', `the agent at ${this.path} has another token`, { fix: 'give the agent and this source the same agent.token' })
    }
    throw new MillraceError('source.unreachable', `the agent at ${this.path} failed: ${answer.status} ${answer.body.toString()}`, {
      fix: 'see its log, and whether it may read and write in agent.folder',
    })
  }

  #request(method: string, what: string): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const { request } = this.path.startsWith('https:') ? https : http
    const asked = request(
      `${this.path}/${what}`,
      { method, agent: this.#connections, headers: { authorization: `Bearer ${this.#agent.token}` }, timeout: TIMEOUT_MS },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('error', reject)
        response.on('end', () => resolve({ status: response.statusCode!, size: Number(response.headers['x-size']), body: Buffer.concat(parts) }))
      },
    )
    asked.on('timeout', () => asked.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)))
    asked.on('error', (error: NodeJS.ErrnoException) => {
      // the agent may close a connection that rested just as it is used again; each request may be made twice
      if (asked.reusedSocket && error.code === 'ECONNRESET') resolve(this.#request(method, what))
      else reject(error)
    })
    asked.end()
    return promise
  }
}

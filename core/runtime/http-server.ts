import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { MillraceError } from '../errors.ts'
import { http } from '../node-http.ts'
import type { MeshStatus } from './mesh-status.ts'

export interface HttpServer extends AsyncDisposable {
  readonly port: number
}

export type NodeCommand = 'pause' | 'resume' | 'resnapshot'

export interface HttpServerOptions {
  /** 127.0.0.1 unless the operator says otherwise. */
  readonly host: string
  /** 0 takes a free port. */
  readonly port: number
  readonly status: () => MeshStatus
  readonly metrics: { scrape(): Promise<{ readonly contentType: string; readonly text: string }> }
  /** Pauses or resumes a node, or has a source read a table again (null: all); false when there is no such node or table. What it throws of ours is answered with 409. */
  readonly command: (node: string, command: NodeCommand, table: string | null) => boolean
}

/**
 * GET /metrics, /status, /health/live (the process answers), /health/ready (503 unless every node made progress or has nothing to do);
 * POST /nodes/<node>/pause, /resume and /resnapshot?table=<id>, accepted from the machine itself only.
 * @throws config.invalid when the address cannot be taken
 */
export async function openHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const server = http.createServer((request, response) => {
    answer(options, request, response).catch((error: unknown) => {
      if (!response.headersSent) response.writeHead(500, { 'content-type': 'text/plain' })
      response.end(`${error instanceof Error ? error.message : String(error)}\n`)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new MillraceError('config.invalid', `cannot listen on ${options.host}:${options.port}`, { cause, fix: 'choose another --port, or 0 for any free one' }),
      )
    })
    server.listen(options.port, options.host, resolve)
  })
  // it serves the mesh and must not keep a stopped one alive
  server.unref()
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function answer(options: HttpServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
  const json = (code: number, body: unknown) => {
    response.writeHead(code, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    response.end(`${JSON.stringify(body)}\n`)
  }
  const post = /^\/nodes\/([^/]+)\/(pause|resume|resnapshot)$/.exec(pathname)
  if (request.method === 'POST' && post !== null) {
    // a page in a browser can send a POST too: it always names its origin
    const { remoteAddress, localAddress } = request.socket
    const isLocal = remoteAddress !== undefined && (/^(::ffff:)?127\.|^::1$/.test(remoteAddress) || remoteAddress === localAddress)
    if (!isLocal || request.headers.origin !== undefined) return json(403, { error: 'commands are taken from this machine only' })
    let isKnown: boolean
    try {
      isKnown = options.command(decodeURIComponent(post[1]!), post[2] as NodeCommand, searchParams.get('table'))
    } catch (refusal) {
      if (!(refusal instanceof MillraceError)) throw refusal
      const { code, message, fix } = refusal
      return json(409, { code, error: message, fix })
    }
    return isKnown ? json(202, { node: post[1], command: post[2] }) : json(404, { error: `there is no such node or table: ${post[1]}` })
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') return json(405, { error: 'GET only' })
  if (pathname === '/metrics') {
    const { contentType, text } = await options.metrics.scrape()
    response.writeHead(200, { 'content-type': contentType })
    response.end(text)
  } else if (pathname === '/status') json(200, options.status())
  else if (pathname === '/health/live') json(200, { live: true })
  else if (pathname === '/health/ready') {
    const status = options.status()
    const nodes = status.nodes.map(({ node, state, progressedAt, error }) => ({
      node,
      state,
      idleMs: progressedAt === null ? null : status.at - progressedAt,
      error: error?.code ?? null,
    }))
    json(status.ready ? 200 : 503, { ready: status.ready, nodes })
  } else json(404, { error: 'see /status, /metrics, /health/live, /health/ready' })
}

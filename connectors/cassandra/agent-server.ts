import { createHash, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import https from 'node:https'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { asMillraceError, http, MillraceError, type PluginContext } from '../../core/plugin.ts'
import { isLoopback } from './agent-files.ts'
import type { CassandraConfig } from './cassandra-config.ts'
import { isCdcFile } from './cdc-directory.ts'
import { LocalFiles } from './cdc-files.ts'

/** Of one answer. */
const MOST_BYTES = 1024 * 1024

/**
 * Serves this node's `cdc_raw_directory` to the one Millrace that reads the cluster, until `signal` aborts:
 *
 * - `GET /` names, as JSON
 * - `GET /NAME?from=&length=` those bytes, fewer at its end, with its size in `x-size`; 404: there is none. Without `from` all of it
 * - `DELETE /NAME`
 *
 * @throws config.invalid, source.in_use, source.unprepared
 */
export async function serveFolder(
  { agent }: CassandraConfig,
  { logger }: PluginContext,
  { host, port }: { readonly host: string; readonly port: number },
  signal: AbortSignal,
): Promise<void> {
  if (agent?.folder === undefined) {
    throw new MillraceError('config.invalid', 'the source has no `agent.folder` to serve', { fix: 'set it to cdc_raw_directory of cassandra.yaml' })
  }
  const { cert, key, token, folder } = agent
  if ((cert === undefined || key === undefined) && !isLoopback(host)) {
    throw new MillraceError('config.invalid', `${host} is not of this machine alone, and there is no agent.cert and agent.key`, {
      fix: 'give the agent a certificate and its key in PEM form, or let it listen on 127.0.0.1 behind a tunnel',
    })
  }
  const files = new LocalFiles(folder)
  await files.names()
  const serve = (request: IncomingMessage, response: ServerResponse) => void answer(files, token, request, response)
  const server = cert === undefined ? http.createServer(serve) : https.createServer({ cert, key }, serve)
  server.listen(port, host)
  try {
    await once(server, 'listening')
  } catch (cause) {
    throw new MillraceError('source.in_use', `the agent cannot listen at ${host}:${port}: ${(cause as Error).message}`, { fix: 'give another --serve', cause })
  }
  logger.info({ host, port, folder }, 'serving the folder')
  if (!signal.aborted) await once(signal, 'abort')
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
}

async function answer(files: LocalFiles, token: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const end = (status: number, body: string | Buffer = '', headers: Record<string, string> = {}) => {
    response.writeHead(status, headers)
    response.end(body)
  }
  try {
    request.resume()
    if (!isToken(request.headers.authorization, token)) return end(401)
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://agent')
    const name = pathname.slice(1)
    if (request.method === 'GET' && name === '') return end(200, JSON.stringify((await files.names()).filter(isCdcFile)))
    if (!isCdcFile(name)) return end(404)
    if (request.method === 'DELETE') {
      await files.remove(name)
      return end(204)
    }
    if (request.method !== 'GET') return end(405)
    const size = await files.size(name)
    if (size === null) return end(404)
    const from = Number(searchParams.get('from') ?? 0)
    const length = Math.min(Number(searchParams.get('length') ?? size), MOST_BYTES)
    if (!Number.isSafeInteger(from) || !Number.isSafeInteger(length) || from < 0 || length < 0) return end(400)
    if (length === 0) return end(200, '', { 'x-size': String(size) })
    const file = await open(path.join(files.path, name))
    response.writeHead(200, { 'x-size': String(size) })
    await pipeline(file.createReadStream({ start: from, end: from + length - 1 }), response)
  } catch (error) {
    // it was deleted between two looks
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return end(404)
    if (response.headersSent) response.destroy()
    else end(500, asMillraceError(error).message)
  }
}

function isToken(given: string | undefined, token: string): boolean {
  const hash = (text: string) => createHash('sha256').update(text).digest()
  return given !== undefined && timingSafeEqual(hash(given), hash(`Bearer ${token}`))
}

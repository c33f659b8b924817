import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { tokenOfFile, tokensOfClient } from '../../../../../core/log/kafka/access-token.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-token-'))
let server: Server | null = null
afterEach(() => {
  vi.useRealTimers()
  server?.closeAllConnections()
  server?.close()
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

async function endpoint(answer: (request: IncomingMessage, response: ServerResponse, body: string) => void): Promise<string> {
  server = createServer((request, response) => {
    let body = ''
    request.on('data', (part: Buffer) => (body += part.toString()))
    request.on('end', () => answer(request, response, body))
  })
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`
}

const client = { clientId: 'a client', clientSecret: 'p+q:r' }

describe('tokens of a client', () => {
  test('are asked for once for all connections, and again when most of their life has passed', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    const asked: string[] = []
    const tokenUrl = await endpoint((request, response, body) => {
      asked.push(`${request.headers.authorization} ${body}`)
      response.end(JSON.stringify({ access_token: `t${asked.length}`, expires_in: 100 }))
    })
    const token = tokensOfClient({ tokenUrl, ...client, scope: 'kafka read', parameters: { audience: 'a' } })
    expect(await Promise.all([token(), token(), token()])).toEqual(['t1', 't1', 't1'])
    expect(asked).toEqual([`Basic ${Buffer.from('a+client:p%2Bq%3Ar').toString('base64')} grant_type=client_credentials&scope=kafka+read&audience=a`])
    vi.setSystemTime(Date.now() + 69_000)
    expect(await token()).toBe('t1')
    vi.setSystemTime(Date.now() + 2_000)
    expect(await token()).toBe('t2')
  })

  test('are no younger for a clock that is set back', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'] })
    let asked = 0
    const tokenUrl = await endpoint((_, response) => response.end(JSON.stringify({ access_token: `t${++asked}`, expires_in: 100 })))
    const token = tokensOfClient({ tokenUrl, ...client })
    expect(await token()).toBe('t1')
    vi.advanceTimersByTime(69_000)
    vi.setSystemTime(Date.now() - 3_600_000)
    expect(await token()).toBe('t1')
    vi.advanceTimersByTime(2_000)
    expect(await token()).toBe('t2')
  })

  test('serve until they expire while the endpoint is away, and no longer', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    let away = false
    const tokenUrl = await endpoint((_, response) => {
      if (away) response.writeHead(503)
      response.end(JSON.stringify({ access_token: 'first', expires_in: 100 }))
    })
    const token = tokensOfClient({ tokenUrl, ...client })
    expect(await token()).toBe('first')
    away = true
    vi.setSystemTime(Date.now() + 90_000)
    expect(await token()).toBe('first')
    vi.setSystemTime(Date.now() + 9_000)
    await expect(token()).rejects.toMatchObject({ id: 'NETWORK_EXCEPTION' })
  })

  test.each([
    [400, { error: 'invalid_scope', error_description: 'no such scope' }, 'invalid_scope (no such scope)'],
    [200, { token: 'x' }, 'holds no access_token'],
  ])('HTTP %i %j is refused', async (status, body, message) => {
    const tokenUrl = await endpoint((_, response) => {
      response.writeHead(status)
      response.end(JSON.stringify(body))
    })
    const error = await tokensOfClient({ tokenUrl, ...client })().catch((caught: unknown) => caught)
    expect(error).toMatchObject({ code: 'log.refused', message: expect.stringContaining(message), fix: expect.stringContaining('log.sasl.oauth') })
    expect(JSON.stringify(error) + String(error)).not.toContain(client.clientSecret)
  })
})

describe('a token in a file', () => {
  test('is read each time, and its absence is refused', async () => {
    const file = path.join(dir, 'token')
    const token = tokenOfFile(file)
    await expect(token()).rejects.toMatchObject({ code: 'log.refused', fix: expect.stringContaining('tokenFile') })
    for (const text of ['one', 'two']) {
      writeFileSync(file, `${text}\n`)
      expect(await token()).toBe(text)
    }
  })
})

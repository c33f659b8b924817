import { once } from 'node:events'
import net from 'node:net'
import os from 'node:os'
import pino from 'pino'
import { describe, expect, test } from 'vitest'
import postgres from '../../../../connectors/postgres/index.ts'
import { PgwireServer, TEXT, type WireResult } from '../../../services/pgwire-server.ts'

const context = { mesh: 'm', node: 'n', dataDir: os.tmpdir(), logger: pino({ level: 'silent' }), metric: () => {} }
const INT4 = 23
const BOOL = 16

/** What the opening ends with. No limit of its own would end it within a test. */
async function refusalOf(url: string, signal: AbortSignal): Promise<unknown> {
  const config = postgres.config.parse({ url, tables: ['public.*'], silenceMs: 3_600_000 })
  return await postgres.open(config, context, null, signal).catch((error: unknown) => error)
}

describe('an opening that is wanted no more gives up', () => {
  test.each([1, 2])('the connection to a server that says nothing, of %i hosts', async (hosts) => {
    const stop = new AbortController()
    const sockets: net.Socket[] = []
    const server = net.createServer((socket) => {
      sockets.push(socket.on('error', () => {}))
      if (sockets.length === hosts) stop.abort()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const host = `127.0.0.1:${(server.address() as net.AddressInfo).port}`
    // not by the limit for a connection, which is some seconds
    expect(await refusalOf(`postgres://u:p@${Array.from({ length: hosts }, () => host).join(',')}/db`, stop.signal)).toMatchObject({
      code: 'source.unreachable',
      message: expect.stringContaining('Connection terminated'),
    })
    for (const socket of sockets) socket.destroy()
    server.close()
  })

  test.each(['server_version_num', 'IDENTIFY_SYSTEM'])('the answer to a question with %s', async (hangsAt) => {
    const stop = new AbortController()
    async function* never() {
      yield await new Promise<never>(() => {})
    }
    const facts = { version: '180000', database: 'db', standby: 'f', walLevel: 'logical', senderTimeoutMs: '60000' }
    const types: Readonly<Record<string, number>> = { version: INT4, standby: BOOL, senderTimeoutMs: INT4 }
    const query = (sql: string): WireResult => {
      if (!sql.includes(hangsAt)) return { columns: Object.keys(facts).map((name) => ({ name, oid: types[name] ?? TEXT })), rows: [Object.values(facts)] }
      stop.abort()
      return { columns: [], rows: never() }
    }
    await using server = await PgwireServer.start({ password: 'p', query })
    expect(await refusalOf(`postgres://u:p@127.0.0.1:${server.port}/db`, stop.signal)).toMatchObject({ code: 'source.unreachable' })
    expect(stop.signal.aborted).toBe(true)
  })
})

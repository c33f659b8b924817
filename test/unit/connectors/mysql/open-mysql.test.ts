import { once } from 'node:events'
import net from 'node:net'
import os from 'node:os'
import mysql2 from 'mysql2'
import pino from 'pino'
import { describe, expect, test } from 'vitest'
import mysql from '../../../../connectors/mysql/index.ts'

const context = { mesh: 'm', node: 'n', dataDir: os.tmpdir(), logger: pino({ level: 'silent' }), metric: () => {} }
const PLAIN_FLAGS = 0xff_ffff
const UTF8 = 33

async function refusalOf(server: net.Server, signal: AbortSignal): Promise<unknown> {
  const { port } = server.address() as net.AddressInfo
  return await mysql
    .open(mysql.config.parse({ url: `mysql://u:p@127.0.0.1:${port}/db`, tables: ['db.*'] }), context, null, signal)
    .catch((error: unknown) => error)
}

describe('an opening that is wanted no more gives up', () => {
  test.each(['the connection to a server that says nothing', 'the answer to a question'])('%s', async (what) => {
    const stop = new AbortController()
    const sockets: net.Socket[] = []
    const server = net.createServer((socket) => {
      sockets.push(socket.on('error', () => {}))
      if (what.startsWith('the connection')) return stop.abort()
      const connection = mysql2.createConnection({ isServer: true, stream: socket } as mysql2.ConnectionOptions)
      connection.on('error', () => {})
      connection.serverHandshake({
        protocolVersion: 10,
        serverVersion: '8.4.0',
        connectionId: 1,
        statusFlags: 2,
        characterSet: UTF8,
        capabilityFlags: PLAIN_FLAGS,
      })
      // the login, and then the first question
      let messages = 0
      socket.on('data', () => ++messages === 2 && stop.abort())
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    // not by the limit for a connection, which is some seconds
    expect(await refusalOf(server, stop.signal)).toMatchObject({
      code: 'source.unreachable',
      message: expect.stringMatching(/stopped before the server took the connection|the connection is closed/),
    })
    for (const socket of sockets) socket.destroy()
    server.close()
  })
})

import net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { afterEach, describe, expect, test } from 'vitest'
import { CapturedTables } from '../../connectors/mysql/captured-tables.ts'
import { connectOptions } from '../../connectors/mysql/mysql-config.ts'
import { readCharsets, readServer, SESSION } from '../../connectors/mysql/server.ts'
import { SqlConnections } from '../../connectors/mysql/sql-connection.ts'
import { FLAVORS, mysqlDatabase, mysqlSkipReason } from '../services/mysql.ts'
import { captureOf, mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const SILENCE_MS = 2000

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

/** Stands before a server: what it answers comes `late` milliseconds after that. */
async function slowServer(upstream: number): Promise<{ readonly port: number; late: number }> {
  const sockets: net.Socket[] = []
  const proxy = { port: 0, late: 0 }
  const server = net.createServer((client) => {
    const behind = net.connect(upstream, '127.0.0.1')
    sockets.push(client, behind)
    for (const socket of [client, behind]) socket.on('error', () => {})
    client.pipe(behind)
    behind.on('data', (bytes) => void delay(proxy.late).then(() => client.write(bytes)))
    client.on('close', () => behind.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanup.push(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return Object.assign(proxy, { port: (server.address() as net.AddressInfo).port })
}

describe.skipIf(skip !== null)(`a slow catalog${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(FLAVORS)('%s: the list of all tables is waited for, a question about one is given up', async (flavor) => {
    const db = await mysqlDatabase(flavor)
    cleanup.push(() => db.drop())
    await db.sql('create table items (id int primary key)')
    const proxy = await slowServer(db.port)
    const settings = mysqlSettings(db, { url: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
    const connections = new SqlConnections(connectOptions(settings), SESSION, SILENCE_MS)
    cleanup.push(() => connections.close())
    const server = await connections.run('to look at the server', readServer, null)
    const charsets = await connections.run('to look at character sets', readCharsets, null)
    const tables = new CapturedTables({ connections, server, settings, charsets, logger: pino({ level: 'silent' }), refreshMs: 0 })

    proxy.late = SILENCE_MS * 1.5
    expect((await tables.list()).map(({ name }) => name)).toEqual(['items'])
    const message = expect.stringContaining(`silent for ${SILENCE_MS} ms`)
    await expect(tables.current(db.database, 'items')).rejects.toMatchObject({ code: 'source.unreachable', message })
  })
})

describe.skipIf(skip !== null)(`a table that is locked right before it is read${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(FLAVORS)('%s: neither its estimate nor its rows are waited for without limit', async (flavor) => {
    const { db, capture } = await captureOf(flavor, 'create table items (id int primary key); create table others (id int primary key)')
    cleanup.push(() => db.drop())
    cleanup.push(() => capture.stop())
    const table = (await capture.connector.tables()).find(({ name }) => name === 'items')
    const { snapshot } = capture.connector
    const read = () => snapshot.read(table!, null, { maxRows: 100, maxBytes: 1 << 20 }, () => {}, new AbortController().signal)
    const [reader, renamer] = [await db.connect(), await db.connect()]
    cleanup.push(
      () => renamer.destroy(),
      () => reader.destroy(),
    )
    await reader.query('start transaction; select * from others')
    // has the first for itself alone, while it waits for the second
    const renaming = renamer.query('rename table items to former_items, others to former_others')
    const waits = () => db.sql(`select id from information_schema.processlist where id = ${renamer.threadId} and state like 'Waiting for table metadata lock'`)
    while ((await waits()).length === 0) await delay(5)
    expect(await snapshot.estimate(table!)).toBe(null)
    await expect(read()).rejects.toMatchObject({ code: 'source.locked' })
    await db.sql(`kill query ${renamer.threadId}`)
    await expect(renaming).rejects.toMatchObject({ errno: 1317 })
    expect(await read()).toMatchObject({ rows: 0, next: null })
  })
})

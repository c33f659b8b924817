import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { Authority, opensslSkipReason } from '../services/certificates.ts'
import { databaseOn, FLAVORS, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason() ?? opensslSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

describe.skipIf(skip !== null).each(FLAVORS)(`%s over TLS${skip === null ? '' : ` (${skip})`}`, (flavor) => {
  let dir: string
  let server: MysqlServer
  let db: MysqlDatabase
  let authority: Authority
  let stranger: Authority
  let ca: string
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-tls-'))
    authority = new Authority(dir, 'ca')
    stranger = new Authority(dir, 'stranger')
    ca = authority.certificate
    // for the address, and for no name: what else were accepted would have been looked at under another name
    const { cert, key } = authority.issue('database', 'IP:127.0.0.1')
    const files = { ca: path.join(dir, 'ca-of-server.pem'), cert: path.join(dir, 'server.pem'), key: path.join(dir, 'server-key.pem') }
    writeFileSync(files.ca, ca)
    writeFileSync(files.cert, cert)
    writeFileSync(files.key, key, { mode: 0o600 })
    server = await startMysql({ flavor, dir: path.join(dir, 'server'), settings: { 'ssl-ca': files.ca, 'ssl-cert': files.cert, 'ssl-key': files.key } })
    db = await databaseOn(flavor, server.port)
    // so every connection is refused that has none, the one that streams too
    await db.sql(`alter user cdc@'127.0.0.1' require ssl`)
    await db.sql(`create user strict@'127.0.0.1' identified by 'cdc' require x509`)
    await db.sql(`grant replication slave, replication client, select on *.* to strict@'127.0.0.1'`)
    await db.sql('create table t (id int primary key, v longtext)')
  })
  afterAll(async () => {
    await db?.drop()
    await server?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  const open = async (more: object) => {
    const source = await mysql.open(mysqlSettings(db, more), mysqlContext(db), null)
    await source[Symbol.asyncDispose]()
  }
  const strict = () => db.url.replace('//cdc:', '//strict:')

  test('rows and changes come over TLS, in more bytes than any buffer on the way holds', async () => {
    await db.sql(`insert into t values (-1, repeat('s', 3000000))`)
    const capture = await MysqlCapture.start(db, { ssl: { ca } })
    const [table] = await capture.connector.tables()
    const chunk = await capture.connector.snapshot.read(table!, null, { maxRows: 10, maxBytes: 1 << 26 }, () => {}, new AbortController().signal)
    expect(chunk.rows).toBe(1)
    const rows = Array.from({ length: 5000 }, (_, i) => `(${i + 1}, repeat('v', 2000))`)
    await db.sql(`insert into t values ${rows.join(', ')}`)
    await db.sql(`insert into t values (6000, repeat('w', 6000000))`)
    await capture.caughtUp()
    const after = capture.of('t').map((change) => change.after as { id: number; v: string })
    expect(after.map(({ id }) => id)).toEqual([...Array.from({ length: 5000 }, (_, i) => i + 1), 6000])
    expect(after.map(({ v }) => v.length)).toEqual([...Array.from({ length: 5000 }, () => 2000), 6_000_000])
    await capture.stop()
  })

  test('the certificate must be of the authority, and for the host as it is set', async () => {
    const named = db.url.replace('127.0.0.1', 'localhost')
    await open({ ssl: { ca } })
    for (const ssl of [undefined, false, true, { ca: stranger.certificate }]) {
      await expect(open({ ssl }), JSON.stringify(ssl)).rejects.toMatchObject({ code: 'source.forbidden' })
    }
    await expect(open({ url: named, ssl: { ca } })).rejects.toMatchObject({ code: 'source.forbidden', message: expect.stringContaining('localhost') })
    await open({ url: named, ssl: { rejectUnauthorized: false } })
  })

  test('a client certificate is sent', async () => {
    await open({ url: strict(), ssl: { ca, ...authority.issue('client') } })
    await expect(open({ url: strict(), ssl: { ca } })).rejects.toMatchObject({ code: 'source.forbidden' })
    await expect(open({ url: strict(), ssl: { ca, ...stranger.issue('client') } })).rejects.toMatchObject({ code: 'source.forbidden' })
  })

  test('a server that goes away within the handshake is not refused for good', async () => {
    const cutter = net.createServer((client) => {
      const upstream = net.connect(server.port, '127.0.0.1')
      upstream.pipe(client)
      // the request for TLS is the first that the client sends
      client.once('data', () => {
        client.resetAndDestroy()
        upstream.destroy()
      })
      for (const socket of [client, upstream]) socket.on('error', () => {})
    })
    await new Promise<void>((resolve) => cutter.listen(0, '127.0.0.1', resolve))
    const { port } = cutter.address() as net.AddressInfo
    try {
      await expect(open({ url: db.url.replace(`:${server.port}/`, `:${port}/`), ssl: { ca } })).rejects.toMatchObject({ code: 'source.unreachable' })
    } finally {
      cutter.close()
    }
  })
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { databaseOn, type MysqlDatabase, type MysqlServer, mariadbPlugins, mariadbPluginsSkipReason, startMysql } from '../services/mysql.ts'
import { MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'

const skip = await mariadbPluginsSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const PASSWORDS = ['s', 'only for this test', 'exactly thirty-two bytes long, yes', 'ünïcödé @:/%', 'x'.repeat(200)]

describe.skipIf(skip !== null)(`MariaDB's ed25519${skip === null ? '' : ` (${skip})`}`, () => {
  let dir: string
  let server: MysqlServer
  let db: MysqlDatabase
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-ed25519-'))
    server = await startMysql({ flavor: 'mariadb', dir, settings: { 'plugin-dir': await mariadbPlugins(), 'plugin-load-add': 'auth_ed25519' } })
    db = await databaseOn('mariadb', server.port)
    for (const [i, password] of PASSWORDS.entries()) {
      await db.sql(`create user signer${i}@'127.0.0.1' identified via ed25519 using password(?)`, [password])
      await db.sql(`grant replication slave, replication client, select on *.* to signer${i}@'127.0.0.1'`)
    }
    await db.sql('create table t (id int primary key)')
  }, 600_000)
  afterAll(async () => {
    await db?.drop()
    await server?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  test('its users log in, and stream', async () => {
    for (const [i, password] of PASSWORDS.entries()) {
      const url = db.url.replace('//cdc:cdc@', `//signer${i}:${encodeURIComponent(password)}@`)
      const capture = await MysqlCapture.start(db, { url })
      await db.sql(`insert into t values (${i})`)
      await capture.caughtUp()
      expect(capture.of('t')).toEqual([{ op: 'c', after: { id: i } }])
      await capture.stop()
    }
  })

  test.each(['other', ''])('a wrong password %j is refused', async (password) => {
    const url = db.url.replace('//cdc:cdc@', `//signer1:${password}@`)
    await expect(mysql.open(mysqlSettings(db, { url }), mysqlContext(db), null)).rejects.toMatchObject({ code: 'source.forbidden' })
  })
})

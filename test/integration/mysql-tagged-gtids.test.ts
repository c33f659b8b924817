import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import { databaseOn, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql } from '../services/mysql.ts'
import { MysqlCapture, mysqlContext, mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const LONGEST = 'a_tag_as_long_as_tags_may_be_wow'

describe.skipIf(skip !== null)(`tagged GTIDs of MySQL${skip === null ? '' : ` (${skip})`}`, () => {
  let dir: string
  const servers: MysqlServer[] = []
  let primary: MysqlDatabase
  let replica: MysqlDatabase
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-tagged-'))
    for (const serverId of [1, 2]) {
      servers.push(await startMysql({ flavor: 'mysql', dir: path.join(dir, String(serverId)), serverId, settings: { 'log-replica-updates': 'ON' } }))
    }
    replica = await databaseOn('mysql', servers[1]!.port, 'shop')
    // before there is anything else: it has no transactions of its own
    await replica.sql('drop database shop; reset binary logs and gtids')
    await replica.sql(
      `change replication source to source_host = '127.0.0.1', source_port = ${servers[0]!.port}, source_user = 'root', source_auto_position = 1,
         get_source_public_key = 1; start replica`,
    )
    primary = await databaseOn('mysql', servers[0]!.port, 'shop')
    await primary.sql('create table items (id int primary key, tag varchar(40))')
  })
  afterAll(async () => {
    await primary?.drop().catch(() => {})
    await replica?.drop().catch(() => {})
    for (const server of servers) await server.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  /** One transaction for each tag, none: `AUTOMATIC` alone. */
  async function write(db: MysqlDatabase, from: number, tags: readonly string[]): Promise<number[]> {
    const session = await db.connect()
    for (const [i, tag] of tags.entries()) {
      await session.query(`set gtid_next = 'AUTOMATIC${tag === '' ? '' : `:${tag}`}'`)
      await session.query('insert into items values (?, ?)', [from + i, tag])
    }
    await session.end()
    return tags.map((_, i) => from + i)
  }
  const ids = (capture: MysqlCapture) => capture.of('items').map(({ after }) => (after as { id: number }).id)
  const executed = async (db: MysqlDatabase) => String((await db.sql('select @@global.gtid_executed as g'))[0]!.g).replaceAll('\n', '')

  test('stream, restart, and go on at a replica that was promoted', async () => {
    const first = await MysqlCapture.start(primary)
    const written = await write(primary, 0, ['backup', '', LONGEST, 'backup', 'backup', '', '_'])
    const [{ Log_name: file } = {}] = (await primary.sql('show binary logs')).slice(-1)
    const events = await primary.sql(`show binlog events in '${file}'`)
    expect(events.filter(({ Event_type }) => /tagged/i.test(String(Event_type)))).toHaveLength(5)
    await first.caughtUp()
    expect(ids(first)).toEqual(written)
    expect(first.output.changes.map(({ commit }) => commit)).toEqual(first.output.changes.map((_, i) => first.output.changes[0]!.commit + BigInt(i)))
    // in the server's own form, with everything that it has
    const { gtids } = first.offset as { gtids?: string }
    expect(gtids).toBe(await executed(primary))
    expect(gtids).toMatch(/:backup:1-3(?::|$)/)
    // commit times come with tagged ones as with others
    expect(Math.abs(Number(first.output.start!.committedAt / 1000n) - Date.now())).toBeLessThan(600_000)
    await first.stop()

    const missed = await write(primary, 100, [LONGEST, '', 'other', 'backup'])
    const second = await MysqlCapture.start(primary, {}, first.offset)
    missed.push(...(await write(primary, 200, ['', 'other'])))
    await second.caughtUp()
    expect(ids(second)).toEqual(missed)
    await second.stop()

    const [row] = await replica.sql('select wait_for_executed_gtid_set(?, 240) as late', [await executed(primary)])
    expect(row!.late).toBe(0)
    await replica.sql('stop replica; reset replica all')
    const promoted = await databaseOn('mysql', servers[1]!.port, 'shop')
    const third = await MysqlCapture.start(promoted, {}, second.offset)
    const later = await write(promoted, 300, ['backup', '', LONGEST])
    await third.caughtUp()
    expect(ids(third)).toEqual(later)
    await third.stop()

    // the old primary lacks what the replica committed since, under tags of its own
    await expect(mysql.open(mysqlSettings(primary), mysqlContext(primary), third.offset)).rejects.toMatchObject({
      code: 'source.identity_changed',
      message: expect.stringContaining(LONGEST),
    })
    await promoted.drop()
  })
})

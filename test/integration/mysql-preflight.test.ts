import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import mysql from '../../connectors/mysql/index.ts'
import type { Finding } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { databaseOn, FLAVORS, type MysqlDatabase, type MysqlServer, mysqlSkipReason, startMysql, WITHOUT_GTIDS } from '../services/mysql.ts'
import { mysqlContext, mysqlSettings } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

describe.skipIf(skip !== null).each(FLAVORS)(`the preflight of %s${skip === null ? '' : ` (${skip})`}`, (flavor) => {
  let dir: string
  const servers: MysqlServer[] = []
  let db: MysqlDatabase
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-preflight-'))
    servers.push(await startMysql({ flavor, dir: path.join(dir, 'server'), serverId: 7 }))
    db = await databaseOn(flavor, servers[0]!.port)
    await db.sql('create table items (id int primary key, secret int, open int)')
  })
  afterAll(async () => {
    await db?.drop()
    for (const server of servers) await server.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  const check = (more: object = {}) => mysql.check(mysqlSettings(db, more), mysqlContext(db))
  const about = (findings: readonly Finding[], subject: string) => findings.filter((finding) => finding.subject.startsWith(subject))
  const asRoot = () => db.url.replace('//cdc:cdc@', '//root@')

  test('finds nothing on a server that is ready', async () => {
    const findings = await check()
    expect(findings.filter(({ level }) => level === 'error')).toEqual([])
    expect(findings.filter(({ level }) => level === 'warning').map(({ subject }) => subject)).toEqual([])
    for (const subject of ['log_bin', 'binlog_format', 'binlog_row_metadata', 'binlog_row_image', 'binlog retention', 'server_id', 'privilege SELECT']) {
      expect([subject, about(findings, subject).map(({ level }) => level)]).toEqual([subject, ['ok']])
    }
  })

  test.each([
    ['binlog_format', 'STATEMENT', 'ROW', 'error'],
    ['binlog_format', 'MIXED', 'ROW', 'error'],
    ['binlog_row_image', 'MINIMAL', 'FULL', 'warning'],
    ['binlog_row_image', 'NOBLOB', 'FULL', 'warning'],
    ['binlog_row_metadata', 'MINIMAL', 'FULL', 'warning'],
  ])('%s = %s', async (variable, value, back, level) => {
    await db.sql(`set global ${variable} = '${value}'`)
    try {
      const fix = expect.stringContaining(variable)
      expect(about(await check(), variable)).toEqual([{ level, subject: variable, message: expect.stringContaining(value), fix }])
      if (level === 'error') await expect(mysql.open(mysqlSettings(db), mysqlContext(db), null)).rejects.toMatchObject({ code: 'source.unprepared' })
    } finally {
      await db.sql(`set global ${variable} = '${back}'`)
    }
  })

  if (flavor === 'mysql')
    test.each(['ON_PERMISSIVE', 'OFF_PERMISSIVE', 'OFF'])('gtid_mode = %s, which needs performance_schema', async (mode) => {
      const server = await startMysql({
        flavor,
        dir: path.join(dir, mode),
        settings: { ...WITHOUT_GTIDS, 'gtid-mode': mode, ...(mode === 'OFF' ? {} : { 'enforce-gtid-consistency': 'ON' }) },
      })
      servers.push(server)
      const other = await databaseOn(flavor, server.port)
      try {
        await other.sql(`create user narrow@'127.0.0.1'; grant replication slave, replication client on *.* to narrow@'127.0.0.1'`)
        const from = (who: string) => mysql.check(mysqlSettings(other, { url: other.url.replace('cdc:cdc', who) }), mysqlContext(other))
        const ready = await from('cdc:cdc')
        expect(ready.filter(({ level }) => level === 'error')).toEqual([])
        const message = expect.stringMatching(new RegExp(`${mode}.*failover`))
        expect(about(ready, 'gtid_mode')).toEqual([{ level: 'warning', subject: 'gtid_mode', message, fix: expect.stringContaining('gtid_mode') }])
        expect(about(ready, 'performance_schema')).toMatchObject([{ level: 'ok' }])
        const fix = expect.stringMatching(/^GRANT SELECT ON performance_schema\.\* TO 'narrow'@/)
        expect(about(await from('narrow:'), 'privilege SELECT on performance_schema')).toMatchObject([{ level: 'error', fix }])
        for (const [setup, name] of [
          ['setup_consumers', 'global_instrumentation'],
          ['setup_instruments', 'wait/lock/metadata/sql/mdl'],
        ] as const) {
          const enable = (on: string) => other.sql(`update performance_schema.${setup} set enabled = '${on}' where name = '${name}'`)
          await enable('NO')
          expect(about(await from('cdc:cdc'), 'performance_schema')).toMatchObject([{ level: 'error', fix: expect.stringContaining(setup) }])
          await enable('YES')
        }
      } finally {
        await other.drop()
      }
    })

  if (flavor === 'mysql')
    test('gtid_mode other than ON without performance_schema', async () => {
      await db.sql('set global gtid_mode = ON_PERMISSIVE')
      try {
        const fix = expect.stringContaining('gtid_mode')
        expect(about(await check(), 'performance_schema')).toEqual([
          { level: 'error', subject: 'performance_schema', message: expect.stringContaining('OFF'), fix },
        ])
        await expect(mysql.open(mysqlSettings(db), mysqlContext(db), null)).rejects.toMatchObject({ code: 'source.unprepared' })
      } finally {
        await db.sql('set global gtid_mode = ON')
      }
    })

  test('binlogs that are kept for hours', async () => {
    const [row] = await db.sql('select @@global.binlog_expire_logs_seconds as s')
    await db.sql('set global binlog_expire_logs_seconds = 7200')
    try {
      expect(about(await check(), 'binlog retention')).toEqual([
        {
          level: 'warning',
          subject: 'binlog retention',
          message: expect.stringMatching(/^2\.0 hours: .*first reading/),
          fix: expect.stringContaining('604800'),
        },
      ])
    } finally {
      await db.sql(`set global binlog_expire_logs_seconds = ${Number(row!.s)}`)
    }
  })

  test('the estimate of the first reading is of the tables that are captured', async () => {
    await db.sql(`create table many (id int primary key, v text); insert into many with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000)
      select i, repeat('v', 2000) from n; create table aside like many; insert into aside select * from many; analyze table many, aside`)
    try {
      const [found] = about(await check({ tables: [`${db.database}.many`] }), 'binlog retention')
      const [, rows, megabytes] = /some (\d+) rows, (\d+) MB/.exec(found!.message)!.map(Number)
      expect(rows).toBeGreaterThan(500)
      expect(rows).toBeLessThan(1500)
      expect(megabytes).toBeGreaterThanOrEqual(2)
      expect(megabytes).toBeLessThan(6)
    } finally {
      await db.sql('drop table many, aside')
    }
  })

  test('the server id of the server itself, and of one of its replicas', async () => {
    expect(about(await check({ serverId: 7 }), 'server_id')).toEqual([
      { level: 'error', subject: 'server_id 7', message: expect.stringContaining('server itself'), fix: expect.stringContaining('serverId') },
    ])
    const replica = await startMysql({ flavor, dir: path.join(dir, 'replica'), serverId: 8 })
    servers.push(replica)
    const other = await databaseOn(flavor, replica.port)
    const from = `${flavor === 'mysql' ? 'source' : 'master'}_`
    const more = flavor === 'mysql' ? 'get_source_public_key = 1' : 'master_ssl = 0'
    await other.sql(
      `change ${flavor === 'mysql' ? 'replication source' : 'master'} to ${from}host = '127.0.0.1', ${from}port = ${db.port}, ${from}user = 'root', ${more};
         start ${flavor === 'mysql' ? 'replica' : 'slave'}`,
    )
    const replicas = () => db.sql(flavor === 'mysql' ? 'show replicas' : 'show slave hosts')
    await until('the server knows its replica', async () => (await replicas()).length > 0)
    const findings = async (url: string) => about(await check({ serverId: 8, url }), 'server_id')
    const clash = { level: 'error', subject: 'server_id 8', message: expect.stringContaining('replica'), fix: expect.stringContaining('serverId') }
    expect(await findings(asRoot())).toEqual([clash])
    // MariaDB shows them to few
    expect(await findings(db.url)).toEqual(
      flavor === 'mysql' ? [clash] : [{ level: 'ok', subject: 'server_id 8', message: expect.stringContaining('may not see') }],
    )
    expect((await check({ serverId: 9, url: asRoot() })).filter(({ subject, level }) => subject === 'server_id 9' && level === 'ok')).toHaveLength(1)
    await other.sql(`stop ${flavor === 'mysql' ? 'replica' : 'slave'}`)
    await other.drop()
  })

  test('tables that may not be read, or of which only some columns may', async () => {
    await db.sql(`create table closed (id int primary key); create table unseen (id int primary key);
      create user partly@'127.0.0.1' identified by 'cdc'; grant replication slave, replication client on *.* to partly@'127.0.0.1';
      grant insert on closed to partly@'127.0.0.1'; grant select (id, open), insert on items to partly@'127.0.0.1'`)
    const url = db.url.replace('//cdc:', '//partly:')
    try {
      const findings = about(await check({ url }), 'privilege SELECT')
      expect(findings).toEqual(
        ['closed', 'items'].map((name) => ({
          level: 'error',
          subject: `privilege SELECT on ${db.database}.${name}`,
          message: expect.stringContaining('partly@127.0.0.1 lacks it'),
          fix: `GRANT SELECT ON \`${db.database}\`.\`${name}\` TO 'partly'@'127.0.0.1'`,
        })),
      )
      // what is said to help does
      for (const { fix } of findings) await db.sql(fix!)
      expect(about(await check({ url }), 'privilege SELECT').map(({ level }) => level)).toEqual(['ok'])
    } finally {
      await db.sql(`drop user partly@'127.0.0.1'; drop table closed, unseen`)
    }
  })

  test('a table that another session has locked is named, and not waited for', async () => {
    const session = await db.connect()
    await session.query('lock tables items write')
    try {
      expect(about(await check(), 'privilege SELECT')).toEqual([
        {
          level: 'warning',
          subject: `privilege SELECT on ${db.database}.items`,
          message: expect.stringContaining('another session'),
          fix: expect.stringContaining('check again'),
        },
      ])
    } finally {
      await session.end()
    }
  })

  if (flavor === 'mariadb')
    test('a table with system versioning, which a run leaves out', async () => {
      await db.sql('create table versioned (id int primary key) with system versioning')
      try {
        const subject = `types of ${db.database}.versioned`
        const message = expect.stringContaining('has system versioning')
        expect(about(await check(), 'types of')).toEqual([{ level: 'error', subject, message, fix: expect.stringContaining('DROP SYSTEM VERSIONING') }])
      } finally {
        await db.sql('drop table versioned')
      }
    })
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterAll, describe, expect, test } from 'vitest'
import { readOffset } from '../../connectors/cassandra/cassandra-offset.ts'
import cassandra from '../../connectors/cassandra/index.ts'
import { asMillraceError, UNCHANGED } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type CassandraServer, cassandraSkipReason, keyspaceOn, LOCAL_DC, startCassandra } from '../services/cassandra.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = cassandraSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-replicas-'))
const servers: CassandraServer[] = []
afterAll(async () => {
  for (const server of servers) await server.stop('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

describe.skipIf(skip !== null)(`two nodes of Cassandra${skip === null ? '' : ` (${skip})`}`, () => {
  test('what both replicas logged comes once, and what one missed comes from the other', { timeout: 300_000 }, async () => {
    const first = await startCassandra({ release: '5.0', dir: path.join(dir, 'one') })
    servers.push(first)
    const second = await startCassandra({ release: '5.0', dir: path.join(dir, 'two'), joins: { server: first, address: '127.0.0.2' } })
    servers.push(second)
    const db = await keyspaceOn('5.0', first.port, first.cdcRaw, 2)
    await db.cql('create table items (id int primary key, name text, quantity int) with cdc = true')
    const config = cassandra.config.parse({
      contactPoints: [`127.0.0.1:${first.port}`],
      localDataCenter: LOCAL_DC,
      tables: [`${db.keyspace}.*`],
      cdcRaw: [first.cdcRaw, second.cdcRaw],
      consistency: 'ONE',
    })
    const context = { mesh: 'test', node: 'shop', dataDir: path.join(dir, 'state'), logger: pino({ level: 'silent' }), metric: () => {} }
    const output = new RecordingOutput()
    const stop = new AbortController()
    const connector = await cassandra.open(config, context, null)
    let offset = connector.start
    let failure: unknown = null
    const done = (async () => {
      for await (const reached of connector.changes(connector.start, output, stop.signal)) offset = reached
    })().catch((error: unknown) => {
      failure = asMillraceError(error)
    })
    const caughtUp = async () => {
      const now = Date.now() * 1000
      await until('the stream passes now', () => {
        if (failure !== null) throw failure
        return readOffset(offset).through >= now
      })
    }
    const changes = () => output.of(`${db.keyspace}.items`).map(({ op, after, key }) => [op, ...Object.values(after ?? key!)])
    const sent = 200
    for (let id = 0; id < sent; id++) await db.cql('insert into items (id, name, quantity) values (?, ?, ?)', [id, `name ${id}`, id])
    for (let id = 0; id < sent; id += 2) await db.cql('update items set quantity = ? where id = ?', [-id, id])
    await caughtUp()
    expect(changes().filter(([op]) => op === 'c')).toHaveLength(sent)
    expect(changes().filter(([op]) => op === 'u')).toHaveLength(sent / 2)
    expect(changes().find(([op, id]) => op === 'u' && id === 100)).toEqual(['u', 100, UNCHANGED, -100])
    // one of them misses what is written now
    await second.stop('SIGKILL')
    for (let id = sent; id < sent + 20; id++) await db.cql('insert into items (id, name, quantity) values (?, ?, ?)', [id, 'alone', id])
    await caughtUp()
    expect(changes().filter(([op]) => op === 'c')).toHaveLength(sent + 20)
    stop.abort()
    await done
    await connector[Symbol.asyncDispose]()
    await db.drop()
  })
})

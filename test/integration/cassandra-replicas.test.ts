import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterAll, describe, expect, test } from 'vitest'
import { readOffset } from '../../connectors/cassandra/cassandra-offset.ts'
import cassandra from '../../connectors/cassandra/index.ts'
import { asMillraceError, UNCHANGED } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type CassandraServer, keyspaceOn, LOCAL_DC, startCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason } from '../services/cassandra-jvm.ts'
import { freePorts } from '../services/free-ports.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = cassandraSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const MILLRACE = path.join(import.meta.dirname, '..', '..', 'control', 'cli', 'millrace.js')

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-replicas-'))
const servers: CassandraServer[] = []
const children: ChildProcess[] = []
let mesh: MeshProcess | null = null
afterAll(async () => {
  await mesh?.kill()
  for (const child of children) child.kill('SIGKILL')
  for (const server of servers) await server.stop('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

let started: Promise<{ first: CassandraServer; second: CassandraServer }> | null = null

function cluster(): NonNullable<typeof started> {
  const start = async () => {
    // halves of the ring: tokens that chance gives may leave a node next to nothing
    const first = await startCassandra({ release: '5.0', dir: path.join(dir, 'one'), yaml: `initial_token: '${-(2n ** 62n)}'\n` })
    servers.push(first)
    const joins = { server: first, address: '127.0.0.2' }
    const second = await startCassandra({ release: '5.0', dir: path.join(dir, 'two'), joins, yaml: `initial_token: '${2n ** 62n}'\n` })
    servers.push(second)
    return { first, second }
  }
  return (started ??= start())
}

/** Measured: 88 at rest, 102 after 150 MB. */
const MOST_AGENT_MB = 125

const isIndex = (name: string) => name.endsWith('_cdc.idx')

describe.skipIf(skip !== null)(`two nodes of Cassandra${skip === null ? '' : ` (${skip})`}`, () => {
  test('agents on two machines: the source reads both through them, past kills of an agent and of itself', { timeout: 900_000 }, async () => {
    const { first, second } = await cluster()
    // each partition is on one of them only
    const db = await keyspaceOn('5.0', first.port, first.cdcRaw, 1)
    await db.cql('create table items (id int primary key, name text, quantity int) with cdc = true')
    const ports = (await freePorts(2)) as [number, number]
    const token = 'of the two agents'
    const env = { AGENT_TOKEN: token }
    const yaml = (folder: string) => `mesh: agents
dataDir: state
sources:
  shop:
    kind: cassandra
    contactPoints: ['127.0.0.1:${first.port}']
    localDataCenter: ${LOCAL_DC}
    tables: ['${db.keyspace}.*']
    cdcRaw: ['http://127.0.0.1:${ports[0]}', 'http://127.0.0.1:${ports[1]}']
    agent: { token: '\${env:AGENT_TOKEN}', folder: '${folder}' }
    consistency: ONE
sinks:
  search: { kind: search, from: [shop], path: ./search.db }
`
    const folders = [first.cdcRaw, second.cdcRaw] as const
    const startAgent = (n: 0 | 1): ChildProcess => {
      const file = path.join(dir, `agent-${n}.yaml`)
      writeFileSync(file, yaml(folders[n]))
      const child = spawn(process.execPath, [MILLRACE, 'agent', 'cassandra', '--config', file, '--serve', `127.0.0.1:${ports[n]}`], {
        env: { ...process.env, ...env },
        stdio: 'ignore',
      })
      children.push(child)
      return child
    }
    const agents = [startAgent(0), startAgent(1)]
    mesh = new MeshProcess(path.join(dir, 'mesh'), yaml('nowhere'), env)
    mesh.start()
    await mesh.until('the source streams', ({ nodes }) => nodes[0]!.state === 'running')
    const fill = (from: number, count: number, body = '') =>
      Promise.all(
        Array.from({ length: count }, (_, n) =>
          db.client.execute('insert into items (id, name, quantity) values (?, ?, ?)', [from + n, `name ${n}${body}`, n], { prepare: true }),
        ),
      )
    const hasAll = async (rows: number) => {
      const audit = await mesh!.audit()
      expect(audit.map(({ equal, differences, source }) => ({ equal, differences, rows: source.rows }))).toEqual([{ equal: true, differences: [], rows }])
    }
    await fill(0, 300)
    for (let id = 0; id < 300; id += 3) await db.cql('update items set quantity = ? where id = ?', [-id, id])
    await mesh.until('both nodes are read', ({ nodes }) => nodes[0]!.rows >= 400)
    agents[1]!.kill('SIGKILL')
    await fill(300, 100)
    await db.cql('delete from items where id = 1')
    await mesh.until('the source says that an agent is gone', ({ nodes }) => nodes[0]!.error?.code === 'source.unreachable')
    agents[1] = startAgent(1)
    await mesh.until('all rows are captured', ({ nodes }) => nodes[0]!.state === 'running' && nodes[1]!.rows >= 501)
    await mesh.kill()
    await fill(400, 100)
    mesh.start()
    await mesh.until('what was written meanwhile is captured', ({ nodes }) => nodes[0]!.rows >= 100)
    await hasAll(499)
    const written = folders.map((folder) => readdirSync(folder).filter(isIndex))
    expect(written.every((names) => names.length > 0)).toBe(true)
    const areGone = () => folders.every((folder, n) => written[n]!.every((name) => !readdirSync(folder).includes(name)))
    // until each node has filled a segment with them
    let large = 0
    for (; large < 200 && !areGone(); large++) {
      const { rows } = (await mesh.until('it answers', () => true)).nodes[0]!
      await fill(1000 + large, 1, 'x'.repeat(250_000))
      await mesh.until('it is captured', ({ nodes }) => nodes[0]!.rows > rows)
    }
    await until('what was read is deleted on both', () => areGone() && folders.every((folder) => readdirSync(folder).filter(isIndex).length < 3))
    await hasAll(499 + large)
    const mb = agents.map(({ pid }) => Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024)
    console.info(`agents that serve held ${mb.map((one) => one.toFixed(0)).join(' and ')} MB at most`)
    expect(Math.max(...mb)).toBeLessThan(MOST_AGENT_MB)
    expect(await mesh.stop()).toBe(0)
    const settings = { contactPoints: [`127.0.0.1:${first.port}`], localDataCenter: LOCAL_DC, tables: ['*.*'], cdcRaw: `http://127.0.0.1:${ports[0]}` }
    const context = { mesh: 'test', node: 'shop', dataDir: path.join(dir, 'other'), logger: pino({ level: 'silent' }), metric: () => {} }
    const wrong = cassandra.config.parse({ ...settings, agent: { token: 'of somebody else' } })
    await expect(cassandra.check(wrong, context)).rejects.toMatchObject({ code: 'source.forbidden', fix: expect.stringContaining('agent.token') })
    await expect(cassandra.open(cassandra.config.parse(settings), context, null)).rejects.toMatchObject({ code: 'config.invalid' })
    const half = cassandra.config.parse({ ...settings, agent: { token } })
    await expect(cassandra.open(half, context, null)).rejects.toMatchObject({ code: 'source.unprepared', message: expect.stringContaining('on 2 nodes') })
    expect(await cassandra.check(half, context)).toContainEqual(expect.objectContaining({ level: 'error', subject: `replicas of ${db.keyspace}` }))
    for (const agent of agents) agent.kill('SIGINT')
    await until('the agents have ended', () => agents.every(({ exitCode }) => exitCode === 0))
    await db.drop()
  })

  test('what both replicas logged comes once, and what one missed comes from the other', { timeout: 900_000 }, async () => {
    const { first, second } = await cluster()
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
    const count = (kind: string) => changes().filter(([op]) => op === kind).length
    const all = (inserts: number) => until('all are there', () => failure !== null || (count('c') >= inserts && count('u') >= sent / 2))
    await all(sent)
    await caughtUp()
    expect(changes().filter(([op]) => op === 'c')).toHaveLength(sent)
    expect(changes().filter(([op]) => op === 'u')).toHaveLength(sent / 2)
    expect(changes().find(([op, id]) => op === 'u' && id === 100)).toEqual(['u', 100, UNCHANGED, -100])
    // one of them misses what is written now
    await second.stop('SIGKILL')
    for (let id = sent; id < sent + 20; id++) await db.cql('insert into items (id, name, quantity) values (?, ?, ?)', [id, 'alone', id])
    await all(sent + 20)
    await caughtUp()
    expect(changes().filter(([op]) => op === 'c')).toHaveLength(sent + 20)
    stop.abort()
    await done
    await connector[Symbol.asyncDispose]()
    // nothing is dropped: the nodes that are left would wait for the other to agree
    await db.client.shutdown()
  })
})

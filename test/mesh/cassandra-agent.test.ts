import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { readRunning } from '../../core/runtime/data-folder.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { until } from '../../testing/source/source-run.ts'
import { type CassandraKeyspace, LOCAL_DC, testCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason } from '../services/cassandra-jvm.ts'

const skip = cassandraSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const MILLRACE = path.join(import.meta.dirname, '..', '..', 'control', 'cli', 'millrace.js')
const ROWS = 20_000
const MOST_MB = 150
const PATIENCE_MS = 180_000

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-cassandra-agent-'))
let db: CassandraKeyspace | null = null
let agent: ChildProcess | null = null
afterEach(async () => {
  agent?.kill('SIGKILL')
  await until('the agent is gone', () => agent === null || agent.exitCode !== null || agent.signalCode !== null)
  await db?.drop()
  rmSync(dir, { recursive: true, force: true })
})

const statusOf = async (): Promise<MeshStatus | null> => {
  const running = readRunning(path.join(dir, 'state'))
  if (running === null || running.pid !== agent?.pid) return null
  return fetch(`http://${running.host}:${running.port}/status`).then(
    async (response) => (await response.json()) as MeshStatus,
    () => null,
  )
}

/** Most megabytes that the process ever held. */
function peakMb(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
}

describe.skipIf(skip !== null || process.platform !== 'linux')(`the agent beside Cassandra${skip === null ? '' : ` (${skip})`}`, () => {
  test(`runs the sources alone, streams ${ROWS} rows in less than ${MOST_MB} MB, and ends gracefully`, { timeout: 600_000 }, async () => {
    db = await testCassandra('5.0')
    const { keyspace, cdcRaw, port, client, cql } = db
    await cql('create table items (id int primary key, name text, quantity int) with cdc = true')
    const file = path.join(dir, 'mesh.yaml')
    writeFileSync(
      file,
      `mesh: agent
dataDir: state
sources:
  shop:
    kind: cassandra
    contactPoints: ['127.0.0.1:${port}']
    localDataCenter: ${LOCAL_DC}
    tables: ['${keyspace}.*']
    cdcRaw: ${cdcRaw}
    consistency: ONE
  files: { kind: files, directory: ./nowhere, namespace: files, tables: [{ files: '{table}.csv', format: csv }] }
sinks:
  lake: { kind: iceberg, from: [shop], warehouse: ./lake }
`,
    )
    agent = spawn(process.execPath, [MILLRACE, 'agent', 'cassandra', '--config', file], { stdio: ['ignore', 'ignore', 'pipe'] })
    let output = ''
    agent.stderr!.on('data', (bytes: Buffer) => (output += bytes.toString()))
    let nodes: readonly string[] = []
    await until('the agent answers', async () => {
      if (agent!.exitCode !== null || agent!.signalCode !== null) throw new Error(output)
      const status = await statusOf()
      nodes = status?.nodes.map(({ node }) => node) ?? []
      return status?.nodes[0]?.state === 'running'
    })
    expect(nodes).toEqual(['shop'])
    const idle = peakMb(agent.pid!)
    for (let from = 0; from < ROWS; from += 500) {
      const ids = Array.from({ length: 500 }, (_, n) => from + n)
      await Promise.all(ids.map((id) => client.execute('insert into items (id, name, quantity) values (?, ?, ?)', [id, `name ${id}`, id], { prepare: true })))
    }
    await until('all rows are in the log', async () => ((await statusOf())?.nodes[0]?.rows ?? 0) >= ROWS, PATIENCE_MS)
    const peak = peakMb(agent.pid!)
    console.info(`the agent held ${idle.toFixed(0)} MB before the first row, ${peak.toFixed(0)} MB at most`)
    expect(peak).toBeLessThan(MOST_MB)
    agent.kill('SIGINT')
    await until('it has ended', () => agent!.exitCode !== null || agent!.signalCode !== null)
    expect(agent.exitCode).toBe(0)
  })
})

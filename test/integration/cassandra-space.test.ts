import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import cassandra from '../../connectors/cassandra/index.ts'
import { asMillraceError, type MillraceError, type PluginContext, type SourceConnector, type SourceOffset } from '../../core/plugin.ts'
import { until } from '../../testing/source/source-run.ts'
import { type CassandraKeyspace, type CassandraServer, keyspaceOn, LOCAL_DC, RELEASES, startCassandra } from '../services/cassandra.ts'
import { cassandraSkipReason, type Release } from '../services/cassandra-jvm.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = cassandraSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const SPACE_MB = 6
const BODY = 'x'.repeat(50_000)
/** Code of CQL's error for a write that a replica refused. */
const WRITE_FAILURE = 0x1500
const root = mkdtempSync(path.join(os.tmpdir(), 'millrace-cassandra-space-'))
let server: CassandraServer | null = null
let connector: SourceConnector | null = null
afterEach(async () => {
  await connector?.[Symbol.asyncDispose]()
  connector = null
  await server?.stop('SIGKILL')
  server = null
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

/** Segments are 1 MB. */
async function begin(release: Release, blocks: boolean): Promise<CassandraKeyspace> {
  const dir = mkdtempSync(path.join(root, 'server-'))
  server = await startCassandra({ release, dir, yaml: `cdc_total_space: ${SPACE_MB}MiB\ncdc_block_writes: ${blocks}\n` })
  const db = await keyspaceOn(release, server.port, server.cdcRaw)
  await db.cql('create table items (id int primary key, body text) with cdc = true')
  await db.cql('create table beside (id int primary key, body text)')
  return db
}

function settings({ port, keyspace, cdcRaw }: CassandraKeyspace) {
  return cassandra.config.parse({
    contactPoints: [`127.0.0.1:${port}`],
    localDataCenter: LOCAL_DC,
    tables: [`${keyspace}.*`, `!${keyspace}.beside`],
    cdcRaw,
    consistency: 'ONE',
    pollMs: 10,
  })
}

/** Of the log file, and the newest of each metric. */
class Told {
  readonly warnings: string[] = []
  readonly metrics = new Map<string, number>()

  context(dataDir: string): PluginContext {
    const logger = pino({ level: 'warn' }, { write: (line: string) => void this.warnings.push(line) })
    return { mesh: 'test', node: 'shop', dataDir, logger, metric: (name, value) => void this.metrics.set(name, value) }
  }

  get alarms(): readonly string[] {
    return this.warnings.filter((line) => line.includes('the space for CDC segments fills'))
  }
}

/** Streams, with all that comes durable at once, until `isEnough`. @returns the last offset */
async function stream(from: SourceOffset, output: RecordingOutput, isEnough: () => Promise<boolean> | boolean): Promise<SourceOffset> {
  const stop = new AbortController()
  let offset = from
  let failure: MillraceError | null = null
  const streaming = (async () => {
    for await (const yielded of connector!.changes(from, output, stop.signal)) {
      offset = yielded
      connector!.acknowledge(yielded)
    }
  })().catch((error: unknown) => {
    failure = asMillraceError(error)
  })
  await until('enough is streamed', async () => {
    if (failure !== null) throw failure
    return isEnough()
  })
  stop.abort()
  await streaming
  return offset
}

describe.skipIf(skip !== null).each(RELEASES)(`the space of Cassandra %s for segments${skip === null ? '' : ` (${skip})`}`, (release) => {
  test('is told before it is full; writes that are refused then are accepted again once the segments are captured, and none is lost', async () => {
    const db = await begin(release, true)
    const told = new Told()
    connector = await cassandra.open(settings(db), told.context(mkdtempSync(path.join(root, 'node-'))), null)
    const accepted: number[] = []
    const write = (id: number) =>
      db.cql('insert into items (id, body) values (?, ?)', [id, BODY]).then(
        () => {
          accepted.push(id)
          return true
        },
        (error: { readonly code?: number }) => {
          // a write that timed out may be applied later
          if (error.code !== WRITE_FAILURE) throw error
          return false
        },
      )
    // the log of Millrace takes nothing
    let id = 0
    while (await write(id)) {
      await connector.lag()
      expect(++id).toBeLessThan((2 * SPACE_MB * 1024 * 1024) / BODY.length)
    }
    expect(told.alarms).toHaveLength(1)
    expect(told.alarms[0]).toContain(`"cdcTotalSpace":${SPACE_MB * 1024 * 1024}`)
    expect(told.metrics.get('cassandra_cdc_space_used')).toBeGreaterThan(0.5)
    // that only the tables with cdc are refused is what the alarm says
    await db.cql('insert into beside (id, body) values (1, ?)', [BODY])

    const output = new RecordingOutput()
    const streamed = () => output.of(`${db.keyspace}.items`).map(({ op, after }) => `${op} ${String(after?.id)}`)
    let isTaken = false
    await stream(connector.start, output, async () => {
      isTaken ||= await write(++id)
      return isTaken && accepted.every((one) => streamed().includes(`c ${one}`))
    })
    expect(streamed()).toEqual(accepted.map((one) => `c ${one}`))
    const rows = await db.cql('select id from items')
    expect(rows.map((row) => row.id as number).sort((a, b) => a - b)).toEqual(accepted)
    await until('the segments are taken away', async () => {
      await connector!.lag()
      return told.metrics.get('cassandra_cdc_space_used')! < 0.5
    })
    await db.client.shutdown()
  })

  test('is no limit without cdc_block_writes: the check says so, and what is dropped is history that is lost, not a gap', async () => {
    const db = await begin(release, false)
    const dataDir = mkdtempSync(path.join(root, 'node-'))
    const context = new Told().context(dataDir)
    const findings = await cassandra.check(settings(db), context)
    expect(findings).toContainEqual(
      expect.objectContaining({ level: 'warning', subject: 'cdc_block_writes', fix: expect.stringContaining('cdc_block_writes: true') }),
    )
    connector = await cassandra.open(settings(db), context, null)
    await db.cql('insert into items (id, body) values (-1, ?)', [BODY])
    const output = new RecordingOutput()
    const offset = await stream(connector.start, output, () => output.of(`${db.keyspace}.items`).length === 1)
    await connector[Symbol.asyncDispose]()
    connector = null
    const many = Math.ceil((3 * SPACE_MB * 1024 * 1024) / BODY.length)
    for (let id = 0; id < many; id++) await db.cql('insert into items (id, body) values (?, ?)', [id, BODY])
    await db.synced()
    await expect(cassandra.open(settings(db), context, offset)).rejects.toMatchObject({
      code: 'source.history_lost',
      fix: expect.stringContaining('--resnapshot shop'),
    })
    await db.client.shutdown()
  })
})

/** A table that joins the publication while others write to it, on every supported version. */
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pg from 'pg'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import type { PluginContext, SourceConnector, TableSchema, Value } from '../../core/plugin.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { MAJORS, skipReason, versionDatabase } from '../services/postgres-versions.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'
import { RunningCapture, until } from './running-capture.ts'

const reason = skipReason()

describe.each([...MAJORS, 18] as const)('Postgres %i', (major) => {
  const skip = major !== 18 && reason !== null
  let db: TestDatabase
  let context: PluginContext
  let capture: RunningCapture | null = null
  const clients: pg.Client[] = []

  beforeEach(async () => {
    if (skip) return
    db = await (major === 18 ? testDatabase() : versionDatabase(major))
    const dataDir = mkdtempSync(path.join(os.tmpdir(), 'millrace-late-'))
    context = { mesh: 'test', node: db.database, dataDir, logger: pino({ level: 'silent' }), metric: () => {} }
  })

  afterEach(async () => {
    if (skip) return
    for (const client of clients.splice(0)) await client.end()
    await capture?.stop()
    capture = null
    rmSync(context.dataDir, { recursive: true, force: true })
    await db.drop()
  })

  async function connected(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: db.url })
    await client.connect()
    clients.push(client)
    return client
  }

  async function firstChunk({ snapshot }: SourceConnector, table: TableSchema): Promise<readonly (readonly Value[])[]> {
    const chunk = await snapshot.read(table, null, { maxRows: 1_000_000, maxBytes: 2 ** 30 }, () => {}, AbortSignal.timeout(60_000))
    const writer = new RecordingWriter(chunk.table)
    chunk.write(
      writer,
      () => writer.row(),
      () => writer.end(),
    )
    return writer.rows
  }

  it.skipIf(skip)(
    `takes in a table beside a transaction that writes to it: no writer waits, and no row is lost${skip ? ` (skipped: ${reason})` : ''}`,
    async () => {
      const config = postgres.config.parse({ url: db.url, tables: ['public.*'] })
      const connector = await postgres.open(config, context, null)
      capture = new RunningCapture(connector, connector.start, db)
      await db.sql('create table late (id int primary key, v text)')
      const long = await connected()
      await long.query(`begin; insert into late values (1, 'before')`)
      const writer = await connected()
      // who waits behind a lock for so long fails
      await writer.query(`set lock_timeout = '200ms'`)
      let written = 1
      const write = () => writer.query(`insert into late values (${++written}, 'beside')`)
      let table: TableSchema | undefined
      await until('the table is captured', async () => {
        await write()
        table = (await connector.tables()).find(({ name }) => name === 'late')
        return table !== undefined
      })
      for (let i = 0; i < 10; i++) await write()
      await capture.caughtUp()
      const { output } = capture
      expect(output.of('public.late').at(-1)?.after).toEqual({ id: written, v: 'beside' })
      expect(await connector.snapshot.isReady!(table!, null)).toBe(false)

      await long.query(`insert into late values (-1, 'after'); commit`)
      await until('its writers have ended', () => connector.snapshot.isReady!(table!, null))
      await capture.caughtUp()
      const streamed = output.of('public.late').map(({ after }) => after!.id as number)
      const read = (await firstChunk(connector, table!)).map(([id]) => id as number)
      const all = [-1, ...Array.from({ length: written }, (_, i) => i + 1)]
      expect(read.toSorted((a, b) => a - b)).toEqual(all)
      // what a transaction wrote before the table was published may be in the view alone; what it wrote then is in the stream
      expect(streamed).toContain(-1)
      expect(capture.failure).toBe(null)
    },
  )
})

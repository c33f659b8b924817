/** Every sampled type through the stream, beside the snapshot: what the one reads the other must read as the same value. */
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import type { PluginContext, SourceOffset, Value } from '../../core/plugin.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { skipReason, versionDatabase } from '../services/postgres-versions.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'
import { TYPES } from './postgres-session.ts'
import { SAMPLES } from './postgres-type-samples.ts'
import { RunningCapture, until } from './running-capture.ts'

const reason = skipReason()

function streamsTypes(major: 14 | 18): void {
  let db: TestDatabase
  let context: PluginContext
  const running: RunningCapture[] = []

  beforeEach(async () => {
    db = major === 18 ? await testDatabase() : await versionDatabase(major)
    const dataDir = mkdtempSync(path.join(os.tmpdir(), 'millrace-pg-'))
    context = { mesh: 'test', node: db.database, dataDir, logger: pino({ level: 'silent' }), metric: () => {} }
  })

  afterEach(async () => {
    for (const capture of running.splice(0)) await capture.stop()
    await db.drop()
    rmSync(context.dataDir, { recursive: true, force: true })
  })

  const settings = (more: object = {}) => postgres.config.parse({ url: db.url, tables: ['public.*'], unrepresentable: 'text', ...more })
  const findings = async (more: object = {}) =>
    (await postgres.check(settings(more), context)).filter(({ subject }) => subject.startsWith('binary form')).map(({ level, subject }) => [level, subject])

  async function start(more: object = {}, resume: SourceOffset | null = null): Promise<RunningCapture> {
    const own = { ...context, dataDir: path.join(context.dataDir, String(running.length)) }
    const connector = await postgres.open(settings(more), own, resume)
    const capture = new RunningCapture(connector, resume ?? connector.start, db)
    running.push(capture)
    return capture
  }

  /** Its stream ends, as may pass, and the next one goes on where it was. */
  async function startAgain(capture: RunningCapture): Promise<RunningCapture> {
    await until('the stream ends', () => capture.failure !== null)
    expect(capture.failure).toMatchObject({ code: 'source.unreachable', category: 'unavailable', message: expect.stringContaining('as text') })
    expect([...capture.output.parked]).toEqual([])
    await running.pop()!.stop()
    return await start({}, capture.offsets.at(-1) ?? capture.connector.start)
  }

  async function snapshot(capture: RunningCapture, name: string): Promise<ReadonlyMap<Value, Value>> {
    const table = (await capture.connector.tables()).find((one) => one.name === name)!
    const chunk = await capture.connector.snapshot.read(table, null, { maxRows: 1000, maxBytes: 1_000_000 }, () => {}, AbortSignal.timeout(60_000))
    const writer = new RecordingWriter(chunk.table)
    chunk.write(
      writer,
      () => writer.row(),
      () => writer.end(),
    )
    return new Map(writer.rows.map(([n, v]) => [n!, v!]))
  }

  it('gives every type as the snapshot does, inserted and updated, with the defaults; in binary form those that have one', async () => {
    await db.sql(TYPES)
    const samples = SAMPLES.filter(({ since }) => (since ?? 0) <= major).map((sample, i) => ({ ...sample, name: `s${i}` }))
    await db.sql(samples.map(({ name, type }) => `create table ${name} (n int primary key, v ${type}); alter table ${name} replica identity full`).join(';'))
    const asText = new Set((await findings()).map(([, subject]) => subject!.split('public.')[1]!))
    const inBinary = samples.filter(({ name }) => !asText.has(name))
    expect(asText.size).toBeGreaterThan(15)
    expect(await findings({ binary: false })).toEqual([])
    const other = `millrace_${db.database}_binary`
    const auto = await start()
    const binary = await start({ binary: true, tables: inBinary.map(({ name }) => `public.${name}`), slot: other, publication: other })
    for (const { name, type, values } of samples) {
      const literals = values.map(([literal]) => literal)
      const from = `from unnest($1::int[], $2::text[]) as x (n, t)`
      await db.sql(`insert into ${name} select n, t::${type} ${from}`, [
        [-1, ...literals.keys()],
        [null, ...literals],
      ])
      // each row takes the next one's value
      await db.sql(`update ${name} s set v = x.t::${type} ${from} where s.n = x.n`, [
        [-1, ...literals.keys()],
        [null, ...literals.slice(1), literals[0]],
      ])
    }
    await Promise.all([auto.caughtUp(), binary.caughtUp()])
    expect([...auto.output.parked, ...binary.output.parked]).toEqual([])
    for (const { name, type, values } of samples) {
      const read = await snapshot(auto, name)
      // row i was updated to the value that row i + 1 began with
      const begun = values.map((_, i) => read.get((i + values.length - 1) % values.length)!)
      expect([type, ...begun]).toEqual([type, ...values.map(([, expected], i) => (expected === undefined ? begun[i] : expected))])
      const at = (n: Value) => (n === -1 ? null : begun[n as number])
      for (const capture of asText.has(name) ? [auto] : [auto, binary]) {
        const changes = capture.output.of(`public.${name}`)
        const order = [-1, ...values.keys()]
        expect([type, changes.map(({ op, after }) => [op, after!.n])]).toEqual([type, [...order.map((n) => ['c', n]), ...order.map((n) => ['u', n])]])
        for (const { op, before, after } of changes) {
          if (op === 'c') expect([type, after!.v]).toEqual([type, at(after!.n!)])
          else expect([type, before!.v, after!.v]).toEqual([type, at(after!.n!), read.get(after!.n!)])
        }
      }
    }
  })

  it('goes on as text once a type without a binary form comes, also when the catalog has none by then', async () => {
    await db.sql('create table t (id int primary key, v int)')
    const first = await start()
    await db.sql('insert into t values (1, 1)')
    await first.caughtUp()
    const release = first.hold()
    await db.sql(`alter table t add r regclass; insert into t values (2, 2, 'pg_class'); alter table t drop r; insert into t values (3, 3)`)
    release()
    const second = await startAgain(first)
    await db.sql(`alter table t add a aclitem[]; insert into t values (4, 4, '{postgres=r/postgres}')`)
    await second.caughtUp()
    expect([...second.output.parked]).toEqual([])
    expect(second.output.of('public.t').map(({ after }) => after)).toEqual([
      { id: 2, v: 2, r: 'pg_class' },
      { id: 3, v: 3 },
      { id: 4, v: 4, a: ['postgres=r/postgres'] },
    ])
  })

  it('goes on as text where the server fails to send a value, be it of a table that is not captured', async () => {
    await db.sql(`create table t (id int primary key); create table other (id int primary key, a aclitem[])
      ; create publication whole for all tables with (publish_via_partition_root = true)`)
    const more = { publication: 'whole', tables: ['public.t'] }
    const first = await start(more)
    const release = first.hold()
    await db.sql(`insert into other values (1, '{postgres=r/postgres}'); insert into t values (2)`)
    release()
    await until('the stream ends', () => first.failure !== null)
    expect(first.failure).toMatchObject({ code: 'source.unreachable', message: expect.stringContaining('aclitem') })
    await running.pop()!.stop()
    const second = await start(more, first.offsets.at(-1) ?? first.connector.start)
    await second.caughtUp()
    expect(second.output.of('public.t').map(({ after }) => after)).toEqual([{ id: 2 }])
  })

  it('names the repair where binary form is asked for and there is none', async () => {
    await db.sql('create table t (id int primary key, r regclass); create table broken (id int primary key, a aclitem[])')
    expect(await findings()).toEqual([
      ['warning', 'binary form of public.broken'],
      ['warning', 'binary form of public.t'],
    ])
    expect((await findings({ binary: true })).map(([level]) => level)).toEqual(['error', 'error'])
    const capture = await start({ binary: true })
    await db.sql(`insert into t values (1, 'pg_class')`)
    await capture.caughtUp()
    const fix = expect.stringContaining('binary: auto')
    expect(capture.output.parked.get('public.t')!.error).toMatchObject({ code: 'source.schema_unsupported', fix })
    await db.sql(`insert into broken values (1, '{postgres=r/postgres}')`)
    await until('the stream ends', () => capture.failure !== null)
    expect(capture.failure).toMatchObject({ code: 'config.unsupported', message: expect.stringContaining('42883'), fix })
  })
}

describe('the stream of Postgres 18', () => streamsTypes(18))
describe.skipIf(reason !== null)(`the stream of Postgres 14${reason === null ? '' : ` (skipped: ${reason})`}`, () => streamsTypes(14))

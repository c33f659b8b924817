import pino from 'pino'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { frameOf, recordHeader, records, stampChecksum, stampOffset } from '../../core/event/record-batch.ts'
import type { Log, LogBatch } from '../../core/log/log.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { Secrets } from '../../core/mesh/secrets.ts'
import type { SourceTableAudit } from '../../core/runtime/audit-mesh.ts'
import type { StreamWindows } from '../../core/runtime/audit-windows.ts'
import { readRunning } from '../../core/runtime/data-folder.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { PluginCatalog } from '../../core/runtime/plugin-catalog.ts'
import { runMesh } from '../../core/runtime/runtime.ts'
import { until } from '../../testing/source/source-run.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { faultDir, shopYaml } from './shop-mesh.ts'

/** What a defect between the log and the sinks does to the records that hold such a text. */
const DEFECTS: Readonly<Record<string, (value: Buffer) => readonly Buffer[]>> = {
  'to-be-lost': () => [],
  'to-be-doubled': (value) => [value, value],
  'to-be-changed': (value) => [Buffer.from(value.toString('latin1').replaceAll('to-be-changed', 'was--changed!'), 'latin1')],
}

/** Only sinks consume, so what capture writes and what the log counts stays as it is. */
class DefectiveLog implements Log {
  readonly #log: Log
  constructor(log: Log) {
    this.#log = log
  }
  get kind(): Log['kind'] {
    return this.#log.kind
  }
  get identity(): Log['identity'] {
    return this.#log.identity
  }
  ensureTopics: Log['ensureTopics'] = (specs) => this.#log.ensureTopics(specs)
  topics: Log['topics'] = () => this.#log.topics()
  openWriter: Log['openWriter'] = (node) => this.#log.openWriter(node)
  bounds: Log['bounds'] = (topic, end) => this.#log.bounds(topic, end)
  progress: Log['progress'] = (node) => this.#log.progress(node)
  async *consume(...args: Parameters<Log['consume']>): AsyncGenerator<LogBatch> {
    for await (const batch of this.#log.consume(...args)) yield tamper(batch)
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#log[Symbol.asyncDispose]()
  }
}

function tamper(batch: LogBatch): LogBatch {
  const { frame, baseOffset } = batch
  const found = Object.keys(DEFECTS).filter((text) => frame.includes(text))
  if (found.length === 0) return batch
  const plain: Parameters<typeof frameOf>[0][number][] = []
  for (const record of records(frame)) {
    const part = (from: number, to: number) => Buffer.from(frame.subarray(from, to))
    const key = part(record.keyFrom, record.keyTo)
    const value = part(record.valueFrom, record.valueTo)
    const headers = [['pos', recordHeader(frame, record, 'pos')!]] as const
    const defect = found.find((text) => value.includes(text))
    for (const one of defect === undefined ? [value] : DEFECTS[defect]!(value)) plain.push({ key, value: one, headers })
  }
  const { buffer, end, count } = frameOf(plain, batch.appendedAt)
  stampOffset(buffer, baseOffset)
  stampChecksum(buffer, end)
  return { ...batch, frame: buffer, count }
}

let isDefective = false
vi.mock('../../core/runtime/open-log.ts', async (original) => {
  const real = await original<typeof import('../../core/runtime/open-log.ts')>()
  return {
    ...real,
    openLog: async (...args: Parameters<typeof real.openLog>) => (isDefective ? new DefectiveLog(await real.openLog(...args)) : real.openLog(...args)),
  }
})

const TABLES = ['clean', 'lost', 'doubled', 'changed']
let folder: ReturnType<typeof faultDir>
let db: TestDatabase
let stop = new AbortController()
let ended: Promise<unknown> = Promise.resolve()
beforeEach(async () => {
  folder = faultDir()
  db = await testDatabase()
  for (const table of TABLES)
    await db.sql(`create table ${table} (id int primary key, body text); insert into ${table} select i, 'row ' || i from generate_series(1, 50) i`)
})
afterEach(async () => {
  stop.abort()
  await ended
  await db.drop()
  folder.remove()
})

/** Runs the mesh in this process, so that the log between its nodes can be a defective one. */
async function run(file: string) {
  const mesh = await loadMesh(file, new PluginCatalog())
  const lines: { readonly code?: string; readonly msg: string; readonly stream: string; readonly sink: string }[] = []
  const logger = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line)) })
  stop = new AbortController()
  ended = runMesh(mesh, { secrets: new Secrets({ env: {}, dir: mesh.dir }), logger, signal: stop.signal })
  const get = async (path: string) => (await fetch(`http://127.0.0.1:${readRunning(mesh.dataDir)!.port}${path}`)).text()
  const post = (path: string) => fetch(`http://127.0.0.1:${readRunning(mesh.dataDir)!.port}${path}`, { method: 'POST' })
  const untilStatus = async (condition: (status: MeshStatus) => boolean): Promise<MeshStatus> => {
    let status: MeshStatus | null = null
    const holds = async () => {
      status = readRunning(mesh.dataDir) === null ? null : (JSON.parse(await get('/status')) as MeshStatus)
      return status !== null && condition(status)
    }
    await until('the status says so', holds, 180_000).catch((error: Error) => {
      throw new Error(`${error.message}: ${JSON.stringify(status)}`)
    })
    return status!
  }
  return { lines, get, post, until: untilStatus }
}

/** `millrace audit FILE --windows --json` as a process of its own. */
async function windowsOf(files: MeshProcess, ...args: readonly string[]): Promise<{ exitCode: number | null; streams: readonly StreamWindows[] }> {
  const { exitCode, text } = await files.command('audit', '--windows', '--json', ...args)
  return { exitCode, streams: (JSON.parse(text) as { result: { streams: readonly StreamWindows[] } }).result.streams }
}

const landed = (status: MeshStatus, rows: number) => status.nodes.filter(({ role }) => role === 'sink').every((sink) => sink.rows >= rows)

const minuteOf = (ms: number) => Math.floor(ms / 60_000) * 60_000

/** Ten rows of each table in one transaction; the third of them says what becomes of it. @returns the minutes that its commit may be in */
async function insertMarked(): Promise<readonly number[]> {
  const inserts = TABLES.map(
    (table) => `insert into ${table} select i, case i when 103 then 'to-be-${table}' else 'row ' || i end from generate_series(101, 110) i`,
  )
  const before = minuteOf(Date.now())
  await db.sql(`begin; ${inserts.join('; ')}; commit`)
  return [before, minuteOf(Date.now())]
}

// I11
test('a change that is lost, doubled or changed on its way to the sinks is named by table and minute with counts and sums, in log, status and metrics; a clean table is not', async () => {
  const files = new MeshProcess(folder.dir, shopYaml({ name: db.database, url: db.url }))
  isDefective = true
  const mesh = await run(files.file)
  await mesh.until((status) => landed(status, 200))
  const minutes = await insertMarked()
  const { audit } = await mesh.until(({ audit: { differences } }) => differences.length === 6)
  const through = Date.now()
  const later = await mesh.until(({ audit: { throughMs } }) => (throughMs ?? 0) > through)
  expect(later.audit.differences).toEqual(audit.differences)
  expect(later.audit.uncounted).toEqual([])

  const expected = {
    lost: [9, '1 insert missing'],
    doubled: [11, '1 insert too many'],
    changed: [10, 'the same number of changes, with other content'],
  } as const
  for (const [table, [count, difference]] of Object.entries(expected)) {
    for (const sink of ['lake', 'search']) {
      const found = audit.differences.filter((one) => one.stream === `shop.public.${table}` && one.sink === sink)
      expect(found).toMatchObject([{ difference, captured: { c: 10 }, landed: { c: count } }])
      const { fromMs, untilMs, captured, landed } = found[0]!
      expect(minutes).toContain(fromMs)
      expect(untilMs).toBe(fromMs! + 60_000)
      expect(captured.sum).not.toBe(landed.sum)
      const told = mesh.lines.filter((line) => line.code === 'audit.unequal' && line.stream === `shop.public.${table}` && line.sink === sink)
      expect(told.map(({ msg }) => msg)).toEqual([expect.stringContaining(`in ${sink}: ${difference}; captured `)])
      expect(await mesh.get('/metrics')).toContain(
        `millrace_audit_differences{node="${sink}",stream="shop.public.${table}",mesh="${db.database.replaceAll('_', '-')}"} 1`,
      )
    }
  }
  expect(mesh.lines.filter(({ code }) => code === 'audit.unequal').length).toBe(6)

  const running = await windowsOf(files)
  expect(running.exitCode).toBe(1)
  for (const { table, sink, state, behind, windows } of running.streams) {
    expect({ table, sink, state, behind }).toEqual({ table, sink, state: table === 'public.clean' ? 'equal' : 'different', behind: 0 })
    const shown = windows.filter((window) => window.state === 'different')
    const told = audit.differences.filter((one) => one.stream === `shop.${table}` && one.sink === sink)
    expect(shown.map(({ state, ...window }) => window)).toEqual(told.map(({ sink, stream, ...window }) => window))
  }
  const { exitCode, text } = await files.command('audit', '--json', '--show-keys', '5')
  expect(exitCode).toBe(1)
  const { result } = JSON.parse(text) as { result: { audit: readonly SourceTableAudit[] } }
  const named = Object.fromEntries(result.audit.map(({ table, differences }) => [table, differences.filter((one) => one.startsWith('id='))]))
  expect(named).toEqual({
    'public.changed': ['id=103: other values in lake than in the log', 'id=103: other values in search than in the log'],
    'public.clean': [],
    'public.doubled': [],
    'public.lost': ['id=103: in the log, not in lake', 'id=103: in the log, not in search'],
  })
  stop.abort()
  await ended
  expect(await windowsOf(files)).toEqual(running)
})

test('a clean run finds nothing, whatever the texts say', async () => {
  const files = new MeshProcess(folder.dir, shopYaml({ name: db.database, url: db.url }))
  isDefective = false
  const mesh = await run(files.file)
  await mesh.until((status) => landed(status, 200))
  await insertMarked()
  await mesh.until((status) => landed(status, 240))
  const now = Date.now()
  const { audit } = await mesh.until(({ audit: { throughMs } }) => (throughMs ?? 0) > now)
  expect(audit).toMatchObject({ differences: [], uncounted: [] })
  expect(await mesh.get('/metrics')).not.toContain('millrace_audit_differences{')
  expect(mesh.lines.filter(({ code }) => code === 'audit.unequal')).toEqual([])

  expect(await windowsOf(files)).toMatchObject({ exitCode: 0, streams: Array.from({ length: 8 }, () => ({ state: 'equal', behind: 0 })) })
  // what a sink has not read yet is no difference
  await mesh.post('/nodes/lake/pause')
  await mesh.until((status) => status.nodes.some(({ state }) => state === 'paused'))
  await db.sql("insert into clean values (111, 'later')")
  await mesh.until((status) => status.nodes.some(({ node, rows }) => node === 'search' && rows === 241))
  const { exitCode, streams } = await windowsOf(files, '--table', 'public.clean')
  expect(exitCode).toBe(0)
  expect(streams).toMatchObject([
    { table: 'public.clean', sink: 'lake', state: 'open', behind: 1 },
    { table: 'public.clean', sink: 'search', state: 'equal', behind: 0 },
  ])
  expect(streams[0]!.windows.filter(({ state }) => state === 'open').map(({ difference }) => difference)).toEqual(['1 insert missing'])
})

/** The command line as people run it: child processes on a real Postgres, an embedded log and registry, an Iceberg table and a search index. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'

const CLI = path.resolve('control/cli/millrace.js')
const children = new Set<ChildProcess>()
let database: TestDatabase
let dir: string
let file: string

interface Finished {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function start(args: readonly string[]): { child: ChildProcess; finished: Promise<Finished>; output: () => { out: string; err: string } } {
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd: dir,
    env: { ...process.env, SHOP_URL: database.url, SHOP_SECRET: 'hunter2-hunter2' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.add(child)
  let out = ''
  let err = ''
  child.stdout!.setEncoding('utf8').on('data', (text) => (out += text))
  child.stderr!.setEncoding('utf8').on('data', (text) => (err += text))
  const finished = new Promise<Finished>((resolve) =>
    child.once('close', (code) => {
      children.delete(child)
      resolve({ code, out, err })
    }),
  )
  return { child, finished, output: () => ({ out, err }) }
}

const millrace = (...args: string[]) => start(args).finished

async function until<T>(what: string, look: () => Promise<T | null | false | undefined>, seconds = 180): Promise<T> {
  for (const deadline = Date.now() + seconds * 1000; ; await delay(50)) {
    const seen = await look()
    if (seen) return seen
    if (Date.now() > deadline) throw new Error(`it did not come to pass: ${what}`)
  }
}

async function status(): Promise<MeshStatus | null> {
  const { out } = await millrace('status', file, '--json')
  const { result } = JSON.parse(out) as { result: MeshStatus | null }
  return result
}

/** While it runs: others write on the same server, and the log of a mesh that stands still cannot reach a view from after that. */
async function expectEqual(): Promise<void> {
  const run = start(['run', file])
  await until('runs', async () => (await status()) !== null)
  const audit = await millrace('audit', file, '--wait', '120')
  expect(audit.code, audit.out + audit.err).toBe(0)
  run.child.kill('SIGINT')
  await run.finished
}

const lines = (text: string): Record<string, unknown>[] => text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)]))

beforeAll(async () => {
  database = await testDatabase()
  await database.sql(`
    create table products (id int primary key, name text not null, price numeric(10,2), note text);
    insert into products select i, case when i % 10 = 0 then 'red shoe ' else 'blue hat ' end || i, i * 1.5, null from generate_series(1, 500) i;
    create table orders (id bigint primary key, product int, status text);
    insert into orders values (1, 1, 'open'), (2, 2, 'paid');
  `)
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-cli-'))
  file = path.join(dir, 'shop.mesh.yaml')
  writeFileSync(
    file,
    `mesh: cli-${database.database.replaceAll('_', '-')}
sources:
  shop: { kind: postgres, url: '\${env:SHOP_URL}', tables: [public.*] }
sinks:
  lake: { kind: iceberg, from: [shop], warehouse: ./lake }
  find: { kind: search, from: [shop.public.products] }
`,
  )
})

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  await until('children end', async () => children.size === 0)
})

afterAll(async () => {
  await database?.drop()
  rmSync(dir, { recursive: true, force: true })
})

describe('the command line on a real mesh', { timeout: 900_000 }, () => {
  test('checks the file and the systems without leaving a trace', async () => {
    const { code, out, err } = await millrace('check', file)
    expect([code, err], out).toEqual([0, ''])
    expect(out).toContain('the file is in order (1 source, 2 sinks)')
    expect(out).toMatch(/ok +shop: /)
    expect(out).toContain('ready to run')
    expect((await database.sql('select 1 from pg_replication_slots where database = current_database()')).rowCount).toBe(0)
    expect((await millrace('status', file)).code).toBe(3)
  })

  test('tells a database that is away from one that is not prepared', async () => {
    const away = path.join(dir, 'away.mesh.yaml')
    writeFileSync(away, readFileSync(file, 'utf8').replace('${env:SHOP_URL}', 'postgres://postgres@127.0.0.1:1/none'))
    const { code, out } = await millrace('check', away)
    expect(out).toMatch(/error +shop: /)
    expect(out).toContain('1 thing stands in the way')
    expect(code).toBe(3)
    const missing = path.join(dir, 'missing.mesh.yaml')
    writeFileSync(missing, readFileSync(file, 'utf8').replace('SHOP_URL', 'NOT_SET'))
    const lacks = await millrace('check', missing)
    expect(lacks).toMatchObject({ code: 2, out: expect.stringContaining('1 thing stands in the way') })
    expect(lacks.out).toContain('export NOT_SET=')
    expect(await millrace('check', missing, '--offline')).toMatchObject({ code: 0 })
  })

  test('copies what is there, ends when idle, and its log and index can be asked', async () => {
    const run = await millrace('run', file, '--until-idle', '1', '--json')
    expect(run.code, run.err).toBe(0)
    const { result } = JSON.parse(run.out) as { result: { outcome: string; status: MeshStatus } }
    expect(result.outcome).toBe('idle')
    expect(Object.fromEntries(result.status.nodes.map(({ node, rows }) => [node, rows]))).toEqual({ shop: 502, lake: 502, find: 500 })

    const tap = await millrace(
      'tap',
      'shop.public.products',
      '--mesh',
      file,
      '--from-beginning',
      '--until-end',
      '--where',
      'price > 745.5',
      '--columns',
      'id,name',
    )
    expect(tap.code, tap.err).toBe(0)
    expect(lines(tap.out).map(({ after }) => after)).toEqual([498, 499, 500].map((id) => ({ id, name: `${id === 500 ? 'red shoe' : 'blue hat'} ${id}` })))

    const schemas = await millrace('schemas', 'list', 'shop.public.products', '--mesh', file, '--json')
    expect(JSON.parse(schemas.out).result.map(({ subject }: { subject: string }) => subject)).toEqual([
      'shop.public.products-key',
      'shop.public.products-value',
    ])
    const avro = path.join(dir, 'wrong.avsc')
    writeFileSync(avro, '"string"')
    const check = await millrace('schemas', 'check', 'shop.public.products-value', avro, '--mesh', file)
    expect([check.code, check.out]).toEqual([2, expect.stringContaining('breaks level BACKWARD')])

    const found = await millrace('search', 'products', 'shoe 20', '--mesh', file, '--json')
    expect(JSON.parse(found.out).result.hits.map(({ key }: { key: unknown }) => key)).toEqual([{ id: 20 }])
    expect(await millrace('search', 'prodcts', 'x', '--mesh', file)).toMatchObject({ code: 2, err: expect.stringContaining('products') })
    expect(await millrace('tap', 'shop.public.product', '--mesh', file)).toMatchObject({
      code: 2,
      err: expect.stringContaining('did you mean shop.public.products?'),
    })
  })

  test('runs live: status, tap, lock, kill -9 and a graceful stop', async () => {
    const first = start(['run', file])
    await until('ready', async () => (await status())?.ready)
    expect(await millrace('run', file)).toMatchObject({ code: 1, err: expect.stringContaining(`process ${first.child.pid}`) })

    const tap = start(['tap', 'shop.public.orders', '--mesh', file, '--limit', '3', '--from-beginning', '--where', 'id >= 100'])
    await database.sql("insert into orders values (100, 1, 'open')")
    await database.sql("update orders set status = 'paid' where id = 100")
    await database.sql("insert into orders values (101, 1, 'open')")
    const tapped = await tap.finished
    expect(lines(tapped.out).map(({ op, after }) => [op, (after as { status: string }).status])).toEqual([
      ['c', 'open'],
      ['u', 'paid'],
      ['c', 'open'],
    ])

    first.child.kill('SIGKILL')
    await first.finished
    expect((await millrace('status', file)).code).toBe(3)
    await database.sql("insert into orders select i, 1, 'late' from generate_series(200, 299) i; update products set name = 'green kite' where id = 7")

    const second = start(['run', file])
    await until('the lake has what came while nothing ran', async () => {
      const now = await status()
      // more than that when the kill came before a commit of the sink
      const rows = (name: string) => now?.nodes.find(({ node }) => node === name)?.rows ?? 0
      return now !== null && rows('lake') >= 101 && rows('find') >= 1 && now.nodes.every(({ behind, role }) => role === 'source' || behind === 0)
    })
    second.child.kill('SIGINT')
    const ended = await second.finished
    expect([ended.code, ended.out], ended.err).toEqual([0, 'stopped\n'])
    expect(JSON.parse((await millrace('search', 'products', 'kite', '--mesh', file, '--json')).out).result.hits).toHaveLength(1)

    const all = await millrace('tap', 'shop.public.orders', '--mesh', file, '--from-beginning', '--until-end')
    const changes = lines(all.out).map(({ op, key }) => `${op} ${(key as { id: number }).id}`)
    expect(new Set(changes).size).toBe(changes.length)
    expect(changes).toHaveLength(2 + 3 + 100)
  })

  test('a sink that fails stops no other, and the run says so', async () => {
    writeFileSync(
      path.join(dir, 'broken.ts'),
      `import { z } from ${JSON.stringify(path.resolve('node_modules/zod/index.js'))}
       import { definePlugin, MillraceError } from ${JSON.stringify(path.resolve('core/plugin.ts'))}
       export default definePlugin({ kind: 'sink', name: 'broken', summary: 'Fails.', config: z.strictObject({ password: z.string() }), check: async () => [],
         open: async ({ password }) => { throw new MillraceError('sink.forbidden', 'refused with ' + password, { fix: 'grant it' }) } })`,
    )
    const other = path.join(dir, 'other.mesh.yaml')
    writeFileSync(
      other,
      `${readFileSync(file, 'utf8')
        .replace(/mesh: cli/, 'mesh: other')
        .replace(
          './lake',
          './other-lake',
        )}  bad: { kind: broken, plugin: ./broken.ts, from: [shop.public.orders], password: '\${env:SHOP_SECRET}' }\ndataDir: .other\n`,
    )
    const run = await millrace('run', other, '--until-idle', '1', '--json')
    const { ok, result } = JSON.parse(run.out) as { ok: boolean; result: { outcome: string; status: MeshStatus } }
    const bad = result.status.nodes.find(({ node }) => node === 'bad')!
    expect([run.code, ok, result.outcome, bad.state, bad.error]).toEqual([
      2,
      false,
      'idle',
      'failed',
      { code: 'sink.forbidden', category: 'config', message: 'refused with [secret]', fix: 'grant it' },
    ])
    const lake = result.status.nodes.find(({ node }) => node === 'lake')!
    expect(lake.rows).toBe((await database.sql('select count(*)::int + 500 as rows from orders')).rows[0].rows)
    expect(run.out + run.err).not.toContain('hunter2')
  })

  test('a node that is paused stays so through kill -9 and a stop, until it is resumed', async () => {
    const node = async (name: string) => (await status())?.nodes.find((one) => one.node === name)
    const first = start(['run', file])
    await until('ready', async () => (await status())?.ready)
    expect(await millrace('pause', file, 'ship')).toMatchObject({ code: 2, err: expect.stringContaining('one of: shop, lake, find') })
    const paused = await millrace('pause', file, 'shop', '--json')
    expect(paused.code, paused.err).toBe(0)
    const { since } = JSON.parse(paused.out).result as { since: string }
    expect(await node('shop')).toMatchObject({ state: 'paused', pausedSince: since, behind: null, retainedBytes: null })
    first.child.kill('SIGKILL')
    await first.finished

    const second = start(['run', file])
    await until('runs again', async () => (await status()) !== null)
    expect((await millrace('status', file)).out).toContain(`paused since ${since.slice(0, 19).replace('T', ' ')} UTC: millrace resume FILE shop`)
    await database.sql("insert into orders values (500, 1, 'while paused')")
    expect(await node('shop')).toMatchObject({ state: 'paused', pausedSince: since, rows: 0 })
    expect(await millrace('resume', file, 'shop')).toMatchObject({ code: 0, out: 'shop: goes on\n' })
    await until('it goes on', async () => {
      const shop = await node('shop')
      return shop?.rows === 1 && shop.state === 'running'
    })
    expect(await node('shop')).toMatchObject({ rows: 1, pausedSince: null })
    expect((await millrace('pause', file, 'lake')).code).toBe(0)
    second.child.kill('SIGINT')
    await second.finished

    expect(await millrace('resume', file, 'lake')).toMatchObject({ code: 0, out: 'lake: the mesh does not run; goes on when it starts\n' })
    expect(await millrace('resume', file, 'lake')).toMatchObject({ code: 0, out: expect.stringContaining('was not paused') })
    expect(await millrace('pause', file, 'lake')).toMatchObject({ code: 0, out: 'lake: the mesh does not run; paused when it starts\n' })
    await database.sql("insert into orders values (501, 1, 'not in the lake yet')")
    const idle = await millrace('run', file, '--until-idle', '1')
    expect([idle.code, idle.out]).toEqual([0, 'idle: everything is through but for what is paused: lake\n'])
    expect((await millrace('resume', file, 'lake')).code).toBe(0)
    // a second without a change may end before a server under load gives the one that waits
    const last = start(['run', file])
    await until('the lake has it', async () => ((await node('lake'))?.rows ?? 0) >= 1)
    expect(await node('lake')).toMatchObject({ pausedSince: null })
    last.child.kill('SIGINT')
    expect(await last.finished).toMatchObject({ code: 0 })
    await expectEqual()
  })

  test('a mesh that is given up leaves nothing on its server, and never goes on as if nothing had happened', async () => {
    const kept = async () => {
      const { rows } = await database.sql(
        `select slot_name::text as name from pg_replication_slots where database = current_database() and slot_name like 'millrace_cli%'
         union all select pubname::text from pg_publication where pubname like 'millrace_cli%'`,
      )
      return rows.map(({ name }) => name as string)
    }
    const run = start(['run', file])
    await until('ready', async () => (await status())?.ready)
    const [slot, publication] = await kept()
    expect(await millrace('deprovision', file, '--yes')).toMatchObject({ code: 1, err: expect.stringContaining(`process ${run.child.pid}`) })
    run.child.kill('SIGINT')
    await run.finished

    expect(await millrace('deprovision', file)).toMatchObject({ code: 2, out: expect.stringContaining(`shop: replication slot ${slot} (keeps `) })
    expect(await millrace('deprovision', file, 'lake', '--yes')).toMatchObject({ code: 2, err: expect.stringContaining('one of: shop') })
    const asked = await millrace('deprovision', file, 'shop', '--json')
    expect(asked.code).toBe(2)
    const items = [
      { kind: 'replication slot', name: slot, note: expect.stringContaining('MiB of WAL'), stays: null },
      { kind: 'publication', name: publication, note: null, stays: null },
    ]
    expect(JSON.parse(asked.out)).toMatchObject({ ok: false, result: { nodes: [{ node: 'shop', items }], dropped: false } })
    expect(await kept()).toEqual([slot, publication])

    expect(await millrace('deprovision', file, '--yes')).toMatchObject({ code: 0, out: expect.stringMatching(/dropped\n$/) })
    expect(await kept()).toEqual([])
    expect(await millrace('deprovision', file, '--yes')).toMatchObject({ code: 0, out: 'nothing to drop\n' })

    await database.sql(`delete from orders where id = 1; insert into orders values (1000, 1, 'unseen')`)
    const halted = await millrace('run', file, '--until-idle', '1')
    expect([halted.code, halted.err]).toEqual([1, expect.stringMatching(/source\.history_lost.*is gone[\s\S]*--resnapshot shop/)])
    expect(await kept()).toEqual([])
    const again = await millrace('run', file, '--until-idle', '1', '--resnapshot', 'shop')
    expect(again.code, again.err).toBe(0)
    expect(await kept()).toEqual([slot, publication])
    await expectEqual()
  })

  test('what keeps nothing on its server has nothing to drop, and what is away is not given up', async () => {
    const mysql = path.join(dir, 'mysql.mesh.yaml')
    const away = 'mysql://nobody@127.0.0.1:1/none'
    writeFileSync(
      mysql,
      `mesh: none\nsources:\n  shop: { kind: mysql, url: '${away}', tables: [none.*] }\nsinks:\n  find: { kind: search, from: [shop] }\ndataDir: .none\n`,
    )
    expect(await millrace('deprovision', mysql)).toMatchObject({ code: 0, out: 'nothing to drop\n', err: '' })
    expect(existsSync(path.join(dir, '.none'))).toBe(false)
    const gone = path.join(dir, 'gone.mesh.yaml')
    writeFileSync(gone, readFileSync(file, 'utf8').replace('${env:SHOP_URL}', 'postgres://postgres@127.0.0.1:1/none'))
    expect(await millrace('deprovision', gone, '--yes')).toMatchObject({ code: 3, err: expect.stringContaining('127.0.0.1:1') })
  })
})

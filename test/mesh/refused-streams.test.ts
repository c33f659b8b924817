import { writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { readRunning } from '../../core/runtime/data-folder.ts'
import { expectEqual, faultDir, node, shopYaml } from '../fault/shop-mesh.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'

let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  folder?.remove()
})

test('a table that no sink can hold is parked by each and named everywhere, while the others go on; left out by pattern, all is well', async () => {
  folder = faultDir()
  db = await testDatabase()
  const { sql } = db
  await sql(`create table items (id int primary key, n int); insert into items select i, i from generate_series(1, 500) i;
    create table keyless (n int); insert into keyless select i from generate_series(1, 10) i; alter table keyless replica identity full`)
  const yaml = shopYaml({ name: db.database, url: db.url, shop: 'messages: true' })
  mesh = new MeshProcess(folder.dir, yaml)
  const topic = 'shop.public.keyless'
  const fix = `'!${topic}' in the sink's \`from\``

  const checked = await mesh.command('check')
  expect(checked.exitCode, checked.text).toBe(2)
  for (const sink of ['lake', 'search']) expect(checked.text).toMatch(new RegExp(`error +${sink}: stream shop\\.public\\.keyless: would be parked: .*no key`))
  expect(checked.text).toContain(fix)
  expect(checked.text).not.toContain('shop.public.items: would')

  mesh.start()
  const status = await mesh.until('both sinks have parked it and go on', (now) =>
    ['lake', 'search'].every((name) => {
      const { state, streams, rows } = node(now, name)
      return state === 'degraded' && rows >= 500 && streams.some(({ stream, state }) => stream === topic && state === 'failed')
    }),
  )
  expect(status.ready).toBe(false)
  for (const sink of ['lake', 'search']) {
    expect(node(status, sink).error).toMatchObject({ code: 'sink.schema_unsupported', fix: expect.stringContaining(fix) })
    const states = new Map(node(status, sink).streams.map(({ stream, state }) => [stream, state]))
    expect([states.get('shop.public.items'), states.get(topic)]).toEqual(['running', 'failed'])
  }
  const { host, port } = readRunning(mesh.dataDir)!
  const scraped = await (await fetch(`http://${host}:${port}/metrics`)).text()
  for (const sink of ['lake', 'search']) expect(scraped).toMatch(new RegExp(`^millrace_parked_tables\\{node="${sink}".* 1$`, 'm'))
  expect((await mesh.command('status')).text).toMatch(/shop\.public\.keyless is parked: sink\.schema_unsupported: .*no key/)
  await sql("update items set n = n + 1 where id <= 50; select pg_logical_emit_message(true, 'greeting', 'hello')")
  const [items, keyless] = await mesh.audit()
  expect(items).toMatchObject({ table: 'public.items', equal: true, differences: [] })
  // source and log are compared all the same
  expect(keyless).toMatchObject({ table: 'public.keyless', equal: false, source: { rows: 10 }, log: { rows: 10 }, ledger: { equal: true } })
  expect(keyless!.differences).toHaveLength(2)
  for (const sink of ['lake', 'search']) expect(keyless!.differences.join('\n')).toContain(`${sink} does not take it: sink.schema_unsupported`)
  expect(await mesh.stop()).toBe(2)
  expect(mesh.output).toContain(fix)

  writeFileSync(mesh.file, yaml.replaceAll('from: [shop]', "from: [shop, '!shop.public.keyless']"))
  expect((await mesh.command('check')).text).toContain('ready to run')
  mesh.start()
  // messages are a stream like the others: the last of each prefix is in the targets
  await mesh.until('ready, with the message', ({ ready, nodes }) => {
    const has = (name: string) =>
      nodes.some((one) => one.node === name && one.streams.some(({ stream, state }) => stream === 'shop.millrace.message' && state === 'running'))
    return ready && has('lake') && has('search')
  })
  await expectEqual(mesh, ['public.items', 'public.keyless'])
  expect(await mesh.stop()).toBe(0)
}, 900_000)

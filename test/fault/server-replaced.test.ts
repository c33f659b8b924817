import path from 'node:path'
import pg from 'pg'
import { afterEach, expect, test } from 'vitest'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { freePorts } from '../services/free-ports.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, openShop, shopYaml } from './shop-mesh.ts'

const { dir, remove } = faultDir()
let server: PostgresServer | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await server?.stop('SIGQUIT')
  remove()
})

test('another server on the same port is noticed, never captured by mistake; told to, the mesh becomes equal to it', async () => {
  const [port] = await freePorts(1)
  server = await startPostgres({ dataDir: path.join(dir, 'first'), port: port! })
  const { url } = server
  await openShop(url, 4000)
  mesh = new MeshProcess(path.join(dir, 'mesh'), shopYaml({ name: 'replaced', url }))
  mesh.start()
  const shop = keepBusy(url)
  await mesh.until('flowing', flows)
  await moreRows(mesh, 200)
  await shop.stop()
  const before = await expectEqual(mesh)
  await server.stop('SIGQUIT')

  // younger than the first: its WAL positions are lower
  server = await startPostgres({ dataDir: path.join(dir, 'second'), port: port! })
  await openShop(url, 2000)
  expect(await mesh.ended()).toBe(1)
  expect(mesh.output).toMatch(/source\.identity_changed: the server is another one \(system \d+\) than was captured \(system \d+\)/)
  expect(mesh.output).toContain('--resnapshot shop')

  mesh.start(['--resnapshot', 'shop'])
  await mesh.until('flowing', flows)
  const again = keepBusy(url, 99)
  await moreRows(mesh, 200)
  await again.stop()
  const after = await expectEqual(mesh)
  expect(after.map(({ source }) => source.checksum)).not.toEqual(before.map(({ source }) => source.checksum))
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query('select count(*)::int as n from customers')
  await client.end()
  const customers = after.find(({ table }) => table === 'public.customers')!
  expect([customers.log.rows, customers.sinks.lake!.rows, customers.sinks.search!.rows]).toEqual([rows[0].n, rows[0].n, rows[0].n])
  expect(await mesh.stop()).toBe(0)
})

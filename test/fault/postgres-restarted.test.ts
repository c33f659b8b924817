import path from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { freePorts } from '../services/free-ports.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, node, openShop, shopYaml } from './shop-mesh.ts'

const { dir, remove } = faultDir()
let server: PostgresServer | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await server?.stop('SIGQUIT')
  remove()
})

test('Postgres is shut down fast and then at once, both under load: the source waits and goes on, nothing lost, nothing doubled', async () => {
  const dataDir = path.join(dir, 'postgres')
  const [port] = await freePorts(1)
  server = await startPostgres({ dataDir, port: port! })
  const { url } = server
  await openShop(url, 3000)
  mesh = new MeshProcess(path.join(dir, 'mesh'), shopYaml({ name: 'restarted', url }))
  mesh.start()
  const shop = keepBusy(url)
  await mesh.until('flowing', flows)
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    await moreRows(mesh, 100)
    await server.stop(signal)
    const away = await mesh.until(
      'degraded',
      (status) => node(status, 'shop').state === 'degraded' && node(status, 'shop').error?.code === 'source.unreachable',
    )
    expect(node(away, 'shop').retryAt === null || node(away, 'shop').retryAt! > 0).toBe(true)
    expect(away.nodes.filter(({ role }) => role === 'sink').map(({ state }) => state)).toEqual(['running', 'running'])
    server = await startPostgres({ dataDir, port: port! })
    await mesh.until('running again', (status) => node(status, 'shop').state === 'running')
    await moreRows(mesh, 100)
  }
  await shop.stop()
  await expectEqual(mesh)
  expect(await mesh.stop()).toBe(0)
})

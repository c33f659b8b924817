import { readFileSync } from 'node:fs'
import path from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { freePorts } from '../services/free-ports.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { expectEqual, faultDir, flows, keepTouching, moreRows, node, openShop, shopYaml } from './shop-mesh.ts'

const SILENCE_MS = 4000

const { dir, remove } = faultDir()
let server: PostgresServer | null = null
let mesh: MeshProcess | null = null
/** Processes that stand still. */
let halted: readonly number[] = []
afterEach(async () => {
  goOn()
  await mesh?.kill()
  await server?.stop('SIGQUIT')
  remove()
})

/** Every process of the server stands still: its sockets stay open, the kernel takes bytes and even connections, and nothing answers. */
function halt({ pid }: PostgresServer): void {
  process.kill(pid, 'SIGSTOP')
  halted = [pid]
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
  for (const child of children) process.kill(child, 'SIGSTOP')
  halted = [pid, ...children]
}

function goOn(): void {
  for (const pid of halted) {
    try {
      process.kill(pid, 'SIGCONT')
    } catch {
      // it was ending when it was halted
    }
  }
  halted = []
}

test.skipIf(process.platform !== 'linux')(
  'Postgres hangs with its connections open: the source says so and goes on when it does, and a stop in between does not wait for it',
  async () => {
    server = await startPostgres({ dataDir: path.join(dir, 'postgres'), port: (await freePorts(1))[0]! })
    const { url } = server
    await openShop(url, 300)
    mesh = new MeshProcess(path.join(dir, 'mesh'), shopYaml({ name: 'silent', url, shop: `silenceMs: ${SILENCE_MS}` }))
    mesh.start()
    const shop = keepTouching(url)
    await mesh.until('flowing', flows)
    await moreRows(mesh, 20)

    halt(server)
    const away = await mesh.until('degraded', (status) => node(status, 'shop').state === 'degraded')
    expect(node(away, 'shop').error).toMatchObject({ code: 'source.unreachable' })
    // by the time somebody looks it may have tried to connect again, and say that
    expect(mesh.output).toMatch(new RegExp(`Postgres has (been silent|not ended a message) for ${SILENCE_MS} ms`))
    expect(away.nodes.filter(({ role }) => role === 'sink').map(({ state }) => state)).toEqual(['running', 'running'])
    goOn()
    await mesh.until('running again', (status) => node(status, 'shop').state === 'running')
    await moreRows(mesh, 20)

    halt(server)
    const haltedAt = Date.now()
    // by then it has asked the server what nobody answers
    await mesh.until('status for longer than tables and lag are looked at', ({ at }) => at > haltedAt + 3000)
    const stoppedAt = Date.now()
    expect(await mesh.stop()).toBe(0)
    // less than the silence limit and a connection's timeout
    expect(Date.now() - stoppedAt).toBeLessThan(SILENCE_MS + 15_000)
    goOn()

    mesh.start()
    await mesh.until('running after a start', (status) => node(status, 'shop').state === 'running')
    await moreRows(mesh, 20)
    await shop.stop()
    await expectEqual(mesh)
    expect(await mesh.stop()).toBe(0)
  },
)

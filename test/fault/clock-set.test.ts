import path from 'node:path'
import pg from 'pg'
import { afterEach, describe, expect, test } from 'vitest'
import { type PostgresServer, startPostgres } from '../../control/demo/postgres-server.ts'
import { until } from '../../testing/source/source-run.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { clockSkipReason, SettableClock } from '../services/settable-clock.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, openShop, shopYaml } from './shop-mesh.ts'

const skip = clockSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

const DAY = 86_400
const { dir, remove } = faultDir()
let server: PostgresServer | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await server?.stop('SIGQUIT')
  remove()
})

async function startWith(clock: SettableClock): Promise<PostgresServer> {
  const before = { ...process.env }
  Object.assign(process.env, clock.env)
  try {
    return await startPostgres({ dataDir: path.join(dir, 'postgres') })
  } finally {
    process.env = before
  }
}

/** Days between a moment and now, in whole numbers. */
const daysOff = (at: number) => Math.round((at - Date.now()) / (DAY * 1000)) + 0

describe.skipIf(skip !== null)(`clocks${skip === null ? '' : ` (${skip})`}`, () => {
  test('the clock of the server is set a day ahead, that of Millrace back and ahead, under load: all goes on and ends equal', async () => {
    const clocks = { server: await SettableClock.make(path.join(dir, 'server.clock')), mesh: await SettableClock.make(path.join(dir, 'mesh.clock')) }
    server = await startWith(clocks.server)
    const { url } = server
    await openShop(url, 2000)
    const client = new pg.Client({ connectionString: url })
    client.on('error', () => {})
    await client.connect()
    const running = new MeshProcess(path.join(dir, 'mesh'), shopYaml({ name: 'clocks', url }), clocks.mesh.env)
    mesh = running
    running.start()
    const shop = keepBusy(url)
    await running.until('flowing', flows)
    const now = {
      server: async () => Number((await client.query<{ ms: string }>('select extract(epoch from clock_timestamp()) * 1000 as ms')).rows[0]!.ms),
      mesh: async () => (await running.until('it says its time', () => true)).at,
    }
    // not back on the server: its WAL writer flushes nothing for minutes then, and what is not flushed no audit can wait for
    const sets = [
      ['server', 1],
      ['mesh', -1],
      ['mesh', 1],
      ['mesh', 0],
    ] as const
    for (const [turn, [which, days]] of sets.entries()) {
      clocks[which].set(days * DAY)
      await until(`the clock of ${which} is ${days} days off`, async () => daysOff(await now[which]()) === days)
      // positions, ages and waits in a log that was written by another time
      if (turn === 2) {
        await running.kill()
        running.start()
      }
      await moreRows(running, 200)
      const status = await running.until('well', ({ ready, nodes }) => ready && nodes.every(({ state, error }) => state === 'running' && error === null))
      expect(status.nodes.map(({ progressedAt }) => daysOff(progressedAt!))).toEqual(status.nodes.map(() => daysOff(status.at)))
      // each sink applies what is old enough, not what would be tomorrow
      const applied = status.nodes.filter(({ role }) => role === 'sink').map(({ node, rows }) => [node, rows] as const)
      await running.until('sinks go on', ({ nodes }) => applied.every(([name, rows]) => nodes.find(({ node }) => node === name)!.rows > rows))
    }
    await shop.stop()
    await expectEqual(running)
    await client.end()
    expect(await running.stop()).toBe(0)
  })
})

/** A standby of a captured primary is promoted: two real servers that a mesh knows by one url. */
import path from 'node:path'
import pg from 'pg'
import pino from 'pino'
import { afterEach, describe, expect, test } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import { postgresBin } from '../../control/demo/postgres-server.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type PairOptions, type PostgresPair, startPair } from '../services/postgres-pair.ts'
import { postgresBinOf, skipReason } from '../services/postgres-versions.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, node, openShop, shopYaml } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let pair: PostgresPair | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await pair?.stop()
  folder?.remove()
})

const SLOT = 'millrace_failover_shop'

async function begin(options: Pick<PairOptions, 'syncSlots' | 'holdBack'>, major: 17 | 18 = 18) {
  folder = faultDir()
  pair = await startPair({ dir: folder.dir, bin: major === 18 ? postgresBin() : await postgresBinOf(major), ...options })
  await openShop(pair.primary.url, 3000)
  mesh = new MeshProcess(path.join(folder.dir, 'mesh'), shopYaml({ name: 'failover', url: pair.url }))
  mesh.start()
  const shop = keepBusy(pair.primary.url)
  await mesh.until('flowing', flows)
  await moreRows(mesh, 100)
  if (options.syncSlots) await pair.synced(SLOT)
  return { pair, mesh, shop }
}

/** Kills the primary under load and promotes the standby. */
async function failOver(pair: PostgresPair, shop: { stop(): Promise<void> }): Promise<void> {
  await pair.primary.stop('SIGQUIT')
  await shop.stop()
  await pair.promote()
}

async function customers(url: string): Promise<number> {
  const client = new pg.Client(url)
  await client.connect()
  const { rows } = await client.query<{ n: number }>('select count(*)::int as n from customers')
  await client.end()
  return rows[0]!.n
}

const reason = skipReason()
describe.each([17, 18] as const)('Postgres %i', (major) => {
  const skip = major !== 18 && reason !== null
  test.skipIf(skip)(
    `the primary dies under load: the mesh goes on with the promoted standby, and reads no table again${skip ? ` (skipped: ${reason})` : ''}`,
    async () => {
      const { pair, mesh, shop } = await begin({ syncSlots: true, holdBack: true }, major)
      expect((await warnings(pair.url)).filter((warning) => /standby/.test(warning))).toEqual([])
      const { snapshot } = node(await mesh.until('answering', () => true), 'shop')
      await failOver(pair, shop)
      const again = keepBusy(pair.standby.url, 99)
      await moreRows(mesh, 200)
      // and once more over a restart: its offset is of the new timeline by now
      expect(await mesh.stop()).toBe(0)
      mesh.start()
      await mesh.until('flowing', flows)
      await moreRows(mesh, 50)
      await again.stop()
      const audit = await expectEqual(mesh)
      expect(node(await mesh.until('answering', () => true), 'shop').snapshot.map(({ table, rows, done }) => ({ table, rows, done }))).toEqual(
        snapshot.map(({ table, rows, done }) => ({ table, rows, done })),
      )
      expect(audit.find(({ table }) => table === 'public.customers')!.sinks.search!.rows).toBe(await customers(pair.standby.url))
      expect(mesh.output).not.toMatch(/history_lost|identity_changed/)
      expect(await mesh.stop()).toBe(0)
    },
  )
})

async function warnings(url: string): Promise<readonly string[]> {
  const context = { mesh: 'failover', node: 'shop', dataDir: folder!.dir, logger: pino({ level: 'silent' }), metric: () => {} }
  const findings = await postgres.check(postgres.config.parse({ url, tables: ['public.*'] }), context)
  return findings.filter(({ level }) => level !== 'ok').map(({ level, subject, fix }) => `${level} ${subject}: ${fix}`)
}

test('the standby never had what was captured: the mesh halts and says what, and a new reading makes it equal to the new primary', async () => {
  const { pair, mesh, shop } = await begin({ syncSlots: true, holdBack: false })
  expect(await warnings(pair.url)).toContainEqual(
    `warning synchronized_standby_slots: ALTER SYSTEM SET synchronized_standby_slots = 'standby' (those of standbys that may be promoted); then reload`,
  )
  expect(await warnings(pair.standby.url)).toContainEqual(expect.stringMatching(/^error server role: name the primary/))
  await pair.cutOff()
  await pair.confirmed(SLOT)
  await failOver(pair, shop)
  expect(await mesh.ended()).toBe(1)
  expect(mesh.output).toMatch(
    /source\.identity_changed: the server was promoted to timeline 2 at [0-9A-F/]+, captured is up to [0-9A-F/]+: it never had what came between, which is in the log/,
  )
  expect(mesh.output).toContain('--resnapshot shop')
  mesh.start(['--resnapshot', 'shop'])
  await mesh.until('flowing', flows)
  const again = keepBusy(pair.standby.url, 99)
  await moreRows(mesh, 100)
  await again.stop()
  const audit = await expectEqual(mesh)
  expect(audit.find(({ table }) => table === 'public.customers')!.sinks.lake!.rows).toBe(await customers(pair.standby.url))
  expect(await mesh.stop()).toBe(0)
})

test('the standby had no copy of the slot: the mesh halts and says so; the old primary, when it comes back, is not taken for the new one', async () => {
  const { pair, mesh, shop } = await begin({ syncSlots: false, holdBack: true })
  await failOver(pair, shop)
  for (const back of [false, true]) {
    const before = mesh.output.length
    if (back) {
      await pair.revive()
      mesh.start()
    }
    expect(await mesh.ended()).toBe(1)
    const said = mesh.output.slice(before)
    expect(said).toMatch(
      new RegExp(
        `source\\.history_lost: the slot ${SLOT} is gone on this server, which was promoted to timeline 2; the changes after [0-9A-F/]+ are not kept: no standby had`,
      ),
    )
    expect(said).toContain('--resnapshot shop')
  }
})

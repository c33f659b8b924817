import { randomBytes } from 'node:crypto'
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, describe, expect, test } from 'vitest'
import { freePorts } from '../services/free-ports.ts'
import { skipReason, testRestCatalog } from '../services/iceberg-rest.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, node, openShop, shopYaml } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const closing: (() => void)[] = []
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  for (const close of closing.splice(0)) close()
  folder?.remove()
})

/** Breaks one sink under load; the other sink and the source go on; the broken one catches up once it is repaired. */
async function breakSink(sink: 'lake' | 'search', away: () => Promise<void>, back: () => Promise<void>, lake?: string): Promise<void> {
  const other = sink === 'lake' ? 'search' : 'lake'
  db = await testDatabase()
  await openShop(db.url, 2000)
  mesh = new MeshProcess(folder!.dir, shopYaml({ name: db.database, url: db.url, ...(lake === undefined ? {} : { lake }) }))
  mesh.start()
  const shop = keepBusy(db.url)
  await mesh.until('flowing', flows)
  await away()
  const broken = await mesh.until(`${sink} degraded`, (status) => node(status, sink).state === 'degraded' && node(status, sink).error !== null)
  expect(node(broken, sink)).toMatchObject({ state: 'degraded', error: { code: 'sink.unreachable', category: 'unavailable' } })
  const stood = node(broken, sink).rows
  const others = node(broken, other).rows
  await moreRows(mesh, 200)
  const meanwhile = await mesh.until(`${other} going on`, (status) => node(status, other).rows >= others + 100)
  expect(node(meanwhile, other).error).toBeNull()
  expect(node(meanwhile, sink).error).not.toBeNull()
  await back()
  await mesh.until(
    `${sink} going on`,
    (status) => node(status, sink).rows > stood && node(status, sink).state === 'running' && node(status, sink).error === null,
  )
  await shop.stop()
  await expectEqual(mesh)
  expect(await mesh.stop()).toBe(0)
}

test('the search file is locked by someone else, and then free again', async () => {
  folder = faultDir()
  let holder: DatabaseSync | null = null
  closing.push(() => holder?.close())
  await breakSink(
    'search',
    async () => {
      holder = new DatabaseSync(path.join(folder!.dir, 'search.db'), { timeout: 120_000 })
      holder.exec('begin immediate')
    },
    async () => {
      holder!.close()
      holder = null
    },
  )
})

test('the warehouse goes away, like a network mount, and comes back', async () => {
  folder = faultDir()
  // a link that is replaced in one step: between two steps the folder could be made anew by accident
  const warehouse = path.join(folder.dir, 'lake')
  const mount = path.join(folder.dir, 'mounted')
  mkdirSync(mount)
  symlinkSync(mount, warehouse)
  await breakSink(
    'lake',
    async () => {
      writeFileSync(`${warehouse}.none`, '')
      renameSync(`${warehouse}.none`, warehouse)
    },
    async () => {
      symlinkSync(mount, `${warehouse}.back`)
      renameSync(`${warehouse}.back`, warehouse)
    },
  )
})

const reason = skipReason()
describe.skipIf(reason !== null)(`an Iceberg REST catalog${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  test('goes away and comes back on the same address', async () => {
    folder = faultDir()
    const { port } = new URL((await testRestCatalog()).uri)
    const sockets = new Set<net.Socket>()
    const track = (socket: net.Socket) => {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => sockets.delete(socket))
      return socket
    }
    const door = net.createServer((client) => {
      const server = track(net.connect(Number(port), '127.0.0.1'))
      track(client).pipe(server).pipe(client)
    })
    const open = (at: number) => new Promise<void>((resolve) => door.listen(at, '127.0.0.1', resolve))
    const shut = () => {
      for (const socket of sockets) socket.destroy()
      door.close()
    }
    const [address] = await freePorts(1)
    await open(address!)
    closing.push(shut)
    const namespace = `t_${randomBytes(4).toString('hex')}`
    const lake = `namespace: ${namespace}, catalog: { kind: rest, uri: 'http://127.0.0.1:${address}' }`
    await breakSink(
      'lake',
      async () => shut(),
      () => open(address!),
      lake,
    )
  })
})

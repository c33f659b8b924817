import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { skipReason as registrySkipReason, testRegistry } from '../services/apicurio.ts'
import { skipReason as kafkaSkipReason, testKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, flows, keepBusy, moreRows, openShop, SHOP_TABLES, shopYaml } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
const meshes: MeshProcess[] = []
afterEach(async () => {
  for (const mesh of meshes.splice(0)) await mesh.kill()
  await db?.drop()
  folder?.remove()
})

async function begin(source = 'shop', more = '') {
  folder = faultDir()
  const database = await testDatabase()
  db = database
  await openShop(database.url, 2000)
  const open = (name: string) => {
    const mesh = new MeshProcess(path.join(folder!.dir, name), shopYaml({ name: database.database, source, url: database.url, more }))
    meshes.push(mesh)
    return mesh
  }
  const first = open('first')
  first.start()
  await first.until('flowing', flows)
  return { first, open, shop: keepBusy(database.url) }
}

test('a second process on the same data folder is refused and says who holds it; the first does not notice', async () => {
  const { first, open, shop } = await begin()
  const second = open('first')
  second.start()
  expect(await second.ended()).toBe(1)
  expect(second.output).toContain('log.locked')
  expect(second.output).toContain(`process ${first.pid} runs a mesh on ${first.dataDir}`)
  await moreRows(first, 100)
  await shop.stop()
  await expectEqual(first)
  expect(await first.stop()).toBe(0)
})

test('a second mesh with its own data folder on the same slot is refused; if it comes when the first is gone, the first notices that it missed changes', async () => {
  const { first, open, shop } = await begin()
  const second = open('second')
  second.start()
  expect(await second.ended()).toBe(1)
  expect(second.output).toMatch(/source\.in_use: the slot millrace_\w+_shop is in use by the server process \d+/)
  await moreRows(first, 100)
  await shop.stop()
  await expectEqual(first)
  expect(await first.stop()).toBe(0)
  second.start()
  await second.until('flowing', flows)
  await db!.sql('delete from reviews')
  await expectEqual(second, SHOP_TABLES, ['public.reviews'])
  expect(await second.stop()).toBe(0)
  first.start()
  expect(await first.ended()).toBe(1)
  expect(first.output).toMatch(/source\.history_lost: the slot \S+ stands at \S+; the changes between \S+ and there were given to someone else/)
})

const reason = kafkaSkipReason() ?? registrySkipReason()
describe.skipIf(reason !== null)(`on Kafka${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  test('a second process with the same node is refused before it touches the log, also when it was to read all anew, and the first, which has nothing to do, lives', async () => {
    const { brokers } = await testKafka()
    const { url } = await testRegistry()
    const unique = randomBytes(4).toString('hex')
    const source = `shop${unique}`
    const { first, open, shop } = await begin(
      source,
      `log: { kind: kafka, brokers: [${brokers.map((broker) => `'${broker}'`).join(', ')}], progressTopic: progress-${unique} }\nregistry: { kind: confluent, url: '${url}' }`,
    )
    await shop.stop()
    const second = open('second')
    second.start()
    expect(await second.ended()).toBe(1)
    expect(second.output).toMatch(/source\.in_use: the slot \S+ is in use by the server process \d+, of millrace at /)
    const before = second.output.length
    second.start(['--resnapshot', source])
    expect(await second.ended()).toBe(1)
    expect(second.output.slice(before)).toMatch(/^millrace: \S+ source\.in_use: /m)
    expect(await second.command('resnapshot', source)).toMatchObject({ exitCode: 0, text: expect.stringContaining('with the next millrace run') })
    const again = keepBusy(db!.url, 11)
    await moreRows(first, 100)
    await again.stop()
    expect(first.output).not.toContain('log.fenced')
    await expectEqual(first)
    expect(await first.stop()).toBe(0)
    // what was asked for waited until nobody had the source
    second.start()
    await second.until('read anew', (status) => flows(status) && status.nodes[0]!.rows > 2000)
    await expectEqual(second)
    expect(await second.stop()).toBe(0)
  })
})

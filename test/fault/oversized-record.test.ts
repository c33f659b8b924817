import { randomBytes } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { skipReason, testKafka } from '../services/kafka.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, node, shopYaml } from './shop-mesh.ts'

let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

const reason = skipReason()
describe.skipIf(reason !== null)(`on Kafka${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  test('a row that is larger than its topic takes parks its table; the others go on, and it is equal once the row is gone', async () => {
    const { brokers } = await testKafka()
    db = await testDatabase()
    const { sql } = db
    await sql(`create table big (id int primary key, body text); insert into big select i, 'row ' || i from generate_series(1, 300) i;
      create table other (id int primary key, v int); insert into other select i, i from generate_series(1, 300) i`)
    const unique = randomBytes(4).toString('hex')
    const source = `shop${unique}`
    const log = `log: { kind: kafka, brokers: [${brokers.map((broker) => `'${broker}'`).join(', ')}], progressTopic: progress-${unique} }`
    mesh = new MeshProcess(dir, shopYaml({ name: db.database, source, url: db.url, more: log }))
    mesh.start()
    const follows = (status: MeshStatus) => node(status, source).state === 'running' && node(status, source).snapshot.every(({ done }) => done)
    await mesh.until('following', follows)
    // in the middle of a transaction of both, in hexadecimal digits, which do not compress to a half
    await sql(`begin; update other set v = v + 1; insert into big select 7000, string_agg(md5(i::text), '') from generate_series(1, 120000) i;
      update other set v = v + 1; commit`)
    const aside = await mesh.until('parked', (status) => node(status, source).parked.length === 1)
    expect(node(aside, source).parked[0]).toMatchObject({
      table: 'public.big',
      error: { code: 'record.too_large', fix: expect.stringMatching(/max\.message\.bytes.*; then `millrace resnapshot FILE \S+\/public\.big`/) },
    })
    await sql('update other set v = v + 1')
    const audits = await mesh.audit()
    expect(audits.map(({ table, equal, parked }) => [table, equal, parked === true])).toEqual([
      ['public.big', false, true],
      ['public.other', true, false],
    ])
    await sql('delete from big where id = 7000')
    expect(await mesh.command('resnapshot', `${source}/public.big`)).toMatchObject({ exitCode: 0 })
    await mesh.until('read again', (status) => node(status, source).parked.length === 0 && follows(status))
    await expectEqual(mesh, ['public.big', 'public.other'])
    expect(await mesh.stop()).toBe(0)
  })
})

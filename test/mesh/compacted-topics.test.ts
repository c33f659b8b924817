import { randomBytes } from 'node:crypto'
import { afterEach, expect, test } from 'vitest'
import { faultDir, node, shopYaml } from '../fault/shop-mesh.ts'
import { skipReason, testKafka } from '../services/kafka.ts'
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

test(
  'compacted topics stay equal to the source: truncations, a table read again, cleaning, a sink that lags; what cannot be compacted is parked',
  () => live('', (stopped) => stopped.cleanLog()),
  600_000,
)

const reason = skipReason()
test.skipIf(reason !== null)(
  `the same on Kafka, which cleans when it likes${reason === null ? '' : ` (skipped: ${reason})`}`,
  async () => {
    const { brokers } = await testKafka()
    const unique = randomBytes(4).toString('hex')
    const config = "{ segment.ms: '100', min.cleanable.dirty.ratio: '0.01' }"
    const list = brokers.map((broker) => `'${broker}'`).join(', ')
    await live(`log: { kind: kafka, brokers: [${list}], progressTopic: progress-${unique}, topicConfig: ${config} }`, async () => {}, `shop-${unique}`)
  },
  600_000,
)

/** @param log further lines of the mesh file */
async function live(log: string, clean: (stopped: MeshProcess) => Promise<void>, source = 'shop'): Promise<void> {
  folder = faultDir()
  db = await testDatabase()
  const { sql } = db
  await sql(`create table items (id int primary key, n int); insert into items select i, i from generate_series(1, 2000) i;
    create table whole (id int primary key, body text); insert into whole select i, 'row ' || i from generate_series(1, 500) i;
    alter table whole replica identity full;
    create table notes (id int primary key, body text); insert into notes select i, 'note ' || i from generate_series(1, 300) i;
    create table keyless (n int); insert into keyless select i from generate_series(1, 10) i; alter table keyless replica identity full`)
  mesh = new MeshProcess(
    folder.dir,
    shopYaml({ name: db.database, url: db.url, source, chunkRows: 500, more: `${log}\ntopics: { compacted: true, partitions: 3 }` }),
  )
  const checked = await mesh.command('check')
  expect(checked.exitCode).not.toBe(0)
  for (const table of ['keyless', 'notes']) expect(checked.text).toMatch(new RegExp(`public\\.${table}.*would be parked`))

  /** Every sink that is not paused has all that the source wrote, and nothing comes any more. */
  const compare = async (expected: Readonly<Record<string, boolean>>) => {
    const audits = await mesh!.audit()
    const found = audits.map(({ table, equal, parked, differences }) => [table, equal ? true : parked === true ? false : differences])
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(Object.entries(expected).map(([table, equal]) => [`public.${table}`, equal])))
  }
  const parked = (expected: number) =>
    mesh!.until(`${expected} parked`, (now) => {
      const { parked, snapshot } = node(now, source)
      // it starts with none of either
      return parked.length === expected && snapshot.length >= 4 - expected && snapshot.every(({ done }) => done)
    })
  mesh.start()
  await parked(2)
  await compare({ items: true, keyless: false, notes: false, whole: true })

  await mesh.command('pause', 'search')
  const before = node(await mesh.until('search paused', (now) => node(now, 'search').pausedSince !== null), source).rows
  await sql(`delete from items where id <= 500; update items set n = n + 1 where id between 501 and 900; update items set id = id + 10000 where id > 1900;
    truncate whole; insert into whole values (1, 'after the truncation'), (2, 'and gone'); delete from whole where id = 2; truncate whole;
    insert into whole values (3, 'after both')`)
  await mesh.until('captured', (now) => node(now, source).rows >= before + 1100)
  await mesh.stop()
  await clean(mesh)
  await mesh.command('resnapshot', `${source}/public.whole`)
  await sql('alter table notes replica identity full; alter table keyless add primary key (n)')
  for (const table of ['notes', 'keyless']) await mesh.command('resnapshot', `${source}/public.${table}`)
  mesh.start()
  await parked(0)
  await mesh.stop()
  await clean(mesh)
  await mesh.command('resume', 'search')
  mesh.start()
  await mesh.until('following', (now) => node(now, source).state === 'running' && node(now, 'search').pausedSince === null)
  await compare({ items: true, keyless: true, notes: true, whole: true })
  const windows = await mesh.command('audit', '--windows')
  expect(windows.text).not.toContain('DIFFERENT')
  expect(await mesh.stop()).toBe(0)
}

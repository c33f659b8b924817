import { afterEach, expect, test } from 'vitest'
import { frameOf, records } from '../../core/event/record-batch.ts'
import { openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import { type DeadLetter, deadLetterTopic, decodeDeadLetter } from '../../core/materialize/dead-letter.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, node, shopYaml } from './shop-mesh.ts'

let folder: ReturnType<typeof faultDir> | null = null
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  folder?.remove()
})

async function begin(create: string): Promise<{ db: TestDatabase; mesh: MeshProcess; logDir: string }> {
  folder = faultDir()
  db = await testDatabase()
  await db.sql(create)
  mesh = new MeshProcess(folder.dir, shopYaml({ name: db.database, url: db.url }))
  mesh.start()
  return { db, mesh, logDir: `${mesh.dataDir}/log` }
}

async function deadLetters(logDir: string, sink: string, count: number): Promise<DeadLetter[]> {
  await using log = await openEmbeddedLog({ dir: logDir, readOnly: true })
  const letters: DeadLetter[] = []
  const stop = new AbortController()
  for await (const batch of log.consume([{ topic: deadLetterTopic(sink), partition: 0, offset: 0n }], stop.signal)) {
    const frame = Buffer.from(batch.frame)
    for (const record of records(frame)) letters.push(decodeDeadLetter(frame, record))
    if (letters.length >= count) break
  }
  stop.abort()
  return letters
}

test('a record that is not Avro lies in a topic: a dead letter from every sink with cause and place, its neighbours land, the audit names it', async () => {
  const { db, mesh, logDir } = await begin(
    "create table notes (id int primary key, body text); insert into notes select i, 'note ' || i from generate_series(1, 100) i; create table other (id int primary key); insert into other values (1)",
  )
  await mesh.until('through', (status) => node(status, 'lake').rows === 101 && node(status, 'search').rows === 101)
  await mesh.stop()
  const topic = 'shop.public.notes'
  const garbage = Buffer.from('this is no Avro')
  {
    await using log = await openEmbeddedLog({ dir: logDir })
    const writer = await log.openWriter('stranger')
    const frame = frameOf([{ key: Buffer.from('k'), value: garbage, headers: [] }], Date.now())
    await writer.append({ frames: [{ topic, partition: 0, ...frame }], count: 1, progress: new Map() })
  }
  await db.sql("insert into notes values (101, 'after'); update notes set body = 'changed' where id = 100")
  mesh.start()
  await mesh.until('rejected by both', (status) => ['lake', 'search'].every((sink) => node(status, sink).rejected === 1 && node(status, sink).rows === 2))
  for (const sink of ['lake', 'search']) {
    const [letter, ...more] = await deadLetters(logDir, sink, 1)
    expect(more).toEqual([])
    expect(letter).toMatchObject({ code: 'record.malformed', origin: { topic, partition: 0, offset: 100n }, position: null })
    expect(letter!.value).toEqual(garbage)
    expect(letter!.reason).toMatch(/offset 100/)
  }
  const audit = await mesh.audit()
  const notes = audit.find(({ table }) => table === 'public.notes')!
  expect(new Set([notes.source, notes.log, ...Object.values(notes.sinks)].map(({ rows, checksum }) => `${rows} ${checksum}`)).size).toBe(1)
  expect(notes.source.rows).toBe(101)
  // capture wrote 102 records, and someone else one more
  expect(notes).toMatchObject({ equal: false, ledger: { equal: false, captured: 102, inLog: 103 } })
  expect(audit.find(({ table }) => table === 'public.other')).toMatchObject({ equal: true })
  expect(await mesh.stop()).toBe(0)
})

test('a row that Iceberg cannot hold: a dead letter with the column and the place in the source, its neighbours land, the audit shows the gap until it is mended', async () => {
  const { db, mesh, logDir } = await begin('create table shifts (id int primary key, ends time not null)')
  await mesh.until('following', (status) => node(status, 'shop').state === 'running')
  await db.sql("insert into shifts values (1, '12:00'), (2, '24:00'), (3, '13:00')")
  await mesh.until('through', (status) => node(status, 'lake').rejected === 1 && node(status, 'lake').rows === 2 && node(status, 'search').rows === 3)
  const [letter] = await deadLetters(logDir, 'lake', 1)
  expect(letter).toMatchObject({ code: 'record.rejected', origin: { topic: 'shop.public.shifts', partition: 0, offset: 1n } })
  expect(letter!.reason).toBe('column ends: a time outside the day (24:00:00)')
  expect(letter!.position!.commit).toBeGreaterThan(0n)
  const [gap] = await mesh.audit()
  expect(gap).toMatchObject({ equal: false, source: { rows: 3 }, log: { rows: 3 }, sinks: { lake: { rows: 2 }, search: { rows: 3 } } })
  await db.sql("update shifts set ends = '23:59:59' where id = 2")
  await expectEqual(mesh, ['public.shifts'])
  expect(await mesh.stop()).toBe(0)
})

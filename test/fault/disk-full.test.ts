import { readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { mountSmallDisk, smallDiskSkipReason, unmountSmallDisks } from '../services/small-disk.ts'
import { expectEqual, faultDir, flows, keepBusy, keepTouching, moreRows, node, openShop, shopYaml } from './shop-mesh.ts'

const ROLE = 'millrace_streams_early'

let forLog = ''
let forSpill = ''
let logDisk = ''
let spillDisk = ''
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
const reason = smallDiskSkipReason()
let remove = () => {}
beforeAll(() => {
  const folder = faultDir()
  remove = folder.remove
  forLog = path.join(folder.dir, 'log')
  forSpill = path.join(folder.dir, 'spill')
  logDisk = path.join(forLog, 'state')
  spillDisk = path.join(forSpill, 'state', 'nodes', 'shop')
  for (const disk of [logDisk, spillDisk]) mountSmallDisk(disk, 48)
})
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
})
afterAll(() => {
  unmountSmallDisks()
  remove()
})

/** Leaves so many bytes of room. @returns what gives the rest back */
function fill(disk: string, left: number): () => void {
  const ballast = path.join(disk, 'ballast')
  const { bavail, bsize } = statfsSync(disk)
  try {
    writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - left)))
  } catch (error) {
    // the mesh wrote more than that meanwhile
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  }
  return () => rmSync(ballast)
}

describe.skipIf(reason !== null)(`the disk${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  test('of the log is full: a clear error, the source waits, and goes on when there is room', async () => {
    db = await testDatabase()
    await openShop(db.url, 2000)
    mesh = new MeshProcess(forLog, shopYaml({ name: db.database, url: db.url }))
    mesh.start()
    // little enough that the disk does not fill by itself
    const shop = keepTouching(db.url)
    await mesh.until('flowing', flows)
    const makeRoom = fill(logDisk, 200_000)
    // more than the 200 kB that are left
    await db.sql("insert into orders (customer_id, note) select md5('c1')::uuid, repeat(md5(i::text), 20) from generate_series(1, 3000) i")
    const full = await mesh.until('full', (status) => node(status, 'shop').state === 'degraded' && node(status, 'shop').error?.code === 'log.full')
    expect(node(full, 'shop')).toMatchObject({ state: 'degraded', error: { category: 'unavailable' } })
    expect(node(full, 'shop').error!.fix).toMatch(/room|space/)
    makeRoom()
    await mesh.until('running', (status) => node(status, 'shop').state === 'running' && node(status, 'shop').error === null)
    await moreRows(mesh, 100)
    await shop.stop()
    await expectEqual(mesh)
    expect(await mesh.stop()).toBe(0)
  })

  test('of the spill files has no room for a large transaction: the error says where, nothing is acknowledged, and all of it comes when there is room', async () => {
    db = await testDatabase()
    const { url, database, sql } = db
    await openShop(url, 500)
    await sql(`do $$ begin create role ${ROLE} superuser login; exception when duplicate_object then null; end $$`)
    await sql(`alter role ${ROLE} set logical_decoding_work_mem = '64kB'`)
    mesh = new MeshProcess(forSpill, shopYaml({ name: database, url: url.replace('postgres@', `${ROLE}@`) }))
    mesh.start()
    const shop = keepBusy(url)
    await mesh.until('flowing', flows)
    const makeRoom = fill(spillDisk, 1_000_000)
    // far more than the megabyte that is left
    await sql("insert into orders (customer_id, note) select md5('c1')::uuid, repeat(md5(i::text), 20) from generate_series(1, 12000) i")
    const committed = (await sql('select pg_current_wal_insert_lsn()::text as lsn')).rows[0].lsn
    const isFull = (status: Parameters<typeof node>[0]) => node(status, 'shop').error?.code === 'log.full' && node(status, 'shop').state === 'degraded'
    const full = node(await mesh.until('full', isFull), 'shop')
    expect(full.error).toMatchObject({
      category: 'unavailable',
      message: expect.stringMatching(new RegExp(`scratch file ${path.join(spillDisk, 'spill')}/\\S+ of a large transaction: ENOSPC`)),
      fix: expect.stringMatching(/make room in the data folder.*streaming: false/),
    })
    const again = await mesh.until('full again', (status) => isFull(status) && node(status, 'shop').retryAt !== full.retryAt)
    const { rows } = await sql('select confirmed_flush_lsn < $1::pg_lsn as waits from pg_replication_slots where database = $2', [committed, database])
    expect(rows).toEqual([{ waits: true }])
    makeRoom()
    // counted from before there was room: all may come at once
    await mesh.until('all of it has come', (status) => node(status, 'shop').rows >= node(again, 'shop').rows + 12_000)
    await shop.stop()
    await expectEqual(mesh)
    await mesh.until('the spill folder is empty', () => readdirSync(path.join(spillDisk, 'spill')).length === 0)
    expect(await mesh.stop()).toBe(0)
  })
})

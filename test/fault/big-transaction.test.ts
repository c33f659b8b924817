import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { expectEqual, faultDir, node, shopYaml } from './shop-mesh.ts'

const ROWS = 300_000
const ROLLED_BACK = 50_000
/** What the transaction may add to the process's memory at most: its changes take some 100 MB on the wire already, more as rows. */
const MOST_ADDED_MB = 100
const ROLE = 'millrace_small_memory'

const { dir, remove } = faultDir()
let db: TestDatabase | null = null
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  remove()
})

const megabytes = (pid: number, field: 'VmHWM' | 'VmRSS') =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024

// I8
test.skipIf(!existsSync('/proc/self/status'))(
  `one transaction of ${ROWS} rows with a savepoint rolled back: bounded memory, the right rows, an empty spill folder (memory is read from /proc)`,
  async () => {
    db = await testDatabase()
    const { url, database, sql } = db
    await sql(`do $$ begin create role ${ROLE} superuser login; exception when duplicate_object then null; end $$`)
    // Postgres streams the transaction while it runs, in pieces
    await sql(`alter role ${ROLE} set logical_decoding_work_mem = '64kB'`)
    await sql('create table big (id int primary key, body text not null, kept boolean not null)')
    await sql("insert into big select i, 'before', true from generate_series(-10, -1) i")
    mesh = new MeshProcess(dir, shopYaml({ name: database, url: url.replace('postgres@', `${ROLE}@`) }))
    mesh.start()
    await mesh.until(
      'following',
      (status) => node(status, 'shop').state === 'running' && node(status, 'lake').rows === 10 && node(status, 'search').rows === 10,
    )
    const before = megabytes(mesh.pid, 'VmHWM')
    const spill = path.join(mesh.dataDir, 'nodes', 'shop', 'spill')
    let spilled = false
    const transaction = sql(`begin;
      insert into big select i, repeat(md5(i::text), 8), true from generate_series(1, ${ROWS / 2}) i;
      savepoint lost;
      insert into big select i, repeat(md5(i::text), 8), false from generate_series(${ROWS + 1}, ${ROWS + ROLLED_BACK}) i;
      update big set kept = false where id between 1 and 1000;
      rollback to savepoint lost;
      update big set body = 'after' where id < 0;
      insert into big select i, repeat(md5(i::text), 8), true from generate_series(${ROWS / 2 + 1}, ${ROWS}) i;
      commit`)
    await mesh.until(
      'through',
      (status) => {
        spilled ||= existsSync(spill) && readdirSync(spill).length > 0
        return status.nodes.every(({ rows }) => rows >= ROWS + 20)
      },
      600_000,
    )
    await transaction
    const peak = megabytes(mesh.pid, 'VmHWM')
    console.log(`peak memory ${Math.round(peak)} MB, ${Math.round(peak - before)} MB more than before the transaction`)
    expect(spilled).toBe(true)
    expect(peak - before).toBeLessThan(MOST_ADDED_MB)
    const [audit] = await expectEqual(mesh, ['public.big'])
    expect(audit!.source.rows).toBe(ROWS + 10)
    expect(audit!.ledger.captured).toBe(ROWS + 20)
    await mesh.until('the spill folder is empty', () => !existsSync(spill) || readdirSync(spill).length === 0)
    expect(await mesh.stop()).toBe(0)
  },
)

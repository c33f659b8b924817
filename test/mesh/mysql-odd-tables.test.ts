import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { FLAVORS, type Flavor, type MysqlDatabase, mysqlDatabase, mysqlSkipReason } from '../services/mysql.ts'
import { mysqlMeshYaml } from '../services/mysql-mesh.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

let db: MysqlDatabase | null = null
let mesh: MeshProcess | null = null
let dir = ''
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-odd-'))
})
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  db = null
  mesh = null
  rmSync(dir, { recursive: true, force: true })
})

interface OddTable {
  readonly only?: Flavor
  /** Of columns id, a and b, and what is odd. */
  readonly create: string
}

/** Tables whose rows in the binlog have other columns than a user sees, or that are hardly tables. */
const TABLES: Readonly<Record<string, OddTable>> = {
  computed: {
    create: `(id int primary key, s int generated always as (a * 2) stored, v int generated always as (a * 3) virtual, a int,
      t varchar(200) generated always as (concat(b, a)) virtual, b varchar(100), z int default 4)`,
  },
  indexed_column: { create: '(id int primary key, a int, v int generated always as (a * 3) virtual, b varchar(100), index (v), unique (v, id))' },
  hidden_column: { create: '(id int primary key, a int, i int default 5 invisible, b varchar(100))' },
  hidden_key: { create: '(id int invisible primary key default 0, a int, b varchar(100))' },
  functional_index: { only: 'mysql', create: '(id int primary key, a int, b varchar(100), index ((a + 1)), unique ((concat(lower(b), id))))' },
  many_valued: {
    only: 'mysql',
    create: `(id int primary key, a int, b varchar(100), j json default (json_array(coalesce(a, 0), 2)), index ((cast(j -> '$' as unsigned array))))`,
  },
  generated_key: { only: 'mysql', create: '(id int, a int, b varchar(100))' },
  stored_key: { only: 'mysql', create: '(id int, a int, b varchar(100), k int generated always as (id + 1) stored primary key)' },
  hashed: { only: 'mariadb', create: '(id int primary key, a int, b text, unique (b))' },
  hashed_twice: { only: 'mariadb', create: `(id int primary key, b text, c varchar(4000) default (concat('c', id)), a int, unique (b), unique (c))` },
  hashed_key: { only: 'mariadb', create: '(id int, a int, b text not null, unique (b))' },
  compressed: { only: 'mariadb', create: '(id int primary key, a int, b text compressed)' },
  timed: {
    only: 'mariadb',
    create: `(id int primary key, a int, b varchar(100), s date default '2020-01-01', e date default '2030-01-01', period for p (s, e))`,
  },
}

const tablesOf = (flavor: Flavor) => Object.entries(TABLES).filter(([, { only }]) => only === undefined || only === flavor)

const IMAGES = ['FULL', 'NOBLOB', 'MINIMAL']

/** Statements that insert, update with and without the key, and delete rows from this id on: as many stay as `KEPT`. */
const changes = (table: string, id: number): readonly string[] => [
  `insert into ${table} (id, a, b) values (${id}, 1, '${id} one'), (${id + 1}, 2, '${id} two'), (${id + 2}, null, '${id} three')`,
  `update ${table} set a = a + 1 where id = ${id}`,
  `update ${table} set b = concat(b, ' more') where id = ${id + 1}`,
  `update ${table} set id = ${id + 5} where id = ${id + 1}`,
  `delete from ${table} where id = ${id + 2}`,
]
const KEPT = 2

async function change({ flavor, connect }: MysqlDatabase, id: number): Promise<void> {
  const session = await connect()
  for (const [n, image] of IMAGES.entries()) {
    await session.query(`set session binlog_row_image = '${image}'`)
    for (const [table] of tablesOf(flavor)) for (const statement of changes(table, id + n * 10)) await session.query(statement)
  }
  if (flavor === 'mariadb') {
    await session.query(`set session binlog_row_image = 'FULL'`)
    for (const statement of changes('versioned', id)) await session.query(statement)
    await session.query('select nextval(numbers); alter sequence numbers restart 50; do nextval(numbers)')
  }
  await session.end()
}

describe.skipIf(skip !== null)(`odd tables of MySQL and MariaDB${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(FLAVORS)('%s: are captured as they are seen, in a chunk and in the stream, or are left out by name', { timeout: 900_000 }, async (flavor) => {
    db = await mysqlDatabase(flavor)
    const { sql } = db
    const generates = flavor === 'mysql' ? 'set session sql_generate_invisible_primary_key = ON; ' : ''
    for (const [table, { create }] of tablesOf(flavor)) await sql(`${generates}create table ${table} ${create} character set utf8mb4`)
    if (flavor === 'mariadb') await sql('create table versioned (id int primary key, a int, b text) with system versioning; create sequence numbers')
    await change(db, 100)
    const names = tablesOf(flavor).map(([name]) => `${db!.database}.${name}`)
    const before = names.map(() => KEPT * IMAGES.length)
    // a table that is set aside wants somebody to look at it
    const exit = flavor === 'mariadb' ? 2 : 0
    mesh = new MeshProcess(dir, mysqlMeshYaml(db, 4))
    mesh.start()
    const isRead = ({ nodes }: { nodes: readonly { snapshot: readonly { done: boolean }[] }[] }) =>
      nodes[0]!.snapshot.length === names.length && nodes[0]!.snapshot.every(({ done }) => done)
    await mesh.until('the tables are read', isRead)
    await change(db, 200)
    await expectEqual(mesh, names)
    expect(await mesh.stop()).toBe(exit)
    await change(db, 300)
    mesh.start()
    await expectEqual(mesh, names)
    const { nodes } = await mesh.until('the tables are known to be read', isRead)
    const { snapshot, parked } = nodes[0]!
    // a table that is read again has the rows that it has by then
    expect(snapshot.map(({ table, rows }) => [table, rows]).sort()).toEqual(names.map((name, i) => [name, before[i]]).sort())
    const error = expect.objectContaining({ code: 'source.schema_unsupported', message: expect.stringContaining('has system versioning') })
    const versioned = { table: `${db.database}.versioned`, error }
    expect(parked).toEqual(flavor === 'mariadb' ? [expect.objectContaining(versioned)] : [])
    expect(await mesh.stop()).toBe(exit)
  })
})

async function expectEqual(mesh: MeshProcess, names: readonly string[]): Promise<void> {
  const audit = (await mesh.audit()).filter(({ table }) => !table.endsWith('.versioned'))
  expect(audit.map(({ table, equal, differences, source }) => [table, equal, differences, source.rows > 0]).sort()).toEqual(
    names.map((table) => [table, true, [], true]).sort(),
  )
}

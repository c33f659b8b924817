import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { MillraceError } from '../../core/errors.ts'
import { MeshProcess } from '../services/mesh-process.ts'
import { FLAVORS, type Flavor, type MysqlDatabase, mysqlDatabase, mysqlSkipReason } from '../services/mysql.ts'
import { mysqlMeshYaml } from '../services/mysql-mesh.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

/** Until what a statement did is read again. */
const PATIENCE_MS = 240_000

let db: MysqlDatabase | null = null
let mesh: MeshProcess | null = null
const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-schema-'))
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  db = null
  mesh = null
  rmSync(dir, { recursive: true, force: true })
})

interface Case {
  readonly only?: Flavor
  /** Of the table; its columns id, a and c when absent. */
  readonly create?: string
  readonly charset?: string
  /** `T` is the table. Not followed by changes of rows, which would tell of a new shape. */
  readonly sql: string
}

const CASES: Readonly<Record<string, Case>> = {
  renamed: { sql: 'alter table T rename column a to b' },
  changed: { sql: 'alter table T change column a b int' },
  swapped_names: { sql: 'alter table T rename column a to d, rename column d to a' },
  swapped_in_turn: {
    sql: `alter table T rename column a to x; alter table T rename column d to a; alter table T rename column x to d;
      alter table T modify column a int after id, modify column d int after c`,
  },
  made_anew: { sql: 'alter table T drop column a, add column a int' },
  dropped_then_added: { sql: 'alter table T drop column a; alter table T add column a int' },
  rows_between: { sql: 'alter table T drop column a; insert into T (id) values (20); alter table T add column a int; insert into T (id, a) values (21, 1)' },
  nullable_timestamp: { sql: 'alter table T add column e timestamp null' },
  default_dropped: { sql: 'alter table T add column e int default 7; alter table T alter column e set default null' },
  expression: { sql: `alter table T add column e varchar(20) default (concat('x', 1 + 1))` },
  not_null: { sql: 'alter table T add column e int not null, add column f varchar(5) not null' },
  instant: { sql: 'alter table T add column e int default 5, algorithm = instant; alter table T alter column e set default 6' },
  generated: { sql: 'alter table T add column g int generated always as (a * 2) stored, add column v int generated always as (a + 1) virtual' },
  regenerated: {
    create: '(id int primary key, a int, c varchar(20), d int, g int generated always as (a * 2) stored)',
    sql: 'alter table T modify column g int generated always as (a * 3) stored',
  },
  cut: { sql: `set sql_mode = ''; alter table T modify column c varchar(2); alter table T modify column c varchar(20)` },
  null_filled: { sql: `set sql_mode = ''; alter table T modify column d int not null` },
  rounded: { create: '(id int primary key, a double, c varchar(20), d int)', sql: 'update T set a = 1.2345; alter table T modify column a double(10,1)' },
  converted: { create: '(id int primary key, a int, c varchar(20), d int) character set latin1', sql: 'alter table T convert to character set utf8mb4' },
  lost_characters: {
    sql: `update T set c = 'ł' where id = 3; set sql_mode = ''; alter table T convert to character set latin1; alter table T convert to character set utf8mb4`,
  },
  collated: { sql: 'alter table T modify column c varchar(20) collate utf8mb4_bin' },
  unlogged: { sql: 'set sql_log_bin = 0; alter table T rename column a to b' },
  versioned_comment: { sql: '/* by a tool */ alter table T /*!50000 rename column a to b */ -- so' },
  truncated_plainly: { sql: 'truncate T; insert into T (id) values (7)' },
  naïve: { sql: 'set names binary; truncate table T; insert into T (id) values (7)' },
  truncated_ansi: { sql: `set sql_mode = 'ANSI_QUOTES'; truncate table "T"` },
  made_if_absent: { sql: 'create table if not exists T (primary key (id)) as select 4 as id, 5 as a' },
  made_by_select: { sql: 'drop table T; create table T (primary key (id)) as select 4 as id, 5 as a' },
  swapped: { sql: 'create table T_new like T; insert into T_new (id) values (9); rename table T to T_old, T_new to T' },
  renamed_back: { sql: 'rename table T to T_x; insert into T_x (id) values (9); rename table T_x to T' },
  partitions: {
    create:
      '(id int primary key, a int, c varchar(20), d int) partition by range (id) (partition low values less than (2), partition high values less than (99))',
    sql: 'alter table T drop partition low',
  },
  café: { charset: 'latin1', sql: 'truncate table T' },
  'thé.glacé': { charset: 'latin1', sql: 'alter table T rename column a to b' },
  ignoring: { only: 'mariadb', sql: 'update T set d = 1; alter ignore table T add unique (d)' },
  replaced: { only: 'mariadb', sql: 'create or replace table T (id int primary key, a int); insert into T values (8, 8)' },
  replaced_by_select: { only: 'mariadb', sql: 'create or replace table T (primary key (id)) as select 4 as id, 5 as a' },
  dotted: { only: 'mariadb', sql: 'truncate table .T' },
  set_truncate: { only: 'mariadb', sql: 'set statement max_statement_time = 60 for truncate table T' },
  set_alter: { only: 'mariadb', sql: 'set statement max_statement_time = 60, sort_buffer_size = 100000 for alter online table T rename column a to b' },
  set_rename: { only: 'mariadb', sql: 'create table T_y like T; set statement max_statement_time = 60 for rename table T to T_z, T_y to T' },
  two_phases: { only: 'mariadb', sql: 'set session binlog_alter_two_phase = 1; alter table T rename column a to b' },
}

function casesOf(flavor: Flavor): readonly [name: string, Case][] {
  return Object.entries(CASES).filter(([, { only }]) => only === undefined || only === flavor)
}

const COLUMNS = '(id int primary key, a int, c varchar(20), d int) character set utf8mb4'

async function createTables({ flavor, sql }: MysqlDatabase, prefix: string): Promise<void> {
  for (const [name, { create = COLUMNS }] of casesOf(flavor)) {
    const table = `\`${prefix}_${name}\``
    await sql(`create table ${table} ${create}; insert into ${table} (id, a, c, d) values (1, 10, 'één', null), (2, 20, 'twee', 2), (3, null, 'drie', 3)`)
  }
}

async function alterTables(db: MysqlDatabase, prefix: string): Promise<void> {
  for (const [name, { sql, charset = 'utf8mb4' }] of casesOf(db.flavor)) {
    const session = await db.connect({ charset })
    const quote = sql.includes('"T"') ? '"' : '`'
    const text = sql.replaceAll(/["`]?\bT(_\w+)?\b["`]?/g, (_, more = '') => `${quote}${prefix}_${name}${more}${quote}`)
    await session.query(text).catch((error: Error) => {
      throw new Error(`${text}: ${error.message}`)
    })
    await session.end()
  }
}

/**
 * Waits until the log and both targets of every table that is there are equal to it. Names that a statement took and gave away again within a moment may have
 * been seen in it: what was captured of them is parked as gone. @throws with what is not
 */
async function expectEqual(mesh: MeshProcess, { database, sql }: MysqlDatabase): Promise<void> {
  const there = new Set(
    (await sql('select table_name as name from information_schema.tables where table_schema = ?', [database])).map(({ name }) => `${database}.${name}`),
  )
  for (const deadline = Date.now() + PATIENCE_MS; ; await delay(500)) {
    const audits = await mesh.audit(60_000).catch((error: unknown) => {
      // a source or sink that is behind for that long: looked at again, as what differs is
      if (error instanceof MillraceError && error.code === 'audit.unfinished' && Date.now() < deadline) return null
      throw error
    })
    if (audits === null) continue
    const of = audits.filter(({ table }) => there.has(table))
    const different = of.filter(({ equal }) => !equal).map(({ table, differences }) => [table, differences])
    if ((different.length > 0 || of.length < there.size) && Date.now() < deadline) continue
    expect(different).toEqual([])
    expect(new Set(of.map(({ table }) => table))).toEqual(there)
    expect(of.filter(({ source }) => source.rows > 0).length).toBeGreaterThan(of.length / 2)
    const others = audits.filter(({ table }) => !there.has(table))
    expect(others.filter(({ parked, differences }) => parked !== true || !differences.join().includes('source.table_gone'))).toEqual([])
    return
  }
}

describe.skipIf(skip !== null)(`schema changes of MySQL and MariaDB${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(FLAVORS)('%s: whatever a statement does to existing rows, while it is captured and while it is not, comes to all targets', {
    timeout: 900_000,
  }, async (flavor) => {
    db = await mysqlDatabase(flavor)
    await createTables(db, 'on')
    await createTables(db, 'off')
    mesh = new MeshProcess(dir, mysqlMeshYaml(db, 500))
    mesh.start()
    const tables = 2 * casesOf(flavor).length
    await mesh.until('snapshot done', ({ nodes }) => nodes[0]!.snapshot.length === tables && nodes[0]!.snapshot.every(({ done }) => done))
    await alterTables(db, 'on')
    await expectEqual(mesh, db)
    expect(await mesh.stop()).toBe(0)
    await alterTables(db, 'off')
    mesh.start()
    await mesh.until('running', ({ nodes }) => nodes[0]!.state === 'running')
    await expectEqual(mesh, db)
    expect(await mesh.stop()).toBe(0)
  })

  test.each(FLAVORS)('%s: columns that are renamed in the middle of the snapshot', { timeout: 900_000 }, async (flavor) => {
    db = await mysqlDatabase(flavor)
    for (const table of ['one', 'two']) {
      await db.sql(`create table ${table} (id int primary key, a int, c varchar(100), d int);
        insert into ${table} with recursive n (i) as (select 1 union all select i + 1 from n where i < 900) select i, i, repeat('x', 90), -i from n`)
      for (let more = 1; more < 20; more++) await db.sql(`insert into ${table} select id + ${900 * more}, a, c, d from ${table} where id <= 900`)
    }
    mesh = new MeshProcess(dir, mysqlMeshYaml(db, 500))
    mesh.start()
    await mesh.until('in the middle of a table', ({ nodes }) => nodes[0]!.snapshot.some(({ rows }) => rows > 0))
    await db.sql('alter table one rename column a to b; alter table two rename column a to d, rename column d to a')
    await expectEqual(mesh, db)
    expect(await mesh.stop()).toBe(0)
  })
})

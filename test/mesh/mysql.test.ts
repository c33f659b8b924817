import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { type MysqlDatabase, mysqlDatabase, mysqlSkipReason, RELEASES } from '../services/mysql.ts'
import { mysqlMeshYaml } from '../services/mysql-mesh.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

let db: MysqlDatabase | null = null
let mesh: MeshProcess | null = null
const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-mysql-'))
afterEach(async () => {
  await mesh?.kill()
  await db?.drop()
  db = null
  mesh = null
  rmSync(dir, { recursive: true, force: true })
})

async function createShop(db: MysqlDatabase): Promise<void> {
  await db.sql(`
    create table customers (id bigint unsigned not null auto_increment primary key, name varchar(80) not null, born date, score double, unique key (name));
    create table orders (id int not null, line smallint not null, customer bigint unsigned, price decimal(12,2), placed timestamp(6) null, note text, state enum('new','paid','sent'), primary key (id, line));
    insert into customers (name, born, score) with recursive n (i) as (select 1 union all select i + 1 from n where i < 900) select concat('customer ', i), date_add('1950-01-01', interval i day), i / 7 from n;
    insert into orders with recursive n (i) as (select 1 union all select i + 1 from n where i < 900) select i, 1 + i % 3, i, i * 1.25, '2026-01-02 03:04:05.678901', repeat('é', i % 50), 1 + i % 3 from n`)
}

/** Inserts, updates, deletes, key changes, multi-table transactions and rollbacks until it is stopped. */
function keepBusy(db: MysqlDatabase): { stop(): Promise<number> } {
  let over = false
  const work = (async () => {
    const connection = await db.connect()
    let turns = 0
    for (; !over; turns++) {
      const id = 1 + ((turns * 7919) % 900)
      await connection.query('start transaction')
      await connection.query('insert into customers (name, score) values (?, ?)', [`new ${turns}`, turns / 3])
      await connection.query('update orders set price = price + 1, note = ? where id = ?', [`turn ${turns}`, id])
      if (turns % 3 === 0) await connection.query('update orders set id = id + 10000 where id = ?', [id])
      if (turns % 5 === 0) await connection.query('delete from customers where id = ?', [id])
      if (turns % 7 === 0) await connection.query('insert ignore into orders (id, line, placed) values (?, 9, now(6))', [turns])
      await connection.query(turns % 11 === 0 ? 'rollback' : 'commit')
      // no faster than a busy machine reads the end of a table that grows
      await delay(5)
    }
    await connection.end()
    return turns
  })()
  return {
    stop() {
      over = true
      return work
    },
  }
}

describe.skipIf(skip !== null)(`MySQL and MariaDB${skip === null ? '' : ` (${skip})`}`, () => {
  test.each(RELEASES)('%s: snapshot beside a busy stream, a graceful restart, a kill: log, lake and search stay equal', {
    timeout: 900_000,
  }, async (release) => {
    db = await mysqlDatabase(release)
    await createShop(db)
    mesh = new MeshProcess(dir, mysqlMeshYaml(db, 500))
    const busy = keepBusy(db)
    mesh.start()
    await mesh.until('snapshot done', ({ nodes }) => nodes[0]!.snapshot.length === 2 && nodes[0]!.snapshot.every(({ done }) => done))
    expect(await mesh.stop()).toBe(0)
    mesh.start()
    const { nodes } = await mesh.until('answering', () => true)
    await mesh.until('rows go on', (status) => status.nodes[0]!.rows > nodes[0]!.rows + 500)
    await mesh.kill()
    mesh.start()
    await mesh.until('rows go on', (status) => status.nodes[0]!.rows > 500)
    await busy.stop()
    const audit = await mesh.audit()
    expect(audit.map(({ table, equal, differences, source }) => ({ table, equal, differences, empty: source.rows === 0 }))).toEqual(
      ['customers', 'orders'].map((name) => ({ table: `${db!.database}.${name}`, equal: true, differences: [], empty: false })),
    )
    expect(await mesh.stop()).toBe(0)
  })
})

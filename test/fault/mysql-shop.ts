/** A small shop on MySQL or MariaDB, and what changes it: for tests that each break something of their own. */
import type { Connection } from 'mysql2/promise'
import type { MysqlDatabase } from '../services/mysql.ts'

const ROWS = 900
const DAY_S = 86_400

/** `customers` and `orders`, 900 rows each. */
export async function createMysqlShop(db: MysqlDatabase): Promise<void> {
  await db.sql(`
    create table customers (id int primary key auto_increment, name varchar(80), score double);
    create table orders (id int, line smallint, customer int, price decimal(12,2), note text, primary key (id, line));
    insert into customers (name, score) with recursive n (i) as (select 1 union all select i + 1 from n where i < ${ROWS}) select concat('customer ', i), i / 7 from n;
    insert into orders with recursive n (i) as (select 1 union all select i + 1 from n where i < ${ROWS}) select i, 1 + i % 3, i, i * 1.25, repeat('é', i % 50) from n`)
}

/** The `n`th transaction: an insert and an update, now and then a key change, a delete, a rollback; the clock of its events may be a day off, either way. */
export async function mysqlTurn(connection: Connection, n: number): Promise<void> {
  const id = 1 + ((n * 7919) % ROWS)
  const off = n % 17 === 0 ? -DAY_S : n % 17 === 1 ? DAY_S : 0
  await connection.query(n % 17 < 2 ? `set timestamp = ${Math.round(Date.now() / 1000) + off}` : 'set timestamp = default')
  await connection.query('start transaction')
  await connection.query('insert into customers (name, score) values (?, ?)', [`new ${n}`, n / 3])
  await connection.query('update orders set price = price + 1, note = ? where id = ?', [`turn ${n}`, id])
  if (n % 3 === 0) await connection.query('update orders set id = id + 10000 where id = ?', [id])
  if (n % 5 === 0) await connection.query('delete from customers where id = ?', [id])
  await connection.query(n % 11 === 0 ? 'rollback' : 'commit')
}

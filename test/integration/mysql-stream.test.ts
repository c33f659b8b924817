import { createHash } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type MysqlDatabase, mysqlDatabase, mysqlSkipReason } from '../services/mysql.ts'
import { MysqlCapture } from './mysql-capture.ts'

const skip = mysqlSkipReason()
if (skip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${skip}`)

let db: MysqlDatabase
let capture: MysqlCapture
async function begin(flavor: 'mysql' | 'mariadb', tables: string): Promise<void> {
  db = await mysqlDatabase(flavor)
  await db.sql(tables)
  capture = await MysqlCapture.start(db)
}
afterEach(async () => {
  await capture.stop()
  await db.drop()
})

/** The types of the events that `work` leads to; the server is shared, so others may be among them. */
async function eventsOf(work: () => Promise<unknown>): Promise<ReadonlySet<string>> {
  const status = async () => (await db.sql(db.flavor === 'mysql' ? 'show binary log status' : 'show binlog status'))[0]!
  const { File, Position } = await status()
  await work()
  const events = await db.sql(`show binlog events in '${File}' from ${Position}`)
  return new Set(events.map(({ Event_type }) => String(Event_type)))
}

describe.skipIf(skip !== null)('compressed transactions of MySQL', () => {
  beforeEach(() =>
    begin(
      'mysql',
      'create table items (id int primary key, body longtext, noise mediumblob); create table parts (id int primary key, name varchar(50)); create table aside (id int primary key)',
    ),
  )

  test('small ones are applied like others, between others', async () => {
    const session = await db.connect()
    const events = await eventsOf(async () => {
      for (const [base, on] of [
        [0, 'ON'],
        [3, 'OFF'],
        [6, 'ON'],
      ] as const) {
        await session.query(`set session binlog_transaction_compression = ${on}`)
        await session.query('start transaction')
        await session.query(`insert into items (id, body) values (${base + 1}, repeat('a', 1000)), (${base + 2}, repeat('b', 1000))`)
        await session.query(`insert into parts values (${base + 1}, 'one')`)
        await session.query(`update items set id = ${base + 3}, body = 'ß' where id = ${base + 2}`)
        await session.query(`delete from parts where id = ${base + 1}`)
        await session.query('commit')
      }
    })
    await session.end()
    expect(events).toContain('Transaction_payload')
    await capture.caughtUp()
    expect(capture.of('items').map(({ op, after }) => [op, (after as { id: number }).id])).toEqual([
      ['c', 1],
      ['c', 2],
      ['u', 3],
      ['c', 4],
      ['c', 5],
      ['u', 6],
      ['c', 7],
      ['c', 8],
      ['u', 9],
    ])
    expect(capture.of('parts').map(({ op }) => op)).toEqual(['c', 'd', 'c', 'd', 'c', 'd'])
    const { changes } = capture.output
    expect(new Set(changes.map(({ commit }) => commit)).size).toBe(3)
  })

  test('a large one goes through a file, with values larger than a chunk', async () => {
    const session = await db.connect()
    await session.query('set session binlog_transaction_compression = ON')
    await session.query('start transaction')
    for (let id = 0; id < 3000; id += 100) {
      const rows = Array.from({ length: 100 }, (_, n) => `(${id + n}, repeat('${id + n} ', 50), random_bytes(1000))`)
      await session.query(`insert into items values ${rows.join(', ')}`)
    }
    await session.query(`insert into items values (5000, repeat('long', 1000000), x'01')`)
    const [checks] = await session.query('select id, sha2(noise, 256) as noise, sha2(body, 256) as body from items order by id')
    const events = await eventsOf(() => session.query('commit'))
    await session.end()
    expect(events).toContain('Transaction_payload')
    await capture.caughtUp()
    const sum = (value: string | Uint8Array) => createHash('sha256').update(value).digest('hex')
    expect(
      capture.of('items').map(({ after }) => {
        const { id, noise, body } = after as { id: number; noise: Uint8Array; body: string }
        return { id, noise: sum(noise), body: sum(body) }
      }),
    ).toEqual(checks)
    await db.sql('insert into aside values (1)')
    await capture.caughtUp()
    expect(capture.of('aside')).toHaveLength(1)
  })
})

describe.skipIf(skip !== null)('compressed events of MariaDB', () => {
  beforeEach(() => begin('mariadb', 'create table items (id int primary key, body longtext, extra int)'))

  test('rows and statements are applied like others', async () => {
    await db.sql('set global log_bin_compress = ON')
    try {
      const session = await db.connect()
      const events = await eventsOf(async () => {
        await session.query(`insert into items values (1, repeat('a', 1000), 1), (2, repeat('é', 100000), null)`)
        await session.query(`update items set body = repeat('b', 500), id = 3 where id = 1`)
        await session.query(`delete from items where id = 2`)
        await session.query(`alter table items add column later int default null comment '${'a long comment '.repeat(50)}'`)
        await session.query(`insert into items values (4, repeat('c', 1000), 4, 5)`)
        await session.query(`truncate table /* ${'why not '.repeat(60)} */ items`)
      })
      await session.end()
      for (const type of ['Write_rows_compressed_v1', 'Update_rows_compressed_v1', 'Delete_rows_compressed_v1', 'Query_compressed'])
        expect(events).toContain(type)
    } finally {
      await db.sql('set global log_bin_compress = OFF')
    }
    await capture.caughtUp()
    expect(capture.of('items')).toEqual([
      { op: 'c', after: { id: 1, body: 'a'.repeat(1000), extra: 1 } },
      { op: 'c', after: { id: 2, body: 'é'.repeat(100_000), extra: null } },
      { op: 'u', before: { id: 1, body: 'a'.repeat(1000), extra: 1 }, after: { id: 3, body: 'b'.repeat(500), extra: 1 } },
      { op: 'd', before: { id: 2, body: 'é'.repeat(100_000), extra: null } },
      { op: 'c', after: { id: 4, body: 'c'.repeat(1000), extra: 4, later: 5 } },
      { op: 't' },
    ])
  })
})

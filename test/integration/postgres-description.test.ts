/** How a table of the server is described. */
import type pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { FIRST_LOST_ID } from '../../connectors/postgres/relation-columns.ts'
import { isRewritten } from '../../connectors/postgres/rewritten.ts'
import { describeTable, describeTables } from '../../connectors/postgres/type-mapping.ts'
import { viewOf } from '../../core/plugin.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'
import { MAPPING, PostgresSession } from './postgres-session.ts'

let session: PostgresSession
let client: pg.Client
beforeAll(async () => {
  session = await PostgresSession.open()
  client = session.client
})
afterAll(() => session?.close())

it('gives keys, nullability, storage and source types', async () => {
  await client.query(`create table described (b text not null, a int, "Odd ""name" mood[], n numeric(12,2), gen int generated always as (a + 1) stored, dropped int, primary key (b, a));
    alter table described drop column dropped; alter table described add column big text`)
  const { table, replicaIdentity } = await session.describe('described')
  expect(replicaIdentity).toBe('d')
  expect(table.key).toEqual([0, 1])
  expect(
    table.columns.map(({ name, id, sourceType, nullable, mayBeUnchanged, maybeSpecial }) => [name, id, sourceType, nullable, mayBeUnchanged, maybeSpecial]),
  ).toEqual([
    ['b', 1, 'text', false, false, false],
    ['a', 2, 'integer', false, false, false],
    ['Odd "name', 3, 'public.mood[]', true, true, true],
    ['n', 4, 'numeric(12,2)', true, true, true],
    ['big', 7, 'text', true, true, false],
  ])
  expect((await session.describe('described', { unrepresentable: 'error' })).table.columns.some(({ maybeSpecial }) => maybeSpecial)).toBe(false)
})

it('takes the key from the replica identity', async () => {
  await client.query(`create table identified (id int primary key, u text not null unique, v text)`)
  const key = async () => {
    const { table } = await session.describe('identified')
    return [table.key.map((i) => table.columns[i]!.name), table.columns.filter((column) => column.mayBeUnchanged).map(({ name }) => name)]
  }
  expect(await key()).toEqual([['id'], ['u', 'v']])
  await client.query('alter table identified replica identity full')
  expect(await key()).toEqual([['id'], []])
  await client.query('alter table identified replica identity using index identified_u_key')
  expect(await key()).toEqual([['u'], ['v']])
  await client.query('alter table identified replica identity nothing')
  expect(await key()).toEqual([[], ['u', 'v']])
})

it('describes many tables at once as each alone, without those that are gone', async () => {
  const names = ['first_of_many', 'second_of_many', 'third_of_many', 'gone']
  for (const name of names) {
    await client.query(`create table ${name} (id int, m mood, n numeric(9,2)[], g int generated always as (id + 1) stored, x text, dropped int, primary key (id));
      alter table ${name} drop column dropped`)
  }
  await client.query('alter table second_of_many replica identity full; alter table third_of_many add column late text')
  const oids: number[] = []
  for (const name of names) oids.push((await client.query<{ oid: number }>('select $1::regclass::oid as oid', [name])).rows[0]!.oid)
  await client.query('drop table gone')
  const described = await describeTables(client, oids, MAPPING)
  expect([...described.keys()].sort()).toEqual(oids.slice(0, 3).sort())
  for (const oid of oids.slice(0, 3)) {
    const { table, replicaIdentity } = await describeTable(client, oid, MAPPING)
    expect(described.get(oid)).toMatchObject({ oid, table, replicaIdentity })
  }
})

it('finds the identity of columns that were renamed or dropped after the message', async () => {
  await client.query('drop table if exists moved; create table moved (id int primary key, a text, b int, c int)')
  const { rows } = await client.query<{ oid: number }>(`select 'moved'::regclass::oid as oid`)
  const column = (name: string, typeOid: number, key = false) => ({ name, typeOid, typeModifier: -1, key })
  const columnsThen = [column('id', 23, true), column('a', 25), column('b', 23), column('c', 23)]
  const streamed = { namespace: 'public', name: 'moved', replicaIdentity: 'd', columns: columnsThen, before: null }
  await client.query('alter table moved drop column b; alter table moved rename a to z; alter table moved alter c type int8')
  const { table } = await describeTable(client, rows[0]!.oid, MAPPING, streamed)
  expect(table.columns.map(({ name, id, sourceType, type }) => [name, id, sourceType, type.kind])).toEqual([
    ['id', 1, 'integer', 'int32'],
    ['a', 2, 'text', 'string'],
    ['b', 3, 'integer', 'int32'],
    ['c', 4, 'integer', 'int32'],
  ])
  expect(table.key).toEqual([0])
  await client.query('alter table moved drop column c; alter table moved add column d int')
  const later = await describeTable(client, rows[0]!.oid, MAPPING, { ...streamed, before: table })
  expect(later.table.columns.map(({ id, type }) => [id, type.kind])).toEqual([
    [1, 'int32'],
    [2, 'string'],
    [3, 'int32'],
    [4, 'int32'],
  ])
  // three were renamed or dropped, and four may be they
  const { columns } = (await describeTable(client, rows[0]!.oid, MAPPING, streamed)).table
  expect(columns.map(({ name, id, sourceType }) => [name, id < FIRST_LOST_ID ? id : 'lost', sourceType])).toEqual([
    ['id', 1, 'integer'],
    ['a', 'lost', 'text'],
    ['b', 'lost', 'integer'],
    ['c', 'lost', 'integer'],
  ])
  await client.query('alter table moved rename to elsewhere')
  expect((await describeTable(client, rows[0]!.oid, MAPPING, streamed)).table.name).toBe('moved')
  await client.query('drop table elsewhere')
  await expect(describeTable(client, rows[0]!.oid, MAPPING, streamed)).rejects.toMatchObject({ code: 'source.table_gone' })
})

it('refuses the binary form of a type it does not know, by name and with the way out', async () => {
  await client.query('drop table if exists unknown_type; create table unknown_type (q tsquery, a aclitem)')
  const mapped = await session.describe('unknown_type')
  expect(mapped.columns.map(({ binaryReadable }) => binaryReadable)).toEqual([false, true])
  const bytes = Buffer.alloc(8)
  expect(() => mapped.columns[0]!.binary(bytes, viewOf(bytes), 0, 8, new RecordingWriter(mapped.table))).toThrow(/column q.*tsquery/)
})

it.each([
  ['varchar(10)', 'varchar(20)', false],
  ['varchar(10)', 'text', false],
  ['timestamp(3)', 'timestamp', false],
  ['varchar(10)[]', 'text[]', false],
  ['timestamptz(6)', 'timestamptz(0)', true],
  ['text', 'varchar(10)', true],
  ['json', 'jsonb', true],
  ['char(5)', 'text', true],
  ['char(5)', 'char(9)', true],
  ['numeric(50,4)', 'numeric(50,1)', true],
  ['int', 'bigint', true],
])('rows whose column of type %s becomes %s are rewritten: %s', async (before, now, rewritten) => {
  await client.query(`drop table if exists retyped; create table retyped (id int primary key, v ${before})`)
  const { table } = await session.describe('retyped')
  await client.query(`alter table retyped alter v type ${now} using v::${now}`)
  expect(await isRewritten(client, table, (await session.describe('retyped')).table)).toBe(rewritten)
})

it('takes a column that came NOT NULL for one that rows have values in, whatever became of its default', async () => {
  await client.query('drop table if exists filled; create table filled (id int primary key)')
  const { table } = await session.describe('filled')
  await client.query('alter table filled add a int')
  expect(await isRewritten(client, table, (await session.describe('filled')).table)).toBe(false)
  await client.query('alter table filled add b uuid not null default gen_random_uuid(); alter table filled alter b drop default')
  expect(await isRewritten(client, table, (await session.describe('filled')).table)).toBe(true)
})

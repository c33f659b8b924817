import { expect, test } from 'vitest'
import type { ChangeApplier } from '../../../../connectors/mysql/change-applier.ts'
import { readStatement } from '../../../../connectors/mysql/ddl-reader.ts'
import { Definitions } from '../../../../connectors/mysql/definitions.ts'
import { DescribedAhead } from '../../../../connectors/mysql/described-ahead.ts'

const SESSION = { namespace: 'shop', ansiQuotes: false, noBackslashEscapes: false, nbspIsSpace: false, lowerCase: false }

/** What the statements, each at the mark of its place among them, do to the rows of table `a`, in order. */
async function effects(statements: readonly string[], ahead = new DescribedAhead(), isCaptured = false): Promise<readonly string[]> {
  const done: string[] = []
  const of = (what: string) => async (namespace: string, name: string) => {
    done.push(`${what} ${namespace}.${name}`)
  }
  const applier = {
    forget: () => {},
    truncate: of('truncate'),
    recreate: of('recreate'),
    reread: ({ namespace, name }: { namespace: string; name: string }) => done.push(`reread ${namespace}.${name}`),
    setAside: ({ namespace, name }: { namespace: string; name: string }) => done.push(`park ${namespace}.${name}`),
  }
  const options = {
    isCaptured: (_: string, name: string) => name === 'a' || name === 'gone',
    onChanged: () => {},
    ahead,
    onMisread: () => done.push('tell'),
    listed: async () => [{ namespace: 'shop', name: 'a' }],
    onUnreadable: (opening: string) => done.push(`tell ${opening}`),
  }
  const definitions = new Definitions(applier as unknown as ChangeApplier, options)
  for (const [mark, text] of statements.entries())
    await definitions.apply(readStatement(text, SESSION), 'shop', { place: 'file:4', mark: BigInt(mark), isCaptured })
  return done
}

const CONDITIONAL = 'create table if not exists a (id int primary key)'

test.each([
  ['of a table that is there does nothing', [], []],
  ['after a drop, once', ['drop table a', CONDITIONAL], ['recreate shop.a']],
  ['after it was renamed away', ['rename table a to old'], ['recreate shop.a']],
  ['after it was renamed away by ALTER TABLE', ['alter table a rename to old'], ['recreate shop.a']],
  ['after it was renamed to the name that it has', ['alter table a rename to a'], []],
  ['after its database was dropped, once', ['drop database shop', CONDITIONAL], ['recreate shop.a']],
  ['after another database was dropped', ['drop database other'], []],
  ['of a table that another one took the place of', ['drop table a', 'rename table b to a'], ['park shop.a']],
  ['of a table that was swapped', ['rename table a to old, b to a'], ['park shop.a']],
  ['of a table that was replaced', ['drop table a', 'create or replace table a (id int)'], ['truncate shop.a']],
  ['of a table that was made in a new database', ['drop database shop', 'create table a (id int)'], ['recreate shop.a']],
])('CREATE TABLE IF NOT EXISTS %s', async (_, before, expected) => {
  expect(await effects([...before, CONDITIONAL])).toEqual(expected)
})

test('an ALTER TABLE that the description by which rows before it were read had already has the table read anew', async () => {
  const alter = ['create view v as select 1', 'alter table b drop x, add y int', 'alter table a drop x, add y int']
  const described = (end: bigint) => new DescribedAhead([['shop.a', end]])
  expect(await effects(alter, described(2n))).toEqual(['tell', 'park shop.a'])
  expect(await effects(alter, described(1n))).toEqual(['reread shop.a'])
  expect(await effects(alter, new DescribedAhead([['shop.b', 9n]]))).toEqual(['reread shop.a'])
  expect(await effects(alter, described(2n), true)).toEqual([])
})

test('an ALTER TABLE with which existing rows read differently has the table read again, any other has not', async () => {
  expect(await effects(['alter table a rename column x to y', 'alter table a add z int', 'alter table b drop x'])).toEqual(['reread shop.a'])
})

test.each([
  ['truncate table ( a', ['tell truncate table ( a', 'park shop.a']],
  ['drop table b, (', ['tell drop table b , (', 'park shop.a']],
  ['drop database (', ['tell drop database (', 'park shop.a']],
  ['rename table b to (', ['tell rename table b to (', 'park shop.a']],
  ['alter table ( drop partition p', ['tell alter table ( drop partition p', 'park shop.a']],
  ['alter ignore table ( add unique (x)', ['tell alter ignore table ( add unique', 'park shop.a']],
  ['alter table b rename to (', ['tell alter table b rename to (', 'park shop.a']],
  ["alter table ( add x int default 1 comment 'a secret'", ['tell alter table ( add x int', 'reread shop.a']],
  ["alter table 'a secret' add x int", ["tell alter table '…' add x int", 'reread shop.a']],
])('a statement whose table cannot be read, %s, has all captured tables read anew, and is told', async (statement, expected) => {
  expect(await effects([statement])).toEqual(expected)
  expect(await effects([statement], new DescribedAhead(), true)).toEqual([])
})

test('a table that was not there after such a statement may have been dropped by it', async () => {
  const gone = 'create table if not exists gone (id int primary key)'
  expect(await effects(['drop table (', CONDITIONAL, gone, gone])).toEqual(['tell drop table (', 'park shop.a', 'recreate shop.gone'])
})

test('a description is from ahead of the stream until the stream has come to where the binlog ended then', () => {
  const ahead = new DescribedAhead()
  ahead.note('d.b', 20n)
  ahead.note('d.a', 30n)
  ahead.note('d.a', 10n)
  expect(ahead.ids).toEqual(['d.a', 'd.b'])
  expect([ahead.has('d.a', 30n), ahead.has('d.a', 31n), ahead.has('d.c', 1n)]).toEqual([true, false, false])
  ahead.pass(20n)
  expect(ahead.ids).toEqual(['d.a'])
  ahead.forget('d.a')
  expect(ahead.ids).toEqual([])
})

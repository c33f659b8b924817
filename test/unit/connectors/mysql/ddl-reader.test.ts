import { expect, test } from 'vitest'
import { mayConcern, readStatement } from '../../../../connectors/mysql/ddl-reader.ts'

const SESSION = { namespace: 'shop', ansiQuotes: false, noBackslashEscapes: false, nbspIsSpace: false, lowerCase: false }
const read = (text: string, session: Partial<typeof SESSION> = {}) => readStatement(text, { ...SESSION, ...session })
const tables = (...names: string[]) => names.map((name) => ({ namespace: name.split('.')[0], name: name.split('.')[1] }))
const truncation = (name: string) => ({ kind: 'truncate', tables: tables(name) })
const alter = (name: string, rewrites: boolean) => ({ kind: 'alter', tables: tables(name), rewrites })
const replacement = (names: readonly string[], ...left: string[]) => ({ kind: 'replace', tables: tables(...names), left: tables(...left) })

/** Statements as servers write them to the binlog, and what they are. */
const STATEMENTS: readonly (readonly [text: string, statement: object])[] = [
  ['truncate items', truncation('shop.items')],
  ['truncate items wait 10', truncation('shop.items')],
  ['TRUNCATE TABLE `odd``name`', truncation('shop.odd`name')],
  ['truncate\ttable\v\u00a0items', truncation('shop.\u00a0items')],
  ['drop table \u3000, \ufeffa', { kind: 'drop', tables: tables('shop.\u3000', 'shop.\ufeffa') }],
  ['truncate table other . `items`', truncation('other.items')],
  ['truncate table "items"', truncation('shop.items')],
  ['truncate table `a`.`b`', truncation('a.b')],
  ['delete from `shop`.`items`', truncation('shop.items')],
  ['DELETE FROM items;', truncation('shop.items')],
  ['delete from items where id = 1', { kind: 'change' }],
  ['delete from items limit 1', { kind: 'change' }],
  ['delete a from a join b', { kind: 'change' }],
  ['create table items (a int)', { kind: 'create', tables: tables('shop.items'), isConditional: false }],
  ['create table items as select 1', { kind: 'change' }],
  ['create table items (a int) select 1 as a', { kind: 'change' }],
  ['create table items (select 1)', { kind: 'change' }],
  ['create table if not exists items with x as (select 1) select * from x', { kind: 'change' }],
  ['create or replace table items select 1', { kind: 'change' }],
  ['create table items values (1)', { kind: 'change' }],
  ['create table items values row(1)', { kind: 'change' }],
  ['create table items table other', { kind: 'change' }],
  ['CREATE TABLE `items` ( `select` int ) START TRANSACTION', { kind: 'create', tables: tables('shop.items'), isConditional: false }],
  [
    `create table items (a int comment 'select') partition by list (a) (partition p values in (1))`,
    { kind: 'create', tables: tables('shop.items'), isConditional: false },
  ],
  ['create table shop.select (a int references shop.table (a))', { kind: 'create', tables: tables('shop.select'), isConditional: false }],
  ['create temporary table items select 1', { kind: 'other' }],
  ['create table if not exists other.items like x', { kind: 'create', tables: tables('other.items'), isConditional: true }],
  ['create or replace table items (a int)', truncation('shop.items')],
  ['create temporary table items (a int)', { kind: 'other' }],
  ['create or replace temporary table items (a int)', { kind: 'other' }],
  ['create view items as select 1', { kind: 'definition' }],
  ['create or replace view items as select 1', { kind: 'definition' }],
  ['drop table if exists `a`, b.c', { kind: 'drop', tables: tables('shop.a', 'b.c') }],
  ['drop table a restrict', { kind: 'drop', tables: tables('shop.a') }],
  ['drop table .a, . b', { kind: 'drop', tables: tables('shop.a', 'shop.b') }],
  ['drop table [a-b], [c].[d]]e]', { kind: 'drop', tables: tables('shop.a-b', 'c.d]e') }],
  ['create table [items] ([a] int)', { kind: 'create', tables: tables('shop.items'), isConditional: false }],
  ['drop tables a,b', { kind: 'drop', tables: tables('shop.a', 'shop.b') }],
  ['drop temporary table a', { kind: 'other' }],
  ['drop view a', { kind: 'definition' }],
  ['drop database x', { kind: 'drop database', namespace: 'x' }],
  ['DROP SCHEMA IF EXISTS `odd ``name`', { kind: 'drop database', namespace: 'odd `name' }],
  ['alter database shop character set latin1', { kind: 'definition' }],
  ['rename table a to b, `c d`.e TO f.`g``h`', replacement(['shop.b', 'f.g`h'], 'shop.a', 'c d.e')],
  ['rename table a to old, b to a', replacement(['shop.old', 'shop.a'], 'shop.b')],
  ['rename table a to b, c to a', replacement(['shop.b', 'shop.a'], 'shop.c')],
  ['rename tables if exists a nowait to b', replacement(['shop.b'], 'shop.a')],
  ['rename table a wait 3 to b', replacement(['shop.b'], 'shop.a')],
  ['rename user a to b', { kind: 'definition' }],
  ['alter table a rename to b', replacement(['shop.b'], 'shop.a')],
  ['alter table a rename b', replacement(['shop.b'], 'shop.a')],
  ['alter table a rename = b', replacement(['shop.b'], 'shop.a')],
  ['alter table a add x int, rename as other.b', replacement(['other.b'], 'shop.a')],
  ['alter table a rename to a', { kind: 'definition' }],
  ['alter table a rename shop.a, drop x', alter('shop.a', true)],
  ['alter table a truncate partition p, rename to a', replacement(['shop.a'])],
  ['alter table a rename to b, rename to a', { kind: 'definition' }],
  ['alter table a rename to a, rename to b', replacement(['shop.b'], 'shop.a')],
  ['alter table a rename to A', replacement(['shop.A'], 'shop.a')],
  ['alter table a drop partition p1, p2', replacement(['shop.a'])],
  ['alter table a drop partition if exists rename, p2', replacement(['shop.a'])],
  ['alter table a truncate partition p1, p2', replacement(['shop.a'])],
  ['alter table a discard partition p1, rename tablespace', replacement(['shop.a'])],
  ['alter table a truncate partition all', replacement(['shop.a'])],
  ['alter table a import tablespace', replacement(['shop.a'])],
  ['alter table x.a exchange partition p with table y.b', replacement(['x.a', 'y.b'])],
  ['alter table a convert table x.b to partition p values less than (9)', { ...replacement(['shop.a']), left: tables('x.b') }],
  ['alter table a convert partition p to table b', replacement(['shop.a', 'shop.b'])],
  ['alter ignore table a add unique (b)', replacement(['shop.a'])],
  ['alter online ignore table a comment = 1', replacement(['shop.a'])],
  ['alter table a engine = blackhole', replacement(['shop.a'])],
  ['alter table a add x int, engine BlackHole', replacement(['shop.a'])],
  [`alter table a comment 'x' engine = 'blackhole'`, replacement(['shop.a'])],
  ['alter table a engine="BLACKHOLE"', replacement(['shop.a'])],
  ['alter table a engine `blackhole`', replacement(['shop.a'])],
  ['alter table a drop column blackhole', alter('shop.a', true)],
  ['alter table a add column blackhole int after engine', alter('shop.a', false)],
  [`alter table a comment 'blackhole'`, { kind: 'definition' }],
  ['alter table a rename column x to y', alter('shop.a', true)],
  ['alter table a change x y int', alter('shop.a', true)],
  ['alter table a modify column x bigint', alter('shop.a', true)],
  ['alter table a convert to character set utf8mb4', alter('shop.a', true)],
  ['alter table a drop x', alter('shop.a', true)],
  ['alter table a drop column if exists x', alter('shop.a', true)],
  ['alter table a drop column `index`', alter('shop.a', true)],
  ['alter table a add x int', alter('shop.a', false)],
  ['alter table a add column x varchar(20) comment "/* truncate */"', alter('shop.a', false)],
  ['alter table a add column if not exists x decimal(10,2) default null after y', alter('shop.a', false)],
  [`alter table a add x enum('not null','default 1')`, alter('shop.a', false)],
  ['alter table a add (x int, y int)', alter('shop.a', false)],
  ['alter table a add (x int, y int default 3)', alter('shop.a', true)],
  ['alter table a add x int default 3', alter('shop.a', true)],
  ['alter table a add x int not null', alter('shop.a', true)],
  ['alter table a add x varchar(36) default (uuid())', alter('shop.a', true)],
  ['alter table a add x int generated always as (y * 2) virtual', alter('shop.a', true)],
  ['alter table a add x int as (y) stored', alter('shop.a', true)],
  ['alter table a add x timestamp', alter('shop.a', true)],
  ['alter table a add x timestamp not null', alter('shop.a', true)],
  ['alter table a add x timestamp default null', alter('shop.a', true)],
  ['alter table a add x timestamp null default current_timestamp', alter('shop.a', true)],
  ['alter table a add x timestamp references b (c) on delete set null', alter('shop.a', true)],
  ['alter table a add x timestamp null', alter('shop.a', false)],
  ['alter table a add x timestamp(6) null default null on update current_timestamp(6)', alter('shop.a', false)],
  ['alter table a add (x timestamp, y timestamp null)', alter('shop.a', true)],
  ['alter table a add (x timestamp null, y timestamp null)', alter('shop.a', false)],
  ['alter table a add column timestamp datetime null', alter('shop.a', false)],
  ['alter table a add timestamp timestamp', alter('shop.a', true)],
  ['alter table a add column if not exists serial int', alter('shop.a', false)],
  ['alter table a add (period int, system int, generated int)', alter('shop.a', false)],
  ['alter table a add after timestamp', alter('shop.a', true)],
  ['alter table a add x int null after system', alter('shop.a', false)],
  ['alter table a add x int after serial, add y int after generated', alter('shop.a', false)],
  ['alter table a add x serial', alter('shop.a', true)],
  ['alter table a add x int auto_increment unique', alter('shop.a', true)],
  ['alter table a add x int(11) primary key', alter('shop.a', true)],
  ['alter table a add x int(11) key', alter('shop.a', true)],
  ['alter table a add x int unique key', alter('shop.a', false)],
  ['alter table a add (x int, key (x), unique key u (x), constraint c unique (x), check (x is not null))', alter('shop.a', false)],
  ['alter table a add (x int, primary key (x))', alter('shop.a', true)],
  ['alter table a add x int check (x is not null)', alter('shop.a', false)],
  ['alter table a add x int check (x is not null) not null', alter('shop.a', true)],
  ['alter table a add system versioning', alter('shop.a', true)],
  ['alter table a add period for system_time (x, y)', alter('shop.a', true)],
  ['alter table a add column x int, add column y int default 1', alter('shop.a', true)],
  ['alter table a add x int, algorithm = instant', alter('shop.a', false)],
  ['alter table a some future action', alter('shop.a', true)],
  ['alter table x.a add index (b), drop c, add d int', alter('x.a', true)],
  ['alter online table if exists a wait 10 rename column x to y', alter('shop.a', true)],
  [`alter table a comment ' drop partition p'`, { kind: 'definition' }],
  [`alter table a comment 'it''s \\' rename to b'`, { kind: 'definition' }],
  ['alter table a comment " rename to b"', { kind: 'definition' }],
  ['alter table a alter x set default 3, alter column y drop default', { kind: 'definition' }],
  ['alter table a rename index x to y, rename key z to q', { kind: 'definition' }],
  ['alter table a drop index x, drop primary key, drop foreign key f, drop constraint c', { kind: 'definition' }],
  ['alter table a add key (b), add fulltext index f (c), add constraint c check (x is not null)', { kind: 'definition' }],
  ['ALTER TABLE `a` DISABLE KEYS', { kind: 'definition' }],
  ['alter table a add partition (partition p values less than (3))', { kind: 'definition' }],
  ['alter table a reorganize partition p into (partition q values less than (3))', { kind: 'definition' }],
  ['alter table a reorganize partition p0, p1 into (partition q values less than (3), partition r values less than (4))', { kind: 'definition' }],
  ...['optimize', 'rebuild', 'analyze', 'check', 'repair', 'coalesce'].map(
    (verb) => [`alter table a ${verb} partition p0, p1`, { kind: 'definition' }] as const,
  ),
  ['alter table a order by b, c desc', { kind: 'definition' }],
  ['alter table a drop b, order by c, d', alter('shop.a', true)],
  ['alter table a add x int, partition by key (b, c) partitions 4', alter('shop.a', false)],
  ['alter table a remove partitioning', { kind: 'definition' }],
  ['alter table a engine = innodb row_format = dynamic', { kind: 'definition' }],
  [`alter table a engine_attribute = '{}', secondary_engine_attribute = '{}'`, { kind: 'definition' }],
  ['alter table a', { kind: 'definition' }],
  ['alter view a as select 1', { kind: 'definition' }],
  ['some future statement', { kind: 'definition' }],
  ['insert into items values (1)', { kind: 'change' }],
  ['UPDATE items SET a = 1', { kind: 'change' }],
  ['load data infile "x" into table items', { kind: 'change' }],
  ['with x as (select 1) delete from items', { kind: 'change' }],
  ['select f(1)', { kind: 'change' }],
  ['do f(1)', { kind: 'change' }],
  ['analyze update items set a = 1', { kind: 'change' }],
  ['analyze format = json delete from items where a = 1', { kind: 'change' }],
  ['analyze table items', { kind: 'other' }],
  ['analyze local table items', { kind: 'other' }],
  ['analyze no_write_to_binlog tables items', { kind: 'other' }],
  ['savepoint a', { kind: 'other' }],
  ['flush tables', { kind: 'other' }],
  [`set password = 'x'`, { kind: 'other' }],
  ["XA START X'31',X'',1", { kind: 'xa' }],
]

test.each(STATEMENTS)('%s', (text, statement) => {
  expect(read(text)).toEqual(statement)
})

/** Ways to write the same statement. */
const SPELLINGS: readonly (readonly [name: string, of: (text: string) => string])[] = [
  ['comments around it', (text) => `/* by a tool; drop table x */ ${text} -- really\n # now`],
  ['comments instead of spaces', (text) => text.replaceAll(/ (?=[^'"`]*$)/g, '/* why\nnot */\n')],
  ['in a comment that servers run', (text) => `/*!50000 ${text} */`],
  ['in a comment that MariaDB runs', (text) => `/*M!100100 ${text}*/`],
  ['with a mark of the server', (text) => `${text} /* generated by server */`],
  ['in upper case', (text) => (/["'`]/.test(text) ? text : text.replaceAll(/\b(?!shop|items)[a-z]{2,}\b/g, (word) => word.toUpperCase()))],
]

test.each(SPELLINGS)('every statement is the same with %s', (_, of) => {
  for (const [text, statement] of STATEMENTS) {
    const spelt = read(of(text))
    const lower = (one: object) => JSON.stringify(one).toLowerCase()
    expect({ text: of(text), is: lower(spelt) }).toEqual({ text: of(text), is: lower(statement) })
  }
})

test('SET STATEMENT is what it is for', () => {
  for (const [text, statement] of STATEMENTS) {
    expect(read(`set statement max_statement_time = 100, sql_mode = (select 'for' for update) FOR ${text}`)).toEqual(statement)
  }
})

test('a statement of which no table can be read is told as one', () => {
  for (const text of ['truncate table (', 'drop table (', 'create table (', 'rename table (', 'alter table ( drop a']) {
    expect(read(text)).toMatchObject({ kind: 'unreadable', opening: text.split(' ').slice(0, 6).join(' ') })
  }
})

test('quotes are read as the session read them', () => {
  const drop = { kind: 'drop', tables: tables('shop.a\\', 'shop.b') }
  expect(read(`drop table "a\\", b`, { ansiQuotes: true })).toEqual(drop)
  expect(read(`drop table \`a\\\`, b`)).toEqual(drop)
  const text = `alter table a comment 'x\\', rename to b`
  expect(read(text, { noBackslashEscapes: true })).toEqual(replacement(['shop.b'], 'shop.a'))
  expect(read(text)).toEqual({ kind: 'definition' })
})

test('a space that does not break is one where characters are bytes', () => {
  const text = 'truncate table\u00a0items'
  expect(read(text, { nbspIsSpace: true })).toEqual(truncation('shop.items'))
  expect(read(text)).toEqual(truncation('shop.table\u00a0items'))
})

test('names are in lower case where the server has them so', () => {
  expect(read('truncate table Shop.`Items`')).toEqual(truncation('Shop.Items'))
  expect(read('truncate table Shop.`Items`', { lowerCase: true })).toEqual(truncation('shop.items'))
})

test('what is not closed, or is no statement, is read without an error', () => {
  for (const text of [
    '',
    '-- nothing',
    '/* open',
    "'",
    '`',
    'alter table `a',
    'drop table [a',
    'drop table .',
    'create table a values',
    'alter table a add',
    'alter table a add (x int',
    'alter table a engine',
    'analyze format',
    "alter table a comment 'x",
    'set statement a = 1',
    'alter table a add x int default (',
  ]) {
    expect(read(text)).toHaveProperty('kind')
  }
})

test('a statement may concern a captured table when it names one, or a name in it is one in the database in use', () => {
  const concerns = (text: string, session: Partial<typeof SESSION> = {}) =>
    mayConcern(text, { ...SESSION, namespace: 'none', ...session }, (namespace, name) => namespace === 'shop' && name === 'items')
  for (const text of ['update shop.items set a = 1', 'update x, `shop` . "items" set a = 1', 'insert into [shop].[items] values (1)'])
    expect(concerns(text)).toBe(true)
  for (const text of ['', 'update items set a = 1', 'update items.shop set a = 1', `update x set a = 'shop.items'`, 'update x /* shop.items */ set a = 1']) {
    expect(concerns(text)).toBe(false)
  }
  expect(concerns('update items set a = 1', { namespace: 'shop' })).toBe(true)
  expect(concerns('update Shop.ITEMS set a = 1')).toBe(false)
  expect(concerns('update Shop.ITEMS set a = 1', { lowerCase: true })).toBe(true)
})

test('neighbours without a dot are no database and table, numbers no tables, and each name is asked for once', () => {
  const asked: string[] = []
  const ask = (namespace: string, name: string) => asked.push(`${namespace}.${name}`) === 0
  expect(mayConcern('insert into a . b values (1, 2.5, .5, `7`), (1, a b)', SESSION, ask)).toBe(false)
  expect(asked).toEqual(['shop.insert', 'shop.into', 'shop.a', 'a.b', 'shop.b', 'shop.values', 'shop.7'])
  asked.length = 0
  expect(mayConcern('update shop.1, a set b = 1e5', SESSION, ask)).toBe(false)
  expect(asked).toContain('shop.1')
})

test('many names are asked for again rather than all kept', () => {
  const names = Array.from({ length: 1500 }, (_, i) => `t${i}`).join()
  let asked = 0
  mayConcern(`${names},${names}`, SESSION, () => ++asked === 0)
  expect(asked).toBeGreaterThan(1500)
})

test('a statement is read no further than to the first captured name', () => {
  const seen: string[] = []
  const concerns = mayConcern('update a set b = 1', SESSION, (namespace, name) => {
    seen.push(`${namespace}.${name}`)
    return name === 'a'
  })
  expect(concerns).toBe(true)
  expect(seen).not.toContain('shop.set')
})

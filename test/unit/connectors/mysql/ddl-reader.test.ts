import { expect, test } from 'vitest'
import { readStatement } from '../../../../connectors/mysql/ddl-reader.ts'

const truncation = (namespace: string, name: string) => ({ kind: 'truncate', tables: [{ namespace, name }] })

test.each([
  ['truncate items', truncation('shop', 'items')],
  ['TRUNCATE TABLE `odd``name`', truncation('shop', 'odd`name')],
  ['truncate table other . `items`', truncation('other', 'items')],
  ['/* by a tool */ truncate /* why\nnot */ table -- really\n items # now', truncation('shop', 'items')],
  ['truncate table /*!50000 items */', truncation('shop', 'items')],
  ['/*M!100100 truncate */ table items', truncation('shop', 'items')],
  ['truncate table "items"', truncation('shop', 'items')],
])('%s', (text, statement) => {
  expect(readStatement(text, 'shop')).toEqual(statement)
})

test('a truncation of which no table can be read is told as one', () => {
  expect(readStatement('truncate table (', 'shop')).toEqual({ kind: 'truncate', tables: [] })
})

test.each([
  ['alter table items add note varchar(20) comment "/* truncate */"', 'definition'],
  ['create table t (a int)', 'definition'],
  ['some future statement', 'definition'],
  ['-- nothing', 'definition'],
  ['insert into items values (1)', 'change'],
  ['/* hint */ UPDATE items SET a = 1', 'change'],
  ['load data infile "x" into table items', 'change'],
  ['savepoint a', 'other'],
  ['flush tables', 'other'],
  ["XA START X'31',X'',1", 'xa'],
])('%s is of the kind %s', (text, kind) => {
  expect(readStatement(text, 'shop').kind).toBe(kind)
})

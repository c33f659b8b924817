import { expect, test } from 'vitest'
import type { ChangeApplier } from '../../../../connectors/mysql/change-applier.ts'
import { readStatement } from '../../../../connectors/mysql/ddl-reader.ts'
import { Definitions } from '../../../../connectors/mysql/definitions.ts'

/** What the statements do to the rows of table `a`, in order. */
async function effects(...statements: readonly string[]): Promise<readonly string[]> {
  const done: string[] = []
  const of = (what: string) => async (namespace: string, name: string) => {
    done.push(`${what} ${namespace}.${name}`)
  }
  const applier = {
    forget: () => {},
    truncate: of('truncate'),
    recreate: of('recreate'),
    setAside: ({ namespace, name }: { namespace: string; name: string }) => done.push(`park ${namespace}.${name}`),
  }
  const options = { isCaptured: (_: string, name: string) => name === 'a', onStatement: () => {} }
  const definitions = new Definitions(applier as unknown as ChangeApplier, options)
  for (const text of statements) await definitions.apply(readStatement(text, 'shop'), 'shop', { place: 'file:4', isCaptured: false })
  return done
}

const CONDITIONAL = 'create table if not exists a (id int primary key)'

test.each([
  ['of a table that is there does nothing', [], []],
  ['after a drop, once', ['drop table a', CONDITIONAL], ['recreate shop.a']],
  ['after it was renamed away', ['rename table a to old'], ['recreate shop.a']],
  ['after it was renamed away by ALTER TABLE', ['alter table a rename to old'], ['recreate shop.a']],
  ['after its database was dropped, once', ['drop database shop', CONDITIONAL], ['recreate shop.a']],
  ['after another database was dropped', ['drop database other'], []],
  ['of a table that another one took the place of', ['drop table a', 'rename table b to a'], ['park shop.a']],
  ['of a table that was swapped', ['rename table a to old, b to a'], ['park shop.a']],
  ['of a table that was replaced', ['drop table a', 'create or replace table a (id int)'], ['truncate shop.a']],
  ['of a table that was made in a new database', ['drop database shop', 'create table a (id int)'], ['recreate shop.a']],
])('CREATE TABLE IF NOT EXISTS %s', async (_, before, expected) => {
  expect(await effects(...before, CONDITIONAL)).toEqual(expected)
})

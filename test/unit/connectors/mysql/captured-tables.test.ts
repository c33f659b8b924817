import pino from 'pino'
import { beforeEach, describe, expect, test } from 'vitest'
import { CapturedTables } from '../../../../connectors/mysql/captured-tables.ts'
import type { Server } from '../../../../connectors/mysql/server.ts'
import type { SqlConnections } from '../../../../connectors/mysql/sql-connection.ts'
import { type TableMap, TYPE, type WireColumn } from '../../../../connectors/mysql/table-map.ts'
import { literal, type Row } from '../../../../connectors/mysql/wire-connection.ts'

type Columns = readonly (readonly [name: string, type: 'int' | 'bigint'])[]

const PLAIN: Columns = [
  ['id', 'int'],
  ['n', 'bigint'],
]
const WIRE = { int: TYPE.long, bigint: TYPE.longlong } as const

/** A catalog of tables with a primary key over their first column, or another. */
let catalog: Map<string, { columns: Columns; key: string }>
/** "all", or the table that was described alone. */
let asked: string[]
/** What happens while the catalog is read, before it answers. */
let meanwhile: () => void
/** The table that a foreign key changes. */
let cascading: string | null

beforeEach(() => {
  catalog = new Map(Array.from({ length: 40 }, (_, i) => [`t${i}`, { columns: PLAIN, key: 'id' }]))
  asked = []
  meanwhile = () => {}
  cascading = null
})

const connection = {
  query: async (statement: string): Promise<readonly Row[]> => {
    if (statement.startsWith('show')) return [['binlog.000001', '4', '', '', '']]
    if (statement.includes('referential_constraints')) {
      asked.push('foreign keys')
      return cascading === null ? [] : [['shop', cascading, 'f']]
    }
    asked.push('all')
    return [...catalog.keys()].map((name) => ['shop', name])
  },
  queries: async (statements: readonly string[]): Promise<readonly (readonly Row[])[]> => {
    const found = [...catalog.keys()].filter((name) => statements[0]!.includes(literal(name)))
    if (asked.at(-1) !== 'all' || found.length === 1) asked.push(...found)
    const tables = found.flatMap((name) => (catalog.has(name) ? [[name, catalog.get(name)!] as const] : []))
    const answers = [
      tables.flatMap(([name, { columns }]) => columns.map(([column, type]): Row => ['shop', name, column, type, null, 'NO', '0'])),
      tables.map(([name, { key }]): Row => ['shop', name, 'PRIMARY', key, '']),
      tables.map(([name]): Row => ['shop', name, 'InnoDB']),
    ]
    meanwhile()
    return answers
  },
}

function open(logsCascades = true): CapturedTables {
  const connections = { run: (_: string, work: (of: typeof connection) => unknown) => work(connection) } as unknown as SqlConnections
  return new CapturedTables({
    connections,
    server: { flavor: 'mysql', version: 90_700, logsCascades } as Server,
    settings: { tables: ['shop.*'], cascades: 'refuse', unrepresentable: 'error' },
    charsets: { ofCollation: new Map(), widths: new Map() },
    logger: pino({ level: 'silent' }),
    refreshMs: Number.POSITIVE_INFINITY,
  })
}

function mapOf(name: string, columns: Columns = PLAIN, primaryKey: readonly number[] | null = [0]): TableMap {
  const wire = columns.map(
    ([column, type]): WireColumn => ({
      type: WIRE[type],
      meta: 0,
      nullable: false,
      name: column,
      unsigned: false,
      collation: null,
      values: null,
      geometry: null,
      dimension: null,
    }),
  )
  return { namespace: 'shop', name, columns: wire, primaryKey }
}

/** What was asked for since it was asked last. */
const askedFor = () => asked.splice(0)

describe('descriptions of captured tables', () => {
  const of = async (tables: CapturedTables, map: TableMap) => (await tables.describe(map))!.mapped.table

  test('those of a list do for the first rows of each, and an unchanged table stays the same object', async () => {
    const tables = open()
    const listed = await tables.list()
    expect(askedFor()).toEqual(['all'])
    for (let i = 0; i < 40; i++) expect(await of(tables, mapOf(`t${i}`))).toBe(listed[i])
    expect(askedFor()).toEqual([])
  })

  test('of rows that are not of the listed columns or key, the catalog is asked again', async () => {
    const tables = open()
    await tables.list()
    askedFor()
    const grown: Columns = [...PLAIN, ['late', 'int']]
    catalog.set('t1', { columns: grown, key: 'id' })
    catalog.set('t2', { columns: PLAIN, key: 'n' })
    expect((await of(tables, mapOf('t1', grown))).columns.map(({ name }) => name)).toEqual(['id', 'n', 'late'])
    expect((await of(tables, mapOf('t2', PLAIN, [1]))).key).toEqual([1])
    expect(askedFor()).toEqual(['t1', 't2'])
  })

  test.each([
    ['no primary key', []],
    ['no names', null],
  ])('rows with %s do not say all of their table: the catalog is asked', async (_, primaryKey) => {
    const tables = open()
    await tables.list()
    catalog.set('t1', { columns: PLAIN, key: 'n' })
    askedFor()
    expect((await of(tables, mapOf('t1', PLAIN, primaryKey))).key).toEqual([1])
    expect(askedFor()).toEqual(['t1'])
  })

  test('of rows that may be NULL where the list says they are not, the catalog is asked again', async () => {
    const tables = open()
    await tables.list()
    askedFor()
    const map = mapOf('t1')
    await tables.describe({ ...map, columns: map.columns.map((column, i) => ({ ...column, nullable: i === 1 })) })
    expect(askedFor()).toEqual(['t1'])
  })

  test('a table that comes again without a statement in between is described alone', async () => {
    const tables = open()
    await tables.list()
    await tables.describe(mapOf('t1'))
    expect(askedFor()).toEqual(['all'])
    await tables.describe(mapOf('t1'))
    expect(askedFor()).toEqual(['t1'])
  })

  test('after a statement a few are described alone, then all are listed once', async () => {
    const tables = open()
    await tables.list()
    tables.changed()
    for (const table of catalog.values()) table.key = 'n'
    askedFor()
    for (let i = 0; i < 40; i++) expect((await of(tables, mapOf(`t${i}`, PLAIN, [1]))).key).toEqual([1])
    expect(askedFor()).toEqual([...Array.from({ length: 8 }, (_, i) => `t${i}`), 'all'])
  })

  test('foreign keys decide which tables are captured, and nothing of what their rows are', async () => {
    const tables = open(false)
    cascading = 't9'
    expect(await tables.list()).toHaveLength(39)
    expect(askedFor()).toEqual(['all', 'foreign keys'])
    tables.changed()
    for (let i = 0; i < 8; i++) await of(tables, mapOf(`t${i}`))
    askedFor()
    for (const i of [8, 9]) expect((await of(tables, mapOf(`t${i}`))).name).toBe(`t${i}`)
    expect(askedFor()).toEqual(['all'])
  })

  test('a list that began before a statement came says nothing about rows behind it', async () => {
    const tables = open()
    meanwhile = () => tables.changed()
    await tables.list()
    meanwhile = () => {}
    askedFor()
    await tables.describe(mapOf('t1'))
    expect(askedFor()).toEqual(['t1'])
  })

  test('after a statement that may have changed definitions the tables are listed anew, by who asks for the captured ones too', async () => {
    const tables = open()
    const listed = await tables.list()
    askedFor()
    expect(await tables.list()).toBe(listed)
    expect(askedFor()).toEqual([])
    tables.changed()
    expect(await tables.list()).toEqual(listed)
    expect(askedFor()).toEqual(['all'])
  })
})

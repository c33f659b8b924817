import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { newLayout } from '../../../connectors/iceberg/table-layout.ts'
import { defineColumn } from '../../../connectors/mysql/column-definition.ts'
import { SERVERS } from '../../../connectors/mysql/server.ts'
import { mapTable } from '../../../connectors/mysql/type-mapping.ts'
import type { ColumnType } from '../../../core/event/table-schema.ts'
import { expectRow, tableOf, typesOf } from './type-tables.ts'

const MYSQL = 'connectors/mysql/README.md'
const MYSQL_EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  'tinyint, smallint, mediumint, int; unsigned up to mediumint': ['tinyint', 'tinyint(1)', 'smallint', 'mediumint unsigned', 'int(11)'],
  'decimal(p,s), up to 38 digits': ['decimal(10,2)', 'decimal(38,10)', 'decimal'],
  'decimal beyond 38 digits': ['decimal(39,0)', 'decimal(65,30)'],
  'bit(n)': ['bit(2)', 'bit(64)'],
  'char, varchar, *text': ['char(3)', 'varchar(3)', 'tinytext', 'text', 'mediumtext', 'longtext'],
  'binary, varbinary, *blob': ['binary(3)', 'varbinary(3)', 'tinyblob', 'blob', 'mediumblob', 'longblob'],
  enum: ["enum('a','b')"],
  set: ["set('a','b')"],
  'geometry types': ['geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring', 'multipolygon', 'geometrycollection'],
  vector: ['vector(3)'],
}

test.each(tableOf(MYSQL, 'MySQL, MariaDB').map((row) => [row[0]!, row] as const))('the README of mysql says of %s what the code does', (label, row) => {
  const types = typesOf(label, MYSQL_EXAMPLES).map((type) => {
    const definition = { namespace: 'shop', name: 'items', columns: [defineColumn('c', type, 'utf8mb4', true)], key: [] }
    return [type, mapTable(definition, { unrepresentable: 'error' }).table.columns[0]!.type] as const
  })
  expectRow(row, types)
})

test('what is said of the tested versions of MySQL and MariaDB is the same everywhere', () => {
  const { mysql, mariadb } = SERVERS
  expect(tableOf(MYSQL, 'server')).toEqual([mysql, mariadb].map(({ product, from, tested }) => [product, `${from} and later`, tested]))
  const both = `${mysql.product} ${mysql.tested} and ${mariadb.product} ${mariadb.tested}`
  for (const file of ['LIMITATIONS.md', 'docs/reference/settings.md', 'mesh-config/mesh.schema.json']) expect(readFileSync(file, 'utf8'), file).toContain(both)
})

/** One of each kind: the compiler asks for a new one. */
const KINDS: { readonly [Kind in ColumnType['kind']]: ColumnType & { readonly kind: Kind } } = {
  boolean: { kind: 'boolean' },
  int32: { kind: 'int32' },
  int64: { kind: 'int64' },
  float32: { kind: 'float32' },
  float64: { kind: 'float64' },
  decimal: { kind: 'decimal', precision: 12, scale: 2 },
  string: { kind: 'string' },
  bytes: { kind: 'bytes' },
  uuid: { kind: 'uuid' },
  json: { kind: 'json' },
  enum: { kind: 'enum', values: ['a'] },
  date: { kind: 'date' },
  time: { kind: 'time' },
  timestamp: { kind: 'timestamp' },
  timestamptz: { kind: 'timestamptz' },
  array: { kind: 'array', element: { kind: 'int32' } },
  record: { kind: 'record', fields: [{ name: 'a', type: { kind: 'int32' } }] },
  map: { kind: 'map' },
}

test('the README of iceberg says what the code makes of each kind, and leaves none out', () => {
  const said = new Map<string, string>()
  for (const [kinds = '', types = ''] of tableOf('connectors/iceberg/README.md', 'source kind')) {
    const [left, right] = [kinds, types].map((cell) => cell.split(/, (?![^(<]*[)>])/)) as [string[], string[]]
    for (const [i, kind] of left.entries()) said.set(kind.replace(/\(.*/, ''), types === 'the same' ? kind : right.length === 1 ? right[0]! : right[i]!)
  }
  const found = Object.values(KINDS).map((type) => {
    const column = { name: 'c', id: 1, type, sourceType: '', nullable: true, mayBeUnchanged: false, maybeSpecial: false }
    const key = { ...column, name: 'k', id: 2, type: KINDS.int64, nullable: false }
    const iceberg = newLayout({ namespace: 'n', name: 't', columns: [key, column], key: [0] }).schema.fields[1]!.type
    return [type.kind, typeof iceberg === 'string' ? iceberg.replace('(12, 2)', '(p, s)') : iceberg.type === 'map' ? 'map<string, string>' : iceberg.type]
  })
  expect(Object.fromEntries(said)).toEqual(Object.fromEntries(found))
})

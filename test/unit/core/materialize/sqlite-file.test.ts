import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { openSqliteReader, sqliteError } from '../../../../core/materialize/sqlite-file.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'sqlite-file-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

test('a reader makes no file, whatever its name, and reads one that is there', () => {
  const file = path.join(dir, 'a b?c#d%41.db')
  using empty = openSqliteReader(file, 0)
  expect(empty.prepare('SELECT count(*) AS n FROM sqlite_schema').get()).toEqual({ n: 0 })
  expect(readdirSync(dir)).toEqual([])
  using writer = new DatabaseSync(file)
  writer.exec('CREATE TABLE t (a); INSERT INTO t VALUES (7)')
  using reader = openSqliteReader(file, 0)
  expect(reader.prepare('SELECT a FROM t').get()).toEqual({ a: 7 })
})

test('errors are told apart by their codes', () => {
  const told = (facts: object) => {
    const given = Object.assign(new Error('says it'), facts)
    const error = sqliteError('/f', given, 'mend it')
    return error === given ? 'as it is' : [(error as MillraceError).code, (error as MillraceError).fix]
  }
  const sqlite = (errcode: number) => told({ code: 'ERR_SQLITE_ERROR', errcode })
  const forbidden = ['sink.forbidden', expect.stringContaining('user')]
  const passing = ['sink.unreachable', undefined]
  expect([sqlite(3), sqlite(8 | (4 << 8)), sqlite(14), told({ code: 'EACCES' }), told({ code: 'EROFS' })]).toEqual(Array(5).fill(forbidden))
  expect([sqlite(5), sqlite(10 | (3 << 8)), sqlite(13), told({ code: 'ENOSPC' }), told({ code: 'EIO' })]).toEqual(Array(5).fill(passing))
  expect([sqlite(11), sqlite(26)]).toEqual([
    ['sink.forbidden', 'mend it'],
    ['config.invalid', expect.any(String)],
  ])
  expect([sqlite(1), sqlite(21), told({ errcode: 14 }), told({ code: 'ENOENT' })]).toEqual(Array(4).fill('as it is'))
  const ours = new MillraceError('sink.conflict', 'taken over')
  expect(sqliteError('/f', ours, 'mend it')).toBe(ours)
})

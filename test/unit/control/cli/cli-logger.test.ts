import { expect, test } from 'vitest'
import { shortLine } from '../../../../control/cli/cli-logger.ts'

const TIME = '2026-11-23T11:21:49.000Z'

test('a log line for people has its time, what it is about, the code and the fix', () => {
  expect(shortLine(JSON.stringify({ level: 'info', time: TIME, topic: 'shop.public.orders', msg: 'changed the schema' }))).toBe(
    '11:21:49 info  changed the schema (shop.public.orders)',
  )
  expect(shortLine(JSON.stringify({ level: 'error', time: TIME, code: 'source.forbidden', fix: 'check the password', msg: 'shop: refused' }))).toBe(
    '11:21:49 error shop: refused [source.forbidden]\n               fix: check the password',
  )
})

test('a line says what it is about once, and one that is no JSON stays as it is', () => {
  expect(shortLine(JSON.stringify({ level: 'warn', time: TIME, table: 'public.a', msg: 'public.a is locked' }))).toBe('11:21:49 warn  public.a is locked')
  expect(shortLine('not JSON\n')).toBe('not JSON')
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { checkSchema, diffSchemas, listSchemas, showSchema } from '../../../../control/cli/schema-views.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'
import { envelopeSchemaOf, keySchemaOf } from '../../../../core/schema/avro-mapping.ts'
import { openEmbeddedRegistry } from '../../../../core/schema/embedded-registry.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-schemas-'))
const registry = await openEmbeddedRegistry({ file: path.join(dir, 'registry.db') })
afterAll(async () => {
  await registry[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true })
})

const plain = { sourceType: '', nullable: true, mayBeUnchanged: false, maybeSpecial: false }
const before: TableSchema = {
  namespace: 'public',
  name: 'orders',
  columns: [
    { ...plain, name: 'id', id: 1, type: { kind: 'int32' }, sourceType: 'integer', nullable: false },
    { ...plain, name: 'note', id: 2, type: { kind: 'string' }, sourceType: 'text', mayBeUnchanged: true },
    { ...plain, name: 'old', id: 3, type: { kind: 'date' }, sourceType: 'date' },
  ],
  key: [0],
}
const after: TableSchema = {
  ...before,
  columns: [
    { ...before.columns[0]!, type: { kind: 'int64' }, sourceType: 'bigint' },
    { ...before.columns[1]!, name: 'remark' },
    { ...plain, name: 'price', id: 4, type: { kind: 'decimal', precision: 10, scale: 2 }, sourceType: 'numeric(10,2)' },
  ],
}
const options = { recordNamespace: 'shop.public.orders', sourceFields: [] }
const SUBJECT = 'shop.public.orders-value'
await registry.register(SUBJECT, envelopeSchemaOf(before, options))
await registry.register(SUBJECT, envelopeSchemaOf(after, options))
await registry.register('shop.public.orders-key', keySchemaOf(before, 'shop.public.orders'))

test('list', async () => {
  const { result, text } = await listSchemas(registry)
  expect(result).toEqual([
    { subject: 'shop.public.orders-key', versions: 1, latestId: 3, compatibility: 'BACKWARD' },
    { subject: SUBJECT, versions: 2, latestId: 2, compatibility: 'BACKWARD' },
  ])
  expect(text).toBe('shop.public.orders-key    v1  id 3  BACKWARD\nshop.public.orders-value  v2  id 2  BACKWARD')
  expect((await listSchemas(registry, 'other')).text).toBe('no subjects')
})

test('show gives the table of an envelope and the JSON of anything else', async () => {
  const { result, text } = await showSchema(registry, SUBJECT, 1)
  expect(result).toMatchObject({ version: 1, table: before })
  expect(text).toBe(
    `${SUBJECT} v1 (id 1)\ntable public.orders\n  id    int32   integer  key, not null\n  note  string  text     may be unchanged\n  old   date    date`,
  )
  expect((await showSchema(registry, 'shop.public.orders-key')).text).toContain('"name": "Key"')
  await expect(showSchema(registry, SUBJECT, 9)).rejects.toMatchObject({ code: 'schema.unknown', fix: 'it has 1, 2' })
})

test('diff follows columns by id and says which way breaks', async () => {
  const { result, text } = await diffSchemas(registry, SUBJECT)
  expect(result).toMatchObject({ from: 1, to: 2, backwardBreaks: [], forwardBreaks: [expect.stringContaining('long cannot be read as int')] })
  expect(result.changes).toEqual(['~ id int32 -> int64', '~ note renamed to remark', '+ price decimal(10,2)', '- old date'])
  expect(text).toContain('backward: compatible\nforward: breaks\n')
  expect((await diffSchemas(registry, SUBJECT, 2, 1)).result.changes).toContain('~ remark renamed to note')
  expect((await diffSchemas(registry, 'shop.public.orders-key')).result.changes).toEqual([])
})

test('check says what breaks and registers nothing', async () => {
  const broken = envelopeSchemaOf({ ...after, columns: after.columns.map((column) => ({ ...column, type: { kind: 'boolean' as const } })) }, options)
  const { result, text } = await checkSchema(registry, SUBJECT, broken)
  expect(result).toMatchObject({ compatible: false, compatibility: 'BACKWARD' })
  expect(text).toContain('long cannot be read as boolean')
  expect((await checkSchema(registry, SUBJECT, envelopeSchemaOf(after, options))).text).toBe(`${SUBJECT}: compatible at level BACKWARD`)
  await expect(checkSchema(registry, SUBJECT, '{')).rejects.toMatchObject({ code: 'schema.invalid' })
  expect(await registry.versions(SUBJECT)).toHaveLength(2)
})

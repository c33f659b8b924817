/** What every schema registry must do, whoever keeps the schemas. */
import { describe, expect, test } from 'vitest'
import type { TableSchema } from '../core/event/table-schema.ts'
import { envelopeSchemaOf, keySchemaOf, tableOf } from '../core/schema/avro-mapping.ts'
import { COMPATIBILITY_LEVELS, type SchemaRegistry } from '../core/schema/registry.ts'

export interface RegistryUnderTest {
  readonly registry: SchemaRegistry
  /** A second registry over the same schemas, without anything the first one cached. */
  readonly other: SchemaRegistry
}

const record = (...fields: object[]) => JSON.stringify({ type: 'record', name: 'Order', namespace: 'shop', fields })
const id = { name: 'id', type: 'long' }
const v1 = record(id)
const v2 = record(id, { name: 'note', type: ['null', 'string'], default: null })
const v3 = record(id, { name: 'note', type: ['null', 'string'], default: null }, { name: 'amount', type: ['null', 'int'], default: null })
const incompatible = record(id, { name: 'must', type: 'string' })

let serial = 0
/** Registries may be shared: every test takes subjects of its own. */
const fresh = (name: string) => `${name}-${process.pid}-${Date.now()}-${serial++}-value`

const column = { sourceType: 'text', nullable: true, mayBeUnchanged: true, maybeSpecial: false }
const orders: TableSchema = {
  namespace: 'public',
  name: 'orders',
  columns: [
    { ...column, name: 'id', id: 1, type: { kind: 'int64' }, nullable: false, mayBeUnchanged: false },
    { ...column, name: 'état', id: 2, type: { kind: 'enum', values: ['new', 'paid'] } },
    { ...column, name: 'price', id: 3, type: { kind: 'decimal', precision: 10, scale: 2 }, maybeSpecial: true },
  ],
  key: [0],
}
const options = { recordNamespace: 'shop.public.orders', sourceFields: [{ name: 'lsn', type: 'long' as const }] }
const isError = (code: string) => expect.objectContaining({ name: 'MillraceError', code })

export function registryContract(name: string, open: () => Promise<RegistryUnderTest>): void {
  describe(`schema registry: ${name}`, () => {
    test('the same schema gets the same id, under one subject and under another', async () => {
      const { registry, other } = await open()
      const [a, b] = [fresh('a'), fresh('b')]
      const first = await registry.register(a, v1)
      expect(await registry.register(a, v1)).toBe(first)
      expect(await other.register(a, v1)).toBe(first)
      expect(await registry.register(b, v1)).toBe(first)
      expect((await other.versions(a)).map(({ version, id: schemaId }) => [version, schemaId])).toEqual([[1, first]])
      expect(JSON.parse(await other.schema(first))).toEqual(JSON.parse(v1))
    })

    test('versions rise, and subjects are listed', async () => {
      const { registry, other } = await open()
      const subject = fresh('versions')
      await registry.setCompatibility(subject, 'BACKWARD')
      const ids = [await registry.register(subject, v1), await registry.register(subject, v2), await registry.register(subject, v3)]
      expect(new Set(ids).size).toBe(3)
      const versions = await other.versions(subject)
      expect(versions.map((version) => [version.subject, version.version, version.id])).toEqual(ids.map((schemaId, i) => [subject, i + 1, schemaId]))
      expect(versions.map(({ schema }) => JSON.parse(schema))).toEqual([v1, v2, v3].map((schema) => JSON.parse(schema)))
      expect(await other.subjects()).toContain(subject)
    })

    test('a schema that breaks the level is refused, with what it breaks, and nothing is registered', async () => {
      const { registry } = await open()
      const subject = fresh('broken')
      await registry.setCompatibility(subject, 'BACKWARD')
      await registry.register(subject, v1)
      const breaks = await registry.incompatibilities(subject, incompatible)
      expect(breaks.length).toBeGreaterThan(0)
      expect(breaks.join(' ')).toMatch(/must/)
      await expect(registry.register(subject, incompatible)).rejects.toMatchObject({
        code: 'schema.incompatible',
        message: expect.stringMatching(/must/),
        fix: expect.any(String),
      })
      expect(await registry.versions(subject)).toHaveLength(1)
      expect(await registry.incompatibilities(subject, v2)).toEqual([])
    })

    test('the level decides: forward refuses what backward takes', async () => {
      const { registry, other } = await open()
      const subject = fresh('levels')
      const requires = record(id, { name: 'note', type: 'string', default: '' })
      await registry.register(subject, requires)
      await registry.setCompatibility(subject, 'FORWARD')
      expect(await registry.incompatibilities(subject, record({ name: 'id', type: 'int' }))).toEqual([])
      expect(await registry.incompatibilities(subject, record({ name: 'id', type: 'double' }))).not.toEqual([])
      await other.setCompatibility(subject, 'NONE')
      expect(await registry.incompatibilities(subject, record({ name: 'id', type: 'double' }))).toEqual([])
    })

    test('transitive levels look at all versions', async () => {
      const { registry } = await open()
      const subject = fresh('transitive')
      await registry.setCompatibility(subject, 'BACKWARD')
      await registry.register(subject, record(id))
      await registry.register(subject, record(id, { name: 'must', type: 'string', default: '' }))
      expect(await registry.incompatibilities(subject, incompatible)).toEqual([])
      await registry.setCompatibility(subject, 'BACKWARD_TRANSITIVE')
      expect(await registry.incompatibilities(subject, incompatible)).not.toEqual([])
      await expect(registry.register(subject, incompatible)).rejects.toEqual(isError('schema.incompatible'))
    })

    test('every level is kept', async () => {
      const { registry, other } = await open()
      const subject = fresh('level')
      await registry.register(subject, v1)
      for (const level of COMPATIBILITY_LEVELS) {
        await registry.setCompatibility(subject, level)
        expect(await other.compatibility(subject)).toBe(level)
      }
    })

    test('a subject without a level has the global one', async () => {
      const { registry } = await open()
      const subject = fresh('global')
      await registry.register(subject, v1)
      expect(COMPATIBILITY_LEVELS).toContain(await registry.compatibility(subject))
    })

    test('what is not there and what is not Avro', async () => {
      const { registry } = await open()
      const subject = fresh('nothing')
      await expect(registry.schema(2_000_000_000)).rejects.toEqual(isError('schema.unknown'))
      await expect(registry.versions(subject)).rejects.toEqual(isError('schema.unknown'))
      expect(await registry.incompatibilities(subject, v1)).toEqual([])
      await expect(registry.register(subject, '{"type":"record","name":"Order"}')).rejects.toEqual(isError('schema.invalid'))
      expect(await registry.subjects()).not.toContain(subject)
    })

    test('a table comes back through the registry, and evolves', async () => {
      const { registry, other } = await open()
      const [valueSubject, keySubject] = [fresh('shop.public.orders'), fresh('shop.public.orders/key %2F ä')]
      await registry.setCompatibility(valueSubject, 'FULL_TRANSITIVE')
      const first = await registry.register(valueSubject, envelopeSchemaOf(orders, options))
      expect(tableOf(await other.schema(first))).toEqual(orders)
      const grown: TableSchema = {
        ...orders,
        columns: [
          ...orders.columns.map((c) => (c.name === 'état' ? { ...c, type: { kind: 'enum' as const, values: ['new', 'paid', 'sent'] } } : c)),
          { ...column, name: 'note', id: 4, type: { kind: 'string' }, mayBeUnchanged: false },
        ],
      }
      const second = await registry.register(valueSubject, envelopeSchemaOf(grown, options))
      expect(second).not.toBe(first)
      expect(tableOf(await other.schema(second))).toEqual(grown)
      const rescaled = { ...orders, columns: orders.columns.map((c) => (c.name === 'price' ? { ...c, type: { kind: 'string' as const } } : c)), key: [0, 2] }
      await expect(registry.register(valueSubject, envelopeSchemaOf(rescaled, options))).rejects.toEqual(isError('schema.incompatible'))
      expect(await registry.register(keySubject, keySchemaOf(orders, options.recordNamespace))).toBeGreaterThan(0)
      expect(await other.versions(keySubject)).toHaveLength(1)
    })

    test('registering one schema from many sides at once gives one version', async () => {
      const { registry, other } = await open()
      const subject = fresh('race')
      const ids = await Promise.all(Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? registry : other).register(subject, v1)))
      expect(new Set(ids).size).toBe(1)
      expect(await registry.versions(subject)).toHaveLength(1)
    })

    test('schemas that are registered at once are each taken or refused for themselves', async () => {
      const { registry, other } = await open()
      const [good, broken, bad] = [fresh('good'), fresh('broken'), fresh('bad')]
      await registry.setCompatibility(broken, 'BACKWARD')
      const first = await registry.register(broken, v1)
      const results = await Promise.allSettled([
        registry.register(good, v2),
        registry.register(broken, incompatible),
        registry.register(bad, '{"type":"record","name":"Order"}'),
        registry.register(broken, v2),
        registry.register(good, v3),
      ])
      const [two, refused, invalid, again, three] = results.map((result) => (result.status === 'fulfilled' ? result.value : (result.reason as unknown)))
      expect([refused, invalid]).toEqual([isError('schema.incompatible'), isError('schema.invalid')])
      expect(again).toBe(two)
      expect((await other.versions(good)).map(({ id: schemaId }) => schemaId).sort()).toEqual([two, three].sort())
      expect((await other.versions(broken)).map(({ id: schemaId }) => schemaId)).toEqual([first, two])
      expect(await other.subjects()).not.toContain(bad)
    })
  })
}

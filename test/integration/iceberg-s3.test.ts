import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { IcebergSink } from '../../connectors/iceberg/iceberg-sink.ts'
import iceberg from '../../connectors/iceberg/index.ts'
import { S3Store } from '../../connectors/iceberg/s3-store.ts'
import { settings } from '../../connectors/iceberg/settings.ts'
import { sinkContract } from '../../testing/sink.contract.ts'
import { skipReason as restSkipReason, testRestCatalogOnS3 } from '../services/iceberg-rest.ts'
import { ICEBERG_READERS, LOAD_DUCKDB, pythonSession, pythonWith } from '../services/python.ts'
import { BUCKET, OWNER, READER, s3SkipReason, testS3 } from '../services/seaweedfs.ts'
import { allRows, never } from '../unit/connectors/iceberg/open-sink.ts'
import { named, namedBatch, TOPIC } from '../unit/connectors/iceberg/sink-history.ts'

const context = { mesh: 'test', node: 'lake', dataDir: os.tmpdir(), logger: pino({ level: 'silent' }), metric: () => {} }
const unique = () => `t_${randomBytes(5).toString('hex')}`
const texts = async (sink: IcebergSink) => (await allRows(sink)).map(([id, name]) => `${String(id)} ${String(name)}`).sort()

const skip = s3SkipReason()
describe.skipIf(skip !== null)(`Iceberg in an S3 store${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  let endpoint = ''
  let folder = ''
  beforeAll(async () => {
    ;({ endpoint } = await testS3())
    folder = mkdtempSync(path.join(os.tmpdir(), 'millrace-s3-'))
  }, 900_000)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const config = (name: string, keys: object = OWNER) =>
    settings.parse({
      warehouse: `s3://${BUCKET}/${name}`,
      catalog: { kind: 'sql', path: path.join(folder, `${name}.db`) },
      s3: { endpoint, ...keys },
      compactAfterDeleteFiles: 4,
    })
  const open = (name: string, keys?: object) =>
    iceberg.open(config(name, keys), context, { topic: TOPIC, namespace: 'public', table: 'orders' }) as Promise<IcebergSink>

  sinkContract(
    'iceberg in S3 with a SQL catalog',
    async (schema, topic) => {
      const name = unique()
      return {
        open: (readOnly = false) => iceberg.open(config(name), { ...context, readOnly }, { topic, namespace: schema.namespace, table: schema.name }),
        dispose: async () => {},
      }
    },
    { secondWriter: 'conflict', compacts: true, runs: 6 },
  )

  test('check writes, reads and deletes, and leaves nothing; what the keys may not do, it says', async () => {
    const name = unique()
    expect(await iceberg.check(config(name), context)).toMatchObject([{ level: 'ok' }])
    const store = new S3Store(async () => ({ endpoint, region: 'us-east-1', pathStyle: true, endsAt: null, ...OWNER }))
    expect(await store.list(`s3://${BUCKET}/${name}`)).toEqual([])
    const [refused] = await iceberg.check(config(name, READER), context)
    expect(refused).toMatchObject({ level: 'error', fix: expect.stringContaining('s3:PutObject') })
    const [wrong] = await iceberg.check(config(name, { ...OWNER, secretAccessKey: 'not-the-secret' }), context)
    expect(wrong).toMatchObject({ level: 'error', fix: expect.stringContaining('s3.secretAccessKey') })
    expect(JSON.stringify([refused, wrong])).not.toMatch(/not-the-secret|reader-secret/)
    await using sink = await open(name, { endpoint: 'http://127.0.0.1:9', ...OWNER })
    await expect(sink.prepare(named)).rejects.toMatchObject({ code: 'sink.unreachable', category: 'unavailable' })
  })

  test('a large object goes up in parts, and any range of it comes back', async () => {
    const store = new S3Store(async () => ({ endpoint, region: 'us-east-1', pathStyle: true, endsAt: null, ...OWNER }))
    const location = `s3://${BUCKET}/${unique()}/a b+c%20é.bin`
    const bytes = randomBytes(20 * 1024 * 1024 + 7)
    await store.write(location, bytes)
    await using file = await store.open(location)
    expect(file.byteLength).toBe(bytes.length)
    const ranges = [[0, 10], [9_000_000, 9_000_100], [bytes.length - 2_000_000, bytes.length - 5], [bytes.length - 8, bytes.length]] as const // biome-ignore format: pairs
    for (const [from, to] of ranges) expect(Buffer.from(await file.slice(from, to)).equals(bytes.subarray(from, to))).toBe(true)
    expect(await store.remove([location])).toEqual([])
    await expect(store.open(location)).rejects.toMatchObject({ code: 'sink.unreachable' })
  })

  test('DuckDB and PyIceberg read it from there', async () => {
    const name = unique()
    await using sink = await open(name)
    await sink.prepare(named)
    await sink.apply(namedBatch(3, 1, 2, 3), never)
    await sink.apply(namedBatch(5, 2), never)
    const want = ['1 row 1 at 3', '2 row 2 at 5', '3 row 3 at 3']
    const script = `${LOAD_DUCKDB}
from pyiceberg.catalog import load_catalog
def duck(location, host, key, secret):
    connection.execute(f"create or replace secret s (type s3, key_id '{key}', secret '{secret}', endpoint '{host}', url_style 'path', use_ssl false, region 'us-east-1')")
    return sorted(f'{i} {n}' for i, n in connection.execute("select id, name from iceberg_scan('" + location + "')").fetchall())
def ice(db, endpoint, key, secret):
    c = load_catalog('millrace', type='sql', uri='sqlite:///' + db, **{'s3.endpoint': endpoint, 's3.access-key-id': key, 's3.secret-access-key': secret, 's3.region': 'us-east-1'})
    return sorted(f"{r['id']} {r['name']}" for r in c.load_table('public.orders').scan().to_arrow().to_pylist())
`
    await using python = pythonSession(await pythonWith(ICEBERG_READERS), script)
    expect(await texts(sink)).toEqual(want)
    expect(await python.call('duck', sink.metadataLocation!, new URL(endpoint).host, READER.accessKeyId, READER.secretAccessKey)).toEqual(want)
    await sink.compact(never)
    expect(await python.call('ice', path.join(folder, `${name}.db`), endpoint, READER.accessKeyId, READER.secretAccessKey)).toEqual(want)
  }, 900_000)
})

/** Adds storage properties to what the catalog says of a table, as catalogs that vend credentials do. */
async function vendingProxy(target: string, vend: () => Record<string, string>): Promise<{ readonly server: Server; readonly asked: (string | undefined)[] }> {
  const asked: (string | undefined)[] = []
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part as Buffer)
    asked.push(request.headers['x-iceberg-access-delegation'] as string | undefined)
    const body = parts.length === 0 ? {} : { body: Buffer.concat(parts) }
    const answer = await fetch(target + request.url, { method: request.method!, headers: { 'content-type': 'application/json' }, ...body })
    const text = await answer.text()
    // only loads and creations of tables say so; metadata passes as text, for its long numbers
    const says = answer.ok && text.includes('"metadata"') && (request.method === 'GET' || request.url!.endsWith('/tables'))
    const without = text.replace(/,?"config":\{[^}]*\}/, '')
    response.writeHead(answer.status, { 'content-type': 'application/json' })
    response.end(says ? `${without.slice(0, without.lastIndexOf('}'))},"config":${JSON.stringify(vend())}}` : text)
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return { server, asked }
}

const restSkip = skip ?? restSkipReason()
describe.skipIf(restSkip !== null)(`Iceberg in S3 behind a REST catalog${restSkip === null ? '' : ` (skipped: ${restSkip})`}`, () => {
  const servers: Server[] = []
  afterEach(() => {
    for (const server of servers.splice(0)) server.close()
  })

  sinkContract(
    'iceberg in S3 with a REST catalog',
    async (schema, topic) => {
      const { uri, endpoint } = await testRestCatalogOnS3()
      const config = settings.parse({ catalog: { kind: 'rest', uri }, s3: { endpoint, ...OWNER }, namespace: unique(), compactAfterDeleteFiles: 4 })
      return {
        open: (readOnly = false) => iceberg.open(config, { ...context, readOnly }, { topic, namespace: schema.namespace, table: schema.name }),
        dispose: async () => {},
      }
    },
    { secondWriter: 'conflict', compacts: true, runs: 4 },
  )

  test('credentials that the catalog vends are used, and asked for anew before they end', async () => {
    const { uri, endpoint } = await testRestCatalogOnS3()
    let ends = Date.now() + 1000
    let vended = 0
    const { server, asked } = await vendingProxy(uri, () => {
      vended++
      return {
        's3.endpoint': endpoint,
        's3.path-style-access': 'true',
        'client.region': 'us-east-1',
        's3.access-key-id': OWNER.accessKeyId,
        's3.secret-access-key': OWNER.secretAccessKey,
        's3.session-token-expires-at-ms': String(ends),
      }
    })
    servers.push(server)
    const config = settings.parse({ catalog: { kind: 'rest', uri: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }, namespace: unique() })
    await using sink = (await iceberg.open(config, context, { topic: TOPIC, namespace: 'public', table: 'orders' })) as IcebergSink
    await sink.prepare(named)
    await sink.apply(namedBatch(2, 1, 2), never)
    expect(vended).toBeGreaterThan(3)
    ends = Date.now() + 3_600_000
    await sink.apply(namedBatch(3, 3), never)
    const before = vended
    await sink.apply(namedBatch(4, 4), never)
    expect(vended).toBe(before)
    expect(await texts(sink)).toEqual(['1 row 1 at 2', '2 row 2 at 2', '3 row 3 at 3', '4 row 4 at 4'])
    expect(new Set(asked)).toEqual(new Set(['vended-credentials']))
    expect(await iceberg.check(config, context)).toMatchObject([{ level: 'ok', message: expect.stringContaining('deletes') }])
  })

  test('without keys and without vended ones, it says which settings are missing', async () => {
    const { uri } = await testRestCatalogOnS3()
    const config = settings.parse({ catalog: { kind: 'rest', uri }, namespace: unique() })
    await using sink = await iceberg.open(config, context, { topic: TOPIC, namespace: 'public', table: 'orders' })
    await sink.prepare(named)
    await expect(sink.apply(namedBatch(1, 1), never)).rejects.toMatchObject({ code: 'sink.forbidden', fix: expect.stringContaining('s3.accessKeyId') })
  })
})

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterEach, describe, expect, test } from 'vitest'
import type { IcebergSink } from '../../connectors/iceberg/iceberg-sink.ts'
import iceberg from '../../connectors/iceberg/index.ts'
import { settings } from '../../connectors/iceberg/settings.ts'
import { sinkContract } from '../../testing/sink.contract.ts'
import { skipReason, testRestCatalog } from '../services/iceberg-rest.ts'
import { allRows, never } from '../unit/connectors/iceberg/open-sink.ts'
import { named, namedBatch, position, TOPIC } from '../unit/connectors/iceberg/sink-history.ts'

const skip = skipReason()
const context = { mesh: 'test', node: 'lake', dataDir: os.tmpdir(), logger: pino({ level: 'silent' }), metric: () => {} }
const namespace = () => `t_${randomBytes(5).toString('hex')}`

type Fault = 'pass' | 'lose the answer' | 'lose the request' | 'delay the request'

/** Passes everything on to the catalog, except what `decide` says of a commit. */
async function faultyProxy(target: string, decide: () => Fault): Promise<{ uri: string; server: Server }> {
  let late: (() => Promise<unknown>) | null = null
  const server = createServer(async (request, response) => {
    const body: Buffer[] = []
    for await (const part of request) body.push(part as Buffer)
    const isCommit = request.method === 'POST' && /\/tables\/[^/]+$/.test(request.url ?? '')
    const decision = isCommit ? decide() : 'pass'
    if (decision === 'lose the request') return void request.socket.destroy()
    const send = () =>
      fetch(target + request.url, {
        method: request.method!,
        headers: { 'content-type': 'application/json' },
        ...(body.length === 0 ? {} : { body: Buffer.concat(body) }),
      })
    if (decision === 'delay the request') {
      late = send
      return void response.writeHead(504).end('{}')
    }
    // a delayed commit gets in just before the next one
    if (isCommit && late !== null) await late()
    if (isCommit) late = null
    const answer = await send()
    const text = await answer.text()
    if (decision === 'lose the answer') return void response.writeHead(503).end('{}')
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(text)
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return { uri: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

describe.skipIf(skip !== null)(`Iceberg REST catalog${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  const servers: Server[] = []
  afterEach(() => {
    for (const server of servers.splice(0)) server.close()
  })

  sinkContract(
    'iceberg with a REST catalog',
    async (schema, topic) => {
      const { uri } = await testRestCatalog()
      const folder = mkdtempSync(path.join(os.tmpdir(), 'millrace-iceberg-'))
      const config = settings.parse({ catalog: { kind: 'rest', uri }, namespace: namespace(), compactAfterDeleteFiles: 4 })
      return {
        open: (readOnly = false) => iceberg.open(config, { ...context, readOnly }, { topic, namespace: schema.namespace, table: schema.name }),
        dispose: async () => rmSync(folder, { recursive: true, force: true }),
      }
    },
    { secondWriter: 'conflict', compacts: true, runs: 8 },
  )

  test('a commit whose answer is lost is found, one whose request is lost is made again: nothing lost, nothing doubled', async () => {
    const { uri } = await testRestCatalog()
    const faults: Fault[] = []
    const proxy = await faultyProxy(uri, () => faults.shift() ?? 'pass')
    servers.push(proxy.server)
    const config = settings.parse({ catalog: { kind: 'rest', uri: proxy.uri }, namespace: namespace() })
    const open = () => iceberg.open(config, context, { topic: TOPIC, namespace: 'public', table: 'orders' }) as Promise<IcebergSink>
    await using sink = await open()
    await sink.prepare(named)
    faults.push('lose the answer')
    await sink.apply(namedBatch(1, 1, 2), never)
    expect(await sink.committed()).toEqual([position(1)])
    faults.push('lose the request')
    await expect(sink.apply(namedBatch(2, 2, 3), never)).rejects.toMatchObject({ code: 'sink.unreachable' })
    await sink.apply(namedBatch(2, 2, 3), never)
    expect((await allRows(sink)).map(([id, name]) => `${String(id)} ${String(name)}`).sort()).toEqual(['1 row 1 at 1', '2 row 2 at 2', '3 row 3 at 2'])
    await using again = await open()
    expect(await again.committed()).toEqual([position(2)])
  })

  test('a commit that lands after it was given up is noticed by the next: its rows are there once', async () => {
    const { uri } = await testRestCatalog()
    const faults: Fault[] = []
    const proxy = await faultyProxy(uri, () => faults.shift() ?? 'pass')
    servers.push(proxy.server)
    const config = settings.parse({ catalog: { kind: 'rest', uri: proxy.uri }, namespace: namespace() })
    await using sink = (await iceberg.open(config, context, { topic: TOPIC, namespace: 'public', table: 'orders' })) as IcebergSink
    await sink.prepare(named)
    await sink.apply(namedBatch(1, 1), never)
    faults.push('delay the request')
    await expect(sink.apply(namedBatch(2, 2, 3), never)).rejects.toMatchObject({ code: 'sink.unreachable' })
    await expect(sink.apply(namedBatch(2, 2, 3), never)).rejects.toMatchObject({ code: 'sink.unreachable', message: expect.stringContaining('landed late') })
    await sink.apply(namedBatch(2, 2, 3), never)
    await sink.apply(namedBatch(3, 3, 4), never)
    expect((await allRows(sink)).map(([id, name]) => `${String(id)} ${String(name)}`).sort()).toEqual([
      '1 row 1 at 1',
      '2 row 2 at 2',
      '3 row 3 at 3',
      '4 row 4 at 3',
    ])
    expect(await sink.committed()).toEqual([position(3)])
  })

  test('a catalog that is not there is unavailable, and check says so', async () => {
    const config = settings.parse({ catalog: { kind: 'rest', uri: 'http://127.0.0.1:9' }, namespace: 'x' })
    await using sink = await iceberg.open(config, context, { topic: TOPIC, namespace: 'public', table: 'orders' })
    await expect(sink.committed()).rejects.toMatchObject({ code: 'sink.unreachable', category: 'unavailable' })
    expect(await iceberg.check(config, context)).toMatchObject([{ level: 'error' }])
  })
})

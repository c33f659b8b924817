import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { openHttpServer } from '../../../../core/runtime/http-server.ts'
import { isReady, type MeshStatus, type NodeStatus } from '../../../../core/runtime/mesh-status.ts'
import { Metrics } from '../../../../core/runtime/metrics.ts'

const NODE: NodeStatus = {
  node: 'shop',
  role: 'source',
  plugin: 'postgres',
  state: 'running',
  pausedSince: null,
  rows: 12,
  bytes: 3400,
  rejected: 0,
  lagMs: 250,
  behind: 0,
  retainedBytes: 4096,
  progressedAt: 1000,
  error: null,
  retryAt: null,
  snapshot: [{ table: 'public.orders', rows: 5, estimate: 10, done: false }],
  parked: [],
  streams: [],
}

const [none, one] = [{ sum: '0000000000000000' }, { c: 1, sum: '00000000000000ff' }]

// I9
test('serves status, metrics and health, and takes commands', async () => {
  let status: MeshStatus = {
    mesh: 'm',
    pid: 1,
    startedAt: 0,
    at: 2000,
    ready: true,
    nodes: [NODE],
    audit: {
      throughMs: 1500,
      differences: [
        {
          sink: 'lake',
          stream: 's',
          fromMs: 0,
          untilMs: 60_000,
          captured: one,
          landed: none,
          rejected: none,
          superseded: none,
          difference: '1 insert missing',
        },
        { sink: 'lake', stream: 's', fromMs: null, untilMs: 0, captured: none, landed: one, rejected: none, superseded: none, difference: '1 insert too many' },
      ],
      uncounted: ['search s'],
    },
  }
  const commands: string[] = []
  const secrets = new Secrets({ env: { TOKEN: 's3cr3t-token', PIN: '3400' }, dir: '.' })
  for (const name of ['TOKEN', 'PIN']) secrets.resolve(`\${env:${name}}`, { file: 'x.yaml', line: 1, column: 1 })
  const metrics = new Metrics(
    'm',
    () => status,
    (text) => secrets.redact(text),
  )
  metrics.record('shop', 'reconnects', 2, 'count')
  metrics.record('s3cr3t-token', 'calls with s3cr3t-token', 2, 'gauge')
  const command = (node: string, what: string, table: string | null) => {
    if (node === 'still') throw new MillraceError('config.invalid', 'it is paused', { fix: 'resume it' })
    return node === 'shop' && commands.push(table === null ? what : `${what} ${table}`) > 0
  }
  await using server = await openHttpServer({ host: '127.0.0.1', port: 0, status: () => status, metrics, command })
  const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${server.port}${path}`, init)

  expect(await (await get('/status')).json()).toEqual(status)
  const text = await (await get('/metrics')).text()
  expect([...text.matchAll(/^# TYPE (\S+_total) (\w+)$/gm)].filter(([, name]) => name!.startsWith('millrace_')).map(([, name, type]) => [name, type])).toEqual([
    ['millrace_rows_total', 'counter'],
    ['millrace_bytes_total', 'counter'],
    ['millrace_dead_letters_total', 'counter'],
  ])
  expect(text).toContain('millrace_rows_total{node="shop",mesh="m"} 12')
  expect(text).toContain('millrace_lag_seconds{node="shop",mesh="m"} 0.25')
  expect(text).toContain('millrace_source_retained_bytes{node="shop",mesh="m"} 4096')
  expect(text).toContain('millrace_node_state{node="shop",state="running",mesh="m"} 1')
  expect(text).toContain('millrace_snapshot_estimated_rows{node="shop",table="public.orders",mesh="m"} 10')
  // a secret is in no label and no name, and a number stays one
  expect(text).not.toContain('s3cr3t')
  expect(text).toContain('{node="[secret]",mesh="m"} 2')
  expect(text).toContain('millrace_bytes_total{node="shop",mesh="m"} 3400')
  expect(text).toContain('millrace_reconnects{node="shop",mesh="m"} 2')
  expect(text).toContain('millrace_audit_through_seconds{mesh="m"} 1.5')
  expect(text).toContain('millrace_audit_differences{node="lake",stream="s",mesh="m"} 2')
  expect(text).toContain('millrace_audit_uncounted_streams{mesh="m"} 1')
  expect((await get('/health/live')).status).toBe(200)
  expect((await get('/health/ready')).status).toBe(200)
  status = { ...status, ready: false }
  const unready = await get('/health/ready')
  expect([unready.status, await unready.json()]).toEqual([503, { ready: false, nodes: [{ node: 'shop', state: 'running', idleMs: 1000, error: null }] }])

  expect((await get('/nodes/shop/pause', { method: 'POST' })).status).toBe(202)
  expect((await get('/nodes/none/pause', { method: 'POST' })).status).toBe(404)
  const refused = await get('/nodes/still/resnapshot', { method: 'POST' })
  expect([refused.status, await refused.json()]).toEqual([409, { code: 'config.invalid', error: 'it is paused', fix: 'resume it' }])
  expect((await get('/nodes/shop/pause', { method: 'POST', headers: { origin: 'http://elsewhere' } })).status).toBe(403)
  expect((await get('/nodes/shop/pause', { method: 'DELETE' })).status).toBe(405)
  expect((await get('/nothing')).status).toBe(404)
  expect((await get('/nodes/shop/resnapshot?table=public.a%2Fb', { method: 'POST' })).status).toBe(202)
  expect(commands).toEqual(['pause', 'resnapshot public.a/b'])

  await expect(openHttpServer({ host: '127.0.0.1', port: server.port, status: () => status, metrics, command })).rejects.toMatchObject({
    code: 'config.invalid',
  })
})

test('ready means progress', () => {
  expect(isReady(NODE, 2000, 1000)).toBe(true)
  expect(isReady(NODE, 2001, 1000)).toBe(false)
  for (const state of ['starting', 'degraded', 'running'] as const) expect(isReady({ ...NODE, state, progressedAt: null }, 1000, 1000)).toBe(false)
  expect(isReady({ ...NODE, state: 'failed' }, 1000, 1000)).toBe(false)
  expect(isReady({ ...NODE, streams: [{ stream: 's', state: 'failed', rows: 0, rejected: 0, behind: 0, lagMs: null, error: null }] }, 1000, 1000)).toBe(false)
})

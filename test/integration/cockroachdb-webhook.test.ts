import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { MillraceError } from '../../core/errors.ts'
import { until } from '../../testing/source/source-run.ts'
import { expectChanges, expectRising } from '../../testing/source/stream-cases.ts'
import { openCaptured, openCluster, WEBHOOK, webhookTls } from './cockroachdb-transports.ts'

function post(url: string, body: string | Buffer, method = 'POST'): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, agent: false, ca: webhookTls().trusted }, (answer) => {
      answer.resume()
      resolve(answer.statusCode!)
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

const { skip } = WEBHOOK
describe.skipIf(skip !== null)(`cockroachdb by webhook${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
  test('rows that were answered and are not in the log outlive a kill, and the job goes on', async () => {
    await using opened = await openCaptured(WEBHOOK)
    const { bench, cluster, run } = opened
    await run.stop()
    // a log that takes nothing more: rows are answered, and wait
    const killed = await bench.start({
      faults: {
        beforeLanding: async (_, { count }) => {
          if (count > 0) throw new MillraceError('log.unreachable', 'killed')
        },
      },
    })
    const at = cluster.jobs[0]!.highWater
    await bench.write(bench.work.fill('items', 200))
    await until('the log is lost', () => killed.failure !== null)
    await killed.stop()
    const again = await bench.start()
    await bench.caughtUp(again)
    expect(cluster.jobs).toHaveLength(1)
    await until('the job goes on from there', () => cluster.jobs[0]!.highWater > at)
    expectRising(bench.log)
    expectChanges(bench.log.changes, bench.oracle.changes, WEBHOOK.can)
  })

  test('without its journal a new job starts from the offset, and the old one is cancelled', async () => {
    await using opened = await openCaptured(WEBHOOK)
    const { bench, cluster, run } = opened
    await run.stop()
    await bench.write(bench.work.fill('items', 30))
    rmSync(path.join(bench.context.dataDir, 'webhook'), { recursive: true })
    const again = await bench.start()
    await bench.caughtUp(again)
    expect(cluster.jobs.map(({ status }) => status)).toEqual(['canceled', 'running'])
    expectChanges(bench.log.changes, bench.oracle.changes, WEBHOOK.can)
    expect(readdirSync(path.join(bench.context.dataDir, 'webhook'))).toHaveLength(1)
  })

  test('a paused job is resumed; a job that failed over one table is replaced by one without it', async () => {
    await using opened = await openCaptured(WEBHOOK, ['items', 'parts'])
    const { bench, cluster, run } = opened
    await run.stop()
    cluster.jobs[0]!.status = 'paused'
    await bench.write(bench.work.fill('items', 3))
    const again = await bench.start()
    await bench.caughtUp(again)
    expect(cluster.jobs.map(({ status }) => status)).toEqual(['running'])
    cluster.truncate('parts')
    await again.until('it is parked', () => again.status?.parked.some(({ table }) => table === 'public.parts') === true)
    await bench.write(bench.work.fill('items', 3))
    const items = () => bench.log.changes.filter((change) => change.kind === 'row' && change.table.name === 'items').length
    await again.until('the other goes on', () => items() === bench.oracle.changes.filter(({ table }) => table === 'items').length)
    expect(cluster.jobs.at(-1)!.status).toBe('running')
    expect(cluster.jobs[0]!.status).toBe('failed')
  })

  test('what is not a batch is refused, and only its own stops the source', async () => {
    await using opened = await openCaptured(WEBHOOK)
    const { bench, cluster, run } = opened
    const url = cluster.jobs[0]!.uri.replace(/^webhook-|\?.*/g, '')
    expect(await post(`${url}x`, '{}')).toBe(404)
    expect(await post(url.slice(0, -5), '{"payload":[],"length":0}')).toBe(404)
    expect(await post(url, '', 'GET')).toBe(405)
    expect(run.failure).toBe(null)
    expect(await post(url, '{"payload":[{"after": null, "key": [1], "topic": "shop.public.items"}],"length":1}')).toBe(400)
    await until('it stops', () => run.failure !== null)
    expect(run.failure).toMatchObject({ code: 'source.protocol' })
    await run.stop()
    for (const body of ['{"payload":[],"length":1}', '{"payload":[', '{"rows":[]}', Buffer.from([0xff, 0x22]), '{"resolved":"soon"}']) {
      const next = await bench.start()
      await bench.caughtUp(next)
      expect([body, await post(url, body)]).toEqual([body, 400])
      await until('it stops', () => next.failure !== null)
      await next.stop()
    }
    const last = await bench.start()
    await bench.caughtUp(last)
    expectChanges(bench.log.changes, bench.oracle.changes, WEBHOOK.can)
  })

  test('lists its job, and removes it, but not while it captures', async () => {
    await using opened = await openCaptured(WEBHOOK)
    const { bench, cluster, run } = opened
    const { provisions } = bench.source.plugin
    expect(await provisions!.list(bench.config(), bench.context)).toMatchObject([{ kind: 'changefeed job', name: cluster.jobs[0]!.id, stays: null }])
    await expect(provisions!.drop(bench.config(), bench.context)).rejects.toMatchObject({ code: 'source.in_use' })
    await run.stop()
    await provisions!.drop(bench.config(), bench.context)
    expect(cluster.jobs[0]!.status).toBe('canceled')
    expect(await provisions!.list(bench.config(), bench.context)).toEqual([])
  })

  test('a certificate that is none, and settings that cannot be, are named', async () => {
    await using opened = await openCluster(WEBHOOK, [])
    const { bench } = opened
    const settings = bench.source.settings as { readonly webhook: Record<string, unknown> }
    const broken = path.join(bench.context.dataDir, 'broken.pem')
    writeFileSync(broken, 'no certificate')
    for (const cert of [broken, path.join(bench.context.dataDir, 'nowhere.pem')]) {
      const config = bench.config({ ...settings, webhook: { ...settings.webhook, cert } })
      await expect(bench.source.plugin.open(config, bench.context, null)).rejects.toMatchObject({ code: 'config.invalid', fix: expect.any(String) })
      expect(await bench.source.plugin.check(config, bench.context)).toContainEqual(expect.objectContaining({ level: 'error', subject: 'webhook' }))
    }
    expect(() => bench.config({ ...settings, webhook: { ...settings.webhook, url: 'http://localhost:1' } })).toThrow('https')
  })
})

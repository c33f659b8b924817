import pino from 'pino'
import { describe, expect, test } from 'vitest'
import { type SourceBench, until } from '../../testing/source/source-run.ts'
import { expectChanges, expectRising } from '../../testing/source/stream-cases.ts'
import { openCaptured, openCluster, SQL } from './cockroachdb-transports.ts'

const rowsOf = (bench: SourceBench, table: string) =>
  bench.log.changes.flatMap((change) => (change.kind === 'row' && change.table.name === table ? [change] : []))

describe('cockroachdb over SQL', () => {
  test('the enriched envelope says the same, and so does one without diff, but for inserts', async () => {
    for (const [settings, ops] of [
      [{ envelope: 'enriched' }, ['c', 'u', 'd']],
      [{ diff: false }, ['u', 'u', 'd']],
    ] as const) {
      await using opened = await openCluster(SQL, ['items'], settings)
      const { bench } = opened
      const run = await bench.start()
      const row = { id: 1, name: 'one', quantity: 1, body: null }
      await bench.write([{ op: 'insert', table: 'items', row }])
      await bench.write([{ op: 'update', table: 'items', id: 1, set: { quantity: 2 } }])
      await bench.write([{ op: 'delete', table: 'items', id: 1 }])
      await run.until('all three are there', () => rowsOf(bench, 'items').length === 3)
      expect(rowsOf(bench, 'items').map(({ op }) => op)).toEqual(ops)
      expect(rowsOf(bench, 'items').map(({ before }) => before !== null)).toEqual([false, !('diff' in settings), !('diff' in settings)])
    }
  })

  test('asks for a changefeed that goes on after its offset, and for nothing that came before', async () => {
    await using opened = await openCaptured(SQL)
    const { cluster, run } = opened
    const started = cluster.statements.filter((text) => text.startsWith('CREATE CHANGEFEED'))
    expect(started).toHaveLength(1)
    const { start } = run.connector as unknown as { start: { wall: string } }
    expect(started[0]).toBe(
      `CREATE CHANGEFEED FOR TABLE "shop"."public"."items" WITH updated, resolved = '15ms', min_checkpoint_frequency = '15ms', cursor = '${start.wall}.2147483647', ` +
        "initial_scan = 'no', full_table_name, schema_change_policy = 'nobackfill', encode_json_value_null_as_object, diff",
    )
  })

  for (const [what, tamper] of [
    ['is cut off', (text: string) => text.slice(0, -9)],
    ['has no time', (text: string) => text.replace('"updated"', '"when"')],
    ['has a time that is none', (text: string) => text.replace(/"updated": "\d+/, '"updated": "17e9')],
    ['is no UTF-8', (text: string) => text],
  ] as const)
    test(`a message that ${what} is an error with its place, and nothing of it is skipped`, async () => {
      await using opened = await openCluster(SQL, ['items', 'parts'])
      const { bench, cluster } = opened
      const run = await bench.start()
      await bench.write(bench.work.fill('items', 20))
      await run.until('they are there', () => rowsOf(bench, 'items').length === 20)
      const broken = what === 'is no UTF-8' ? (text: string) => Buffer.from(text).toString('latin1') : tamper
      if (what === 'is no UTF-8') cluster.asBytes = (bytes) => Buffer.from(bytes.toString('latin1').replace('spoiled', 'sp\xff'), 'latin1')
      else cluster.tamper = (text) => (text.includes('spoiled') ? broken(text) : text)
      const row = { id: 1000, name: 'spoiled', quantity: 1, body: null }
      bench.oracle.apply([{ op: 'insert', table: 'items', row }])
      await bench.write([{ op: 'insert', table: 'items', row }])
      await until('it fails', () => run.failure !== null)
      expect(run.failure).toMatchObject({ code: 'source.protocol', fix: expect.stringContaining('nothing was skipped') })
      expect(String(run.failure)).toMatch(/message \d+ of the changefeed since \d+, of shop\.public\.items, cannot be read: .* was expected at character \d+/)
      expect(String(run.failure)).not.toContain('spoiled')
      // once it comes whole, it is there
      cluster.tamper = (text) => text
      cluster.asBytes = (bytes) => bytes
      const again = await bench.start()
      await bench.caughtUp(again)
      expectRising(bench.log)
      expectChanges(bench.log.changes, bench.oracle.changes, SQL.can)
    })

  test('rows from before a column with a default are read again, and those of a dropped column go on', async () => {
    await using opened = await openCluster(SQL, [])
    const { bench, cluster } = opened
    cluster.createTable('dogs', [
      { name: 'id', type: 'INT8', isKey: true },
      { name: 'name', type: 'STRING' },
      { name: 'age', type: 'INT4' },
    ])
    cluster.write([1, 2, 3].map((id) => ({ op: 'put', table: 'dogs', row: { id, name: `dog ${id}`, age: id } })))
    const run = await bench.start({ snapshot: 'initial' })
    await run.until('the rows are read', () => rowsOf(bench, 'dogs').length === 3)
    cluster.alterTable('dogs', (columns) => [...columns, { name: 'likes_treats', type: 'BOOL', hasDefault: true }])
    cluster.write([1, 2, 3].map((id) => ({ op: 'put', table: 'dogs', row: { id, name: `dog ${id}`, age: id, likes_treats: true } })))
    await run.until('they have the column', () => rowsOf(bench, 'dogs').filter(({ after }) => after?.[3] === true).length >= 6)
    expect(rowsOf(bench, 'dogs').some(({ op, after }) => op === 'r' && after?.[3] === true)).toBe(true)
    cluster.write([{ op: 'put', table: 'dogs', row: { id: 4, name: 'before', age: 4, likes_treats: false } }])
    cluster.alterTable('dogs', (columns) => columns.filter(({ name }) => name !== 'age'))
    cluster.write([{ op: 'put', table: 'dogs', row: { id: 5, name: 'after', likes_treats: false } }])
    await run.until('both are there', () => rowsOf(bench, 'dogs').some(({ after }) => after?.[0] === 5n))
    const shapeOf = (id: bigint) =>
      rowsOf(bench, 'dogs')
        .findLast(({ after }) => after?.[0] === id)!
        .table.columns.map(({ name, id }) => `${name} ${id}`)
    expect(shapeOf(4n)).toEqual(['id 1', 'name 2', 'age 3', 'likes_treats 4'])
    expect(shapeOf(5n)).toEqual(['id 1', 'name 2', 'likes_treats 4'])
    expect(run.status!.parked).toEqual([])
  })

  test('when the stream has stood still for long, chunks are read as of now, and wait for it', async () => {
    await using opened = await openCaptured(SQL)
    const { bench, cluster, run } = opened
    const from = performance.now()
    cluster.resolves = false
    const streamed = bench.log.changes.length
    await bench.write(bench.work.fill('items', 9))
    const [table] = await run.connector.tables()
    const limits = { maxRows: 100, maxBytes: 1 << 20 }
    const read = () => run.connector.snapshot.read(table!, null, limits, () => {}, new AbortController().signal)
    const { rows } = await read()
    // unless the machine stood still for long itself
    if (performance.now() - from < 500) expect(rows).toBe(streamed)
    await until('a chunk shows what was not streamed', async () => (await read()).rows === streamed + 9)
    expect(bench.log.changes.length).toBe(streamed)
    cluster.resolves = true
    await bench.caughtUp(run)
    expectChanges(bench.log.changes, bench.oracle.changes, SQL.can)
  })

  test('another cluster at the address, and one that is too old, are refused', async () => {
    await using opened = await openCaptured(SQL)
    const { bench, cluster, run } = opened
    await run.stop()
    const offset = bench.log.stored.get('offset') as never
    cluster.cluster = '585e6512-ea54-490a-8f1d-50c8d182a2e6'
    await expect(bench.open(offset)).rejects.toMatchObject({ code: 'source.identity_changed', fix: expect.stringContaining('--resnapshot') })
    cluster.version = 'CockroachDB CCL v23.2.4 (x86_64)'
    await expect(bench.open(offset)).rejects.toMatchObject({ code: 'source.unprepared' })
    cluster.version = 'PostgreSQL 18.0'
    await expect(bench.open(null)).rejects.toMatchObject({ code: 'source.unprepared' })
  })

  test('the check names what the cluster lacks', async () => {
    await using opened = await openCluster(SQL, ['items'])
    const { bench, cluster } = opened
    const found = async () => {
      const findings = await bench.source.plugin.check(bench.config(), bench.context)
      return findings.map(({ level, subject }) => `${level} ${subject}`)
    }
    expect(await found()).toEqual(['ok version', 'ok kv.rangefeed.enabled', 'ok privileges on public.items', 'ok gc.ttlseconds of public.items'])
    cluster.rangefeed = false
    cluster.privileges = ['INSERT']
    cluster.gcSeconds = 600
    expect(await found()).toEqual(['ok version', 'error kv.rangefeed.enabled', 'error privileges on public.items', 'warning gc.ttlseconds of public.items'])
    const findings = await bench.source.plugin.check(bench.config(), bench.context)
    expect(findings.every(({ level, fix }) => level === 'ok' || fix !== undefined)).toBe(true)
  })

  test('an alarm is given before the cluster collects what the stream needs', async () => {
    await using opened = await openCluster(SQL, ['items'])
    const { bench, cluster } = opened
    const warnings: string[] = []
    const gauges: [string, number][] = []
    const logger = pino({ level: 'warn' }, { write: (line: string) => warnings.push(line) })
    const context = { ...bench.context, logger, metric: (name: string, value: number) => gauges.push([name, value]) }
    const fresh = await bench.source.plugin.open(bench.config(), context, null)
    await fresh.lag()
    await fresh[Symbol.asyncDispose]()
    expect(warnings).toEqual([])
    cluster.gcSeconds = 1
    const wall = cluster.now()
    await until('most of a second went by', () => cluster.now() > wall + 700_000_000n)
    const connector = await bench.source.plugin.open(bench.config(), context, { wall: wall.toString(), cluster: null })
    await connector.lag()
    await connector[Symbol.asyncDispose]()
    expect(gauges.at(-1)![0]).toBe('cockroachdb_gc_window_used_ratio')
    expect(gauges.at(-1)![1]).toBeGreaterThan(0.5)
    expect(warnings.join()).toContain('gc.ttlseconds')
  })
})

import { spawn } from 'node:child_process'
import path from 'node:path'
import { expect, test } from 'vitest'
import { allRows, warehouse } from '../unit/connectors/iceberg/open-sink.ts'
import { column, table } from '../unit/connectors/iceberg/sink-history.ts'

const small = table([column(1, 'id', { kind: 'int64' }), column(2, 'batch', { kind: 'int64' })])

/** Applies batches from the committed position on until it is killed: batch n sets row 0 and row n to n. */
const writer = (folder: string) => `
import { settings } from './connectors/iceberg/settings.ts'
import iceberg from './connectors/iceberg/index.ts'
const table = ${JSON.stringify(small)}
const logger = { info() {}, warn() {} }
const sink = await iceberg.open(settings.parse({ warehouse: ${JSON.stringify(folder)}, compactAfterDeleteFiles: 5, keepSnapshotsMs: 0 }), { mesh: 'm', node: 'n', dataDir: '.', logger, metric() {} }, { topic: 'shop.public.orders', namespace: 'public', table: 'orders' })
const [at] = await sink.committed()
await sink.prepare(table)
for (let n = (at?.offset ?? 0n) + 1n; ; n++) {
  const change = (id) => ({ kind: 'row', op: 'u', table, key: [id], before: null, after: [id, n], position: { commit: n, ordinal: 0 }, committedAt: 0n })
  await sink.apply({ table, changes: [change(0n), change(n)], positions: [{ topic: 'shop.public.orders', partition: 0, offset: n }], memo: () => null, onRejected: async () => {} }, new AbortController().signal)
  process.stdout.write(String(n) + '\\n')
}
`

test('a writer killed at any moment loses nothing and doubles nothing', async () => {
  using place = warehouse()
  let confirmed = 0n
  for (let round = 0; round < 8; round++) {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', writer(place.folder)], {
      cwd: path.resolve(import.meta.dirname, '../..'),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let errors = ''
    child.stderr.on('data', (bytes: Buffer) => void (errors += bytes.toString()))
    const ended = new Promise((resolve) => child.once('close', resolve))
    let seen = 0
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.trim().split('\n')) confirmed = BigInt(line)
      // a few commits, then somewhere in the next one
      if (++seen === 3 + round) setImmediate(() => child.kill('SIGKILL'))
    })
    await ended
    expect(errors.replace(/.*Warning.*\n?|.*trace-warnings.*\n?/g, '')).toBe('')
    await using sink = await place.open()
    const [position] = await sink.committed()
    expect(position!.offset).toBeGreaterThanOrEqual(confirmed)
    expect(position!.offset).toBeLessThanOrEqual(confirmed + 1n)
    await sink.prepare(small)
    const rows = new Map((await allRows(sink)).map((row) => [row[0] as bigint, row[1] as bigint]))
    expect(rows.size).toBe(Number(position!.offset) + 1)
    expect(rows.get(0n)).toBe(position!.offset)
    for (let n = 1n; n <= position!.offset; n++) expect(rows.get(n)).toBe(n)
  }
}, 600_000)

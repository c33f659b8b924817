import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { z } from 'zod'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-quickstart-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const side = z.strictObject({ rows: z.int().positive(), checksum: z.string().regex(/^[0-9a-f]{16}$/) })
/** What the README promises of `npm run -s demo -- --json`. */
const demoDocument = z.strictObject({
  equal: z.literal(true),
  audit: z.array(z.strictObject({ table: z.string(), equal: z.literal(true), source: side, log: side, lake: side, search: side })),
  warehouse: z.string(),
  catalog: z.string(),
  rowsPerSecond: z.number().positive(),
  peakRssMb: z.number(),
  seconds: z.number().positive(),
})

test('the demo, run as a user does: exit code 0 and one JSON document on stdout, in which everything is equal', async () => {
  const child = spawn('npm', ['run', '--silent', 'demo', '--', '--json', '--seconds', '5', '--rows', '3000', '--dir', path.join(dir, 'demo')], {
    cwd: path.join(import.meta.dirname, '..', '..'),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const out: Buffer[] = []
  const said: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => out.push(bytes))
  child.stderr.on('data', (bytes: Buffer) => said.push(bytes))
  const code = await new Promise((resolve) => child.once('close', resolve))
  expect(code, Buffer.concat(said).toString().slice(-3000)).toBe(0)
  const text = Buffer.concat(out).toString()
  expect(text.trimEnd().split('\n')).toHaveLength(1)
  const { audit, warehouse, catalog } = demoDocument.parse(JSON.parse(text))
  expect(audit.map(({ table }) => table)).toEqual(['public.customers', 'public.order_lines', 'public.orders', 'public.products', 'public.reviews'])
  for (const { source, log, lake, search } of audit) expect([log, lake, search]).toEqual([source, source, source])
  // left in place, to look at
  expect([existsSync(path.join(warehouse, 'public', 'orders', 'metadata')), existsSync(catalog)]).toEqual([true, true])
}, 120_000)

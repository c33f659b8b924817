import { writeFileSync } from 'node:fs'
import { mkdtempDisposable } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import type { Plugin, SinkPlugin, SourcePlugin } from '../../../../core/plugin.ts'
import { type NodeFinding, preflight } from '../../../../core/runtime/preflight.ts'
import { SHAPES } from '../materialize/stream-records.ts'
import { pond, river } from '../mesh/test-plugins.ts'

/** The preflight of a mesh with one source and one sink. */
async function findings(source: Partial<SourcePlugin<never>>, sink: Partial<SinkPlugin<never>> = {}): Promise<readonly NodeFinding[]> {
  await using folder = await mkdtempDisposable(path.join(os.tmpdir(), 'millrace-preflight-'))
  const file = path.join(folder.path, 'm.mesh.yaml')
  writeFileSync(
    file,
    "mesh: m\nsources:\n  shop: { kind: river, url: 'river://far/db', tables: [t] }\nsinks:\n  lake: { kind: pond, warehouse: w, from: shop }\n",
  )
  const plugins = [
    { ...river, ...source },
    { ...pond, ...sink },
  ] as unknown as Plugin<unknown>[]
  const mesh = await loadMesh(file, { names: ['river', 'pond'], find: async (kind) => plugins.find(({ name }) => name === kind)! })
  const secrets = new Secrets({ env: {}, dir: folder.path })
  return (await preflight(mesh, { secrets, logger: pino({ level: 'silent' }), dataDir: folder.path })).filter(({ level }) => level !== 'ok')
}

const withTables = (count: number) =>
  ({
    openReader: async () => ({
      tables: async () => Array.from({ length: count }, (_, n) => ({ ...SHAPES[0]!, name: `t${n}` })),
      async [Symbol.asyncDispose]() {},
    }),
  }) as unknown as Partial<SourcePlugin<never>>

test('a sink that does not answer is asked about one table, not about each', async () => {
  let asked = 0
  const away = new MillraceError('sink.unreachable', 'no answer')
  const open = async () => {
    asked++
    throw away
  }
  const found = await findings(withTables(50), { open, check: async () => Promise.reject(away) })
  expect(asked).toBe(1)
  expect(found).toMatchObject([{ node: 'lake', subject: 'connection', message: 'no answer' }])
})

test('what a source finds about its tables is told beside what else it finds', async () => {
  const own = [
    { level: 'warning', subject: 'tables', message: 'none matches' },
    { level: 'error', subject: 'wal_level', message: 'replica' },
  ] as const
  const openReader = async () => Promise.reject(new MillraceError('source.unprepared', 'nothing to read'))
  expect(await findings({ check: async () => own, openReader })).toEqual(own.map((one) => ({ node: 'shop', ...one })))
})

test('a sink that refuses one table is asked about the others', async () => {
  const open = async () => {
    throw new MillraceError('sink.schema_unsupported', 'no key')
  }
  expect((await findings(withTables(3), { open })).map(({ node }) => node)).toEqual(['lake', 'lake', 'lake'])
})

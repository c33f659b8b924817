import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { definePlugin, MillraceError, type Plugin, type SourceConnector } from '../../../../core/plugin.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'

test('a capture that fails whenever it runs is started again after longer and longer waits', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'failing-'))
  try {
    const stop = new AbortController()
    const openedAt: number[] = []
    const full = {
      start: { at: 1 },
      tables: async () => [],
      // biome-ignore lint/correctness/useYield: it fails before the first piece
      async *changes() {
        throw new MillraceError('log.full', 'no room for a large transaction')
      },
      acknowledge: () => {},
      snapshot: { sees: () => true },
      lag: async () => ({ retainedBytes: 0, behindBytes: 0 }),
      async [Symbol.asyncDispose]() {},
    } as unknown as SourceConnector
    const plugin = definePlugin({
      kind: 'source',
      name: 'full',
      summary: 'Opens, and fails as it captures.',
      config: z.strictObject({}),
      sourceFields: [],
      check: async () => [],
      open: async () => {
        openedAt.push(performance.now())
        if (openedAt.length === 4) stop.abort()
        return full
      },
      openReader: () => Promise.reject(new Error('not read')),
    })
    const file = path.join(dir, 'm.mesh.yaml')
    writeFileSync(file, 'mesh: failing\ndataDir: ./data\nsources:\n  shop: { kind: full }\n')
    const mesh = await loadMesh(file, { names: [plugin.name], find: async () => plugin as unknown as Plugin<unknown> })
    await runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: pino({ level: 'silent' }), signal: stop.signal })
    // half of 200 ms, doubled each time, is the least
    for (const [tries, atLeastMs] of [100, 200, 400].entries()) expect(openedAt[tries + 1]! - openedAt[tries]!).toBeGreaterThanOrEqual(atLeastMs - 5)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { definePlugin, MillraceError, type Plugin } from '../../../../core/plugin.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'

test('a stop gives up a source that is being opened', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'stopped-'))
  try {
    const stop = new AbortController()
    const hanging = definePlugin({
      kind: 'source',
      name: 'hanging',
      summary: 'Never opens.',
      config: z.strictObject({}),
      sourceFields: [],
      check: async () => [],
      open: (_config, _context, _resume, signal) =>
        new Promise((_, reject) => {
          signal!.addEventListener('abort', () => reject(new MillraceError('source.unreachable', 'given up')))
          stop.abort()
        }),
      openReader: () => Promise.reject(new Error('not read')),
    })
    const file = path.join(dir, 'm.mesh.yaml')
    writeFileSync(file, 'mesh: stopped\ndataDir: ./data\nsources:\n  shop: { kind: hanging }\n')
    const mesh = await loadMesh(file, { names: [hanging.name], find: async () => hanging as unknown as Plugin<unknown> })
    const result = await runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: pino({ level: 'silent' }), signal: stop.signal })
    expect(result).toMatchObject({ outcome: 'stopped', exitCode: 0, status: { nodes: [{ node: 'shop', state: 'done', error: null }] } })
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { MillraceError } from '../../../../core/plugin.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'
import { meshOfSource } from './source-mesh.ts'

test('a stop gives up a source that is being opened', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'stopped-'))
  try {
    const stop = new AbortController()
    const mesh = await meshOfSource(
      dir,
      (_config, _context, _resume, signal) =>
        new Promise((_, reject) => {
          signal!.addEventListener('abort', () => reject(new MillraceError('source.unreachable', 'given up')))
          stop.abort()
        }),
    )
    const result = await runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: pino({ level: 'silent' }), signal: stop.signal })
    expect(result).toMatchObject({ outcome: 'stopped', exitCode: 0, status: { nodes: [{ node: 'shop', state: 'done', error: null }] } })
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

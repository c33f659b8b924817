import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { MillraceError } from '../../../../core/plugin.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'
import { emptySource, meshOfSource } from './source-mesh.ts'

test('a capture that fails whenever it runs is started again after longer and longer waits', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'failing-'))
  try {
    const stop = new AbortController()
    const openedAt: number[] = []
    const full = emptySource({
      // biome-ignore lint/correctness/useYield: it fails before the first piece
      async *changes() {
        throw new MillraceError('log.full', 'no room for a large transaction')
      },
    })
    const mesh = await meshOfSource(dir, async () => {
      openedAt.push(performance.now())
      if (openedAt.length === 4) stop.abort()
      return full
    })
    await runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: pino({ level: 'silent' }), signal: stop.signal })
    // half of 200 ms, doubled each time, is the least
    for (const [tries, atLeastMs] of [100, 200, 400].entries()) expect(openedAt[tries + 1]! - openedAt[tries]!).toBeGreaterThanOrEqual(atLeastMs - 5)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

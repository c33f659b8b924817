import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import type { CommandInput } from '../../../../control/cli/command.ts'
import { resnapshotCommand } from '../../../../control/cli/resnapshot-command.ts'
import { askRunning, commandRunning } from '../../../../control/cli/running-mesh.ts'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import type { Plugin } from '../../../../core/plugin.ts'
import { DataFolder } from '../../../../core/runtime/data-folder.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'
import { river } from '../../core/mesh/test-plugins.ts'

test('a paused source is not promised a new reading, since it reads nothing: it is to be resumed first', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'paused-'))
  const stop = new AbortController()
  try {
    const file = path.join(dir, 'm.mesh.yaml')
    writeFileSync(file, "mesh: m\ndataDir: ./data\nsources:\n  shop: { kind: river, url: 'river://far/db', tables: [t] }\n")
    const plugins = { names: ['river'], find: async () => river as unknown as Plugin<unknown> }
    const mesh = await loadMesh(file, plugins)
    {
      using folder = new DataFolder(mesh.dataDir)
      folder.pause('shop')
    }
    const refused = { code: 'config.invalid', message: expect.stringContaining('paused'), fix: expect.stringContaining('millrace resume FILE shop') }
    // nor while no mesh runs
    const asked = { arguments: [file, 'shop'], options: {}, plugins, secrets: () => new Secrets({ env: {}, dir }), io: { stderr: process.stderr, env: {} } }
    await expect(resnapshotCommand.run(asked as unknown as CommandInput)).rejects.toMatchObject(refused)
    let started = () => {}
    const runs = new Promise<void>((resolve) => (started = resolve))
    const run = runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: pino({ level: 'silent' }), signal: stop.signal, onStatus: () => started() })
    await Promise.race([runs, run])
    for (const table of [null, 'public.t']) await expect(commandRunning(mesh.dataDir, 'shop', 'resnapshot', table)).rejects.toMatchObject(refused)
    expect((await askRunning(mesh.dataDir))?.nodes).toMatchObject([{ node: 'shop', state: 'paused' }])
    stop.abort()
    await run
  } finally {
    stop.abort()
    rmSync(dir, { recursive: true, force: true })
  }
})

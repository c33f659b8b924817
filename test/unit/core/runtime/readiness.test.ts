import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { readRunning } from '../../../../core/runtime/data-folder.ts'
import type { MeshStatus } from '../../../../core/runtime/mesh-status.ts'
import { PluginCatalog } from '../../../../core/runtime/plugin-catalog.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'

test('a mesh whose database was never there is not ready, from its start on', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-ready-'))
  const file = path.join(dir, 'mesh.yaml')
  // nobody listens at port 1
  writeFileSync(
    file,
    `mesh: m
dataDir: state
sources:
  shop: { kind: postgres, url: 'postgres://u@127.0.0.1:1/d', tables: [public.*] }
sinks:
  search: { kind: search, from: [shop], path: ./search.db }
`,
  )
  const stop = new AbortController()
  const seen: MeshStatus[] = []
  let isAway = () => {}
  const away = new Promise<void>((resolve) => {
    isAway = resolve
  })
  try {
    const running = runMesh(await loadMesh(file, new PluginCatalog()), {
      secrets: new Secrets({ env: {}, dir }),
      logger: pino({ level: 'silent' }),
      signal: stop.signal,
      onStatus: (status) => {
        seen.push(status)
        if (status.nodes[0]?.error?.code === 'source.unreachable') isAway()
      },
    })
    await away
    const { host, port } = readRunning(path.join(dir, 'state'))!
    const answer = await fetch(`http://${host}:${port}/health/ready`)
    expect([answer.status, await answer.json()]).toMatchObject([
      503,
      { ready: false, nodes: [{ node: 'shop', idleMs: null, error: 'source.unreachable' }, {}] },
    ])
    expect(seen.some(({ ready }) => ready)).toBe(false)
    stop.abort()
    await running
  } finally {
    stop.abort()
    rmSync(dir, { recursive: true, force: true })
  }
})
